"""How many trials ASHA is expected to let through, in simulations of it."""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Expected:
    """What becomes of the trials, in the mean of seeded simulations."""

    rungs: tuple[tuple[int, float], ...]  # (epoch, trials that get there), ASHA's rungs and the last epoch
    epochs: float  # of all searched ones
    first: tuple[float, ...] = ()  # of each trial before them


def expect(
    trials: int, rungs: Sequence[int], last: int, reduction_factor: float, at_once: int = 1,
    *, horizons: Sequence[int] = (), first: Sequence[int] = (),
) -> Expected:  # fmt: skip
    """How many trials reach each of `rungs` and epoch `last` where `at_once` train at the same time.

    More get through than the textbook's 1 in `reduction_factor`: early ones pass easily, and those at a later rung are
    the better half of what comes. A trial's value at a rung is half its own quality, half the luck of that epoch, and
    never below what it had before.

    `horizons`: epochs of which each of the `trials` draws its own end, where that is not `last` for all. `first`: the
    ends of trials that come and compete before them.
    """
    rng, draw = np.random.default_rng(0), np.random.default_rng(1)
    count = len(first) + trials
    repeats = max(5, 10_000 // max(count, 1))
    reached, epochs = np.zeros(len(rungs) + 1), np.zeros(count)
    for _ in range(repeats):
        luck = rng.normal(size=(count, 1)) + rng.normal(size=(count, len(rungs)))
        values = np.maximum.accumulate(luck, axis=1).tolist()
        ends = [*first, *draw.choice(horizons or [last], size=trials).tolist()]
        recorded: list[list[float]] = [[] for _ in rungs]
        waiting, running = iter(enumerate(zip(values, ends, strict=True))), deque[_Imagined]()
        while True:
            new = itertools.islice(waiting, at_once - len(running))
            running.extend(_Imagined(number, value, end) for number, (value, end) in new)
            if not running:
                break
            trial = running.popleft()
            if trial.goes_on(rungs, recorded, reduction_factor) and trial.epoch < trial.end:
                running.append(trial)
            else:
                epochs[trial.number] += trial.epoch
                reached[: trial.passed] += 1
                reached[-1] += trial.epoch >= last
    shares, each = (reached / repeats).tolist(), (epochs / repeats).tolist()
    return Expected(tuple(zip((*rungs, last), shares, strict=True)), sum(each[len(first) :]), tuple(each[: len(first)]))


@dataclass
class _Imagined:
    """A simulated trial."""

    number: int
    values: list[float]  # what it has reached at each rung
    end: int  # its last epoch if nobody cuts it
    epoch: int = 0
    passed: int = 0  # rungs that it has come to

    def goes_on(self, rungs: Sequence[int], recorded: Sequence[list[float]], factor: float) -> bool:
        """Whether it goes on after one more epoch; `recorded` holds the sorted values of all who came to each rung."""
        self.epoch += 1
        arrives = self.passed < len(rungs) and self.epoch == rungs[self.passed]
        if arrives:
            bisect.insort(recorded[self.passed], self.values[self.passed])
            self.passed += 1
        if not self.passed:
            return True
        there, own = recorded[self.passed - 1], self.values[self.passed - 1]
        enough = 2 if arrives else factor
        return len(there) < enough or own >= _percentile_without(there, own, 1 - 1 / factor)


def _percentile_without(ordered: Sequence[float], own: float, share: float) -> float:
    """The value below which `share` of the sorted values but `own` lie, interpolated as `numpy.percentile` does."""
    mine = bisect.bisect_left(ordered, own)

    def other(index: int) -> float:
        return ordered[index + (index >= mine)]

    place = share * (len(ordered) - 2)
    below = int(place)
    above = min(below + 1, len(ordered) - 2)
    return other(below) + (place - below) * (other(above) - other(below))
