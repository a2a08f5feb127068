"""The search as a person follows it: a live view on a terminal, one plain line per event everywhere else."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console as Terminal
from rich.console import Group
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from search.console_header import Header
from search.console_plain import event_line
from search.console_steps import PlainLines, Steps, is_live
from search.console_summary import summary_lines, warning_lines
from search.console_view import Frame, Window, live_lines
from search.eta import Plan
from search.journal import Journal
from search.standings import Standings

__all__ = ["Console", "Header", "Plan", "Steps"]

REFRESH = 0.25  # s between two drawings of the live view
KEPT_WARNINGS = 100  # in memory; the view shows the last two, the summary all of these


class Console:
    """Shows a journal's events as they come; a context manager around the search.

    Events only change numbers in memory. A thread of its own draws, so the driver never waits for the terminal; and
    a terminal or pipe that has gone away ends the showing, not the search.
    """

    def __init__(
        self,
        journal: Journal,
        header: Header,
        plan: Plan,
        stream: TextIO | None = None,
        live: bool | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Shows nothing yet. `stream`: standard output if left out; `live`: as `is_live` says if left out."""
        self._lines = PlainLines(stream if stream is not None else sys.stdout)
        live = is_live(self._lines.stream) if live is None else live
        self._terminal = Terminal(file=self._lines.stream, force_terminal=True) if live else None
        self._journal = journal
        self._header = header
        self._clock = clock
        self._standings = Standings(journal, plan)
        self._lock = threading.RLock()  # between events and drawing; a signal's warning may come within an event
        self._notices: list[str] = []  # what the view shows
        self._warnings: list[str] = []  # those that the summary repeats
        self._steps = Steps(self._lines.stream, live)
        self._live: Live | None = None
        self._drawn: list[int] = []  # cells of each line of the view on the screen
        self._drawer: threading.Thread | None = None
        self._done = threading.Event()

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles its callbacks, and with them whom they warn; a terminal goes nowhere.
        return {}

    def __enter__(self) -> Console:
        width = self._terminal.width if self._terminal is not None else None
        self._print([*self._header.lines(width), Text()])
        if self._terminal is not None and not self._lines.gone:
            self._live = Live(console=self._terminal, auto_refresh=False, transient=True, get_renderable=self._draw)
            self._live.start()
            self._drawer = threading.Thread(target=self._keep_drawing, name="console", daemon=True)
            self._drawer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if kind is not None and self._terminal is not None:
            with self._lock:
                lines = live_lines(self._standings, self._frame(), self._window(), self._clock())
            self._print(lines)

    def on_event(self, event: dict[str, Any]) -> None:
        """Takes in an event of the journal, after the journal has: `journal.listen(console.on_event)`."""
        with self._lock:
            new_best = self._standings.update(event)
            if self._terminal is not None:
                return
            line = event_line(event, self._header.run, self._journal, self._standings, new_best)
        if line:
            self._lines.write(line)

    def progress(self, description: str, done: int, total: int) -> None:
        """Shows how far a step before the first trial has got; a `trainable.progress.Progress`."""
        self._steps(description, done, total)

    def notice(self, text: str) -> None:
        """Shows one line that means something now, and nothing once the search is over."""
        with self._lock:
            self._notices = [*self._notices, text][-KEPT_WARNINGS:]
        if self._terminal is None:
            self._lines.write(f"! {text}")

    def warn(self, text: str) -> None:
        """Shows one line that must not be overlooked; the summary repeats it."""
        with self._lock:
            self._warnings = [*self._warnings, text][-KEPT_WARNINGS:]
        self.notice(text)

    def finish(self, validation_clips: int, interrupted: bool = False) -> None:
        """Shows the end of the search, to stay: best trials, interval, where the run is, what to do next.

        `validation_clips`: clips behind every validation accuracy, for the interval. After the `with` block.
        """
        self._close()
        width = self._terminal.width if self._terminal is not None else None
        warnings = self._warnings if self._terminal is not None else []
        resumable = interrupted or bool(self._journal.unfinished)
        self._print(summary_lines(self._standings, self._header, validation_clips, warnings, resumable, width))

    def repeat_warnings(self) -> None:
        """Shows the warnings once more, to stay, for a sitting without a summary. After the `with` block."""
        self._close()
        if self._terminal is not None:
            self._print(warning_lines(self._warnings, self._terminal.width))

    def _frame(self) -> Frame:
        return Frame(self._header.run, self._header.how_to_watch, self._notices, self._steps.state)

    def _window(self) -> Window:
        assert self._terminal is not None
        size = self._terminal.size
        return Window(size.width, size.height, self._terminal.encoding.startswith("utf"))

    def _draw(self) -> Group:
        with self._lock:
            lines = live_lines(self._standings, self._frame(), self._window(), self._clock())
        self._drawn = [line.cell_len for line in lines]
        # An empty line for the cursor: the terminal echoes ^C there, and beside a long line that would wrap.
        return Group(*lines, Text())

    def _keep_drawing(self) -> None:
        assert self._live is not None
        while not self._done.wait(REFRESH):
            try:
                self._erase_wrapped()
                self._live.refresh()
            except OSError:
                self._lines.gone = True
                return

    def _erase_wrapped(self) -> None:
        """Erases the rows that a terminal made narrower has wrapped the view into; rich goes up by as many as it drew.

        Clearing the screen instead would put a copy of the view into the scrollback of tmux and others each time.
        """
        assert self._terminal is not None
        width = self._terminal.width
        rows = sum((cells - 1) // width for cells in self._drawn if cells)
        self._terminal.control(*[Control((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))] * rows)
        self._drawn = []

    def _close(self) -> None:
        """Ends the live view; more than once is fine."""
        self._done.set()
        if self._drawer is not None:
            self._drawer.join()
        live, self._live = self._live, None
        if live is not None:
            try:
                self._erase_wrapped()
                live.stop()
            except OSError:
                self._lines.gone = True

    def _print(self, lines: list[Text]) -> None:
        if self._terminal is None:
            for line in lines:
                self._lines.write(line.plain)
            return
        try:
            self._terminal.print(Group(*lines), soft_wrap=True)
        except OSError:
            self._lines.gone = True
