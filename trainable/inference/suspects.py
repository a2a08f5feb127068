"""Clips whose label is most likely wrong, from what models say that have not learned from them.

Own code because cleanlab, which has the method's reference implementation, is under the AGPL.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trainable.inference.metrics import Floats, Ints
from trainable.inference.scores import Scores


@dataclass(frozen=True)
class Suspect:
    """A clip that models are as sure of belonging elsewhere as they usually are of a class's own clips."""

    clip: int  # index into the data set
    label: str  # that it has
    suggested: str  # that models give it
    of_label: float  # the mean probability of its label
    of_suggested: float
    models: int  # that have judged it


def suspects(scores: Iterable[Scores]) -> list[Suspect]:
    """The clips whose label is in doubt, the most doubtful first.

    `scores`: of models on clips that they have not learned from; a clip may be judged by several, whose probabilities
    are averaged.
    """
    total: dict[int, Floats] = {}
    count: dict[int, int] = {}
    true: dict[int, int] = {}
    labels: tuple[str, ...] = ()
    for each in scores:
        labels = each.labels
        for clip, label, row in zip(each.clips.tolist(), each.true.tolist(), each.probabilities, strict=True):
            total[clip] = total[clip] + row if clip in total else row.copy()
            count[clip] = count.get(clip, 0) + 1
            true[clip] = label
    if not total:
        return []
    clips = sorted(total)
    probabilities = np.stack([total[clip] / count[clip] for clip in clips])
    given = np.array([true[clip] for clip in clips])
    found = []
    for place, said in doubts(probabilities, given):
        row, clip = probabilities[place], clips[place]
        found.append(
            Suspect(clip, labels[given[place]], labels[said], float(row[given[place]]), float(row[said]), count[clip])
        )
    return found


def doubts(probabilities: Floats, true: Ints) -> list[tuple[int, int]]:
    """Positions of clips with doubtful labels and the class that each seems to be of, the most doubtful first.

    A clip counts for a class where its probability there is at least what that class's own clips have on average. Of
    the classes that it counts for, the likeliest is what it seems to be of. Ranked by how far that is above its label.

    `probabilities` is [n, k], `true` [n].

    Source: Northcutt, Jiang, Chuang 2021, "Confident learning: estimating uncertainty in dataset labels".
    """
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(true)), true]
    usual = np.array([own[true == label].mean() if (true == label).any() else np.inf for label in range(classes)])
    counts_for = np.where(probabilities >= usual, probabilities, -1.0)
    said = counts_for.argmax(axis=1)
    doubtful = np.flatnonzero((counts_for.max(axis=1) >= 0) & (said != true))
    margin = probabilities[doubtful, said[doubtful]] - own[doubtful]
    kept = doubtful[margin > 0]
    order = np.argsort(-margin[margin > 0], kind="stable")
    return [(int(place), int(said[place])) for place in kept[order]]
