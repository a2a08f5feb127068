from __future__ import annotations

import numpy as np
import pytest

from search.tune.standing import merit, standings


def test_trials_meet_at_the_last_epoch_that_both_have_reached() -> None:
    finished, cut, young = [0.2, 0.5, 0.9], [0.3, 0.4], [0.25]
    # cut beats both at their first meeting but loses to finished at epoch 2; young beats finished at epoch 1.
    assert standings([finished, cut, young]).tolist() == [0.5, 0.5, 0.5]
    assert standings([[0.2, 0.5, 0.9], [0.1, 0.4], [0.15]]).tolist() == [1.0, 0.0, 0.5]


def test_what_counts_is_the_best_so_far_and_not_the_epoch_of_the_meeting() -> None:
    assert standings([[0.6, 0.1], [0.5, 0.5, 0.9]]).tolist() == [1.0, 0.0]


def test_a_draw_is_half_a_win_and_a_trial_alone_stands_in_the_middle() -> None:
    assert standings([[0.5], [0.5, 0.7]]).tolist() == [0.5, 0.5]
    assert standings([[0.3]]).tolist() == [0.5]
    assert standings([]).tolist() == []


def test_scale_plays_no_part() -> None:
    rng = np.random.default_rng(0)
    trials = [rng.random(int(epochs)).tolist() for epochs in rng.integers(1, 9, 20)]
    bent = [[value**3 / 7 for value in trial] for trial in trials]
    assert np.array_equal(standings(trials), standings(bent))


@pytest.mark.parametrize("clips", [20, 1000, 100_000])
def test_a_loss_decides_between_equal_accuracies_and_never_against_one_more_clip(clips: int) -> None:
    assert merit(0.5, 1.0) > merit(0.5, 1.1)
    assert merit(0.5 + 1 / clips, 1e9) > merit(0.5, 0.0)
