from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from trainable.data.split import deal_folds, grouped_holdout, held_per_class, stratified_holdout


@pytest.mark.parametrize("share", [0.07, 0.15, 0.2, 0.33, 0.5])
@pytest.mark.parametrize("clips", [3, 10, 99, 100, 101])
def test_as_many_clips_are_held_out_as_sklearn_holds_out(share: float, clips: int) -> None:
    labels = np.zeros(clips, dtype=np.int64)
    _, held = train_test_split(np.arange(clips), test_size=share, random_state=42)
    assert held_per_class(labels, share).tolist() == [len(held)]
    assert stratified_holdout(labels, np.arange(clips), np.array([len(held)]), 42)[1].tolist() == sorted(held.tolist())


def test_stratified_holdout_leaves_other_clips_alone() -> None:
    labels = np.array([0, 1] * 10)
    clips = np.arange(4, 16)
    kept, held = stratified_holdout(labels, clips, np.array([2, 3]), seed=0)
    assert sorted([*kept, *held]) == clips.tolist()
    assert np.bincount(labels[held]).tolist() == [2, 3]


def test_grouped_holdout_takes_the_groups_that_come_nearest_to_the_share_of_every_class() -> None:
    labels = np.array([0] * 8 + [1] * 8)
    groups = np.array([0, 0, 0, 0, 1, 2, 2, 3, 0, 1, 1, 1, 1, 2, 2, 3])  # group 2 holds a quarter of both
    kept, held, missing = grouped_holdout(labels, groups, np.arange(16), share=0.25, seed=0, parts=1)
    assert set(groups[held]) == {2}
    assert not set(groups[held]) & set(groups[kept])
    assert len(missing) == 0
    assert sorted([*kept, *held]) == list(range(16))


def test_grouped_holdout_names_the_classes_that_cannot_be_in_every_part() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    groups = np.array([0, 1, 2, 2, 2, 2])
    assert grouped_holdout(labels, groups, np.arange(6), share=0.3, seed=0, parts=1)[2].tolist() == [1]
    assert grouped_holdout(labels, groups, np.arange(6), share=0.3, seed=0, parts=2)[2].tolist() == [1]


def test_folds_are_dealt_evenly_by_class_and_seed() -> None:
    labels = np.repeat([0, 1, 2], 20)
    folds = deal_folds(labels, None, 5, seed=0)
    for label in range(3):
        assert np.bincount(folds[labels == label]).tolist() == [4] * 5
    assert deal_folds(labels, None, 5, seed=0).tolist() == folds.tolist()
    assert deal_folds(labels, None, 5, seed=1).tolist() != folds.tolist()


def test_a_fold_per_group_is_in_the_natural_order_of_their_names() -> None:
    groups = ["take10", "take9", "take1", "take10"]
    assert deal_folds(np.zeros(4, dtype=np.int64), groups, 3, seed=0).tolist() == [2, 1, 0, 2]
