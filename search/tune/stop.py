"""When a search stops: budgets, signals, and failures that all have one reason."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from ray import tune

from search.runs.gain import Prospect
from search.runs.journal import Journal, Trial
from search.runs.run import Best, best_epoch, best_of

# This many trials in a row that fail for the same reason are a broken setup, not bad luck.
HOPELESS_AFTER = 5
LITTLE_TO_GAIN = "little to gain"


class Stop(tune.Stopper):  # type: ignore[misc]  # Ray has no types
    """Stops the whole search, once, for the first reason that comes up.

    It listens to the journal, so every reason is found at the event that causes it and not a trial later.
    """

    def __init__(
        self,
        journal: Journal,
        grace_epochs: int,
        seconds: float | None = None,
        target_accuracy: float | None = None,
        gain: float | None = None,
        folds: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the clock: `seconds` from now is the end, and `target_accuracy` and `gain` are fractions.

        `folds`: only a best that has been given so many is good enough to stop at.
        """
        self.reason: str | None = None
        self.trouble = False  # whether the reason is something that went wrong, so that there is more to do
        self._journal = journal
        self._grace_epochs = grace_epochs
        self._target = target_accuracy
        self._gain = gain
        self._folds = folds
        self._clock = clock
        self._deadline = clock() + seconds if seconds is not None else None
        self._prospect = Prospect(grace_epochs, journal.trials.values())
        if journal.sessions and journal.stop_reason is None:  # killed, perhaps after what should have stopped it
            for trial in journal.trials.values():
                self._look_at(trial)
            self._look_for_hopelessness()
            self._look_for_gain()
        elif any(self._reaches_target(trial) for trial in journal.trials.values()):
            self._target = None  # it has stopped a session; whoever resumes wants more
        if journal.sessions and journal.stop_reason == LITTLE_TO_GAIN:
            self._gain = None  # likewise
        journal.listen(self._on_event)

    def request(self, reason: str, *, trouble: bool = False) -> None:
        """Asks for a stop; the first reason stays."""
        if self.reason is None:
            self.reason, self.trouble = reason, trouble

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stops a single trial: that is the scheduler's business."""
        return False

    def stop_all(self) -> bool:
        """Whether the search is over for a reason of its own."""
        if self._deadline is not None and self._clock() >= self._deadline:
            self.request("time budget")
        return self.reason is not None

    def lost(self, messages: Mapping[int, str]) -> None:
        """Hears of the trials, by number, whose workers were lost for good; if it is all there is, that is a reason."""
        if len(messages) >= HOPELESS_AFTER and not any(trial.reports for trial in self._journal.trials.values()):
            last = messages[max(messages)]
            self.request(
                f"the first {len(messages)} trials all lost their workers before an epoch was done: {last}",
                trouble=True,
            )

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] in ("reported", "ended"):  # one that is shorter than the grace period counts at its end
            self._look_at(self._journal.trials[event["trial"]])
        if event["event"] == "ended" and event["status"] == "failed":
            self._look_for_hopelessness()
        if event["event"] == "ended":
            self._prospect.ended(self._journal.trials[event["trial"]])
            self._look_for_gain()

    def _look_for_gain(self) -> None:
        """Stops where going on promises too little; not while the best trial runs, which may get better by itself."""
        promised = self._prospect.gain() if self._gain is not None else None
        if self._gain is None or promised is None or promised.expected >= self._gain:
            return
        best = best_of(self._journal.trials.values(), self._grace_epochs)
        if best is not None and best.trial.over and self._confirmed(best):
            self.request(LITTLE_TO_GAIN)

    def _confirmed(self, best: Best) -> bool:
        return self._folds is None or len(best.repeats) >= self._folds - 1

    def _look_at(self, trial: Trial) -> None:
        if self._reaches_target(trial):
            self.request("target accuracy")

    def _reaches_target(self, trial: Trial) -> bool:
        if self._target is None:
            return False
        if self._folds is None:
            best = best_epoch(trial, self._grace_epochs)
        elif trial.repeats is not None and trial.over:  # nothing else confirms
            best = best_of(self._journal.trials.values(), self._grace_epochs)
        else:
            return False
        return best is not None and best.accuracy >= self._target and self._confirmed(best)

    def _look_for_hopelessness(self) -> None:
        """Stops where the last trials have all failed alike.

        Values that do not go together are the configuration's own fault: they count only while nothing else has
        happened. What failed in an earlier session may have been set right since.
        """
        trials = [self._journal.trials[number] for number in self._journal.endings]
        last = [trial for trial in trials if trial.session == len(self._journal.sessions)][-HOPELESS_AFTER:]
        if len(last) < HOPELESS_AFTER or any(trial.status != "failed" for trial in last):
            return
        nothing_else = all(trial.status == "failed" for trial in trials)
        if len({_reason(trial) for trial in last}) == 1 and (nothing_else or not any(t.refused for t in last)):
            self.request(f"{HOPELESS_AFTER} trials in a row failed alike: {last[-1].message}", trouble=True)


def _reason(trial: Trial) -> str:
    """Why a trial failed, without what only tells it from the others: name, folder, worker's number, own value."""
    own = rf"\b({re.escape(trial.name) + '|' if trial.name else ''}trial {trial.number}|trial_{trial.number:04d})\b"
    message = re.sub(own, "trial", trial.message)
    return re.sub(r"\.tmp\d+\b", ".tmp", re.sub(r"\bgot -?\d[\d.e+-]*", "got", message))


@contextmanager
def signals_wait() -> Iterator[None]:
    """Within it SIGINT and SIGTERM wait for its end, for what cannot bear to be interrupted.

    Raises:
        KeyboardInterrupt: at its end, where one of them has come.
    """
    came: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def leave_at_once(last_words: str, code: int) -> NoReturn:
    """Ends this process without waiting for anything. Every file is written whole, and Ray's processes die with it."""
    cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a live view has hidden it
    with suppress(OSError, ValueError):  # nobody is there to read it
        sys.stderr.write(f"{cursor}\n{last_words}\n")
        sys.stderr.flush()
    os._exit(code)


@contextmanager
def signals_stop(stop: Stop, say: Callable[[str], None], go_on: str) -> Iterator[None]:
    """Within it, the first SIGINT or SIGTERM asks for a stop and the second ends the process at once.

    Nothing is lost by the second: every file is written whole, and Ray's processes die with this one. It says `go_on`,
    the command that goes on from there.
    """

    signals = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            leave_at_once(f"Stopped at once. To go on: {go_on}", 130)
        stop.request("interrupted")
        say("Stopping: every finished epoch is saved. Once more to stop at once.")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
