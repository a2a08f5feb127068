"""What the journal of a run says once it is added up: time, progress of the best, rungs, slots.

Everything here is plain numbers, so that the figures only draw and these rules can be tested without a browser.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from search.runs.journal import Trial
from search.runs.run import Best, Run, best_epoch
from search.space.space import Space


@dataclass(frozen=True)
class Progress:
    """The best so far, at the moment when it became so."""

    seconds: float  # of searching since the start, interruptions left out
    epochs: int  # finished by all trials together
    accuracy: float  # validation accuracy, fraction
    trial: Trial


@dataclass(frozen=True)
class Rung:
    """An epoch at which trials were compared and some were cut."""

    epoch: int  # 1-based
    passed: tuple[tuple[Trial, float], ...]  # with the best validation accuracy until there, fraction
    cut: tuple[tuple[Trial, float], ...]


@dataclass(frozen=True)
class Span:
    """When a trial ran, and beside how many others."""

    trial: Trial
    slot: int  # 0-based: the lowest that was free
    start: float  # s of searching since the start
    end: float

    @property
    def seconds(self) -> float:
        """How long it ran, s."""
        return self.end - self.start


def trials_of(run: Run) -> list[Trial]:
    """The trials of the search itself, baselines included, retraining left out."""
    return [trial for trial in run.trials if trial.kind != "retrain"]


def space_of(run: Run) -> Space:
    """The space that was searched."""
    return Space.from_json(run.record["space"])


def settings_of(trial: Trial, space: Space) -> dict[str, Any]:
    """A trial's values of the dimensions that were active in it.

    A baseline that is no point of the space has no sample; its configuration says where it would lie.
    """
    if trial.params or trial.kind != "baseline":
        return trial.params
    found: dict[str, Any] = {}
    for dimension in space.dimensions.values():
        if space.active(dimension, found) and dimension.name in trial.config:
            found[dimension.name] = trial.config[dimension.name]
    return found


def label(trial: Trial) -> str:
    """What the report calls a trial: `#17`, or `#0 tutorial-simple`."""
    return f"#{trial.number} {trial.name}".strip()


def top(trial: Trial) -> Best | None:
    """A trial's best epoch, whether or not it got past the grace period: for drawing, not for ranking."""
    finite = [report for report in trial.reports if math.isfinite(report.value)]
    if not finite:
        return None
    best = min(finite, key=lambda report: (-report.value, report.loss, report.epoch))
    return Best(trial, best.epoch, best.value, best.loss)


def search_clock(run: Run) -> Callable[[float], float]:
    """A function from s since 1970 to s of searching: the time between a session's last event and the next is left out.

    A night between an interruption and its resumption is no time that the search took.
    """
    starts = sorted(session["time"] for session in run.journal.sessions if "time" in session)
    events = sorted(_event_times(run))
    if not starts or (events and events[0] < starts[0]):
        starts = events[:1] + starts
    spans: list[tuple[float, float, float]] = []  # start, end, s of searching before it
    before = 0.0
    for index, start in enumerate(starts):
        until = starts[index + 1] if index + 1 < len(starts) else math.inf
        last = events[bisect_right(events, until) - 1] if bisect_right(events, until) else start
        end = max(start, last)
        spans.append((start, end, before))
        before += end - start

    def clock(moment: float) -> float:
        reached = [span for span in spans if span[0] <= moment]
        if not reached:
            return 0.0
        start, end, earlier = reached[-1]
        return earlier + min(moment, end) - start

    return clock


def _event_times(run: Run) -> list[float]:
    times = []
    for trial in run.trials:
        times.append(trial.started)
        times += [report.time for report in trial.reports]
        times += [trial.ended] if trial.ended is not None else []
    return times


def progress(run: Run) -> list[Progress]:
    """Each moment at which there was a new best by the rule of `search.runs.run`, oldest first.

    A trial counts from the epoch at which it gets past the grace period, with the best that it has until then.
    """
    clock = search_clock(run)
    seen: dict[int, Trial] = {}
    steps: list[Progress] = []
    events = [
        (report.time, trial.number, index) for trial in trials_of(run) for index, report in enumerate(trial.reports)
    ]
    for epochs, (moment, number, index) in enumerate(sorted(events), start=1):
        trial = run.journal.trials[number]
        if number not in seen:
            seen[number] = Trial(number, trial.kind, trial.name, trial.params, trial.config, trial.started)
        partial = seen[number]
        partial.reports.append(trial.reports[index])
        if index + 1 == len(trial.reports):
            partial.status = trial.status
        best = best_epoch(partial, run.grace_epochs)
        if best and (not steps or best.accuracy > steps[-1].accuracy):
            steps.append(Progress(clock(moment), epochs, best.accuracy, trial))
    return steps


def rungs(run: Run) -> list[Rung]:
    """The epochs at which the scheduler compared trials, earliest first; empty where it cuts nothing.

    A trial that was cut between two of them had been overtaken at the former. Baselines take no part where they are
    not cut.
    """
    space = space_of(run)
    cuttable = ("search", "baseline") if space.scheduling.cut_baselines else ("search",)
    trials = [trial for trial in run.trials if trial.kind in cuttable]
    ends = [*space.rungs[1:], math.inf]
    found = [_rung(trials, epoch, end) for epoch, end in zip(space.rungs, ends, strict=False)]
    return [rung for rung in found if rung.passed or rung.cut]


def _rung(trials: list[Trial], epoch: int, end: float) -> Rung:
    """What happened at a rung, up to the next one at epoch `end`."""
    there = [trial for trial in trials if len(trial.reports) >= epoch]
    best = {trial.number: max(report.value for report in trial.reports[:epoch]) for trial in there}
    cut = {trial.number for trial in there if trial.reports[-1].decision == "cut" and len(trial.reports) < end}
    return Rung(
        epoch,
        passed=tuple((trial, best[trial.number]) for trial in there if trial.number not in cut),
        cut=tuple((trial, best[trial.number]) for trial in there if trial.number in cut),
    )


def spans(run: Run) -> list[Span]:
    """When each trial ran, oldest first. A trial that was taken up again is one span from start to end."""
    clock = search_clock(run)
    free_from: list[float] = []  # per slot
    found = []
    for trial in sorted(trials_of(run), key=lambda trial: (trial.started, trial.number)):
        last = max([trial.started, *(report.time for report in trial.reports)])
        start, end = clock(trial.started), clock(trial.ended if trial.ended is not None else last)
        slot = next((slot for slot, free in enumerate(free_from) if free <= start + 1e-9), len(free_from))
        free_from[slot : slot + 1] = [end]
        found.append(Span(trial, slot, start, end))
    return found
