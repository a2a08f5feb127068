"""Progress of long steps: bars on a terminal, a line at each quarter everywhere else."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO

from rich.console import Console as Terminal
from rich.console import Group
from rich.live import Live

from search.console.table import printable
from search.console.views import Window, step_lines

QUARTERS = 4  # plain lines per step, and one at its start


def is_live(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a view that is drawn over and over is welcome on `stream`."""
    dumb = environment.get("TERM", "") in ("", "dumb", "unknown") and os.name != "nt"
    return stream.isatty() and not dumb and environment.get("CI", "").lower() in ("", "0", "false")


class PlainLines:
    """Writes lines to a stream for as long as somebody reads it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.gone = False  # nobody reads the stream any more
        self._queue: deque[str] = deque()
        self._writing = threading.Lock()
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the encoding lacks is shown all the same

    def write(self, line: str) -> None:
        """Writes one line; a closed pipe or a full disk silences the lines and stops nothing else.

        May be called by several threads, and by a signal's handler amid another call: then the other call writes it.
        """
        self._queue.append(printable(line).rstrip() + "\n")
        while self._queue and self._writing.acquire(blocking=False):
            try:
                if self._queue:  # another thread may have written it just before
                    self._write(self._queue.popleft())
            finally:
                self._writing.release()

    def _write(self, line: str) -> None:
        if self.gone:
            return
        try:
            self.stream.write(line)
            self.stream.flush()
        except OSError:
            self.gone = True


class Steps:
    """A `trainable.progress.Progress` that people can follow; a context manager where it draws for itself.

    `with Steps() as progress: dataset = load_dataset(path, progress)`
    """

    def __init__(self, stream: TextIO | None = None, live: bool | None = None) -> None:
        """`stream`: standard output if left out; `live`: as `is_live` says if left out."""
        self._lines = PlainLines(stream if stream is not None else sys.stdout)
        self._live_wanted = is_live(self._lines.stream) if live is None else live
        self._live: Live | None = None
        self.state: dict[str, tuple[int, int]] = {}  # description to (done, total), oldest first

    def __call__(self, description: str, done: int, total: int) -> None:
        """Notes that `done` of `total` units of the step called `description` are finished."""
        before = self.state.get(description)
        self.state = {**self.state, description: (done, total)}  # a new one, for whoever draws the old one now
        if not self._live_wanted and (before is None or _quarter(*before) != _quarter(done, total)):
            self._lines.write(f"{description}: {done} of {total}")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the terminal to another view within it; afterwards only new steps are shown."""
        self._stop()
        yield
        self.state = {}
        self._start()

    def __enter__(self) -> Steps:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> None:
        if self._live_wanted:
            terminal = Terminal(file=self._lines.stream, force_terminal=True)
            self._live = Live(console=terminal, transient=True, get_renderable=lambda: self._draw(terminal))
            self._live.start()

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _draw(self, terminal: Terminal) -> Group:
        window = Window(terminal.width, terminal.height, terminal.encoding.startswith("utf"))
        return Group(*step_lines(self.state, window)[-max(window.height - 1, 1) :])


def _quarter(done: int, total: int) -> int:
    return QUARTERS * done // total if total else 0
