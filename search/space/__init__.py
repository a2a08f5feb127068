"""Space files: what is searched, checked before anything is spent."""
