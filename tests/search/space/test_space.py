from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler

from search.space.load import load_space
from search.space.space import Space
from tests.support.spaces import problems_of, space_of
from trainable.config import TrialConfig
from trainable.errors import InputError

CONDITIONAL = """
    fixed: {epochs: 12, weights: none, test_share: 0.2}
    search:
      gamma: {uniform: [0.1, 0.5], when: {step_size: [3, 4]}}
      schedule: {choice: [step, cosine]}
      step_size: {randint: [2, 5], when: {schedule: step}}
      lr: {loguniform: [1e-4, 1e-2]}
"""


def samples(space: Space, count: int = 60) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=RandomSampler(0))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_the_example_of_the_design_can_be_read(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """
        # python run_search.py --space spaces/wide.yaml
        fixed:                      # any TrialConfig field
          epochs: 30
        search:
          backbone: {choice: [resnet18, resnet50, densenet121, efficientnet_b0, convnext_tiny, resnext101_32x8d]}
          image_size: {choice: [224, 320, 512]}
          lr: {loguniform: [3.0e-5, 1.0e-3]}
          schedule: {choice: [step, cosine]}
          step_size: {randint: [5, 15], when: {schedule: step}}
        baselines: [tutorial-simple, tutorial-strong]   # evaluated first, at their own settings
        budget: {trials: 64, grace_epochs: 8, reduction_factor: 3}
        resources: {gpu: 1, cpu: 2}
        """,
    )
    assert space.budget.trials == 64
    assert space.rungs == (8, 24)
    assert (space.resources.gpu, space.resources.cpu) == (1, 2)
    assert [baseline.values["epochs"] for baseline in space.baselines] == [20, 30]
    assert {name for name, _ in space.weights_by_backbone()} >= {"resnext101_32x8d", "convnext_tiny"}


def test_a_dimension_has_a_value_only_where_all_its_parents_say_so(tmp_path: Path) -> None:
    space = space_of(tmp_path, CONDITIONAL)
    seen = set()
    for sample in samples(space):
        assert ("step_size" in sample) == (sample["schedule"] == "step")
        assert ("gamma" in sample) == (sample.get("step_size") in (3, 4))
        seen.add(tuple(sample))
    assert len(seen) == 3


def test_what_is_not_sampled_is_fixed_or_the_default(tmp_path: Path) -> None:
    space = space_of(tmp_path, CONDITIONAL)
    config = space.config({"schedule": "cosine", "lr": 1e-3})
    assert (config.epochs, config.weights, config.lr) == (12, "none", 1e-3)
    assert config.step_size == TrialConfig.model_fields["step_size"].default


def test_a_space_survives_the_way_through_json(tmp_path: Path) -> None:
    space = space_of(tmp_path, CONDITIONAL + "    baselines: [tutorial-simple, {lr: 0.001}]", epochs=6)
    again = Space.from_json(json.loads(json.dumps(space.to_json())))
    assert again == space
    assert samples(again) == samples(space)


def test_all_problems_of_a_file_and_of_the_flags_come_at_once(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        """
        fixd: {}
        fixed: {lr: -1, batch_sice: 3, mixup: 0.1, backbone: resnet19}
        search:
          learning_rate: {loguniform: [1e-4, 1e-2]}
          mixup: {uniform: [-1, 1]}
          n_mels: {quniform: [32, 128, 32]}
          scale: {choice: [log, decibel]}
          gain: {uniform: [0, 0.1], when: {scale: power}}
          gamma: {uniform: [0.1, 1], when: {shedule: step}}
          data: {choice: [a, b]}
        baselines: [tutorial-simpel, {name: mine, lr: 0.001, mixup: 3}]
        budget: {trials: 0, grace: 3, time: 5 parsecs}
        resources: {gpu: -1}
        scheduler: asher
        searcher: {kind: tpe, seed: 1.5}
        """,
        trials=0,
        time_budget="soon",
    )
    expected = [
        "--trials: must be at least 1, got 0.",
        "--time-budget: must be a duration above 0",
        "fixd: unknown key, got {}. Did you mean fixed?",
        "fixed.lr: should be greater than 0, got -1.",
        "fixed.batch_sice: unknown key, got 3. Did you mean batch_size?",
        "fixed.backbone: must be the name of a network (torchvision's, mn01 to mn40, timm:NAME) or a function of your",
        "search.learning_rate: unknown key, got {'loguniform': [0.0001, 0.01]}. Did you mean lr?",
        "search.mixup: stands under fixed too, got 0.1 there.",
        "search.mixup: should be greater than or equal to 0, got -1.",
        "search.n_mels: takes whole numbers, got quniform. Use qrandint.",
        "search.scale: should be 'power', 'log', 'db' or 'pcen', got 'decibel'.",
        "search.gamma.when.shedule: must name a dimension, got 'step'.",
        "search.data: must be the same for all trials",
        "baselines.tutorial-simpel: unknown recipe, got 'tutorial-simpel'. Did you mean tutorial-simple?",
        "budget.trials: should be greater than or equal to 1, got 0.",
        "budget.grace: unknown key, got 3. Did you mean grace_epochs?",
        "budget.time: must be a duration above 0 such as 45s, 30m or 1h30m, got '5 parsecs'.",
        "resources.gpu: should be greater than or equal to 0, got -1.",
        "scheduler.kind: should be 'asha' or 'none', got 'asher'.",
        "searcher.seed: should be a valid integer, got 1.5.",
    ]
    for line in expected:
        assert any(problem.startswith(line) for problem in found), line


def test_a_float_distribution_of_a_whole_number_is_refused_even_between_whole_bounds(tmp_path: Path) -> None:
    text = "search: {batch_size: {uniform: [8, 32]}, time_masks: {loguniform: [1, 3]}}"
    found = problems_of(tmp_path, text)
    assert found == [
        "search.batch_size: takes whole numbers, got uniform. Use randint.",
        "search.time_masks: takes whole numbers, got loguniform. Use lograndint.",
    ]
    assert space_of(tmp_path, "search: {weight_decay: {uniform: [0, 1]}}").dimensions


def test_what_is_right_in_a_section_is_checked_against_the_others_beside_what_is_wrong(tmp_path: Path) -> None:
    text = "{fixed: {epochs: 3}, search: {lr: {loguniform: [1.0e-4, 1.0e-2]}}, budget: {grace_epochs: 5, trials: 2.0}}"
    found = problems_of(tmp_path, text)
    assert [line.split(":")[0] for line in found] == ["budget.trials", "budget.grace_epochs"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            """
            search:
              schedule: {choice: [step, cosine]}
              step_size: {randint: [2, 5], when: {schedule: stepp}}
            """,
            "search.step_size.when.schedule: must be a value that schedule can take, got 'stepp'.",
        ),
        (
            """
            fixed: {schedule: cosine}
            search:
              step_size: {randint: [2, 5], when: {schedule: step}}
            """,
            "search.step_size.when.schedule: must be searched to be a condition, got 'cosine' under fixed.",
        ),
        (
            """
            search:
              ema: {choice: [0.0, 0.99], when: {mixup: 0.2}}
              mixup: {choice: [0.0, 0.2], when: {ema: 0.99}}
            """,
            "search.ema.when: must not come back to itself, got ema -> mixup -> ema.",
        ),
        (
            """
            fixed: {epochs: 5}
            search: {lr: {uniform: [0.1, 0.2]}}
            budget: {grace_epochs: 6}
            """,
            "budget.grace_epochs: must be at most the epochs of a trial (5), got 6.",
        ),
        ("fixed: {epochs: 5}", "search: must have a dimension, or baselines a recipe, got neither."),
        ("fixed: {train_on: all}\nbaselines: [tutorial-simple]", "fixed.train_on: a search needs clips to validate on"),
        ("search: [lr]", "search: must map fields to distributions, got ['lr']."),
        ("budget: 3", "budget: must hold keys and values, got 3."),
    ],
)
def test_a_space_that_cannot_be_searched_says_why(tmp_path: Path, text: str, words: str) -> None:
    assert any(problem.startswith(words) for problem in problems_of(tmp_path, text))


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (
            "{backbone: {choice: [resnet18, inception_v3]}, image_size: {choice: [64, 128]}}",
            "search.backbone: with backbone=inception_v3, image_size must be at least 75 px",
        ),
        (
            "{scale: {choice: [power, log]}, gain: {uniform: [0.0, 0.2]}}",
            "search.scale: with scale=log and gain=0.2, gain multiplies a power mel",
        ),
        (
            "{warmup_epochs: {randint: [0, 30]}}",
            "search.warmup_epochs: with warmup_epochs=29, warmup_epochs must be at most epochs (20)",
        ),
    ],
)
def test_values_that_do_not_go_together_are_found_before_anything_is_spent(
    tmp_path: Path, search: str, words: str
) -> None:
    (problem,) = problems_of(tmp_path, f"search: {search}")
    assert problem.startswith(words)


def test_a_condition_keeps_apart_what_does_not_go_together(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        "search: {scale: {choice: [power, log]}, gain: {uniform: [0.0, 0.2], when: {scale: power}}}",
    )
    for sample in samples(space):
        space.config(sample)


def test_flags_replace_what_the_file_says(tmp_path: Path) -> None:
    space = space_of(
        tmp_path, CONDITIONAL, trials=7, time_budget="1h30m", gpus_per_trial=0.5, cpus_per_trial=3, at_once=2, seed=9,
        data="x",
    )  # fmt: skip
    assert (space.budget.trials, space.budget.time) == (7, 5400)
    assert (space.resources.gpu, space.resources.cpu, space.resources.at_once) == (0.5, 3, 2)
    assert (space.searcher.seed, space.fixed["seed"], space.fixed["data"]) == (9, 9, "x")


def test_a_share_of_gpus_is_one_of_one_gpu(tmp_path: Path) -> None:
    assert space_of(tmp_path, CONDITIONAL, gpus_per_trial=2).resources.gpu == 2
    assert problems_of(tmp_path, CONDITIONAL + "    resources: {gpu: 1.5}\n") == [
        "resources.gpu: must be a whole number above 1, or a fraction of one GPU, got 1.5. Change the value."
    ]
    with pytest.raises(InputError, match=r"--gpus-per-trial: must be a whole number above 1, or a fraction of one GPU"):
        space_of(tmp_path, CONDITIONAL, gpus_per_trial=1.5)


CHAIN = """
    fixed: {epochs: 10, weights: none}
    search:
      lr: {loguniform: [1.0e-4, 1.0e-2]}
      time_masks: {choice: [0, 1, 2]}
      time_mask: {uniform: [0.1, 0.2], when: {time_masks: [1, 2]}}
      roll: {choice: [0.0, 0.5], when: {time_masks: 0, mixup: 0.2}}
      mixup: {choice: [0.0, 0.2]}
      gain_db: {uniform: [0, 6], when: {roll: 0.5}}
"""


def test_a_setting_on_the_command_line_counts_as_if_it_stood_under_fixed(tmp_path: Path) -> None:
    space = space_of(tmp_path, CHAIN, settings=["epochs=7", "lr=1e-3", "split=grouped", "crop_seconds=null"])
    assert (space.fixed["epochs"], space.fixed["lr"], space.fixed["split"]) == (7, 1e-3, "grouped")
    assert "lr" not in space.dimensions
    assert space.default_config().crop_seconds is None


def test_a_setting_reaches_the_baselines_that_name_its_field(tmp_path: Path) -> None:
    text = CHAIN + "    baselines: [tutorial-simple, {name: small, recipe: tutorial-simple, image_size: 128}]"
    space = space_of(tmp_path, text, settings=["image_size=64"])
    assert [baseline.values["image_size"] for baseline in space.baselines] == [224, 64]
    assert space.default_config().image_size == 64


@pytest.mark.parametrize(
    ("masks", "left"),
    [(0, {"lr", "roll", "mixup", "gain_db"}), (1, {"lr", "time_mask", "mixup"})],
)
def test_what_hangs_on_a_setting_follows_it(tmp_path: Path, masks: int, left: set[str]) -> None:
    space = space_of(tmp_path, CHAIN, settings=[f"time_masks={masks}"])
    assert set(space.dimensions) == left
    parents = {parent for dimension in space.dimensions.values() for parent, _ in dimension.when}
    assert parents <= left


def test_a_setting_takes_from_a_baseline_what_has_no_meaning_beside_it(tmp_path: Path) -> None:
    text = """
        search: {schedule: {choice: [cosine, step]}, step_size: {randint: [5, 15], when: {schedule: step}}}
        baselines: [{name: mine, schedule: step, step_size: 8}, {name: strong, recipe: tutorial-strong, step_size: 7}]
    """
    baseline, strong = space_of(tmp_path, text, settings=["schedule=cosine"]).baselines
    assert (strong.values["schedule"], strong.values["step_size"]) == ("step", 7)
    assert baseline.values["schedule"] == "cosine"
    assert baseline.values["step_size"] == TrialConfig().step_size
    assert baseline.params == {}


def test_wrong_settings_say_what_to_write(tmp_path: Path) -> None:
    assert problems_of(tmp_path, CHAIN, settings=["lr", "learning_rate=1", "mixup=[", "epochs=many"]) == [
        "--set: must be FIELD=VALUE, got 'lr'. Write for example --set epochs=20.",
        "--set: unknown field 'learning_rate', got 'learning_rate=1'. Did you mean lr?",
        "--set: mixup: must be a YAML value (expected the node content, but found '<stream end>'), got '['. Mend it.",
        "fixed.epochs: should be a valid integer, got 'many'. Change the value.",
    ]


def test_another_horizon_takes_along_everything_that_is_counted_in_epochs(tmp_path: Path) -> None:
    text = """
        fixed: {epochs: 40, weights: none}
        search:
          warmup_epochs: {choice: [0, 8]}
          lr: {loguniform: [1e-4, 1e-2]}
        baselines: [tutorial-strong]
        budget: {grace_epochs: 10}
    """
    space = space_of(tmp_path, text, epochs=4)
    config = space.config({"warmup_epochs": 8, "lr": 1e-3})
    assert (config.epochs, config.warmup_epochs) == (4, 1)
    assert space.config({"warmup_epochs": 0, "lr": 1e-3}).warmup_epochs == 0
    assert space.budget.grace_epochs == 1
    strong = space.baselines[0].values
    assert (strong["epochs"], strong["warmup_epochs"], strong["step_size"]) == (4, 1, 1)


def test_the_horizon_cannot_be_set_where_it_is_searched(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, "search: {epochs: {choice: [5, 10]}}", epochs=4)
    assert problems == ["--epochs: cannot be set where epochs is searched, got 4. Leave it out."]


def test_data_is_put_in_for_the_baselines_too(tmp_path: Path) -> None:
    space = space_of(tmp_path, CONDITIONAL + "    baselines: [tutorial-simple]").with_fixed(data="/clips")
    assert space.default_config().data == "/clips"
    assert space.baselines[0].values["data"] == "/clips"


def test_every_wish_for_weights_counts(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """
        search: {backbone: {choice: [resnet18, resnet34]}, weights: {choice: [none, auto]}}
        baselines: [tutorial-simple]
        """,
    )
    searched = [(name, wish) for name in ("resnet18", "resnet34") for wish in ("none", "auto")]
    assert space.weights_by_backbone() == (("resnet18", "imagenet"), *searched)


def test_a_field_with_a_condition_has_its_fixed_value_elsewhere(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """
        fixed: {weights: auto, lr: 1.0e-4}
        search:
          backbone: {choice: [resnet18, resnet34]}
          weights: {choice: [auto, none], when: {backbone: resnet18}}
          method: {choice: [train, probe]}
          lr: {loguniform: [1.0e-3, 1.0e-2], when: {method: train}}
        """,
    )
    assert space.weights_by_backbone() == (("resnet18", "auto"), ("resnet18", "none"), ("resnet34", "auto"))
    config = space.config({"backbone": "resnet34", "method": "probe"})
    assert (config.weights, config.lr) == ("auto", 1e-4)
    assert space.config({"backbone": "resnet18", "weights": "none", "method": "train", "lr": 0.005}).weights == "none"


def test_the_size_of_a_space_is_known_where_it_ends(tmp_path: Path) -> None:
    assert space_of(tmp_path, "search: {mixup: {choice: [0.0, 0.2]}, n_mels: {qrandint: [32, 96, 32]}}").size == 6
    assert space_of(tmp_path, "search: {mixup: {choice: [0.0, 0.2]}, lr: {uniform: [0.1, 0.2]}}").size is None
    assert space_of(tmp_path, "baselines: [tutorial-simple]").size == 0


@pytest.mark.slow
def test_conditions_count_in_the_size_of_a_space_and_in_the_trials_of_its_search(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """
        search:
          mixup: {choice: [0.0, 0.2]}
          schedule: {choice: [constant, step, cosine]}
          step_size: {randint: [2, 5], when: {schedule: step}}
          gamma: {choice: [0.1, 0.5], when: {step_size: [3, 4]}}
        baselines: [tutorial-simple, {name: mine, mixup: 0.0, schedule: cosine}]
        budget: {trials: 50}
        """,
    )
    assert space.size == 2 * (2 + 1 + 2 * 2)
    assert len({frozenset(sample.items()) for sample in samples(space, 2000)}) == space.size
    assert space.trials == space.size  # both baselines are points of it
    assert space.with_budget(trials=5).trials == 5


def test_rungs_are_whole_epochs_below_the_horizon(tmp_path: Path) -> None:
    text = "fixed: {epochs: 20}\nsearch: {lr: {uniform: [0.1, 0.2]}}\nbudget: {grace_epochs: 2, reduction_factor: 2.5}"
    assert space_of(tmp_path, text).rungs == (2, 5, 13)
    assert space_of(tmp_path, text + "\nscheduler: none").rungs == ()


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text("")
    with pytest.raises(InputError, match=r"quikc.yaml: no such file. Did you mean .*quick.yaml"):
        load_space(tmp_path / "quikc.yaml")


def test_a_grace_period_that_nobody_asked_for_is_no_longer_than_a_trial(tmp_path: Path) -> None:
    assert space_of(tmp_path, "fixed: {epochs: 2}\nsearch: {lr: {uniform: [0.1, 0.2]}}").budget.grace_epochs == 2


def test_a_space_of_another_version_says_what_it_does_not_know(tmp_path: Path) -> None:
    values = space_of(tmp_path, CONDITIONAL).to_json()
    with pytest.raises(InputError, match=r"search.old_knob: unknown key"):
        Space.from_json({**values, "search": {**values["search"], "old_knob": {"choice": [1]}}})


def test_a_space_of_probes_is_one_epoch_deep_whatever_the_flags_say(tmp_path: Path) -> None:
    text = (
        "fixed: {method: probe, backbone: mn04, weights: none, epochs: 12}\nsearch: {probe_c: {choice: [0.1, 1.0]}}\n"
    )
    assert space_of(tmp_path, text).max_epochs == 1
    (tmp_path / "space.yaml").write_text(text)
    space = load_space(tmp_path / "space.yaml", epochs=5)
    assert (space.max_epochs, space.budget.grace_epochs, space.rungs) == (1, 1, ())
    assert space.default_config().epochs == 1
