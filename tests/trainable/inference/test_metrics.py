"""Statistics against published values, scikit-learn's conventions, and cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from trainable.inference.metrics import (
    accuracy_interval,
    calibration_bins,
    calibration_error,
    class_scores,
    comparison,
    confusion,
    difference,
    fit_temperature,
    group_scores,
    spread,
    wilson_interval,
    with_temperature,
)


def test_wilson_interval_matches_the_textbook() -> None:
    low, high = wilson_interval(180, 200)
    assert (round(low, 3), round(high, 3)) == (0.851, 0.934)
    assert wilson_interval(189, 200)[0] > 0.90
    assert wilson_interval(188, 200)[0] < 0.90


def test_wilson_interval_stays_inside_zero_and_one_at_the_ends() -> None:
    assert wilson_interval(0, 10)[0] == 0.0
    assert 0.9999 < wilson_interval(10, 10)[1] <= 1.0
    assert wilson_interval(10, 10)[0] == pytest.approx(0.7225, abs=1e-4)


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_interval_refuses_what_cannot_be(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="correct must lie"):
        wilson_interval(correct, total)


def test_spread_of_one_number_has_no_deviation() -> None:
    assert spread([0.5]).deviation == 0.0
    assert spread([0.4, 0.6]).mean == pytest.approx(0.5)
    assert spread([0.4, 0.6]).deviation == pytest.approx(0.2 / np.sqrt(2))


def test_class_scores_and_confusion_count_clips_by_true_then_predicted_class() -> None:
    true, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0])
    scores = class_scores(["a", "b", "c"], true, predicted)
    assert [score.clips for score in scores] == [3, 2, 0]
    assert scores[0].precision == pytest.approx(2 / 3)
    assert scores[0].recall == pytest.approx(2 / 3)
    assert scores[1].f1 == pytest.approx(0.5)
    assert scores[2].precision == scores[2].recall == scores[2].f1 == 0.0
    assert confusion(true, predicted, 3).tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_mcnemar_counts_only_clips_that_tell_the_models_apart() -> None:
    first = np.array([True] * 10 + [False] * 2 + [True] * 50 + [False] * 5)
    second = np.array([False] * 10 + [True] * 2 + [True] * 50 + [False] * 5)
    alone = np.arange(len(first))
    result = comparison(first, second, alone)
    assert (result.only_first, result.only_second) == (10, 2)
    assert result.p_value == pytest.approx(2 * (1 + 12 + 66) / 4096)  # a fair coin: at most 2 heads of 12, twice
    assert result.smallest_p == pytest.approx(2 / 4096)
    assert comparison(first, first, alone).p_value == 1.0


@pytest.mark.slow
@given(some.integers(0, 200), some.integers(1, 200))
def test_wilson_interval_of_whole_clips_is_scipys(right: int, wrong: int) -> None:
    theirs = stats.binomtest(right, right + wrong).proportion_ci(method="wilson")
    assert wilson_interval(right, right + wrong) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_the_highest_of_many_scores_has_a_lower_lower_end_and_the_same_upper_end() -> None:
    alone, chosen = wilson_interval(108, 120), wilson_interval(108, 120, highest_of=32)
    assert chosen[0] < alone[0]
    assert chosen[1] == alone[1]
    # Every one of 32 intervals of this kind holds its truth at once as often as one alone does.
    assert chosen[0] == pytest.approx(stats.binomtest(108, 120).proportion_ci(1 - 0.05 / 32, "wilson").low)
    groups = np.arange(120) // 12
    right = np.arange(120) % 12 < 10
    assert accuracy_interval(right.astype(float), groups, 32)[0] < accuracy_interval(right.astype(float), groups)[0]  # type: ignore[index]


def grouped(shares: list[float], clips: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Which clips are right, and whose they are, where each group has `clips` and is right on its share of them."""
    right = np.concatenate([np.arange(clips) < round(share * clips) for share in shares])
    return right.astype(float), np.repeat(np.arange(len(shares)), clips)


SPEAKERS = [0.22, 0.55, 0.62, 0.70, 0.82, 0.86]  # six speakers of FSDD, each left out of training


def test_an_interval_over_groups_is_as_wide_as_the_groups_differ() -> None:
    right, groups = grouped(SPEAKERS)
    low, high = accuracy_interval(right, groups) or (0, 0)
    assert low < 0.43  # a bootstrap over the speakers, too narrow for six, says 0.43 to 0.80
    assert high > 0.80
    clips = accuracy_interval(right, np.arange(len(right)))
    assert clips == wilson_interval(right.sum(), len(right))
    alike = accuracy_interval(*grouped([0.64] * 6)) or (0, 0)
    assert alike[1] - alike[0] < 1.5 * (clips[1] - clips[0])  # type: ignore[index]


@pytest.mark.slow
@given(some.lists(some.lists(some.sampled_from([0.0, 1 / 3, 1.0]), min_size=1, max_size=9), min_size=2, max_size=7))
def test_an_interval_over_groups_holds_the_accuracy_and_stays_inside_zero_and_one(clips: list[list[float]]) -> None:
    right = np.array([share for group in clips for share in group])
    groups = np.repeat(np.arange(len(clips)), [len(group) for group in clips])
    low, high = accuracy_interval(right, groups) or (0, 0)
    assert 0 <= low <= right.mean() + 1e-9
    assert right.mean() - 1e-9 <= high <= 1


def test_one_group_has_no_interval_and_shows_no_difference() -> None:
    right, groups = grouped([0.7])
    assert accuracy_interval(right, groups) is None
    assert difference(right, 1 - right, groups).interval is None
    assert comparison(right > 0.5, right < 0.5, groups).p_value == 1.0


def test_groups_that_agree_on_the_better_model_are_counted_once_each() -> None:
    better, groups = grouped([0.9] * 6)
    worse, _ = grouped([0.5] * 6)
    result = comparison(better > 0.5, worse > 0.5, groups)
    assert result.only_first == 6 * 20
    assert result.p_value == result.smallest_p == pytest.approx(2 / 2**6)  # one of 64 ways to choose signs, twice
    few = comparison(better[:250] > 0.5, worse[:250] > 0.5, groups[:250])
    assert few.p_value == pytest.approx(0.0625)  # five groups cannot show any difference
    assert comparison(better > 0.5, worse > 0.5, np.arange(300)).p_value < 1e-30  # as if 120 clips had told it


def test_the_sum_of_groups_differences_is_compared_with_all_signs_that_they_could_have() -> None:
    # Differences of 3, 2 and -1 clips: of the eight signs, six make a sum as far from 0 as 4, or nearer by less.
    first = np.array([True, True, True, True, True, False])
    groups = np.array([0, 0, 0, 1, 1, 2])
    sums = [abs(a * 3 + b * 2 + c) for a in (1, -1) for b in (1, -1) for c in (1, -1)]
    expected = sum(each >= 4 for each in sums) / 8
    assert comparison(first, ~first, groups).p_value == pytest.approx(expected)


def test_random_signs_stand_for_all_signs_where_groups_are_many() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.random(400) < 0.8, rng.random(400) < 0.7
    p = comparison(first, second, np.arange(400) // 10).p_value
    assert p == comparison(first, second, np.arange(400) // 10).p_value  # the same each time
    assert 0 < p < 0.2


def test_the_interval_of_a_difference_narrows_with_clips_and_widens_with_groups() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for clips, size in ((4000, 1), (100, 1)):
        first, second = (rng.random(clips) < 0.9).astype(float), (rng.random(clips) < 0.8).astype(float)
        found = difference(first, second, np.arange(clips) // size).interval
        assert found
        assert found[0] < 0.1 < found[1]
        widths.append(found[1] - found[0])
    assert widths[0] < 0.3 * widths[1]
    same = np.ones(50)
    assert difference(same, same, np.arange(50)).interval == (0.0, 0.0)
    gain = np.repeat([0.4, 0.0, -0.2, 0.3], 25)
    over_clips = difference(gain, np.zeros(100), np.arange(100)).interval
    assert over_clips == pytest.approx(tuple(stats.ttest_1samp(gain, 0).confidence_interval()))
    over_groups = difference(gain, np.zeros(100), np.repeat(np.arange(4), 25)).interval
    assert over_groups == pytest.approx(tuple(stats.ttest_1samp(gain[::25], 0).confidence_interval()))


def test_groups_are_listed_with_the_hardest_first_and_clips_without_one_left_out() -> None:
    scores = group_scores(np.array([1.0, 0.5, 1.0, 1.0, 0.0]), ["b", "b", "a", "", ""])
    assert [(each.group, each.clips, each.accuracy) for each in scores] == [("b", 2, 0.75), ("a", 1, 1.0)]
    assert scores[0].interval == wilson_interval(1.5, 2)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10)
    assert calibration_error(probabilities, np.array([0] * 9 + [1])) == pytest.approx(0.0, abs=1e-9)
    assert calibration_error(probabilities, np.array([0] * 5 + [1] * 5)) == pytest.approx(0.4)


def test_fitted_temperature_undoes_the_overconfidence_that_was_put_in() -> None:
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.ones(4), size=5000)
    true = np.array([rng.choice(4, p=row) for row in honest])
    bold = with_temperature(honest, 1 / 3)  # three times too sure
    temperature = fit_temperature(bold, true)
    assert temperature == pytest.approx(3.0, rel=0.1)
    fixed = with_temperature(bold, temperature)
    assert calibration_error(fixed, true) < 0.3 * calibration_error(bold, true)
    assert (fixed.argmax(1) == bold.argmax(1)).all()


def test_a_model_that_is_always_right_is_not_told_to_be_certain() -> None:
    probabilities = np.tile([0.8, 0.1, 0.1], (20, 1))
    fixed = with_temperature(probabilities, fit_temperature(probabilities, np.zeros(20, dtype=np.int64)))
    assert 0.8 < fixed[0, 0] < 0.96


def test_bins_of_confidence_hold_every_clip_once_and_say_what_is_right_in_them() -> None:
    probabilities = np.array([[0.95, 0.05], [0.93, 0.07], [0.4, 0.6], [1.0, 0.0], [0.55, 0.45]])
    found = calibration_bins(probabilities, np.array([0, 1, 1, 0, 1]))
    assert [(each.low, each.high, each.clips) for each in found] == [(0.5, 0.6, 1), (0.6, 0.7, 1), (0.9, 1.0, 3)]
    assert [each.accuracy for each in found] == pytest.approx([0.0, 1.0, 2 / 3])
    assert found[-1].confidence == pytest.approx((0.95 + 0.93 + 1.0) / 3)


def test_gaps_of_different_bins_do_not_make_up_for_each_other() -> None:
    said = np.array([0.35, 0.95, 1.0])  # the last two lie in one bin, full certainty has none of its own
    probabilities = np.stack([said, *[(1 - said) / 4] * 4], axis=1)
    gaps = np.array([0.65, 0.05, -1.0])  # right, right, wrong
    error = calibration_error(probabilities, np.array([0, 0, 1]))
    assert error == pytest.approx((gaps[0] + abs(gaps[1] + gaps[2])) / 3)


@pytest.mark.parametrize(("clips", "classes"), [(1, 2), (2, 2), (20, 2), (2, 3), (7, 5)])
def test_the_fitted_temperature_makes_a_model_that_is_always_right_as_sure_as_platts_target(
    clips: int, classes: int
) -> None:
    probabilities = np.tile([0.8] + [0.2 / (classes - 1)] * (classes - 1), (clips, 1))
    temperature = fit_temperature(probabilities, np.zeros(clips, dtype=np.int64))
    assert with_temperature(probabilities, temperature)[0, 0] == pytest.approx((clips + 1) / (clips + 2), rel=1e-6)


def test_two_models_that_answer_alike_show_nothing() -> None:
    right = np.array([True, False, True])
    same = comparison(right, right, np.arange(3))
    assert (same.only_first, same.only_second, same.p_value, same.smallest_p) == (0, 0, 1.0, 1.0)
    assert same.test == "McNemar exact"
    of_two = comparison(np.array([True, True, True, False]), np.zeros(4, dtype=bool), np.array([0, 0, 1, 1]))
    assert (of_two.p_value, of_two.smallest_p, of_two.test) == (0.5, 0.5, "signs of 2 groups flipped")
