"""What going on with a search is worth: how much better its best is expected to get by as many trials again.

The accuracies at the top of a search lie above a threshold as a generalised Pareto distribution does, which is the tail
of most distributions; its shape says whether they come to an end or go on. As many trials again bring as many to the
top, and the gain is what the highest of these has ahead of the best. The trials at the top are drawn with replacement
to see what so few of them leave uncertain.

A search proposes better trials as it learns, and what it tries is not independent; how well the promise is kept in
spite of that is measured in tests/benchmarks/benchmark_gain.py.
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
# Trials' worth of belief that the tail is exponential: few trials hide how far it goes, and a missed best costs more
# than a search that is too long.
PRIOR = 5.0
DRAWS = 2000  # of what may come


@dataclass(frozen=True)
class Gain:
    """Expected gain in validation accuracy by as many trials again, fractions."""

    trials: int  # so many again
    expected: float
    low: float  # in four cases of five the gain lies between these
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
        if not trial.over or trial.status == "failed" or trial.repeats is not None:
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
    picks, luck = _dice(count)
    scales, shapes = _pareto(excesses[picks])
    # The highest of `count` excesses has passed a share of luck^(1 / count) of all that could come.
    highest = scales / shapes * ((1 - luck ** (1 / count)) ** -shapes - 1)
    gains = np.clip(highest - (best - threshold), 0.0, 1 - best)
    low, high = np.quantile(gains, [0.1, 0.9])
    return Gain(trials, float(gains.mean()), float(low), float(high))


def _pareto(excesses: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shape, [n] each, of the generalised Pareto distributions with the moments of `excesses` [n, count].

    A shape of 0 is the exponential. Accuracies end at 1, so heavier tails are none; the lower the shape, the sooner the
    distribution ends.
    Source: Hosking and Wallis, Parameter and Quantile Estimation for the Generalized Pareto Distribution, 1987.
    """
    means, variances = excesses.mean(axis=1), excesses.var(axis=1, ddof=1)
    ratios = np.clip(means**2 / np.maximum(variances, 1e-12), 1.0, 1e3)
    count = excesses.shape[1]
    ratios = (ratios * count + PRIOR) / (count + PRIOR)  # 1 is the exponential's
    return np.maximum(means * (ratios + 1) / 2, 1e-9), np.minimum((1 - ratios) / 2, -1e-6)


@cache
def _dice(count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which of `count` excesses each draw takes, [DRAWS, count], and its luck, [DRAWS] in [0, 1)."""
    rng = np.random.default_rng(0)
    return rng.integers(0, count, (DRAWS, count)), rng.random(DRAWS)
