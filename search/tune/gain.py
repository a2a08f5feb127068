"""What going on with a search is worth: how much better its best is expected to get by as many trials again.

The accuracies at the top of a search lie above any threshold as an exponential does, which is the tail of most
distributions that are not heavy (a bounded one ends sooner, so this errs on the side of going on). What its scale
leaves uncertain is the width of the range.
Source: peaks over threshold, Pickands, Statistical Inference Using Extreme Order Statistics, 1975.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from search.runs.journal import Trial
from search.runs.run import rank

FEWEST = 12  # trials that must be over before anything can be said; a search that has learned little says less
TOP_SHARE = 0.25  # of the trials are the tail; fewer would leave it to chance, more would be no tail
DRAWS = 400  # of the scale, for the range


@dataclass(frozen=True)
class Gain:
    """Expected gain in validation accuracy by as many trials again, fractions."""

    trials: int  # so many again
    expected: float
    low: float  # the gain lies between these in four cases of five, as far as the scale of the tail is uncertain
    high: float

    def __str__(self) -> str:
        return (
            f"{self.trials} more trials: {100 * self.expected:+.1f} points expected "
            f"({100 * self.low:+.1f} to {100 * self.high:+.1f})"
        )


def gain_of(trials: Iterable[Trial], grace_epochs: int) -> Gain | None:
    """What as many trials again are expected to gain; None where too few are over, or hardly any got past the grace.

    Baselines are no draws of the search, and what they reached only counts as what must be beaten.
    """
    known = list(trials)
    over = sum(trial.over and trial.kind == "search" for trial in known)
    ranked = rank(known, grace_epochs)
    tops = [best.accuracy for best in ranked if best.trial.kind == "search"]
    tail = max(4, math.ceil(TOP_SHARE * over))
    if over < FEWEST or len(tops) <= tail:
        return None
    return gain(tops[: tail + 1], ranked[0].accuracy, over)


def gain(tops: list[float], best: float, trials: int) -> Gain:
    """The expected gain on `best` of as many trials again.

    tops: the highest accuracies of the trials so far, highest first; the last one is the threshold.
    """
    threshold, excesses = tops[-1], np.array(tops[:-1]) - tops[-1]
    count = len(excesses)
    scale = max(float(excesses.mean()), 1e-6)
    # With an exponential tail, the scale given the excesses is an inverse gamma around their mean.
    scales = scale * count / np.random.default_rng(0).gamma(count, size=DRAWS)
    gains = np.array([_expected(each, best - threshold, count, 1 - best) for each in scales])
    low, high = np.quantile(gains, [0.1, 0.9])
    return Gain(trials, float(gains.mean()), float(low), float(high))


def _expected(scale: float, lead: float, exceeding: int, room: float) -> float:
    """The mean of how far the best of about `exceeding` exponential excesses passes `lead`, at most `room`."""
    steps = np.linspace(0.0, min(room, 12 * scale), 200)
    chance = -np.expm1(-exceeding * np.exp(-(lead + steps) / scale))  # that one passes lead + step
    return float(np.trapezoid(chance, steps))
