"""What a list of predictions is worth: intervals, scores per class, paired comparisons and calibration.

Everything here is a pure function of numpy arrays. Legend: `n` clips, `k` classes, `g` groups of clips. `groups` [n]
are numbers: equal ones mean clips of one speaker, artist or recording, which are right or wrong together. What is said
of other clips is then said of other groups. Clips without groups have a number each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
TAIL = 0.025  # of probability on either side of a 95% interval
FLIPS = 20_000  # of signs at most; up to 14 groups all of them are tried
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
class Difference:
    """How much more accurate one model is than another on the same clips, in fractions."""

    mean: float
    interval: tuple[float, float] | None  # 95%; None where all clips are of one group


@dataclass(frozen=True)
class Comparison:
    """One model against another on the same clips."""

    only_first: int  # clips that only the first has right
    only_second: int  # clips that only the second has right
    p_value: float  # two-sided
    smallest_p: float  # that so many groups, or clips, could give: nothing can be shown where it is large
    test: str  # how p was found


def wilson_interval(correct: float, total: float, highest_of: int = 1) -> tuple[float, float]:
    """The interval (low, high), fractions, in which a true accuracy lies after `correct` of `total` clips.

    `correct` need not be whole: the mean over seeds on the same clips has the uncertainty of those clips, not of
    clips times seeds. For whole numbers it equals `scipy.stats.binomtest(...).proportion_ci`, which takes no others.

    `highest_of`: from so many scores this is the highest. Its lower end is then that of all of them at once
    (Bonferroni), because chance has helped the one that won. In simulated searches of 16 to 100 trials with 20 to 500
    validation clips that covers the truth in 97 to 100%, where the plain interval covers it in 30 to 95%
    (`python -m tests.benchmarks.benchmark_intervals`).

    Raises:
        ValueError: no clips, or more right than there are.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if total <= 0 or not 0 <= correct <= total:
        raise ValueError(f"correct must lie in [0, total] and total be above 0, got {correct} of {total}")
    low, high = (stats.norm.isf(tail) for tail in (TAIL / highest_of, TAIL))
    return _wilson(correct / total, total, low, high)


def accuracy_interval(right: Floats, groups: Ints, highest_of: int = 1) -> tuple[float, float] | None:
    """The 95% interval (low, high) of an accuracy, fractions, over groups; None where all clips are of one group.

    `right` [n] is the share of a model's seeds that have the clip right, `groups` [n] whose clips they are. Without
    groups it is Wilson's. With groups the variance is that of a ratio of sums over groups, the number of clips is the
    number of independent ones with that variance, at most n, and t of g - 1 takes the place of the normal distribution.

    In simulation this covers 92 to 100% from 2 groups on, for sizes that differ by much 89 to 98%. It is too narrow, 73
    to 89% up to 20 groups, where most groups are almost perfect and a few fail: groups of that kind may not have been
    met. A bootstrap over groups covers 70 to 76% with 3, 81 to 89% with 6 and 90 to 93% with 20 of them, so that it is
    not used here. `highest_of`: as `wilson_interval`.

    Source: Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data", with Wilson's interval as Dean and Pagano 2015, "Evaluating confidence interval methods
    for binomial proportions in clustered surveys".
    """
    count, mean, variance = _over_groups(right, groups)
    if count == len(right):
        return wilson_interval(float(right.sum()), len(right), highest_of)
    if count == 1:
        return None
    clips = min(len(right), mean * (1 - mean) / variance) if variance > 0 else len(right)
    low, high = (stats.t.isf(tail, count - 1) for tail in (TAIL / highest_of, TAIL))
    return _wilson(mean, clips, low, high)


def _wilson(share: float, total: float, z_low: float, z_high: float) -> tuple[float, float]:
    """The two roots of Wilson's quadratic, each with its own quantile."""
    ends = []
    for z in (-z_low, z_high):
        centre = share + z * z / (2 * total)
        reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
        ends.append((centre + reach) / (1 + z * z / total))
    return max(0.0, ends[0]), min(1.0, ends[1])


def _over_groups(values: Floats, groups: Ints) -> tuple[int, float, float]:
    """How many groups there are, the mean of `values` [n], and its variance over groups (0 for a single one)."""
    _, place = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(place, weights=values), np.bincount(place)
    count, mean = len(sizes), float(values.mean())
    off = sums - mean * sizes
    return count, mean, float(count / max(count - 1, 1) * (off @ off)) / len(values) ** 2


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


def comparison(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_], groups: Ints) -> Comparison:
    """Whether chance alone could tell two models so far apart; [n] which clips each has right, and `groups` [n].

    If neither is better, each group's difference could as well have the other sign: p is how often random signs make
    the sum as large. With a clip per group that is McNemar's exact test.

    Source: McNemar 1947; for groups Fisher 1935, "The design of experiments", section 21.
    """
    gain = first_right.astype(np.int64) - second_right
    _, place = np.unique(groups, return_inverse=True)
    by_group = np.bincount(place, weights=gain)
    telling = by_group[by_group != 0]
    only_first, only_second = int(np.sum(gain > 0)), int(np.sum(gain < 0))
    if len(by_group) == len(gain):
        smallest = stats.binomtest(0, len(telling)).pvalue if len(telling) else 1.0
        p_value = stats.binomtest(only_first, len(telling)).pvalue if len(telling) else 1.0
        test = "McNemar exact"
    else:
        smallest = min(1.0, 2.0 ** (1 - len(by_group)))
        p_value = _sign_flips(telling)
        test = f"signs of {len(by_group)} groups flipped"
    return Comparison(only_first, only_second, float(p_value), float(smallest), test)


def _sign_flips(differences: Floats) -> float:
    """The two-sided p of the sum of `differences` [g] under random signs; all signs are tried where they are few."""
    if len(differences) < 2:  # scipy wants two; either sign of a single one is as far from 0
        return 1.0
    found = stats.permutation_test(
        (differences,), lambda x, axis: x.sum(axis=axis), permutation_type="samples", n_resamples=FLIPS, batch=2_000,
        vectorized=True, rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(found.pvalue)


def difference(first_right: Floats, second_right: Floats, groups: Ints) -> Difference:
    """How much more accurate the first is, with a 95% t-interval over groups.

    The arguments are [n]: the share of each model's seeds that have the clip right (0 or 1 for one seed), and groups.
    """
    gain = np.asarray(first_right, dtype=np.float64) - np.asarray(second_right, dtype=np.float64)
    count, mean, variance = _over_groups(gain, groups)
    if count == 1:
        return Difference(mean, None)
    half = float(stats.t.isf(TAIL, count - 1)) * math.sqrt(variance)
    return Difference(mean, (mean - half, mean + half))


@dataclass(frozen=True)
class GroupScore:
    """How one group fares."""

    group: str
    clips: int
    accuracy: float  # fraction; the mean over seeds where there are several
    interval: tuple[float, float]  # 95%, for other clips of this group


def group_scores(right: Floats, names: Sequence[str]) -> list[GroupScore]:
    """The accuracy on each group, the hardest first; `right` [n] as in `accuracy_interval`, `names` [n] of the groups.

    Clips without a group, whose name is "", are left out.
    """
    found: dict[str, list[float]] = {}
    for name, share in zip(names, right, strict=True):
        if name:
            found.setdefault(name, []).append(float(share))
    scores = [
        GroupScore(name, len(shares), sum(shares) / len(shares), wilson_interval(sum(shares), len(shares)))
        for name, shares in found.items()
    ]
    return sorted(scores, key=lambda score: (score.accuracy, score.group))


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
