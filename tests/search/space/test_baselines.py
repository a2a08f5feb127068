from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.spaces import problems_of, space_of
from trainable.config import RECIPES, TrialConfig

SPACE = """
    fixed: {epochs: 12, weights: none, test_share: 0.2, seed: 5, mixup: 0.2, normalise: train}
    search:
      backbone: {choice: [resnet18, resnet34]}
      lr: {loguniform: [1e-4, 1e-2]}
      schedule: {choice: [cosine, step]}
      step_size: {randint: [2, 5], when: {schedule: step}}
"""


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_at_its_own_settings_and_on_the_clips_of_the_search(tmp_path: Path, name: str) -> None:
    (baseline,) = space_of(tmp_path, SPACE + f"    baselines: [{name}]").baselines
    expected = {**TrialConfig().to_json(), **RECIPES[name], "test_share": 0.2, "seed": 5, "weights": "none"}
    assert baseline.values == TrialConfig.parse(expected).to_json()
    assert baseline.name == name


def test_a_recipe_keeps_its_weights_where_the_space_has_no_wish(tmp_path: Path) -> None:
    (baseline,) = space_of(tmp_path, "search: {lr: {uniform: [0.1, 0.2]}}\nbaselines: [tutorial-simple]").baselines
    assert baseline.values["weights"] == "imagenet"


def test_a_recipe_that_is_no_point_of_the_space_stays_out_of_the_study_and_says_why(tmp_path: Path) -> None:
    (baseline,) = space_of(tmp_path, SPACE + "    baselines: [tutorial-simple]").baselines
    assert baseline.params is None
    assert "schedule=constant" in baseline.note


def test_a_recipe_may_be_varied_by_hand(tmp_path: Path) -> None:
    text = SPACE + "    baselines: [{name: small, recipe: tutorial-simple, image_size: 64, epochs: 12}]"
    (baseline,) = space_of(tmp_path, text).baselines
    assert baseline.name == "small"
    assert (baseline.values["image_size"], baseline.values["epochs"]) == (64, 12)
    assert (baseline.values["mixup"], baseline.values["schedule"]) == (0.0, "constant")


def test_a_partial_point_is_completed_inside_the_space(tmp_path: Path) -> None:
    (baseline,) = space_of(tmp_path, SPACE + "    baselines: [{backbone: resnet34}]").baselines
    assert baseline.params == {"backbone": "resnet34", "lr": 1e-4, "schedule": "cosine"}
    assert baseline.name == "baseline-1"
    assert baseline.note == "completed with lr=0.0001, schedule=cosine"
    assert (baseline.values["mixup"], baseline.values["epochs"]) == (0.2, 12)


def test_a_completed_point_gets_the_children_of_its_conditions(tmp_path: Path) -> None:
    (baseline,) = space_of(tmp_path, SPACE + "    baselines: [{schedule: step, lr: 0.001}]").baselines
    assert baseline.params == {"backbone": "resnet18", "lr": 0.001, "schedule": "step", "step_size": 3}


def test_a_point_of_a_stretched_search_is_known_by_what_it_was_before(tmp_path: Path) -> None:
    text = SPACE + "    baselines: [{schedule: step, lr: 0.001, step_size: 4, backbone: resnet18}]"
    (baseline,) = space_of(tmp_path, text, epochs=24).baselines
    assert (baseline.params or {})["step_size"] == 4
    assert (baseline.values["step_size"], baseline.values["epochs"]) == (8, 24)


def test_a_point_has_its_values_as_samples_have_them_so_that_it_is_not_proposed_again(tmp_path: Path) -> None:
    text = """
        search: {mixup: {choice: [0, 0.2]}, time_mask: {randint: [3, 5]}}
        baselines: [{mixup: 0, time_mask: 4}]
    """
    (baseline,) = space_of(tmp_path, text).baselines
    assert json.dumps(baseline.params) == '{"mixup": 0, "time_mask": 4}'


def test_a_point_that_changes_a_fixed_value_stays_out_of_the_study(tmp_path: Path) -> None:
    (baseline,) = space_of(tmp_path, SPACE + "    baselines: [{lr: 0.001, epochs: 30}]").baselines
    assert baseline.params is None
    assert baseline.values["epochs"] == 30
    assert "epochs=30" in baseline.note


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (
            "{lr: 0.5}",
            "baselines.baseline-1.lr: must lie inside the dimension {'loguniform': [0.0001, 0.01]}, got 0.5.",
        ),
        ("{name: b, recipe: tutorial-simple, backbone: vgg11}", "baselines.b.backbone: must lie inside the dimension"),
        (
            "{schedule: cosine, step_size: 3}",
            "baselines.baseline-1.step_size: has a meaning only when schedule is step",
        ),
        ("{lrr: 0.001}", "baselines.baseline-1.lrr: unknown key, got 0.001. Did you mean lr?"),
        ("{val_share: 0.5}", "baselines.baseline-1.val_share: must be the same for all trials, got 0.5."),
        ("{eval_crops: 0}", "baselines.baseline-1.eval_crops: should be greater than or equal to 1, got 0."),
        (
            "{recipe: tutorial-strnog}",
            "baselines.baseline-1.recipe: unknown recipe, got 'tutorial-strnog'. Did you mean",
        ),
        (
            "{recipe: [tutorial-simple]}",
            "baselines.baseline-1.recipe: unknown recipe, got ['tutorial-simple']. Did you mean tutorial-simple?",
        ),
        ("{recipe: {tutorial-simple: 1}}", "baselines.baseline-1.recipe: unknown recipe, got {'tutorial-simple': 1}."),
        ("7", "baselines.baseline-1: must be a recipe's name or a mapping, got 7."),
        ("{lr: 0.001}, {name: baseline-1}", "baselines.baseline-1: must have a name of its own"),
    ],
)
def test_a_baseline_that_cannot_be_run_is_an_error_and_not_a_silent_use(tmp_path: Path, item: str, words: str) -> None:
    (problem,) = problems_of(tmp_path, SPACE + f"    baselines: [{item}]")
    assert problem.startswith(words)


def test_baselines_must_be_a_list(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, SPACE + "    baselines: tutorial-simple")
    assert problem.startswith("baselines: must be a list of recipes and mappings, got 'tutorial-simple'.")
