from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from trainable.config import TrialConfig
from trainable.data.dataset import Clip, Dataset, load_dataset
from trainable.data.split import Split, fold_splits, group_numbers, split_dataset
from trainable.errors import InputError


def config(**values: Any) -> TrialConfig:
    return TrialConfig(**values)


def make_dataset(
    counts: Sequence[int],
    groups: Sequence[str | None] | None = None,
    splits: Sequence[Any] | None = None,
    folds: Sequence[int | None] | None = None,
) -> Dataset:
    """A data set of so many clips of each class; the columns are given per clip."""
    clips = []
    for label, count in enumerate(counts):
        for number in range(count):
            index = len(clips)
            clips.append(
                Clip(
                    f"/d/c{label}/{number:03d}.wav", f"c{label}/{number:03d}.wav", label, 1.0, 8000, 1, 100, 0,
                    groups[index] if groups else None, splits[index] if splits else None,
                    folds[index] if folds else None,
                )
            )  # fmt: skip
    return Dataset("set", "/d", tuple(f"c{label}" for label in range(len(counts))), tuple(clips))


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.train), len(split.val), len(split.test)


def per_class(dataset: Dataset, clips: np.ndarray) -> list[int]:
    counts = Counter(dataset.clips[index].label for index in clips)
    return [counts[label] for label in range(len(dataset.labels))]


def groups_in(dataset: Dataset, clips: np.ndarray) -> set[str | None]:
    return {dataset.clips[index].group for index in clips}


def problems(dataset: Dataset, **values: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        split_dataset(dataset, config(**values))
    return list(caught.value.problems)


def assert_parts(dataset: Dataset, split: Split, whole: bool = True) -> None:
    """Parts do not overlap, are sorted, and hold every clip."""
    parts = [split.train, split.val, split.test]
    everything = np.concatenate(parts)
    assert len(set(everything.tolist())) == len(everything)
    assert not whole or len(everything) == len(dataset.clips)
    for part in parts:
        assert part.dtype == np.int64
        assert part.tolist() == sorted(part.tolist())


# stratified


def test_stratified_is_the_tutorials_split_of_each_class_over_sorted_paths() -> None:
    dataset = make_dataset([100, 99, 7, 2])
    split = split_dataset(dataset, config(split="stratified"))
    train, val = set(), set()
    for label in range(4):
        paths = sorted(clip.path for clip in dataset.clips if clip.label == label)
        kept, held = train_test_split(paths, test_size=0.2, random_state=42)
        train |= set(kept)
        val |= set(held)
    assert {dataset.clips[index].path for index in split.train} == train
    assert {dataset.clips[index].path for index in split.val} == val
    assert len(split.test) == 0
    assert_parts(dataset, split)


def test_stratified_holds_the_test_share_out_first_and_both_shares_are_of_the_whole() -> None:
    dataset = make_dataset([100, 60])
    split = split_dataset(dataset, config(split="stratified", test_share=0.15, val_share=0.15))
    assert per_class(dataset, split.test) == [15, 9]
    assert per_class(dataset, split.val) == [15, 9]
    tutorial = split_dataset(dataset, config(split="stratified", val_share=0.15))
    assert split.test.tolist() == tutorial.val.tolist()  # held out in the same manner, with the same seed
    assert_parts(dataset, split)


@pytest.mark.slow
def test_stratified_on_gtzan_is_the_tutorials(shared_data: Path) -> None:
    dataset = load_dataset(str(shared_data / "gtzan100" / "genres_original"))
    split = split_dataset(dataset, config())
    assert sizes(split) == (80, 20, 0)
    folder = shared_data / "gtzan100" / "genres_original" / "blues"
    held = train_test_split(sorted(map(str, folder.iterdir())), test_size=0.2, random_state=42)[1]
    assert sorted(held) == [dataset.clips[i].path for i in split.val if dataset.clips[i].label == 0]


def test_classes_too_small_for_each_part_are_all_named() -> None:
    dataset = make_dataset([10, 1, 2])
    assert problems(dataset, split="stratified", test_share=0.2) == [
        "set: c1: must have 3 clips or more, to be in train, val and test, got 1. Add clips, or hold out less.",
        "set: c2: must have 3 clips or more, to be in train, val and test, got 2. Add clips, or hold out less.",
    ]
    assert problems(dataset, split="stratified") == [
        "set: c1: must have 2 clips or more, to be in train and val, got 1. Add clips, or hold out less."
    ]


def test_the_split_follows_its_seed_and_nothing_but_the_shared_fields() -> None:
    dataset = make_dataset([50, 50])
    one, other = split_dataset(dataset, config()), split_dataset(dataset, config(lr=0.1, seed=7))
    assert one.hash == other.hash
    assert one.val.tolist() == other.val.tolist()
    assert split_dataset(dataset, config(split_seed=1)).hash != one.hash


def test_the_hash_follows_names_and_parts() -> None:
    split = split_dataset(make_dataset([10, 10]), config())
    renamed = make_dataset([10, 10])
    clips = tuple(Clip(c.path, f"x{c.name}", c.label, 1, 1, 1, 1, 1) for c in renamed.clips)
    assert split_dataset(Dataset("set", "/d", renamed.labels, clips), config()).hash != split.hash
    assert len(split.hash) == 16


# grouped


def test_groups_never_straddle_and_classes_stay_balanced() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{number}" for number in rng.integers(0, 40, size=600)]
    dataset = make_dataset([200, 200, 200], groups)
    split = split_dataset(dataset, config(split="grouped", test_share=0.2))
    parts = [groups_in(dataset, part) for part in (split.train, split.val, split.test)]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    for part in (split.val, split.test):
        assert all(34 <= count <= 46 for count in per_class(dataset, part))  # 40 is the share
    assert_parts(dataset, split)
    assert split_dataset(dataset, config(split="grouped", test_share=0.2)).hash == split.hash
    assert split_dataset(dataset, config(split="grouped", test_share=0.2, split_seed=1)).hash != split.hash
    assert split.notes == ()


def test_groups_that_hold_one_class_each_are_dealt_by_class() -> None:
    groups = [f"artist{index // 4}" for index in range(120)]
    dataset = make_dataset([40, 40, 40], groups)
    split = split_dataset(dataset, config(split="grouped"))
    assert per_class(dataset, split.val) == [8, 8, 8]


@pytest.mark.parametrize("share", [0.1, 0.34, 0.5, 0.7])
def test_grouped_keeps_to_any_share(share: float) -> None:
    dataset = make_dataset([100, 100], [f"g{index % 50}" for index in range(200)])
    assert len(split_dataset(dataset, config(split="grouped", val_share=share)).val) == pytest.approx(
        200 * share, abs=4
    )


def test_too_few_groups_for_the_parts_are_an_error() -> None:
    two = make_dataset([4, 4], ["a", "a", "b", "b"] * 2)
    assert sizes(split_dataset(two, config(split="grouped"))) == (4, 4, 0)
    assert problems(two, split="grouped", test_share=0.2) == [
        "set: group: must have at least 3 groups to part, got 2. Add groups, or use split: stratified."
    ]


def test_a_class_of_one_group_is_named() -> None:
    dataset = make_dataset([4, 4], ["a", "b", "c", "d", "e", "e", "e", "e"])
    assert problems(dataset, split="grouped") == [
        "set: c1: must have clips in 2 groups that can be parted, got 1 (e). Add groups, or use split: stratified."
    ]


@pytest.mark.parametrize(("split", "column"), [("grouped", "group"), ("given", "split")])
def test_a_split_by_a_column_that_is_not_there_or_has_gaps_is_an_error(split: str, column: str) -> None:
    assert problems(make_dataset([4, 4]), split=split) == [
        f"set: split: {split} needs a column {column}, got none. Name a CSV with that column, or use another split."
    ]
    gaps = make_dataset([2, 2], **{f"{column}s": ["train", "train", None, "train"]})
    assert problems(gaps, split=split) == [
        f"set: {column}: must be filled in for every clip, got 1 clips without (c1/000.wav, ...). "
        "Fill it in, or use another split."
    ]


# folds


def test_each_fold_tests_once_the_next_one_validates_and_the_rest_trains() -> None:
    dataset = make_dataset([10, 15])
    splits = [split_dataset(dataset, config(split="folds", fold=fold)) for fold in range(1, 6)]
    assert sorted(np.concatenate([split.test for split in splits]).tolist()) == list(range(25))
    for split, following in zip(splits, [*splits[1:], splits[0]], strict=True):
        assert split.val.tolist() == following.test.tolist()
        assert per_class(dataset, split.test) == [2, 3]
        assert_parts(dataset, split)
    assert [split.hash for split in fold_splits(dataset, config(split="folds"))] == [split.hash for split in splits]
    assert splits[4].notes == ("fold 5 of 5 tests (5 clips), fold 1 validates (5 clips)",)


def test_the_data_sets_own_folds_come_before_dealt_ones_whatever_their_numbers() -> None:
    folds = [0, 0, 3, 3, 7, 7] * 2
    dataset = make_dataset([6, 6], folds=folds)
    split = split_dataset(dataset, config(split="folds", fold=2))
    assert [folds[index] for index in split.test] == [3] * 4
    assert [folds[index] for index in split.val] == [7] * 4
    assert [folds[index] for index in split.train] == [0] * 4
    assert "fold 2 of 3 tests (fold 3 of the data set)" in split.notes[0]
    assert len(fold_splits(dataset, config(split="folds"))) == 3
    assert problems(dataset, split="folds", fold=4) == ["set: fold: must be at most 3, got 4. Lower it."]


def test_folds_keep_groups_whole_and_few_groups_are_a_fold_each() -> None:
    dataset = make_dataset([12, 12], [f"speaker{index % 4}" for index in range(24)])
    splits = fold_splits(dataset, config(split="folds", n_folds=4))
    assert [groups_in(dataset, split.test) for split in splits] == [{f"speaker{number}"} for number in range(4)]
    more = fold_splits(dataset, config(split="folds", n_folds=10))
    assert [split.hash for split in more] == [split.hash for split in splits]
    for split in fold_splits(dataset, config(split="folds", n_folds=3)):
        assert not groups_in(dataset, split.test) & groups_in(dataset, split.train)


def test_too_few_folds_or_clips_for_them_are_an_error() -> None:
    assert problems(make_dataset([5, 5]), split="folds", n_folds=2) == [
        "set: n_folds: must be at least 3 (one tests, one validates, the rest trains), got 2. "
        "Raise n_folds, or use another split."
    ]
    assert problems(make_dataset([5, 4]), split="folds") == [
        "set: c1: must have 5 clips or more, to be in each of 5 folds, got 4. Add clips, or hold out less."
    ]


@pytest.mark.slow
def test_fsdd_leaves_one_speaker_out_per_fold_although_its_csv_has_a_split(shared_data: Path) -> None:
    dataset = load_dataset(str(shared_data / "fsdd" / "fsdd.csv"))
    splits = fold_splits(dataset, config(split="folds", n_folds=6))
    assert [groups_in(dataset, split.test) for split in splits] == [
        {"george"}, {"jackson"}, {"lucas"}, {"nicolas"}, {"theo"}, {"yweweler"},
    ]  # fmt: skip
    assert sizes(split_dataset(dataset, config(split="folds", n_folds=6, fold=3))) == (2000, 500, 500)


# given


def test_the_given_split_is_taken_as_it_is() -> None:
    parts = ["train", "train", "val", "test"] * 2
    dataset = make_dataset([4, 4], splits=parts)
    split = split_dataset(dataset, config(split="given", test_share=0.5))
    assert split.train.tolist() == [0, 1, 4, 5]
    assert split.val.tolist() == [2, 6]
    assert split.test.tolist() == [3, 7]


def test_a_given_split_without_val_takes_the_val_share_of_its_train_clips_by_class() -> None:
    dataset = make_dataset([20, 10], splits=(["train"] * 15 + ["test"] * 5 + ["train"] * 5 + ["test"] * 5))
    split = split_dataset(dataset, config(split="given"))
    assert per_class(dataset, split.val) == [3, 1]
    assert per_class(dataset, split.test) == [5, 5]
    assert split.notes == ("the data set gives no val part: 4 of its train clips validate, drawn by class",)
    assert_parts(dataset, split)


def test_a_given_split_that_respects_groups_is_carved_by_groups() -> None:
    groups = [f"g{index % 10}" for index in range(100)]
    splits = ["test" if group in ("g0", "g1") else "train" for group in groups]
    dataset = make_dataset([50, 50], groups, splits)
    split = split_dataset(dataset, config(split="given", val_share=0.25))
    assert sizes(split) == (60, 20, 20)
    assert not groups_in(dataset, split.train) & groups_in(dataset, split.val)
    assert split.notes == (
        "the data set gives no val part: 20 of its train clips validate, drawn whole groups at a time",
    )


def test_a_given_split_with_val_and_no_test_is_fine_and_one_without_train_is_not() -> None:
    assert sizes(split_dataset(make_dataset([2, 2], splits=["train", "val"] * 2), config())) == (2, 2, 0)
    assert problems(make_dataset([2, 2], splits=["val", "test"] * 2)) == [
        "set: split: must name train clips, got none. Mend the column split."
    ]
    assert problems(make_dataset([2, 2], splits=["train", "val", "val", "test"])) == [
        "set: c1: must have train clips, got none with the split given. Add clips, or use another split."
    ]


def test_a_class_without_val_or_test_clips_is_noted() -> None:
    dataset = make_dataset([3, 3], splits=["train", "val", "test", "train", "train", "val"])
    assert split_dataset(dataset, config(split="given")).notes == ("no test clips of c1",)


@pytest.mark.slow
def test_fsdds_given_test_clips_are_takes_0_to_4_and_its_speakers_straddle_loudly(shared_data: Path) -> None:
    dataset = load_dataset(str(shared_data / "fsdd" / "fsdd.csv"))
    split = split_dataset(dataset, config())
    assert split.name == "given"
    takes = {dataset.clips[index].name.rpartition("_")[2] for index in split.test}
    assert takes == {f"{take}.wav" for take in range(5)}
    assert sizes(split) == (2160, 540, 300)
    assert split.notes == (
        "chosen by split auto: the data set has a column split",
        "the data set gives no val part: 540 of its train clips validate, drawn by class",
        "WARNING: 6 of 6 groups straddle the split (george, jackson, lucas, ...): scores will flatter. "
        "Use split: grouped or folds to keep groups whole",
    )


# gtzan-filtered


def whole_gtzan() -> Dataset:
    genres = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
    clips = [
        Clip(f"/g/{genre}/{genre}.{n:05d}.wav", f"{genre}/{genre}.{n:05d}.wav", label, 30.0, 22_050, 1, 1, 0)
        for label, genre in enumerate(genres)
        for n in range(100)
        if (genre, n) != ("jazz", 54)  # cannot be read in GTZAN as distributed
    ]
    return Dataset("GTZAN", "/g", genres, tuple(clips))


def test_the_filtered_lists_of_gtzan_are_torchaudios() -> None:
    dataset = whole_gtzan()
    split = split_dataset(dataset, config(split="gtzan-filtered"))
    assert sizes(split) == (442, 197, 290)  # of 443, 197 and 290
    names = {dataset.clips[index].name for index in split.train}
    assert "blues/blues.00029.wav" in names
    assert split.notes == (
        "of the filtered lists' 930 clips 1 not here (jazz.00054): 442 of 443 train, 197 of 197 val, 290 of 290 test",
        "left out, because in none of the filtered lists (duplicate, distorted, mislabelled): 70",
    )
    assert_parts(dataset, split, whole=False)


@pytest.mark.slow
def test_part_of_gtzan_says_how_much_of_the_lists_is_there(shared_data: Path) -> None:
    dataset = load_dataset(str(shared_data / "gtzan100" / "genres_original"))
    assert problems(dataset, split="gtzan-filtered") == [
        *(
            f"gtzan100: {label}: must have train clips, got none with the split gtzan-filtered. "
            "Add clips, or use another split."
            for label in ("blues", "classical", "country")
        ),
        "gtzan100: of the filtered lists' 930 clips 837 not here (blues.00029, blues.00030, blues.00031, ...): "
        "38 of 443 train, 51 of 197 val, 4 of 290 test.",
        "gtzan100: left out, because in none of the filtered lists (duplicate, distorted, mislabelled): 7.",
    ]


def test_a_data_set_that_is_not_gtzan_has_no_filtered_split() -> None:
    assert problems(make_dataset([5, 5]), split="gtzan-filtered") == [
        "set: split: gtzan-filtered needs GTZAN's clips (blues.00000, ...) in train and val, got 0 and 0. "
        "Use split: stratified."
    ]


# auto and out-of-fold


@pytest.mark.parametrize(
    ("columns", "name", "note"),
    [
        ({}, "stratified", "chosen by split auto: the data set has no column split, fold or group"),
        ({"group"}, "grouped", "chosen by split auto: the data set has a column group"),
        ({"group", "fold"}, "fold 1 of 5", "chosen by split auto: the data set has a column fold"),
        ({"group", "fold", "split"}, "given", "chosen by split auto: the data set has a column split"),
    ],
)
def test_auto_is_what_the_columns_ask_for_and_says_so(columns: set[str], name: str, note: str) -> None:
    values: dict[str, Any] = {}
    if "group" in columns:
        values["groups"] = [f"g{index % 5}" for index in range(20)]
    if "fold" in columns:
        values["folds"] = [index % 5 for index in range(20)]
    if "split" in columns:
        values["splits"] = ["train", "train", "train", "val", "test"] * 4
    split = split_dataset(make_dataset([10, 10], **values), config())
    assert split.name == name
    assert split.notes[0] == note


def test_stratified_lets_groups_straddle_and_says_so_loudly() -> None:
    dataset = make_dataset([10, 10], [f"g{index % 2}" for index in range(20)])
    (note,) = split_dataset(dataset, config(split="stratified")).notes
    assert note.startswith("WARNING: 2 of 2 groups straddle the split (g0, g1): scores will flatter.")


@pytest.mark.parametrize("split", ["given", "grouped", "stratified", "auto"])
def test_every_clip_is_tested_once_out_of_fold_whatever_the_split_of_the_search(split: str) -> None:
    groups = [f"g{index % 7}" for index in range(70)]
    dataset = make_dataset([35, 35], groups, ["train", "train", "test", "train", "val"] * 14)
    splits = fold_splits(dataset, config(split=split))
    assert sorted(np.concatenate([fold.test for fold in splits]).tolist()) == list(range(70))
    for fold in splits:
        assert_parts(dataset, fold)
        straddle = groups_in(dataset, fold.train) & groups_in(dataset, fold.test)
        assert bool(straddle) == (split == "stratified")


def test_out_of_fold_scoring_of_gtzan_filtered_keeps_to_its_lists() -> None:
    splits = fold_splits(whole_gtzan(), config(split="gtzan-filtered"))
    assert sum(len(split.test) for split in splits) == 929
    assert all(len(split.train) + len(split.val) + len(split.test) == 929 for split in splits)


def copied(make_clips: Callable[..., Path], clips: int, **columns: str) -> Dataset:
    """Two classes of `clips` clips, every one of them a second time under another name."""
    root = make_clips(classes=2, clips=clips, seconds=0.1)
    for path in sorted(root.glob("*/*.wav")):
        shutil.copy(path, path.with_name(f"copy_{path.name}"))
    if not columns:
        return load_dataset(str(root))
    lines = [",".join(["path", "label", *columns])]
    for path in sorted(root.glob("*/*.wav")):
        number = int(path.stem.removeprefix("copy_"))
        kept = (value.format(n=number, copy="c" * path.stem.startswith("copy")) for value in columns.values())
        lines.append(",".join([f"{path.parent.name}/{path.name}", path.parent.name, *kept]))
    (root / "set.csv").write_text("\n".join(lines))
    return load_dataset(str(root / "set.csv"))


def sounds(dataset: Dataset, clips: Iterable[int]) -> set[str]:
    return {dataset.clips[index].content for index in clips}


@pytest.mark.parametrize(
    ("settings", "columns"),
    [
        ({"split": "stratified", "test_share": 0.2}, {}),
        ({"split": "stratified"}, {}),
        ({"split": "folds", "n_folds": 4}, {}),
        ({"split": "grouped", "test_share": 0.2}, {"group": "{copy}{n}"}),
        ({"split": "folds", "n_folds": 4}, {"group": "{copy}{n}"}),
    ],
)
def test_exact_copies_stay_in_one_part(
    make_clips: Callable[..., Path], settings: dict[str, Any], columns: dict[str, str]
) -> None:
    dataset = copied(make_clips, 12, **columns)
    split = split_dataset(dataset, TrialConfig(**settings))
    parts = [sounds(dataset, clips) for clips in (split.train, split.val, split.test)]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    assert len(split.train) + len(split.val) + len(split.test) == 48
    assert split.copied == 0
    assert "24 clips are exact copies of others: copies are kept in one part" in split.notes
    if "test_share" in settings:
        assert 8 <= len(split.test) <= 14


def test_parts_that_the_data_gives_are_kept_and_their_copies_are_counted(make_clips: Callable[..., Path]) -> None:
    root = Path(copied(make_clips, 4).root)
    lines = ["path,label,split"]
    for path in sorted(root.glob("*/*.wav")):
        part = "test" if path.name == "copy_000.wav" else "val" if path.name == "copy_001.wav" else "train"
        lines.append(f"{path.parent.name}/{path.name},{path.parent.name},{part}")
    (root / "set.csv").write_text("\n".join(lines))
    split = split_dataset(load_dataset(str(root / "set.csv")), TrialConfig())
    assert (len(split.train), len(split.val), len(split.test), split.copied) == (12, 2, 2, 2)
    assert split.notes[-2:] == (
        "WARNING: 2 of 2 test clips have an exact copy in train or val: their score flatters. "
        "Remove the copies, or use split: stratified or grouped",
        "WARNING: 2 of 2 val clips have an exact copy in train: their score flatters. "
        "Remove the copies, or use split: stratified or grouped",
    )


def test_a_set_without_copies_is_split_as_ever(make_clips: Callable[..., Path]) -> None:
    dataset = load_dataset(str(make_clips(classes=2, clips=10, seconds=0.1)))
    plain = replace(dataset, clips=tuple(replace(clip, content="") for clip in dataset.clips))
    for settings in ({"test_share": 0.2}, {"split": "folds"}):
        config = TrialConfig.parse(settings)
        assert split_dataset(dataset, config).hash == split_dataset(plain, config).hash


SPEAKERS = [f"s{number // 4}" for number in range(40)]  # ten, each with clips of one class


@pytest.mark.parametrize(
    ("dataset", "values", "folds"),
    [
        (make_dataset([20, 20]), {"test_share": 0.2}, 4),
        (make_dataset([20, 20]), {"test_share": 0.0}, 5),
        (make_dataset([10, 15, 30]), {"test_share": 0.1, "val_share": 0.3}, 3),
        (make_dataset([20, 20], SPEAKERS), {"split": "grouped", "test_share": 0.2}, 4),
        (make_dataset([20, 20], SPEAKERS), {"split": "folds", "n_folds": 5}, 4),
        (make_dataset([20, 20], folds=[number % 4 for number in range(40)]), {"fold": 3}, 3),
        (make_dataset([20, 20], SPEAKERS, ["test" if n % 20 < 4 else "train" for n in range(40)]), {}, 4),
        (make_dataset([20, 20], splits=["test" if n % 20 < 4 else "train" for n in range(40)]), {}, 4),
    ],
)
def test_further_folds_validate_on_every_other_clip_once_and_leave_the_test_alone(
    dataset: Dataset, values: dict[str, Any], folds: int
) -> None:
    parts = [split_dataset(dataset, config(**values, val_fold=fold)) for fold in range(1, folds + 1)]
    own = split_dataset(dataset, config(**values))
    assert parts[0].hash == own.hash
    for part in parts:
        np.testing.assert_array_equal(part.test, own.test)
        everything = np.sort(np.concatenate([part.train, part.val, part.test]))
        np.testing.assert_array_equal(everything, np.arange(len(dataset.clips)))
        assert min(len(part.val), len(own.val)) > 0.5 * max(len(part.val), len(own.val))
        if "grouped" in values.values():
            assert not groups_in(dataset, part.train) & groups_in(dataset, part.val)
        if values.get("split") not in ("grouped", "folds"):
            assert min(per_class(dataset, part.val)) > 0
    validated = np.concatenate([part.val for part in parts])
    assert len(validated) == len(set(validated.tolist())) == len(dataset.clips) - len(own.test)
    (line,) = problems(dataset, **values, val_fold=folds + 1)
    assert f"val_fold: must be at most {folds}" in line
    assert line.endswith(f"got {folds + 1}. Lower it.")


def test_copies_of_a_clip_stay_in_one_part_of_a_further_fold() -> None:
    dataset = make_dataset([20, 20])
    clips = tuple(replace(clip, content=f"sound {number // 2}") for number, clip in enumerate(dataset.clips))
    dataset = replace(dataset, clips=clips)
    for fold in (1, 2, 3, 4):
        split = split_dataset(dataset, config(val_fold=fold))
        assert not {number // 2 for number in split.train} & {number // 2 for number in split.val}


def test_lists_of_validation_clips_and_small_classes_make_no_further_folds() -> None:
    listed = make_dataset([10, 10], splits=["val" if number % 5 == 0 else "train" for number in range(20)])
    (line,) = problems(listed, val_fold=2)
    assert "val_fold: needs val clips that are drawn, got split: given, which lists them" in line
    small = make_dataset([30, 3])
    (line,) = problems(small, val_fold=2)
    assert "c1: must have 4 clips or more, to be in each of the 4 folds that its train clips make, got 2." in line


@pytest.mark.parametrize("settings", [{"test_share": 0.2}, {"split": "folds", "n_folds": 5}])
def test_what_trains_besides_the_train_clips_is_what_train_on_says(settings: dict[str, Any]) -> None:
    dataset = make_dataset([20, 20])
    own = split_dataset(dataset, config(**settings))
    parts = {
        "train": (own.train, own.val, own.test),
        "train+val": (np.union1d(own.train, own.val), own.val[:0], own.test),
        "all": (np.arange(40), own.val[:0], own.test[:0]),
    }
    for train_on, expected in parts.items():
        split = split_dataset(dataset, config(**settings, train_on=train_on))
        for found, wanted in zip((np.sort(split.train), split.val, split.test), expected, strict=True):
            np.testing.assert_array_equal(found, np.sort(wanted))
    with_others = config(split="folds", n_folds=5, fold=2, train_on="other-folds")
    split, own = split_dataset(dataset, with_others), split_dataset(dataset, config(split="folds", n_folds=5, fold=2))
    np.testing.assert_array_equal(np.sort(split.train), np.union1d(own.train, own.val))
    np.testing.assert_array_equal(split.test, own.test)


def test_a_clip_without_a_group_is_a_group_of_its_own_where_groups_are_counted() -> None:
    numbers = group_numbers(make_dataset([3, 3], ["a", None, "b", None, "a", "b"]))
    assert numbers[0] == numbers[4]
    assert numbers[2] == numbers[5]
    assert len(set(numbers.tolist())) == 4


def test_a_fold_validates_that_is_not_the_one_that_tests() -> None:
    dataset = make_dataset([20, 20])
    for fold in (1, 4):
        seen = [split_dataset(dataset, config(split="folds", n_folds=4, fold=fold, val_fold=n)) for n in (1, 2, 3)]
        validated = np.concatenate([each.val for each in seen])
        assert not set(validated.tolist()) & set(seen[0].test.tolist())
        assert len(set(validated.tolist())) == 30
        assert all(sizes(each) == (20, 10, 10) for each in seen)
    for number in (4, 5, 9):
        (line,) = problems(dataset, split="folds", n_folds=4, val_fold=number)
        assert line.startswith("set: val_fold: must be at most 3, because one of 4 folds tests")
