"""One function per value of `split`: which clips go into which part, and what people should know of it."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from trainable.config import TrialConfig
from trainable.dataset import Dataset
from trainable.errors import InputError
from trainable.partition import Indices, deal_folds, grouped_holdout, held_per_class, stratified_holdout


class Parts(NamedTuple):
    """Indices into `Dataset.clips`, and sentences about them."""

    train: Indices
    val: Indices
    test: Indices
    notes: tuple[str, ...] = ()


def stratified(dataset: Dataset, config: TrialConfig) -> Parts:
    """Of each class the tutorial's random share, after a random test share where one is asked for."""
    labels = labels_of(dataset)
    everything = np.arange(len(labels))
    val_held = held_per_class(labels, config.val_share)
    test_held = held_per_class(labels, config.test_share)
    _refuse_small_classes(
        dataset, everything, val_held + test_held, "train, val and test" if config.test_share else "train and val"
    )
    rest, test = everything, everything[:0]
    if config.test_share:
        rest, test = stratified_holdout(labels, rest, test_held, config.split_seed)
    return Parts(*stratified_holdout(labels, rest, val_held, config.split_seed), test)


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
    whole = groups is not None and not set(groups[train]) & set(groups[test])
    if whole:
        kept, val = _hold_groups(dataset, train, config.val_share, config.split_seed, parts=1)
        how = "whole groups at a time"
    else:
        labels = labels_of(dataset)
        held = np.zeros(len(dataset.labels), dtype=np.int64)
        counted = held_per_class(labels[train], config.val_share)
        held[: len(counted)] = counted
        _refuse_small_classes(dataset, train, held, "train and val")
        kept, val = stratified_holdout(labels, train, held, config.split_seed)
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
    if groups is not None:
        require_column(dataset, "group", "folds")
    else:
        held = np.full(len(dataset.labels), config.n_folds - 1)
        _refuse_small_classes(dataset, clips, held, f"each of {config.n_folds} folds")
    folds = np.full(len(dataset.clips), -1, dtype=np.int64)
    folds[clips] = deal_folds(
        labels_of(dataset)[clips], None if groups is None else groups[clips].tolist(), config.n_folds, config.split_seed
    )
    return folds, [_describe_fold(groups, folds == number) for number in range(int(folds.max()) + 1)]


def labels_of(dataset: Dataset) -> Indices:
    """The label [n] of each clip."""
    return np.array([clip.label for clip in dataset.clips], dtype=np.int64)


def groups_of(dataset: Dataset) -> np.ndarray[tuple[int], np.dtype[np.str_]] | None:
    """The group [n] of each clip, "" where it has none; None where no clip has one."""
    groups = np.array([clip.group or "" for clip in dataset.clips])
    return groups if any(groups) else None


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
    names = np.array([clip.group or "" for clip in dataset.clips])
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


def _describe_fold(
    groups: np.ndarray[tuple[int], np.dtype[np.str_]] | None, inside: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> str:
    if groups is None:
        return f"{inside.sum()} clips"
    names = sorted(set(groups[inside]))
    return f"group{'s' * (len(names) > 1)} {', '.join(names[:3])}{', ...' * (len(names) > 3)}"
