"""Which clips are learned from, which choose, and which are only tested on: a function of data set and config."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from trainable.config import TrialConfig
from trainable.dataset import Dataset
from trainable.errors import InputError
from trainable.partition import Indices
from trainable.split_rules import Parts, fold_of_each, given, grouped, groups_of, gtzan_filtered, stratified


@dataclass(frozen=True, eq=False)
class Split:
    """The parts of a data set, as sorted indices into `Dataset.clips`; `notes` say what people should know of them."""

    name: str
    train: Indices
    val: Indices
    test: Indices = field(default_factory=lambda: np.array([], dtype=np.int64))  # for retraining only; may be empty
    notes: tuple[str, ...] = ()
    hash: str = ""  # of the clips' names in each part


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
    With `train_on` other than train the validation clips, and more, are moved to those that train.

    Raises:
        InputError: the data set cannot be split like that; names the classes that are too small.
    """
    if config.train_on != "train":
        return _widened(dataset, config)
    kind, notes = resolve(dataset, config)
    if kind == "folds":
        folds, names = fold_of_each(dataset, config, kind)
        return _hold_fold(dataset, folds, names, config.fold, notes)
    return _finish(dataset, kind, _RULES[kind](dataset, config), notes)


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


def _hold_fold(dataset: Dataset, folds: Indices, names: list[str], number: int, notes: tuple[str, ...]) -> Split:
    """The split that tests on fold `number`, from 1."""
    total = len(names)
    if total < 3:
        raise InputError(
            f"{dataset.name}: n_folds: must be at least 3 (one tests, one validates, the rest trains), got {total}. "
            "Raise n_folds, or use another split."
        )
    if number > total:
        raise InputError(f"{dataset.name}: fold: must be at most {total}, got {number}. Lower it.")
    test, val = number - 1, number % total
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
    all_notes = (*notes, *parts.notes, *remarks, *_straddling(dataset, named))
    return Split(name, parts.train, parts.val, parts.test, all_notes, digest)


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
