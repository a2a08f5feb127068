"""What the command line calls: one function per command, each returning an exit code."""
