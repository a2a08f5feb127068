"""What going on with a search is worth: how much better its best is expected to get by as many trials again.

The accuracies at the top of a search lie above any threshold as an exponential does, which is the tail of most
distributions that are not heavy (a bounded one ends sooner, so this errs on the side of going on). What its scale
leaves uncertain is the width of the range. How well it predicts is measured in tests/benchmarks/benchmark_gain.py.
Source: peaks over threshold, Pickands, Statistical Inference Using Extreme Order Statistics, 1975.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from search.runs.format import points, points_range
from search.runs.journal import Trial
from search.runs.run import best_epoch

FEWEST = 12  # trials that must be over before anything can be said; a search that has learned little says less
TOP_SHARE = 0.25  # of the trials are the tail; fewer would leave it to chance, more would be no tail
LEAST_TAIL = 4
DRAWS = 400  # of the scale, for the range
_LONGEST = 12  # scales; an exponential is that far out once in 160,000 times


@dataclass(frozen=True)
class Gain:
    """Expected gain in validation accuracy by as many trials again, fractions."""

    trials: int  # so many again
    expected: float
    low: float  # the gain lies between these in four cases of five, as far as the scale of the tail is uncertain
    high: float

    def __str__(self) -> str:
        return f"{self.trials} more trials promise {points(self.expected)}{points_range((self.low, self.high))}"


class Prospect:
    """What the trials that are over say of those to come; fed one end at a time, so that asking costs the same."""

    def __init__(self, grace_epochs: int, trials: Iterable[Trial] = ()) -> None:
        """Starts from `trials`; of these, too, only those that are over count."""
        self._grace_epochs = grace_epochs
        self._over = 0
        self._bests: list[float] = []  # of the search's own trials that got past the grace period, lowest first
        self._best = -math.inf  # of all, baselines included: they are no draws of the search, but must be beaten
        for trial in trials:
            self.ended(trial)

    def ended(self, trial: Trial) -> None:
        """Takes in a trial that is over. One that failed says nothing: it may be tried again."""
        if not trial.over or trial.status == "failed":
            return
        best = best_epoch(trial, self._grace_epochs)
        if best is not None:
            self._best = max(self._best, best.accuracy)
        if trial.kind == "search":
            self._over += 1
            if best is not None:
                bisect.insort(self._bests, best.accuracy)

    def gain(self, best: float = -math.inf) -> Gain | None:
        """What as many trials again are expected to gain; None where too few are over or got past the grace period.

        best: the highest accuracy of a trial that still runs, a fraction, where that is to be beaten.
        """
        tail = max(LEAST_TAIL, math.ceil(TOP_SHARE * self._over))
        if self._over < FEWEST or len(self._bests) <= tail:
            return None
        return expected_gain(self._bests[-tail - 1 :], max(best, self._best), self._over)


def expected_gain(tops: list[float], best: float, trials: int) -> Gain:
    """The expected gain on `best` by as many trials again.

    tops: the highest accuracies of `trials` trials so far, lowest first; the first one is the threshold.
    """
    threshold, excesses = tops[0], np.array(tops[1:]) - tops[0]
    count = len(excesses)
    scale = max(float(excesses.mean()), 1e-6)
    # With an exponential tail, the scale given the excesses is an inverse gamma around their mean.
    gains = _expected(scale * count / _gammas(count), best - threshold, count, 1 - best)
    low, high = np.quantile(gains, [0.1, 0.9])
    return Gain(trials, float(gains.mean()), float(low), float(high))


@cache
def _gammas(count: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).gamma(count, size=DRAWS)


def _expected(scales: NDArray[np.float64], lead: float, exceeding: int, room: float) -> NDArray[np.float64]:
    """[n]: the mean of how far the best of about `exceeding` exponential excesses passes `lead`, at most by `room`.

    scales: [n] of the excesses.
    """
    steps = np.linspace(0.0, np.minimum(room, _LONGEST * scales), 200, axis=-1)  # [n, 200]
    chance = -np.expm1(-exceeding * np.exp(-(lead + steps) / scales[:, None]))  # that one passes lead + step
    return np.asarray(np.trapezoid(chance, steps, axis=-1))
