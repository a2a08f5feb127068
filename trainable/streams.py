"""The standard streams of a command that somebody has started with one of them closed."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress


def open_closed_streams() -> None:
    """Gives each closed standard stream a place, before any file could take its number.

    What belongs on standard output goes to standard error and the other way round; where both are closed, nowhere.
    Python has None for such a stream, which has no `write`, and the next file that is opened would get its number: what
    a library prints would end up in a journal.
    """
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None and not _is_open(number):
            _lead_nowhere(number)
    out, err = sys.stdout, sys.stderr
    if out is None and err is not None:
        os.dup2(2, 1)
    if err is None and out is not None:
        os.dup2(1, 2)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115 (a number and no path; for as long as the process lives)
    sys.stdout = out or open(1, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    sys.stderr = err or open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    for number in range(3):
        os.set_inheritable(number, True)  # for the processes that are started


def tell(problem: object) -> None:
    """Says on standard error what went wrong; where nobody can be told, the exit code still does."""
    with suppress(OSError):
        print(problem, file=sys.stderr, flush=True)


def settle_streams() -> None:
    """Drops what the standard streams hold and cannot write; Python would try again at its end, and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _lead_nowhere(stream.fileno())


def reader_has_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more, as where `| head` has seen enough."""
    asked = select.poll()
    asked.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in asked.poll(0))


def _lead_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
