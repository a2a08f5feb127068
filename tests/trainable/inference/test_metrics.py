"""Statistics against published values, scikit-learn's conventions, and cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trainable.inference.metrics import (
    bootstrap_difference,
    calibration_bins,
    calibration_error,
    class_scores,
    confusion,
    fit_temperature,
    mcnemar,
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
    result = mcnemar(first, second)
    assert (result.only_first, result.only_second) == (10, 2)
    assert result.p_value == pytest.approx(2 * (1 + 12 + 66) / 4096)  # a fair coin: at most 2 heads of 12, twice
    assert mcnemar(first, first).p_value == 1.0


def test_bootstrap_interval_holds_the_difference_and_narrows_with_clips() -> None:
    rng = np.random.default_rng(0)
    narrow, wide = [], []
    for clips, found in ((4000, narrow), (100, wide)):
        first, second = rng.random(clips) < 0.9, rng.random(clips) < 0.8
        found.append(bootstrap_difference(first.astype(float), second.astype(float), draws=2000))
    assert narrow[0].low < 0.1 < narrow[0].high
    assert narrow[0].high - narrow[0].low < 0.3 * (wide[0].high - wide[0].low)
    same = np.ones(50)
    assert bootstrap_difference(same, same, draws=100).high == 0.0


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
