"""How long a search still takes, as a range: drawn from how its trials have fared so far, cuts included."""

from __future__ import annotations

import bisect
import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from search.runs.format import Conditions, time_range
from search.runs.journal import Trial
from search.runs.tables import awake
from search.space.sections import rungs_before

Array = NDArray[np.float64]
DRAWS = 200  # imagined endings of the search; the range is steady to a few percent
PRIOR = 4.0  # trials' worth of belief that a rung lets 1 in reduction_factor pass, before any has been seen
REMEMBERED = 64  # trials whose pace is remembered: the searcher moves on, so the newest say most
QUEUE = 200  # trials that are placed on workers one by one; those before them only fill the workers evenly
# Deviations of the logarithm of a pace, measured on simulated searches so that the range covers four ends of five.
LEAST_SPREAD = 0.5  # between configurations, as long as few have been seen
SURPRISE = 0.12  # between what has been seen and what comes: the searcher moves on, the machine is shared


@dataclass(frozen=True)
class Plan:
    """What the search intends, as far as its length goes."""

    trials: int  # in total, baselines included
    concurrency: int  # trials at the same time
    epochs: int  # the horizon of a suggested trial
    grace_epochs: int
    reduction_factor: float | None  # None: no trial is ever cut
    deadline: float | None = None  # s since 1970, where a time budget ends the search
    target: float | None = None  # validation accuracy, fraction, that ends the search
    cut_baselines: bool = False
    conditions: Conditions = field(default_factory=dict)  # of the dimensions that are shown

    def cuts(self, trial: Trial) -> bool:
        """Whether ASHA may cut this trial."""
        return trial.repeats is None and (trial.kind != "baseline" or self.cut_baselines)

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which ASHA may cut a trial."""
        if self.reduction_factor is None:
            return ()
        return rungs_before(self.epochs, self.grace_epochs, self.reduction_factor)


@dataclass(frozen=True)
class Pace:
    """How fast a trial is: s until its first epoch is done, worker start included, and s per epoch from then on."""

    first: float
    rest: float


@dataclass(frozen=True)
class Underway:
    """A trial that runs now."""

    epochs: int  # finished so far
    horizon: int  # epochs if nobody cuts it
    pace: Pace | None  # None before its first epoch
    waited: float  # s since its last report, or since it was suggested
    cuttable: bool  # baselines are not, unless the space says so


class History:
    """What the trials so far teach about those to come; fed one report and one end at a time."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rungs = plan.rungs
        self.passed = [0] * len(self.rungs)  # trials that went on past each rung
        self.ended: list[list[int]] = [[] for _ in self.rungs]  # epochs of the trials that ended at or before each
        self.full: deque[int] = deque(maxlen=REMEMBERED)  # epochs of those that passed them all
        # By cuttable: baselines are slow, or fast, in their own way.
        self.paces: dict[bool, deque[Pace]] = {kind: deque(maxlen=REMEMBERED) for kind in (True, False)}

    def report(self, epoch: int, went_on: bool, cuttable: bool) -> None:
        """Notes that a trial has finished an epoch."""
        if cuttable and went_on and epoch in self.rungs:
            self.passed[self.rungs.index(epoch)] += 1

    def end(self, epochs: int, pace: Pace | None, cuttable: bool) -> None:
        """Notes that a trial is over after so many epochs: cut, finished or failed."""
        if pace is not None:
            self.paces[cuttable].append(pace)
        if cuttable:
            rung = bisect.bisect_left(self.rungs, max(epochs, 1))
            (self.ended[rung] if rung < len(self.rungs) else self.full).append(epochs)


def pace_of(trial: Trial, sessions: Sequence[float]) -> Pace | None:
    """A trial's pace, from its last few epochs; None before its first one."""
    reports = trial.reports
    if not reports:
        return None
    first = awake(trial.started, reports[0].time, sessions)
    recent = [report.time for report in reports[-6:]]
    rest = [awake(start, end, sessions) for start, end in itertools.pairwise(recent)]
    return Pace(first, sum(rest) / len(rest) if rest else first)


def time_left(
    history: History, underway: Sequence[Underway], to_come: int, now: float, seed: int = 0
) -> tuple[float, float] | None:
    """The 10% and 90% points of the time until the last trial ends, s; None before any epoch has been seen.

    The rest of the search is imagined `DRAWS` times. A trial survives a rung with a chance that is known as well as
    trials have been seen there (a Beta; at the start it is 1 / reduction_factor), its pace is that of a trial seen
    before, and each trial takes the worker that is free first, so that the last ones leave workers idle.
    """
    paces = [*history.paces[True], *(trial.pace for trial in underway if trial.pace and trial.cuttable)]
    if not paces:
        paces = [*history.paces[False], *(trial.pace for trial in underway if trial.pace)]
    if not paces:
        return None
    rng = np.random.default_rng(seed)
    workers = history.plan.concurrency
    running = _remaining(history, underway, paces, rng)
    coming = _coming(history, to_come, paces, rng)
    busy = np.zeros((DRAWS, max(workers, 1)))
    busy[:, : min(workers, running.shape[1])] = running[:, :workers]  # those beyond wait for a worker
    ends = _finish(busy, np.concatenate([running[:, workers:], coming], axis=1))
    low, high = np.quantile(ends, [0.1, 0.9])
    if history.plan.deadline is not None:
        left = max(history.plan.deadline - now, 0.0)
        low, high = min(low, left), min(high, left)
    return float(low), float(high)


def in_words(seconds: tuple[float, float] | None) -> str:
    """A range of seconds as people say it: `about 3 to 5 min left`."""
    if seconds is None:
        return "time left: known after the first epochs"
    return f"{time_range(*seconds)} left"


def _lengths(history: History, done: Array, horizon: Array, rng: np.random.Generator) -> Array:
    """[draws, n]: epochs at which each of n trials will end; `done` [n] and `horizon` [n] are epochs."""
    shape = (DRAWS, len(done))
    alive = np.ones(shape, dtype=bool)
    lengths = np.broadcast_to(horizon, shape).copy()
    if history.full:  # early stopping, failures: those that pass the last rung do not all reach their horizon
        lengths = np.clip(rng.choice(np.array(history.full), shape), done + 1, np.maximum(horizon, done + 1))
    for index, rung in enumerate(history.rungs):
        seen = history.ended[index]
        chance = 1 / (history.plan.reduction_factor or 1)
        survival = rng.beta(PRIOR * chance + history.passed[index], PRIOR * (1 - chance) + len(seen) + 1e-9, (DRAWS, 1))
        at_risk = alive & (rung > done) & (rung < horizon)
        ends = at_risk & (rng.random(shape) > survival)
        stops = np.array(seen[-REMEMBERED:] or [rung])
        lengths = np.where(ends, np.maximum(rng.choice(stops, shape), done + 1), lengths)
        alive &= ~ends
    return lengths.astype(np.float64)


def _drift(paces: Sequence[Pace], rng: np.random.Generator) -> Array:
    """[draws, 1]: a factor on all paces to come; the fewer were seen, the less they say about the others."""
    logs = np.log([max(pace.rest, 1e-3) for pace in paces])
    spread = max(float(np.std(logs)), LEAST_SPREAD)
    return np.asarray(np.exp(rng.normal(0.0, math.hypot(spread / math.sqrt(len(paces)), SURPRISE), (DRAWS, 1))))


def _remaining(
    history: History, underway: Sequence[Underway], paces: Sequence[Pace], rng: np.random.Generator
) -> Array:
    """[draws, running]: seconds that each running trial still needs."""
    if not underway:
        return np.zeros((DRAWS, 0))
    done = np.array([float(trial.epochs) for trial in underway])
    horizon = np.array([float(trial.horizon) for trial in underway])
    lengths = _lengths(history, done, horizon, rng)
    lengths = np.where([trial.cuttable for trial in underway], lengths, horizon)
    columns = []
    for column, trial in enumerate(underway):
        left = np.maximum(lengths[:, column] - trial.epochs, 0)
        if trial.pace is None:
            columns.append(_seconds(left, paces, rng) - trial.waited)
        else:
            columns.append(left * trial.pace.rest - min(trial.waited, trial.pace.rest))
    return np.maximum(np.stack(columns, axis=1), 0.0)


def _coming(history: History, to_come: int, paces: Sequence[Pace], rng: np.random.Generator) -> Array:
    """[draws, to_come]: seconds that each trial not yet suggested will take."""
    if to_come <= 0:
        return np.zeros((DRAWS, 0))
    lengths = _lengths(history, np.zeros(to_come), np.full(to_come, float(history.plan.epochs)), rng)
    return _seconds(lengths, paces, rng) * _drift(paces, rng)


def _seconds(lengths: Array, paces: Sequence[Pace], rng: np.random.Generator) -> Array:
    """Seconds for so many epochs, each at the pace of a trial drawn from those seen."""
    drawn = rng.integers(len(paces), size=lengths.shape)
    first = np.array([pace.first for pace in paces])[drawn]
    rest = np.array([pace.rest for pace in paces])[drawn]
    return np.where(lengths > 0, first + (lengths - 1) * rest, 0.0)


def _finish(busy: Array, queue: Array) -> Array:
    """[draws]: when the last worker is done; `busy` [draws, workers]: when each is free; `queue` [draws, n]."""
    ahead = queue.shape[1] - QUEUE
    if ahead > 0:
        level = (busy.sum(axis=1) + queue[:, :ahead].sum(axis=1)) / busy.shape[1]
        busy = np.broadcast_to(level[:, None], busy.shape).copy()
        queue = queue[:, ahead:]
    rows = np.arange(len(busy))
    for column in range(queue.shape[1]):
        busy[rows, busy.argmin(axis=1)] += queue[:, column]
    return np.asarray(busy.max(axis=1))
