"""Which clips are learned from, which choose, and which are only tested on: a function of data set and config."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from trainable.config import TrialConfig
from trainable.data.dataset import Dataset
from trainable.data.listing import natural
from trainable.errors import InputError

Indices = NDArray[np.int64]
Names = np.ndarray[tuple[int], np.dtype[np.str_]]
_DRAWS = 256  # random orders of the groups that are compared for class balance


def held_per_class(labels: Indices, share: float, classes: int = 0) -> Indices:
    """How many clips [k] of each class a held-out `share` of the clips `labels` [n] takes, rounded up; k >= `classes`.

    Source: sklearn.model_selection.train_test_split, so that the tutorial's numbers come out.
    """
    return np.array([math.ceil(share * count) for count in np.bincount(labels, minlength=classes)], dtype=np.int64)


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
    if n_folds == 1:
        return np.zeros(len(labels), dtype=np.int64)
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


class Parts(NamedTuple):
    """Indices into `Dataset.clips`, and sentences about them."""

    train: Indices
    val: Indices
    test: Indices
    notes: tuple[str, ...] = ()


def stratified(dataset: Dataset, config: TrialConfig) -> Parts:
    """Of each class the tutorial's random share, after a random test share where one is asked for."""
    labels = labels_of(dataset)
    first = first_copies(dataset)
    everything = np.unique(first)  # one of each sound: its copies go where it goes
    val_held = held_per_class(labels[everything], config.val_share, len(dataset.labels))
    test_held = held_per_class(labels[everything], config.test_share, len(dataset.labels))
    _refuse_small_classes(
        dataset, everything, val_held + test_held, "train, val and test" if config.test_share else "train and val"
    )
    rest, test = everything, everything[:0]
    if config.test_share:
        rest, test = stratified_holdout(labels, rest, test_held, config.split_seed)
    kept, val = stratified_holdout(labels, rest, val_held, config.split_seed)
    train, val, test = (np.flatnonzero(np.isin(first, part)) for part in (kept, val, test))
    return Parts(train, val, test)


def grouped(dataset: Dataset, config: TrialConfig) -> Parts:
    """The same shares, nearly, whole groups at a time."""
    require_column(dataset, "group", "grouped")
    rest = np.arange(len(dataset.clips))
    test = rest[:0]
    if config.test_share:
        rest, test = _hold_groups(dataset, rest, config.test_share, config.split_seed, parts=2)
    share = config.val_share / (1 - config.test_share)
    return Parts(*_hold_groups(dataset, rest, share, config.split_seed, parts=1), test)


def given(dataset: Dataset, config: TrialConfig) -> Parts:
    """The CSV's own parts; a val part that it does not name is `val_share` of its train clips."""
    require_column(dataset, "split", "given")
    train, val, test = (
        np.array([index for index, clip in enumerate(dataset.clips) if clip.split == part], dtype=np.int64)
        for part in ("train", "val", "test")
    )
    if not len(train):
        raise InputError(f"{dataset.name}: split: must name train clips, got none. Mend the column split.")
    if len(val):
        return Parts(train, val, test)
    groups = groups_of(dataset)
    first = first_copies(dataset)
    if groups is not None and not set(groups[train]) & set(groups[test]):
        kept, val = _hold_groups(dataset, train, config.val_share, config.split_seed, parts=1)
        how = "whole groups at a time"
    else:
        labels = labels_of(dataset)
        sounds = train[np.unique(first[train], return_index=True)[1]]  # one of each
        held = held_per_class(labels[sounds], config.val_share, len(dataset.labels))
        _refuse_small_classes(dataset, sounds, held, "train and val")
        _, val = stratified_holdout(labels, sounds, held, config.split_seed)
        inside = np.isin(first[train], first[val])
        kept, val = train[~inside], train[inside]
        how = "by class"
    return Parts(
        kept, val, test, (f"the data set gives no val part: {len(val)} of its train clips validate, drawn {how}",)
    )


def gtzan_filtered(dataset: Dataset, config: TrialConfig) -> Parts:
    """The fault-filtered lists of GTZAN, as far as the data set holds their clips.

    Source: torchaudio.datasets.gtzan, after Kereliuk, Sturm and Larsen (2015).
    """
    (train, val, test), lists = filtered_lists(dataset)
    if not len(train) or not len(val):
        raise InputError(
            f"{dataset.name}: split: gtzan-filtered needs GTZAN's clips (blues.00000, ...) in train and val, "
            f"got {len(train)} and {len(val)}. Use split: stratified."
        )
    notes = []
    here = {PurePath(clip.name).stem for clip in dataset.clips}
    missing = [name for names in lists for name in names if name not in here]
    if missing:  # jazz.00054 is listed, and cannot be read in GTZAN as distributed
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        counts = (f"{len(clips)} of {len(names)}" for clips, names in zip((train, val, test), lists, strict=True))
        notes.append(
            f"of the filtered lists' {sum(map(len, lists))} clips {len(missing)} not here ({some}): "
            + "{} train, {} val, {} test".format(*counts)
        )
    unlisted = len(dataset.clips) - len(train) - len(val) - len(test)
    if unlisted:
        notes.append(f"left out, because in none of the filtered lists (duplicate, distorted, mislabelled): {unlisted}")
    return Parts(train, val, test, tuple(notes))


def filtered_lists(dataset: Dataset) -> tuple[tuple[Indices, Indices, Indices], tuple[list[str], list[str], list[str]]]:
    """The clips of GTZAN's filtered train, val and test lists that are in the data set, and the lists themselves."""
    from torchaudio.datasets.gtzan import filtered_test, filtered_train, filtered_valid  # late: slow to import

    position = {PurePath(clip.name).stem: index for index, clip in enumerate(dataset.clips)}
    lists = (filtered_train, filtered_valid, filtered_test)
    train, val, test = (
        np.sort(np.array([position[name] for name in names if name in position], dtype=np.int64)) for names in lists
    )
    return (train, val, test), lists


def fold_of_each(dataset: Dataset, config: TrialConfig, kind: str) -> tuple[Indices, list[str]]:
    """The fold [n] of each clip, from 0 (-1: in none), and what each fold is.

    The CSV's folds where `kind` is folds and it has them; otherwise dealt with classes balanced and groups whole.
    """
    if kind == "folds" and any(clip.fold is not None for clip in dataset.clips):
        require_column(dataset, "fold", "folds")
        values = np.array([clip.fold for clip in dataset.clips], dtype=np.int64)
        names, folds = np.unique(values, return_inverse=True)
        if len(names) < 3:  # n_folds has no say in them
            raise InputError(
                f"{dataset.name}: fold: must have at least 3 values in the CSV (one fold tests, one validates, the "
                f"rest trains), got {len(names)} ({', '.join(map(str, names))}). Add folds, or use split: stratified, "
                "or name the parts in a column split."
            )
        return folds.astype(np.int64), [f"fold {name} of the data set" for name in names]
    clips = np.arange(len(dataset.clips))
    if kind == "gtzan-filtered":
        clips = np.sort(np.concatenate(filtered_lists(dataset)[0]))
    groups = None if kind == "stratified" else groups_of(dataset)
    first = first_copies(dataset)
    if groups is not None:
        require_column(dataset, "group", "folds")
        units: Names | None = _joined(groups, first)
    else:
        held = np.full(len(dataset.labels), config.n_folds - 1)
        sounds = clips[np.unique(first[clips], return_index=True)[1]]
        _refuse_small_classes(dataset, sounds, held, f"each of {config.n_folds} folds")
        units = first.astype(str) if len(sounds) < len(clips) else None
    folds = np.full(len(dataset.clips), -1, dtype=np.int64)
    folds[clips] = deal_folds(
        labels_of(dataset)[clips], None if units is None else units[clips].tolist(), config.n_folds, config.split_seed
    )
    return folds, [_describe_fold(groups, folds == number) for number in range(int(folds.max()) + 1)]


def labels_of(dataset: Dataset) -> Indices:
    """The label [n] of each clip."""
    return np.array([clip.label for clip in dataset.clips], dtype=np.int64)


def groups_of(dataset: Dataset) -> Names | None:
    """The group [n] of each clip, "" where it has none; None where no clip has one."""
    groups = np.array([clip.group or "" for clip in dataset.clips])
    return groups if any(groups) else None


def first_copies(dataset: Dataset) -> Indices:
    """For each clip [n] the first clip with exactly the same sound: itself, where it is no copy."""
    first: dict[str, int] = {}
    return np.array(
        [first.setdefault(clip.content or f"#{index}", index) for index, clip in enumerate(dataset.clips)],
        dtype=np.int64,
    )


def _joined(groups: Names, first: Indices) -> Names:
    """The groups [n] with those joined that hold copies of each other's clips, under the first one's name."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.get(name, name) != name:
            name = parent[name]
        return name

    for clip in np.flatnonzero(first != np.arange(len(first))):
        one, other = sorted((root(str(groups[clip])), root(str(groups[first[clip]]))), key=natural)
        parent[other] = one
    return np.array([root(str(name)) for name in groups])


def group_numbers(dataset: Dataset) -> Indices:
    """The group [n] of each clip as a number; a clip without one is a group of its own."""
    groups = groups_of(dataset)
    if groups is None:
        return np.arange(len(dataset.clips))
    numbers = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    alone = groups == ""
    numbers[alone] = len(groups) + np.arange(alone.sum())
    return numbers


def require_column(dataset: Dataset, column: str, kind: str) -> None:
    """Refuses a data set in which some clips, or all, have nothing in `column`."""
    without = [clip.name for clip in dataset.clips if getattr(clip, column) is None]
    if len(without) == len(dataset.clips):
        raise InputError(
            f"{dataset.name}: split: {kind} needs a column {column}, got none. "
            f"Name a CSV with that column, or use another split."
        )
    if without:
        raise InputError(
            f"{dataset.name}: {column}: must be filled in for every clip, got {len(without)} clips without "
            f"({without[0]}, ...). Fill it in, or use another split."
        )


def _refuse_small_classes(dataset: Dataset, clips: Indices, held: Indices, parts: str) -> None:
    counts = Counter(dataset.clips[index].label for index in clips)
    problems = [
        f"{dataset.name}: {label}: must have {held[number] + 1} clips or more, to be in {parts}, "
        f"got {counts[number]}. Add clips, or hold out less."
        for number, label in enumerate(dataset.labels)
        if counts[number] <= held[number]
    ]
    if problems:
        raise InputError(problems)


def _hold_groups(dataset: Dataset, clips: Indices, share: float, seed: int, parts: int) -> tuple[Indices, Indices]:
    """`clips` as (kept, held out), whole groups at a time; the kept ones must still serve so many `parts`."""
    labels = labels_of(dataset)
    names = _joined(np.array([clip.group or "" for clip in dataset.clips]), first_copies(dataset))
    number = len(set(names[clips]))
    if number <= parts:
        raise InputError(
            f"{dataset.name}: group: must have at least {parts + 1} groups to part, got {number}. "
            "Add groups, or use split: stratified."
        )
    codes = np.unique(names, return_inverse=True)[1]
    kept, held, missing = grouped_holdout(labels, codes, clips, share, seed, parts)
    problems = []
    for label in missing:
        own = sorted(set(names[clips][labels[clips] == label]))
        problems.append(
            f"{dataset.name}: {dataset.labels[label]}: must have clips in {parts + 1} groups that can be parted, got "
            f"{len(own)} ({', '.join(own[:3])}{', ...' * (len(own) > 3)}). Add groups, or use split: stratified."
        )
    if problems:
        raise InputError(problems)
    return kept, held


def _describe_fold(groups: Names | None, inside: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> str:
    if groups is None:
        return f"{inside.sum()} clips"
    names = sorted(set(groups[inside]))
    return f"group{'s' * (len(names) > 1)} {', '.join(names[:3])}{', ...' * (len(names) > 3)}"


@dataclass(frozen=True, eq=False)
class Split:
    """The parts of a data set, as sorted indices into `Dataset.clips`; `notes` say what people should know of them."""

    name: str
    train: Indices
    val: Indices
    test: Indices = field(default_factory=lambda: np.array([], dtype=np.int64))  # for retraining only; may be empty
    notes: tuple[str, ...] = ()
    hash: str = ""  # of the clips' names in each part
    copied: int = 0  # test clips (val, where there is no test) that have an exact copy in another part


_RULES: dict[str, Callable[[Dataset, TrialConfig], Parts]] = {
    "stratified": stratified,
    "grouped": grouped,
    "given": given,
    "gtzan-filtered": gtzan_filtered,
}


def split_dataset(dataset: Dataset, config: TrialConfig) -> Split:
    """The split that `config.split` asks for; equal data sets and SHARED_FIELDS give equal splits.

    stratified: of each class, over sorted paths, sklearn's train_test_split holds out `val_share` with `split_seed`,
    as the tutorial does; a `test_share` is held out before, in the same manner. Both are shares of the whole.
    grouped: about the same shares, whole groups at a time, classes balanced as well as the groups allow.
    folds: fold `config.fold` tests, the next one validates, the rest trains; the shares play no part. The folds are
    the CSV's, or dealt with classes balanced and groups whole.
    given: the CSV's column split; where that names no val clips, `val_share` of its train clips.
    gtzan-filtered: the lists that torchaudio carries.
    auto: what the CSV's columns ask for, in the order split, fold, group; stratified where there are none of them.
    With `val_fold` above 1 other clips than the split's own validate, and those train; the test clips stay.
    With `train_on` other than train the validation clips, and more, are moved to those that train.

    Raises:
        InputError: the data set cannot be split like that; names the classes that are too small.
    """
    if config.train_on != "train":
        return _widened(dataset, config)
    kind, notes = resolve(dataset, config)
    if kind == "folds":
        folds, names = fold_of_each(dataset, config, kind)
        return _hold_fold(dataset, folds, names, config.fold, notes, config.val_fold)
    parts = _RULES[kind](dataset, config)
    return _finish(dataset, kind, parts if config.val_fold == 1 else _other_fold(dataset, config, kind, parts), notes)


def fold_splits(dataset: Dataset, config: TrialConfig) -> list[Split]:
    """One split per fold, to score every clip out of fold: fold k tests, the next one validates, the rest trains.

    With `folds` the same folds as `split_dataset`. For all other splits they are dealt with classes balanced and
    groups whole, save that `stratified` leaves groups out of account as it does there, and that `gtzan-filtered` deals
    only the clips of its lists.

    Raises:
        InputError: too few clips or groups for the folds.
    """
    kind, _ = resolve(dataset, config)
    folds, names = fold_of_each(dataset, config, kind)
    return [_hold_fold(dataset, folds, names, number, ()) for number in range(1, len(names) + 1)]


def resolve(dataset: Dataset, config: TrialConfig) -> tuple[str, tuple[str, ...]]:
    """The rule that `config.split` stands for with this data set, and a note where `auto` chose it."""
    if config.split != "auto":
        return config.split, ()
    for kind, column in (("given", "split"), ("folds", "fold"), ("grouped", "group")):
        if any(getattr(clip, column) is not None for clip in dataset.clips):
            return kind, (f"chosen by split auto: the data set has a column {column}",)
    return "stratified", ("chosen by split auto: the data set has no column split, fold or group",)


def _widened(dataset: Dataset, config: TrialConfig) -> Split:
    """The split that learns from as much as `config.train_on` says and has no validation clips."""
    if config.train_on == "other-folds":
        folds = fold_splits(dataset, config)
        if config.fold > len(folds):
            raise InputError(f"{dataset.name}: fold: must be at most {len(folds)}, got {config.fold}. Lower it.")
        split = folds[config.fold - 1]
    else:
        split = split_dataset(dataset, config.model_copy(update={"train_on": "train"}))
    more = [split.train, split.val] + ([split.test] if config.train_on == "all" else [])
    test = split.test[:0] if config.train_on == "all" else split.test
    parts = Parts(np.sort(np.concatenate(more)), split.val[:0], test)
    return _finish(dataset, f"{split.name}, trained on {config.train_on}", parts, ())


def _other_fold(dataset: Dataset, config: TrialConfig, kind: str, own: Parts) -> Parts:
    """The parts in which another fold of the clips that are not tested validates than in the split's `own`.

    The own train clips are dealt into folds about as large as the own val part, classes balanced and groups whole, so
    that no clip validates in two folds.
    """
    if kind == "gtzan-filtered" or any(clip.split == "val" for clip in dataset.clips if kind == "given"):
        raise InputError(
            f"{dataset.name}: val_fold: needs val clips that are drawn, got split: {kind}, which lists them: there are "
            "no further folds. Leave folds out, or use another split."
        )
    groups, first, train = groups_of(dataset), first_copies(dataset), own.train
    whole = groups is not None and (kind == "grouped" or not set(groups[train]) & set(groups[own.test]))
    further = max(1, round(len(train) / len(own.val)))
    labels, sounds = labels_of(dataset), train[np.unique(first[train], return_index=True)[1]]
    held = np.full(len(dataset.labels), further - 1)
    _refuse_small_classes(dataset, sounds, held, f"each of the {further} folds that its train clips make")
    units = _joined(groups, first) if groups is not None and whole and kind != "stratified" else first.astype(str)
    alone = len(sounds) == len(train) and (units == first.astype(str)).all()
    folds = deal_folds(labels[train], None if alone else units[train].tolist(), further, config.split_seed)
    total = 1 + int(folds.max()) + 1
    if config.val_fold > total:
        raise InputError(
            f"{dataset.name}: val_fold: must be at most {total} (the split's own, and {total - 1} of its "
            f"{len(train)} train clips), got {config.val_fold}. Lower it."
        )
    inside = folds == config.val_fold - 2
    kept = np.sort(np.concatenate([train[~inside], own.val]))
    return Parts(kept, train[inside], own.test, (*own.notes, f"fold {config.val_fold} of {total} validates"))


def _hold_fold(
    dataset: Dataset, folds: Indices, names: list[str], number: int, notes: tuple[str, ...], val_fold: int = 1
) -> Split:
    """The split that tests on fold `number`, from 1, and validates on the `val_fold`-th one after it."""
    total = len(names)
    if total < 3:
        raise InputError(
            f"{dataset.name}: n_folds: must be at least 3 (one tests, one validates, the rest trains), got {total}. "
            "Raise n_folds, or use another split."
        )
    if number > total:
        raise InputError(f"{dataset.name}: fold: must be at most {total}, got {number}. Lower it.")
    if val_fold >= total:
        raise InputError(
            f"{dataset.name}: val_fold: must be at most {total - 1}, because one of {total} folds tests, "
            f"got {val_fold}. Lower it."
        )
    test, val = number - 1, (number - 1 + val_fold) % total
    about = f"fold {number} of {total} tests ({names[test]}), fold {val + 1} validates ({names[val]})"
    train = np.flatnonzero((folds >= 0) & (folds != test) & (folds != val))
    parts = Parts(train, np.flatnonzero(folds == val), np.flatnonzero(folds == test), (about,))
    return _finish(dataset, f"fold {number} of {total}", parts, notes)


def _finish(dataset: Dataset, name: str, parts: Parts, notes: tuple[str, ...]) -> Split:
    """The split with its hash, after a last look at classes and groups."""
    named = {"train": parts.train, "val": parts.val, "test": parts.test}
    classes = {part: {dataset.clips[index].label for index in clips} for part, clips in named.items()}
    problems, remarks = [], []
    for number, label in enumerate(dataset.labels):
        if number not in classes["train"]:
            problems.append(
                f"{dataset.name}: {label}: must have train clips, got none with the split {name}. "
                "Add clips, or use another split."
            )
    for part in ("val", "test"):
        absent = [label for number, label in enumerate(dataset.labels) if number not in classes[part]]
        if len(named[part]) and absent:
            remarks.append(f"no {part} clips of {', '.join(absent)}")
    if problems:
        raise InputError([*problems, *(f"{dataset.name}: {note}." for note in parts.notes)])
    names = {part: [dataset.clips[index].name for index in clips] for part, clips in named.items()}
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
    all_notes = (*notes, *dataset.notes, *dataset.warnings, *parts.notes, *remarks, *_straddling(dataset, named))
    copied, more = _copied(dataset, named)
    return Split(name, parts.train, parts.val, parts.test, (*all_notes, *more), digest, copied)


def _copied(dataset: Dataset, parts: dict[str, Indices]) -> tuple[int, list[str]]:
    """How many of the clips that are scored last have an exact copy in another part, and a note about copies."""
    first = first_copies(dataset)
    copies = int(np.count_nonzero(first != np.arange(len(first))))
    if not copies:
        return 0, []
    scored = "test" if len(parts["test"]) else "val"
    others = np.concatenate([clips for part, clips in parts.items() if part != scored])
    straddling = int(np.isin(first[parts[scored]], first[others]).sum())
    between = int(np.isin(first[parts["val"]], first[parts["train"]]).sum())
    if not straddling and not between:
        return 0, [f"{copies} clips are exact copies of others: copies are kept in one part"]
    notes = [
        f"WARNING: {found} of {len(parts[part])} {part} clips have an exact copy in {where}: their score flatters. "
        "Remove the copies, or use split: stratified or grouped"
        for found, part, where in (
            (straddling if scored == "test" else 0, "test", "train or val"), (between, "val", "train"),
        )
        if found
    ]  # fmt: skip
    return straddling, notes


def _straddling(dataset: Dataset, parts: dict[str, Indices]) -> list[str]:
    """A loud note where groups have clips on both sides of a border."""
    groups = groups_of(dataset)
    if groups is None:
        return []
    members = {part: set(groups[clips]) - {""} for part, clips in parts.items()}
    shared = (members["train"] & members["val"]) | ((members["train"] | members["val"]) & members["test"])
    if not shared:
        return []
    some = ", ".join(sorted(shared)[:3]) + (", ..." if len(shared) > 3 else "")
    return [
        f"WARNING: {len(shared)} of {len(set(groups) - {''})} groups straddle the split ({some}): scores will flatter. "
        "Use split: grouped or folds to keep groups whole"
    ]
