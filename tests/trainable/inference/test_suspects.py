"""Labels that are wrong are found, and right ones are left alone, also where a model is unsure of a whole class."""

from __future__ import annotations

import numpy as np
import pytest

from trainable.inference.scores import Scores
from trainable.inference.suspects import doubts, suspects


def judged(wrong: set[int], clips: int = 90, seed: int = 0, noise: float = 0.5) -> Scores:
    """Scores of a fair model of three classes on clips of which some have the next class's label."""
    rng = np.random.default_rng(seed)
    real = np.arange(clips) % 3
    logits = rng.normal(0, noise, (clips, 3))
    logits[np.arange(clips), real] += 2.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([(label + 1) % 3 if clip in wrong else label for clip, label in enumerate(real)])
    return Scores(("a", "b", "c"), np.arange(clips), labels, probabilities)


def test_wrong_labels_are_found_with_the_class_that_they_should_have() -> None:
    wrong = {3, 17, 40, 41, 77}
    found = suspects([judged(wrong)])
    assert {each.clip for each in found[:5]} == wrong
    assert all(each.suggested == "abc"[each.clip % 3] for each in found[:5])
    assert all(each.of_suggested > each.of_label for each in found)
    assert [each.of_suggested - each.of_label for each in found] == sorted(
        (each.of_suggested - each.of_label for each in found), reverse=True
    )


def test_several_models_are_averaged_and_need_not_have_judged_the_same_clips() -> None:
    wrong = {3, 17, 40, 50, 61, 77}
    whole, other = judged(wrong, seed=1, noise=0.1), judged(wrong, seed=2, noise=0.1)
    half = Scores(other.labels, other.clips[:45], other.true[:45], other.probabilities[:45])
    found = suspects([whole, half])
    assert {each.models for each in found if each.clip < 45} == {2}
    assert {each.models for each in found if each.clip >= 45} == {1}


def test_clean_labels_raise_few_doubts_and_no_scores_raise_none() -> None:
    assert len(suspects([judged(set())])) <= 1
    assert suspects([]) == []


def test_a_class_that_a_model_is_always_unsure_of_is_no_error() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.55, 0.45]] * 10)  # of class 1 it is never sure
    assert doubts(probabilities, np.array([0] * 10 + [1] * 10)) == []


def test_a_class_without_clips_is_never_suggested() -> None:
    found = doubts(np.array([[0.2, 0.1, 0.7], [0.8, 0.1, 0.1]]), np.array([0, 0]))
    assert found == []


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_ties_stay_in_the_order_of_the_clips(order: list[int]) -> None:
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]])[order]
    found = doubts(probabilities, np.array([0, 0, 0, 0]))
    assert [place for place, _ in found] == []  # class 1 has no clips of its own to compare with
