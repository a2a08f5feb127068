"""The journal of a run: every decision of the driver, one line each, written before it takes effect.

A search is a function of its seed and of this file. Resuming is reading it: suggestions, rungs and the study are
rebuilt from its lines, so a driver may be killed at any moment, as often as one likes. Lines are appended by one
process and only read by all others; a last line cut off by a kill does not count.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from search.runs.shapes import EVENTS, Event
from trainable.errors import InputError
from trainable.shapes import checked, parse_json

Kind = Literal["baseline", "search", "retrain", "repeat"]
Status = Literal["running", "finished", "cut", "diverged", "out_of_memory", "failed"]
# A trial that is over for good: it is never started again.
OVER: frozenset[str] = frozenset({"finished", "cut", "diverged", "out_of_memory", "failed"})
BROKEN: frozenset[str] = frozenset({"diverged", "out_of_memory", "failed"})  # over, and not as it should be
# What is wrong with such a trial is its configuration: samplers learn from it as from the worst.
UNTRAINABLE: tuple[Status, ...] = ("diverged", "out_of_memory")


@dataclass
class Report:
    """One epoch as the driver saw it, and what the scheduler said to it."""

    epoch: int  # 1-based
    value: float  # validation accuracy, fraction
    loss: float  # validation loss, nats; breaks ties
    decision: Literal["continue", "cut"]
    time: float  # s since 1970


@dataclass
class Trial:
    """What the journal knows of one trial."""

    number: int  # 0-based, in the order of suggestion; also the folder's name
    kind: Kind
    name: str  # the baseline's name; "" for a suggested trial
    params: dict[str, Any]  # the sample: values of the dimensions that were active
    config: dict[str, Any]  # the whole TrialConfig
    started: float  # s since 1970
    status: Status = "running"
    message: str = ""  # why it failed, diverged or ran out of memory
    ended: float | None = None  # s since 1970
    session: int = 0  # the driver's session that saw the end, counted from 1: a clock may have been set back since
    refused: bool = False  # failed because its values do not go together, which no other attempt would change
    reports: list[Report] = field(default_factory=list)
    sampler: dict[str, Any] = field(default_factory=dict)  # what the sampler noted with its suggestion
    repeats: int | None = None  # the number of the trial whose configuration it repeats on another fold

    @property
    def fold(self) -> int:
        """Which fold of the clips that are not tested it was validated on; 1 is the split's own."""
        return int(self.config.get("val_fold", 1))

    @property
    def first(self) -> int:
        """The number of the trial of the same configuration on the first fold: its own unless it is a repeat."""
        return self.number if self.repeats is None else self.repeats

    @property
    def over(self) -> bool:
        """Whether the trial has ended for good."""
        return self.status in OVER


class Journal:
    """The trials of a run, in memory and in `events.jsonl`."""

    def __init__(self, path: Path) -> None:
        """Reads `path` where it exists; nothing is written until the first event.

        Raises:
            InputError: a line is no event, or one of a trial that no line before it has suggested.
        """
        self.path = path
        self.trials: dict[int, Trial] = {}
        self.sessions: list[dict[str, Any]] = []  # one per start or resume of the driver: time, command, ...
        self.warm: list[dict[str, Any]] = []  # trials of other runs that the sampler has learned from
        self.lessons: list[dict[str, Any]] = []  # runs on other data that the sampler learns from
        self.time_budget: float | None = None  # s, that a session was given in the place of the search's own
        self.stop_reason: str | None = None  # why the last session ended; None while it runs or after a kill
        self.endings: list[int] = []  # the numbers of the trials that are over, in the order of their ends
        self.set_aside: set[int] = set()  # what this driver has tried often enough; a resumed search tries it again
        self._listeners: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._valid_bytes = 0
        self._seconds = self._seconds_before_budget = 0.0
        self._last_time: float | None = None  # of the last event of the current session
        for number, line in enumerate(self._lines(), start=1):
            way_out = (
                f"Delete the line if it never was an event. Otherwise keep only the {number - 1} lines before it, "
                "delete the folders of the trials that they do not name, and resume the search from there."
            )
            event = _event_of(line)
            if event is None or not self._follows(event):
                raise InputError(
                    f"{path}: line {number}: must be an event of the trials before it, got {_shown(line)}. {way_out}"
                )
            self._apply(event)

    def __reduce__(self) -> tuple[type[Journal], tuple[Path]]:
        # Ray pickles whatever its searcher, stopper and callbacks hold; who listens here may hold a terminal.
        return Journal, (self.path,)

    def listen(self, listener: Callable[[dict[str, Any]], None], role: str = "") -> None:
        """Calls `listener` with every event after it has been applied and written.

        It takes the place of the one that had its `role` before: what is made anew for every round would otherwise go
        on listening for ever.
        """
        self._listeners[role or f"listener {len(self._listeners)}"] = listener

    def session(self, **facts: Any) -> None:
        """Notes that a driver has started or resumed the run."""
        self._write({"event": "session", **facts})

    def warmed(self, run: str, trials: list[dict[str, Any]], numbered: int = 0) -> None:
        """Notes trials of another run that the sampler learns from, so that a resumed search needs that run no more.

        `numbered`: how many trials that run has; the seeds of this search's proposals go on behind theirs.
        """
        self._write({"event": "warm", "run": run, "trials": trials, "numbered": numbered, "before": len(self.trials)})

    def learned(self, run: str, trials: list[dict[str, Any]]) -> None:
        """Notes what a run on other data teaches, so that a resumed search needs that run no more."""
        self._write({"event": "learned", "run": run, "trials": trials, "before": len(self.trials)})

    def moved(self, data: str) -> None:
        """Notes that the data set lies at another place by now."""
        self._write({"event": "moved", "data": data})

    def suggested(
        self, kind: Kind, name: str, params: dict[str, Any], config: dict[str, Any],
        sampler: dict[str, Any] | None = None, repeats: int | None = None,
    ) -> Trial:  # fmt: skip
        """Notes a new trial and returns it with its number."""
        number = len(self.trials)
        self._write(
            {"event": "suggested", "trial": number, "kind": kind, "name": name, "params": params, "config": config,
             **({"sampler": sampler} if sampler else {}), **({} if repeats is None else {"repeats": repeats})}
        )  # fmt: skip
        return self.trials[number]

    def reported(self, number: int, epoch: int, value: float, loss: float, decision: str) -> None:
        """Notes one epoch of a trial; an epoch that is already there, as a replay repeats it, is left as it was."""
        if self.report(number, epoch) is None:
            self._write(
                {"event": "reported", "trial": number, "epoch": epoch, "value": value, "loss": loss,
                 "decision": decision}
            )  # fmt: skip

    def ended(self, number: int, status: Status, message: str = "", *, refused: bool = False) -> None:
        """Notes the end of a trial, once. `refused`: its values do not go together, so no attempt can succeed."""
        if not self.trials[number].over:
            more = {"refused": True} if refused else {}
            self._write({"event": "ended", "trial": number, "status": status, "message": message, **more})

    def retried(self, number: int) -> None:
        """Notes that a trial which failed is to go on from its last checkpoint, as if it had not ended."""
        self._write({"event": "retried", "trial": number})

    def stopped(self, reason: str) -> None:
        """Notes why this session ended: budget, interrupted, ..."""
        self._write({"event": "stopped", "reason": reason})

    @property
    def seconds(self) -> float:
        """Wall time of all sessions so far, s; a kill counts until its last event."""
        return self._seconds

    @property
    def seconds_of_budget(self) -> float:
        """Wall time since a time budget was last used up, s: a search that is resumed after that has a new one."""
        return self._seconds - self._seconds_before_budget

    def report(self, number: int, epoch: int) -> Report | None:
        """What was reported of a trial's epoch, or None."""
        reports = self.trials[number].reports
        return reports[epoch - 1] if epoch <= len(reports) else None

    def family(self, number: int) -> list[Trial]:
        """The trials of one configuration: the one on the first fold, which has this number, and its repeats."""
        return [trial for trial in self.trials.values() if trial.first == number]

    @property
    def configurations(self) -> int:
        """How many trials there are, without the repeats on further folds."""
        return sum(trial.repeats is None for trial in self.trials.values())

    @property
    def unfinished(self) -> list[Trial]:
        """The trials that a resumed run must take up again, oldest first."""
        return [trial for trial in self.trials.values() if not trial.over]

    @property
    def waiting(self) -> list[Trial]:
        """The unfinished trials that this driver still tries, oldest first."""
        return [trial for trial in self.unfinished if trial.number not in self.set_aside]

    @property
    def steps(self) -> int:
        """How far the run has come: finished epochs and ended trials. It never gets less while a driver runs."""
        return sum(len(trial.reports) for trial in self.trials.values()) + len(self.endings)

    def _lines(self) -> Iterator[bytes]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._valid_bytes += len(line)
                yield line

    def _write(self, event: dict[str, Any]) -> None:
        event = {**event, "time": time.time()}
        line = (json.dumps(event) + "\n").encode()
        try:
            with self.path.open("ab") as file:
                if file.tell() > self._valid_bytes:  # half a line that a kill or a full disk left behind
                    file.truncate(self._valid_bytes)
                file.write(line)
        except OSError as error:  # of a full disk Python does not say where it is
            raise OSError(error.errno, error.strerror or str(error), str(self.path)) from error
        self._valid_bytes += len(line)
        self._apply(event)
        for listener in list(self._listeners.values()):
            listener(event)

    def _follows(self, event: Mapping[str, Any]) -> bool:
        """Whether an event can come after those before it."""
        known = self.trials.get(event.get("trial", -1))
        match event["event"]:
            case "suggested":
                repeated = self.trials.get(event["repeats"]) if event.get("repeats") is not None else None
                known_first = event.get("repeats") is None or (repeated is not None and repeated.repeats is None)
                return bool(event["trial"] == len(self.trials) and known_first)
            case "reported":
                return known is not None and bool(event["epoch"] == len(known.reports) + 1)
            case "ended":
                return known is not None
            case "retried":
                return known is not None and known.over
        return True

    def _apply(self, event: dict[str, Any]) -> None:
        if self._last_time is not None and event["event"] != "session":
            self._seconds += max(event["time"] - self._last_time, 0.0)  # a clock that is set back takes nothing away
        self._last_time = event["time"]
        match event["event"]:
            case "session":
                self.sessions.append(event)
                self.stop_reason = None
                if "time_budget" in event:  # a new one, which begins here
                    self.time_budget, self._seconds_before_budget = event["time_budget"], self._seconds
            case "moved":
                for trial in self.trials.values():
                    trial.config = {**trial.config, "data": event["data"]}
            case "warm":
                self.warm.append(event)
            case "learned":
                self.lessons.append(event)
            case "suggested":
                number = event["trial"]
                self.trials[number] = Trial(
                    number, event["kind"], event["name"], event["params"], event["config"], started=event["time"],
                    sampler=event.get("sampler", {}), repeats=event.get("repeats"),
                )  # fmt: skip
            case "reported":
                self.trials[event["trial"]].reports.append(
                    Report(event["epoch"], event["value"], event["loss"], event["decision"], event["time"])
                )
            case "ended":
                trial = self.trials[event["trial"]]
                trial.status, trial.message, trial.ended = event["status"], event["message"], event["time"]
                trial.session, trial.refused = len(self.sessions), event.get("refused", False)
                self.endings.append(trial.number)
            case "retried":
                trial = self.trials[event["trial"]]
                trial.status, trial.message, trial.ended, trial.session, trial.refused = "running", "", None, 0, False
                self.endings.remove(trial.number)
            case "stopped":
                self.stop_reason = event["reason"]
                if event["reason"] == "time budget":
                    self._seconds_before_budget = self._seconds


def _event_of(line: bytes) -> dict[str, Any] | None:
    """The event in a line, None where it is none."""
    try:
        event: dict[str, Any] = parse_json(line, dict[str, Any], "", "")
        checked(event, EVENTS.get(str(event.get("event")), Event), "", "")
    except InputError:
        return None
    return event


def _shown(line: bytes) -> str:
    """The start of a line, on one line and without what a terminal would choke on."""
    text = repr(line.decode(errors="replace").rstrip("\n"))
    return text if len(text) <= 80 else f"{text[:80]}..."
