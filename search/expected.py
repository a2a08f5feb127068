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
    """What becomes of the searched trials, in the mean of seeded simulations."""

    rungs: tuple[tuple[int, float], ...]  # (epoch, trials that get there), ASHA's rungs and the last epoch
    epochs: float  # of all of them


def expect(trials: int, rungs: Sequence[int], last: int, reduction_factor: float, at_once: int = 1) -> Expected:
    """How many trials reach each of `rungs` and epoch `last` where `at_once` train at the same time.

    More get through than the textbook's 1 in `reduction_factor`: early ones pass easily, and those at a later rung are
    the better half of what comes. A trial's value at a rung is half its own quality, half the luck of that epoch, and
    never below what it had before.
    """
    rng = np.random.default_rng(0)
    repeats = max(5, 10_000 // max(trials, 1))
    reached, epochs = np.zeros(len(rungs) + 1), 0
    for _ in range(repeats):
        luck = rng.normal(size=(trials, 1)) + rng.normal(size=(trials, len(rungs)))
        values = np.maximum.accumulate(luck, axis=1).tolist()
        recorded: list[list[float]] = [[] for _ in rungs]
        waiting, running = iter(values), deque[_Imagined]()
        while True:
            running.extend(_Imagined(value) for value in itertools.islice(waiting, at_once - len(running)))
            if not running:
                break
            trial = running.popleft()
            epochs += 1
            if trial.goes_on(rungs, recorded, reduction_factor) and trial.epoch < last:
                running.append(trial)
            else:
                reached[: trial.passed] += 1
                reached[-1] += trial.epoch == last
    shares = (reached / repeats).tolist()
    return Expected(tuple(zip((*rungs, last), shares, strict=True)), epochs / repeats)


@dataclass
class _Imagined:
    """A simulated trial."""

    values: list[float]  # what it has reached at each rung
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
