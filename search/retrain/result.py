"""From the scores of models on clips to what `result.json` says of them. Accuracies are fractions in [0, 1]."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.retrain.plan import Candidate
from trainable.data.dataset import Dataset
from trainable.data.split import group_numbers, groups_of
from trainable.inference import metrics
from trainable.inference.metrics import (
    Floats,
    Ints,
    accuracy_interval,
    calibration_bins,
    calibration_error,
    class_scores,
    comparison,
    confusion,
    fit_temperature,
    group_scores,
    log_loss,
    spread,
    with_temperature,
)
from trainable.inference.scores import Scores

TEMPERATURE_PARTS = 5  # of the clips, each judged with the temperature of the others
ENOUGH_GROUPS = 6  # with fewer no difference can have p below 0.05: 2 / 2^5 is 0.0625
GREEDY_ROUNDS = 20  # members with repeats; Caruana et al. see no gain from more on small validation sets


@dataclass(frozen=True)
class Models:
    """A candidate's models, one per seed that ended well or diverged.

    To leave out what diverged would make a configuration look as good as its lucky seeds, and as steady.
    """

    candidate: Candidate
    seeds: tuple[int, ...]
    epochs: tuple[int | None, ...]  # whose weights each model has; None where it diverged
    validation: tuple[Scores, ...]  # () where there was no validation
    measured: tuple[Scores, ...]  # on the clips that count; () where they were not scored
    refitted: bool = False  # measured are new models on more clips; validation is of those before them

    @property
    def diverged(self) -> tuple[int, ...]:
        """The seeds whose training diverged; their scores are those of guessing."""
        return tuple(seed for seed, epoch in zip(self.seeds, self.epochs, strict=True) if epoch is None)

    @property
    def usable(self) -> bool:
        """Whether any seed has become a model."""
        return len(self.diverged) < len(self.seeds)

    @property
    def validation_accuracy(self) -> float:
        """The mean over seeds on the validation clips."""
        return float(np.mean([scores.accuracy for scores in self.validation]))

    @property
    def validation_loss(self) -> float:
        """The mean cross-entropy over seeds on the validation clips, nats."""
        return float(np.mean([log_loss(s.probabilities, s.true) for s in self.validation]))

    @property
    def accuracy(self) -> float:
        """The mean over seeds on the clips that count."""
        return float(np.mean([scores.accuracy for scores in self.measured]))

    @property
    def validated(self) -> bool:
        """Whether it is the measured models themselves that validation clips have judged."""
        return bool(self.validation) and not self.refitted

    @property
    def handed_over(self) -> int:
        """The position of the seed whose model is handed over: best on validation; the first if none was validated."""
        there = [position for position, epoch in enumerate(self.epochs) if epoch is not None]
        if not self.validated:
            return there[0]
        quality = [(-s.accuracy, log_loss(s.probabilities, s.true)) for s in self.validation]
        return min(there, key=quality.__getitem__)


def models_in(scores: Sequence[Scores]) -> list[Scores]:
    """Those of a candidate's scores that are a model's, not of guessing in the place of one that diverged."""
    return [each for each in scores if not each.guess]


def choose(models: Sequence[Models]) -> Models:
    """The candidate that the result is about: best mean over all seeds on validation, then the lower loss there.

    A seed that diverged counts as guessing.
    """
    return min(models, key=lambda each: (-each.validation_accuracy, each.validation_loss))


def greedy_members(probabilities: Floats, true: Ints, rounds: int = GREEDY_ROUNDS) -> list[int]:
    """The members of an ensemble, with repeats, as positions in `probabilities` [models, n, k] of validation clips.

    Starts with the best and adds what makes the mean better: accuracy, then cross-entropy. Ends when nothing does.

    Source: Caruana et al. 2004, "Ensemble selection from libraries of models".
    """
    members: list[int] = []
    total = np.zeros_like(probabilities[0])
    best = (np.inf, np.inf)
    for _ in range(rounds):
        means = (total + probabilities) / (len(members) + 1)
        quality = [(-float((mean.argmax(1) == true).mean()), log_loss(mean, true)) for mean in means]
        chosen = min(range(len(quality)), key=quality.__getitem__)
        if quality[chosen] >= best:
            break
        best = quality[chosen]
        members.append(chosen)
        total = total + probabilities[chosen]
    return members


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups (speakers, recordings) that the clips of a data set belong to."""

    numbers: Ints  # [N] per clip of the data set; a clip without a group has a number of its own
    names: tuple[str, ...]  # [N]; "" where a clip has no group

    def of(self, scores: Scores) -> Ints:
        """The groups [n] of the scored clips."""
        numbers: Ints = self.numbers[scores.clips]
        return numbers

    def count(self, scores: Scores) -> int | None:
        """How many groups the scored clips are of; None where every clip counts for itself."""
        count = len(np.unique(self.of(scores)))
        return count if count < len(scores.clips) else None

    def notes(self, scores: Scores) -> tuple[str, ...]:
        """What few groups cannot show, in a sentence; nothing where clips have no groups or there are enough."""
        count = self.count(scores)
        if count is None or count >= ENOUGH_GROUPS:
            return ()
        if count == 1:
            return (
                f"All {len(scores.clips)} clips are of one group: the number holds for that group, nothing can be said "
                "of others, and so there is no interval. Use more groups, or --protocol folds.",
            )
        return (
            f"{count} groups are few: the interval over them is wide, and p can be no lower than "
            f"{2.0 ** (1 - count):.2g} whatever the difference.",
        )


def groups_in(dataset: Dataset) -> Groups:
    """The groups of a data set."""
    names = groups_of(dataset)
    return Groups(group_numbers(dataset), ("",) * len(dataset.clips) if names is None else tuple(map(str, names)))


def by_group(scores: Sequence[Scores], groups: Groups) -> list[dict[str, Any]]:
    """The accuracy on each group, mean over seeds, the hardest first; nothing where every clip counts for itself."""
    if groups.count(scores[0]) is None:
        return []
    names = [groups.names[clip] for clip in scores[0].clips]
    return [
        {"group": each.group, "clips": each.clips, "accuracy": each.accuracy, "interval_95": list(each.interval)}
        for each in group_scores(share_right(scores), names)
    ]


def row(models: Models, groups: Groups) -> dict[str, Any]:
    """What a table says of one candidate: per seed, mean and deviation, interval."""
    facts: dict[str, Any] = {
        "name": models.candidate.name,
        "trial": models.candidate.trial,
        "searched": models.candidate.searched,
        "validation": _spread(models.validation),
        "measured": _spread(models.measured),
        "interval_95": interval(models.measured, groups) if models.measured else None,
        "per_seed": [],
    }
    for position, seed in enumerate(models.seeds):
        facts["per_seed"].append(
            {
                "seed": seed,
                "diverged": seed in models.diverged,  # its accuracy is that of guessing
                "epoch": models.epochs[position],
                "validation": models.validation[position].accuracy if models.validated else None,
                "accuracy": models.measured[position].accuracy if models.measured else None,
            }
        )
    return facts


def interval(scores: Sequence[Scores], groups: Groups) -> list[float] | None:
    """The 95% interval of the mean accuracy of models on the same clips; None where all clips are of one group."""
    found = accuracy_interval(share_right(scores), groups.of(scores[0]))
    return list(found) if found else None


def difference(ours: Models, baseline: Models, groups: Groups) -> dict[str, Any]:
    """How far `ours` is above the baseline on the same clips, and whether that could be chance.

    The mean over seeds with a t-interval, and a test of the two models that each would hand over: McNemar's exact one,
    or where clips have groups the same over groups.
    """
    first, second = ours.measured[ours.handed_over], baseline.measured[baseline.handed_over]
    mean = metrics.difference(share_right(ours.measured), share_right(baseline.measured), groups.of(first))
    tested = "the models with the best validation" if ours.validated else "the first seeds, as nothing validated"
    test = comparison(first.right, second.right, groups.of(first))
    count = groups.count(first)
    over = f"{count} groups" if count else f"{len(first.clips)} clips"
    return {
        "mean": mean.mean,
        "interval_95": list(mean.interval) if mean.interval else None,
        "p_value": test.p_value,
        "smallest_p": test.smallest_p,
        "test": test.test,
        "only_ours_right": test.only_first,
        "only_baseline_right": test.only_second,
        "how": f"mean over seeds, t-interval over {over}; p: {test.test}, {tested}",
    }


def calibration(temperature: float, measured: Scores) -> dict[str, Any]:
    """The expected calibration error on the clips that count, before and after the temperature, and both in bins."""
    after = with_temperature(measured.probabilities, temperature)
    return {
        "temperature": temperature,
        "bins_before": [dataclasses.asdict(each) for each in calibration_bins(measured.probabilities, measured.true)],
        "bins_after": [dataclasses.asdict(each) for each in calibration_bins(after, measured.true)],
        "ece_before": calibration_error(measured.probabilities, measured.true),
        "ece_after": calibration_error(after, measured.true),
    }


def temperature_of(validation: Sequence[Scores]) -> float:
    """The temperature fitted on the scores of one or more models; 1 without any, or where it would not help.

    Whether it helps is asked on clips that it is not fitted on: each fifth of them is judged with the temperature of
    the others. On few clips a model that is calibrated already would otherwise be made worse.
    """
    if not validation:
        return 1.0
    probabilities = np.concatenate([scores.probabilities for scores in validation])
    true = np.concatenate([scores.true for scores in validation])
    part = np.concatenate([np.arange(len(scores.true)) % TEMPERATURE_PARTS for scores in validation])
    parts = np.unique(part)
    if len(parts) < 2:
        return 1.0
    scaled = probabilities.copy()
    for left_out in parts:
        inside = part == left_out
        scaled[inside] = with_temperature(probabilities[inside], fit_temperature(probabilities[~inside], true[~inside]))
    helps = log_loss(scaled, true) < log_loss(probabilities, true)
    return fit_temperature(probabilities, true) if helps else 1.0


def by_class(scores: Scores) -> dict[str, Any]:
    """Precision, recall and F1 per class, and the confusion matrix (row = true class)."""
    return {
        "labels": list(scores.labels),
        "classes": [dataclasses.asdict(s) for s in class_scores(scores.labels, scores.true, scores.predicted)],
        "confusion": confusion(scores.true, scores.predicted, len(scores.labels)).tolist(),
    }


def winners_curse(models: Models | None, highest_of: int | None) -> dict[str, Any] | None:
    """How much the search's score of a configuration flatters, in points: that score minus what fresh seeds reach.

    `models`: of the search's best configuration, or of the one that was asked for. `highest_of`: how many trials'
    scores that score is the highest of; None where it is not the search's best. None where the search has no score.
    """
    if models is None or models.candidate.searched is None:
        return None
    searched = models.candidate.searched
    return {
        "name": models.candidate.name,
        "searched": searched,
        "highest_of": highest_of,
        "points_validation": 100 * (searched - models.validation_accuracy) if models.validation else None,
        "points_measured": 100 * (searched - models.accuracy) if models.measured else None,
    }


def _spread(scores: Sequence[Scores]) -> dict[str, float] | None:
    return dataclasses.asdict(spread([each.accuracy for each in scores])) if scores else None


def share_right(scores: Sequence[Scores]) -> Floats:
    """The share [n] of models that have each clip right; one that guesses has 1 of k of it."""
    share: Floats = np.mean([each.share_right for each in scores], axis=0)
    return share
