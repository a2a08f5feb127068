"""Pure rules that part clips, given as arrays of labels and groups, into held-out and kept ones, or into folds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from trainable.listing import natural

Indices = NDArray[np.int64]
_DRAWS = 256  # random orders of the groups that are compared for class balance


def held_per_class(labels: Indices, share: float) -> Indices:
    """How many clips [k] of each class a held-out `share` of the clips `labels` [n] takes, rounded up.

    Source: sklearn.model_selection.train_test_split, so that the tutorial's numbers come out.
    """
    return np.array([math.ceil(share * count) for count in np.bincount(labels)], dtype=np.int64)


def stratified_holdout(labels: Indices, clips: Indices, held: Indices, seed: int) -> tuple[Indices, Indices]:
    """`clips` as (kept, held out), both sorted: of each class c, `held[c]` are drawn by train_test_split.

    Legend: `labels` [n] of all clips, `clips` [m] indices into it in the order of their sorted paths.
    """
    kept_parts, held_parts = [], []
    for label in np.unique(labels[clips]):
        kept, out = train_test_split(clips[labels[clips] == label], test_size=int(held[label]), random_state=seed)
        kept_parts.append(kept)
        held_parts.append(out)
    return np.sort(np.concatenate(kept_parts)), np.sort(np.concatenate(held_parts))


def grouped_holdout(
    labels: Indices, groups: Indices, clips: Indices, share: float, seed: int, parts: int
) -> tuple[Indices, Indices, Indices]:
    """`clips` as (kept, held out, classes that could not be in every part), whole groups at a time.

    Of many random orders of the groups, and of all ways to cut them, the one wins whose held-out share of every class
    is nearest to `share`. `parts` is how many parts the kept clips still have to serve: so many groups of each class
    must remain.

    Legend: `labels`, `groups` [n] of all clips, `clips` [m] indices into them.
    """
    classes, label = np.unique(labels[clips], return_inverse=True)
    names, group = np.unique(groups[clips], return_inverse=True)
    counts = np.zeros((len(names), len(classes)), dtype=np.int64)  # [g, k]: clips of a class in a group
    np.add.at(counts, (group, label), 1)
    rng = np.random.default_rng(seed)
    best: tuple[tuple[int, float], Indices, NDArray[np.bool_]] | None = None
    for _ in range(_DRAWS):
        order = rng.permutation(len(names))
        held = counts[order].cumsum(axis=0)
        held_groups = (counts[order] > 0).cumsum(axis=0)
        short = (held_groups < 1) | (held_groups[-1] - held_groups < parts)
        distance = np.abs(held / held[-1] - share).mean(axis=1)
        cut = int(np.lexsort((distance, short.sum(axis=1)))[0])
        cost = (int(short[cut].sum()), float(distance[cut]))
        if best is None or cost < best[0]:
            best = (cost, order[: cut + 1], short[cut])
    assert best is not None  # there is at least one draw
    out = np.isin(group, best[1])
    return clips[~out], clips[out], classes[best[2]]


def deal_folds(labels: Indices, groups: Sequence[str] | None, n_folds: int, seed: int) -> Indices:
    """The fold [n], from 0, of each clip: classes balanced, groups whole; with few groups, one fold per group.

    Where there are at most `n_folds` groups, fold k is the k-th of them by name, and there are as many folds as groups.
    """
    folds = np.empty(len(labels), dtype=np.int64)
    dummy = np.zeros(len(labels))
    if groups is not None:
        names = sorted(set(groups), key=natural)
        if len(names) <= n_folds:
            return np.array([names.index(group) for group in groups], dtype=np.int64)
        dealt = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(dummy, labels, groups)
    else:
        dealt = StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(dummy, labels)
    for fold, (_, held) in enumerate(dealt):
        folds[held] = fold
    return folds
