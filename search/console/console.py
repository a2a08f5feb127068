"""The search as a person follows it: the header, the live view or one plain line per event, and the summary."""

from __future__ import annotations

import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console as Terminal
from rich.console import Group
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from search.console.state import Standings
from search.console.steps import PlainLines, Steps, is_live
from search.console.table import fact
from search.console.time_left import Plan
from search.console.views import (
    Frame,
    Window,
    best_in_words,
    counts_in_words,
    ending,
    event_line,
    live_lines,
    top_table,
)
from search.runs.format import ABSENT, duration, short, value_of
from search.runs.journal import Journal
from trainable.commands import program, typed


def split_parts(split: Mapping[str, Any]) -> str:
    """A run's split and the clips in its parts, from what run.json says of it."""
    return f"{split['name']}: {split['train']} train, {split['val']} validation, {split['test']} test"


@dataclass(frozen=True)
class Header:
    """The facts of a search as people read them; empty ones are not shown."""

    run: str  # the run folder, as one would type it
    data: str  # "GTZAN/genres_original: 999 clips, 10 classes, 22.05 kHz, 1 left out"
    space: str  # "spaces/wide.yaml: 12 dimensions, 64 trials of up to 30 epochs"
    split: str = ""  # "stratified: 640 train, 160 validation, 199 test"
    devices: str = ""  # "2 GPUs (NVIDIA H200), 1 per trial: 2 trials at a time"
    address: str | None = None  # of the Ray cluster that was joined, for the commands that go on there; not shown
    weights: str = ""  # "ImageNet; random for densenet121"
    mirror: str = ""  # "local"
    how_to_watch: str = ""  # "swanlab watch runs/wide/swanlog"
    dashboard: str = ""  # "optuna-dashboard sqlite:///runs/wide/study.db"
    notes: tuple[str, ...] = ()  # what must not be overlooked: no data named, weights missing

    def command(self, name: str) -> str:
        """The `name` command on this run as one would type it here, on the cluster where that trains something."""
        there = ["--address", self.address] if self.address and name in ("resume", "retrain") else []
        return typed(name, self.run, *there)

    def lines(self, width: int | None = None) -> list[Text]:
        """The facts, each on as many lines of `width` characters as it needs (None: on one)."""
        mirror = ", ".join(part for part in (self.mirror, self.how_to_watch) if part)
        facts = {
            "Run": self.run, "Data": self.data, "Space": self.space, "Split": self.split, "Devices": self.devices,
            "Weights": self.weights, "SwanLab": mirror, "Optuna": self.dashboard,
        }  # fmt: skip
        lines = [line for name, text in facts.items() if text for line in fact(name, text, width)]
        return lines + [line for note in self.notes for line in fact("!", note, width, "bold yellow")]


def dashboard_command(run: str) -> str:
    """The command that shows the run's study in the browser, without an account; "" where it is not installed.

    `run`: the run folder, as one would type it.
    """
    if find_spec("optuna_dashboard") is None:
        return ""
    return f"{program('optuna-dashboard')} {shlex.quote(f'sqlite:///{run}/study.db')}"


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

    def finish(self, validation_clips: int, interrupted: bool = False, trust: str = "", margin: str = "") -> None:
        """Shows the end of the search, to stay: best trials, interval, where the run is, what to do next.

        `validation_clips`: clips behind every validation accuracy. `trust`: how far the best of them can be trusted, in
        words. `margin`: how far it is ahead of the next, where it was repeated on further folds. After the `with`
        block.
        """
        self._close()
        width = self._terminal.width if self._terminal is not None else None
        warnings = self._warnings if self._terminal is not None else []
        resumable = interrupted or bool(self._journal.unfinished)
        behind = _behind_the_best(self._standings, validation_clips, trust, margin)
        self._print(summary_lines(self._standings, self._header, behind, warnings, resumable, width))

    def repeat_warnings(self) -> None:
        """Shows the warnings once more, to stay, for a session without a summary. After the `with` block."""
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


FAILURES_SHOWN = 3


def summary_lines(
    standings: Standings,
    header: Header,
    behind_the_best: Sequence[str],
    warnings: Sequence[str],
    resumable: bool,
    width: int | None,
) -> list[Text]:
    """The summary for a terminal of `width` characters (None: no terminal); commands stay whole, to be copied.

    `behind_the_best`: how far its number can be trusted, and the settings that made it.
    """
    lines = [Text()]
    if standings.top:
        table = top_table(standings, standings.top, width)
        lines += [*table.header, *table.rows]
        if table.left_out:
            lines += fact("", f"no room for {', '.join(table.left_out)}", width, "dim")
        lines.append(Text())
    lines += warning_lines(warnings, width)
    for failure in _failures(standings, header.run):
        lines += fact("!", failure, width, "red")
    if standings.stop_reason not in (None, "budget"):
        lines += fact("Ended", str(standings.stop_reason), width)
    lines += fact("Trials", _counts(standings), width)
    lines += fact("Best", best_in_words(standings), width, "bold green" if standings.top else "")
    for text in behind_the_best:
        lines += fact("", text, width)
    if standings.gain is not None:
        lines += fact("Gain", str(standings.gain), width)
    return [*lines, *fact("Run", header.run, width), Text(), *_next_steps(header, resumable, bool(standings.top))]


def warning_lines(warnings: Sequence[str], width: int | None) -> list[Text]:
    """What must not be overlooked, each on as many lines of `width` characters as it needs."""
    return [line for warning in warnings for line in fact("!", warning, width, "bold yellow")]


def _counts(standings: Standings) -> str:
    since = f" in {duration(standings.last_event - standings.started)}" if standings.started else ""
    return f"{counts_in_words(standings)}; {standings.epochs} epoch{'s' if standings.epochs != 1 else ''}{since}"


def _behind_the_best(standings: Standings, clips: int, trust: str, margin: str) -> list[str]:
    """How far the best number can be trusted, and the settings that made it."""
    if not standings.top:
        return []
    best = standings.top[0]
    lines = []
    if best.folds:
        lines += [text for text in (trust, margin) if text]
    elif clips > 0:
        lines.append(f"{round(best.accuracy * clips)} of {clips} validation clips{f', {trust}' if trust else ''}")
    values = [(key, value_of(best.trial, key, standings.plan.conditions)) for key in standings.keys]
    settings = ", ".join(f"{key} {short(value)}" for key, value in values if value is not ABSENT)
    return [*lines, settings] if settings else lines


def _failures(standings: Standings, run: str) -> list[str]:
    lines = [ending(trial, run) for trial in standings.failed[:FAILURES_SHOWN]]
    more = len(standings.failed) - FAILURES_SHOWN
    if more > 0:
        lines.append(f"{more} more failed: {typed('compare', run, '--where')} \"status == 'failed'\"")
    return lines


def _next_steps(header: Header, resumable: bool, has_best: bool) -> list[Text]:
    """The commands that people want next, each after what it does."""
    steps = []
    if resumable:
        steps.append(("go on", header.command("resume")))
    if header.how_to_watch:
        steps.append(("compare", header.how_to_watch))
    if has_best:
        steps.append(("retrain", header.command("retrain")))
    steps.append(("report", header.command("report")))
    return [Text("Next", "bold"), *(Text(f"  {what:<8}").append(step, "cyan") for what, step in steps)]
