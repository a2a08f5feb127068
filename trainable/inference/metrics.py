"""What a list of predictions is worth: intervals, scores per class, paired comparisons and calibration.

Everything here is a pure function of numpy arrays. Legend: `n` clips, `k` classes, `s` models (seeds).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Z_95 = 1.959964  # two-sided 95% of the normal distribution
SMALLEST = 1e-12  # probabilities are kept above this before a logarithm


@dataclass(frozen=True)
class ClassScore:
    """How one class fares; fractions in [0, 1], 0 where nothing was predicted or nothing is there."""

    label: str
    precision: float
    recall: float
    f1: float
    clips: int  # clips of this class


@dataclass(frozen=True)
class Spread:
    """Mean and sample deviation of a few numbers; the deviation of a single number is 0."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """One model against another on the same clips."""

    only_first: int  # clips that only the first has right
    only_second: int  # clips that only the second has right
    p_value: float  # McNemar's exact test, two-sided


def wilson_interval(correct: float, total: int, z: float = Z_95) -> tuple[float, float]:
    """The interval (low, high), fractions, in which a true accuracy lies after `correct` of `total` clips.

    `correct` need not be whole: the mean over seeds on the same clips has the uncertainty of those clips, not of
    clips times seeds.

    Raises:
        ValueError: no clips, or more right than there are.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if total < 1 or not 0 <= correct <= total:
        raise ValueError(f"correct must lie in [0, total] and total be at least 1, got {correct} of {total}")
    share = correct / total
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def spread(values: Sequence[float]) -> Spread:
    """The mean and the sample deviation (n - 1) of `values`."""
    array = np.asarray(values, dtype=np.float64)
    return Spread(float(array.mean()), float(array.std(ddof=1)) if array.size > 1 else 0.0)


def class_scores(labels: Sequence[str], true: Ints, predicted: Ints) -> list[ClassScore]:
    """Precision, recall and F1 of every class, in the order of `labels`; `true` and `predicted` are [n] indices."""
    precision, recall, f1, clips = precision_recall_fscore_support(
        true, predicted, labels=range(len(labels)), zero_division=0
    )
    rows = zip(labels, precision, recall, f1, clips, strict=True)
    return [ClassScore(label, float(p), float(r), float(f), int(c)) for label, p, r, f, c in rows]


def confusion(true: Ints, predicted: Ints, classes: int) -> Ints:
    """Counts [k, k] of clips: row = true class, column = predicted class."""
    counts: Ints = confusion_matrix(true, predicted, labels=range(classes)).astype(np.int64)
    return counts


def mcnemar(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_]) -> Comparison:
    """The exact McNemar test of two models on the same clips; the arguments say [n] which clips each has right.

    Only the clips on which exactly one is right tell the two apart; if neither is better, each of these is a fair coin.

    Source: McNemar 1947, with the binomial distribution instead of its approximation.
    """
    only_first = int(np.sum(first_right & ~second_right))
    only_second = int(np.sum(~first_right & second_right))
    differing = only_first + only_second
    tail = sum(math.comb(differing, i) for i in range(min(only_first, only_second) + 1))
    return Comparison(only_first, only_second, min(1.0, 2 * tail / 2**differing))


def bootstrap_difference(first_right: Floats, second_right: Floats, draws: int = 10_000, seed: int = 0) -> Estimate:
    """How much more accurate the first is, with a 95% interval from resampling the clips, both models together.

    The arguments are [n]: the share of each model's seeds that have the clip right (0 or 1 for one seed).
    """
    gain = np.asarray(first_right, dtype=np.float64) - np.asarray(second_right, dtype=np.float64)
    rng = np.random.default_rng(seed)
    chunk = max(1, min(draws, 4_000_000 // gain.size))  # at most 32 MB of indices at once
    sizes = [chunk] * (draws // chunk) + [draws % chunk] * bool(draws % chunk)
    means = np.concatenate([gain[rng.integers(gain.size, size=(rows, gain.size))].mean(axis=1) for rows in sizes])
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(gain.mean()), float(low), float(high))


def calibration_error(probabilities: Floats, true: Ints, bins: int = 15) -> float:
    """The expected calibration error in [0, 1]: how far confidence and accuracy lie apart, over bins of confidence.

    `probabilities` is [n, k], `true` [n].

    Source: Guo et al. 2017, "On calibration of modern neural networks"; 15 equal bins as there.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == true
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(index, weights=right - confidence, minlength=bins)  # clips in the bin x (accuracy - confidence)
    return float(np.abs(gap).sum() / len(true))


@dataclass(frozen=True)
class Bin:
    """The clips whose confidence lies in one range."""

    low: float  # of the range, fraction
    high: float
    clips: int
    confidence: float  # mean, fraction
    accuracy: float  # fraction


def calibration_bins(probabilities: Floats, true: Ints, bins: int = 10) -> list[Bin]:
    """Confidence beside accuracy in equal ranges of confidence, those without clips left out.

    `probabilities` is [n, k], `true` [n].
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == true
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    found = []
    for number in np.unique(index):
        inside = index == number
        found.append(
            Bin(int(number) / bins, (int(number) + 1) / bins, int(inside.sum()), float(confidence[inside].mean()),
                float(right[inside].mean()))
        )  # fmt: skip
    return found


def log_loss(probabilities: Floats, true: Ints) -> float:
    """The mean of -log p of the true class, nats; `probabilities` [n, k], `true` [n]."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(true)), true], SMALLEST)).mean())


def with_temperature(probabilities: Floats, temperature: float) -> Floats:
    """`probabilities` [n, k] made softer (above 1) or sharper (below 1); the order of classes stays."""
    logits = np.log(np.maximum(probabilities, SMALLEST)) / temperature
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    normalised: Floats = scaled / scaled.sum(axis=1, keepdims=True)
    return normalised


def fit_temperature(probabilities: Floats, true: Ints, low: float = 0.05, high: float = 20.0) -> float:
    """The temperature under which `true` [n] is likeliest given `probabilities` [n, k] of validation clips.

    The targets are smoothed as Platt's, (n + 1) / (n + 2) for the true class, or a model that has every validation
    clip right would be told to be certain of everything. The likelihood is convex in the inverse temperature, so the
    root of its slope is bisected.

    Source: Guo et al. 2017 (temperature); Platt 1999, "Probabilistic outputs for support vector machines" (targets).
    """
    logits = np.log(np.maximum(probabilities, SMALLEST))
    n, k = logits.shape
    targets = np.full((n, k), 1 / (n + 2) / (k - 1))
    targets[np.arange(n), true] = (n + 1) / (n + 2)
    wanted = (targets * logits).sum() / n

    def slope(inverse: float) -> float:
        return float((with_temperature(probabilities, 1 / inverse) * logits).sum() / n - wanted)

    cold, hot = 1 / high, 1 / low
    for _ in range(60):
        middle = math.sqrt(cold * hot)
        cold, hot = (cold, middle) if slope(middle) > 0 else (middle, hot)
    return 1 / math.sqrt(cold * hot)
