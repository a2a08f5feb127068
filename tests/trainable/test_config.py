from __future__ import annotations

from typing import Any

import pytest

from trainable.config import FIELDS, RECIPES, SHARED_FIELDS, TrialConfig
from trainable.errors import InputError
from trainable.training.network import checked_config

# A wrong value of each field, and what is said of it.
WRONG: dict[str, tuple[Any, str]] = {
    "data": (5, "should be a valid string"),
    "group_column": (5, "should be a valid string"),
    "split": (
        "random", "should be 'auto', 'stratified', 'grouped', 'folds', 'given' or 'gtzan-filtered'",
    ),
    "val_share": (0.0, "should be greater than 0"),
    "test_share": (1.0, "should be less than 1"),
    "split_seed": (-1, "should be greater than or equal to 0"),
    "n_folds": (1, "should be greater than or equal to 2"),
    "fold": (0, "should be greater than or equal to 1"),
    "val_fold": (0, "should be greater than or equal to 1"),
    "train_on": ("val", "should be 'train', 'train+val', 'other-folds' or 'all'"),
    "sample_rate": (999, "should be greater than or equal to 1000"),
    "scale": ("mel", "should be 'power', 'log', 'db' or 'pcen'"),
    "n_mels": (7, "should be greater than or equal to 8"),
    "n_fft": (16, "should be greater than or equal to 32"),
    "hop_length": (0, "should be greater than or equal to 1"),
    "window_ms": (0.0, "should be greater than 0"),
    "hop_ms": (0.0, "should be greater than 0"),
    "f_min": (-1.0, "should be greater than or equal to 0"),
    "f_max": (0.0, "should be greater than 0"),
    "win_ms": (0.0, "should be greater than 0"),
    "window": ("hann", "should be 'periodic' or 'symmetric'"),
    "mel_scale": ("bark", "should be 'htk', 'slaney' or 'kaldi'"),
    "pre_emphasis": (1.0, "should be less than 1"),
    "log_eps": (0.0, "should be greater than 0"),
    "fixed_mean": ("x", "should be a valid number"),
    "fixed_deviation": (0.0, "should be greater than 0"),
    "normalise": ("batch", "should be 'none', 'clip', 'train' or 'fixed'"),
    "channels": ("rgb", "should be 'repeat', 'one', 'deltas' or 'windows'"),
    "crop_seconds": (0.0, "should be greater than 0"),
    "train_crops": (0, "should be greater than or equal to 1"),
    "eval_crops": (65, "should be less than or equal to 64"),
    "padding": ("edge", "should be 'zero', 'repeat' or 'reflect'"),
    "image_size": (15, "should be greater than or equal to 16"),
    "time_masks": (9, "should be less than or equal to 8"),
    "time_mask": (0.0, "should be greater than 0"),
    "freq_masks": (-1, "should be greater than or equal to 0"),
    "freq_mask": (0.0, "should be greater than 0"),
    "roll": (1.1, "should be less than or equal to 1"),
    "noise": (-0.1, "should be greater than or equal to 0"),
    "noise_p": (1.5, "should be less than or equal to 1"),
    "gain": (1.0, "should be less than 1"),
    "gain_db": (31.0, "should be less than or equal to 30"),
    "gain_p": (-0.5, "should be greater than or equal to 0"),
    "mixup": (-0.2, "should be greater than or equal to 0"),
    "cutmix": (-1.0, "should be greater than or equal to 0"),
    "freq_shift": (1.0, "should be less than 1"),
    "freq_stretch": (1.0, "should be less than 1"),
    "tempo": (1.0, "should be less than 1"),
    "random_resized_crop": (1.0, "should be less than 1"),
    "backbone": ("resnet19", "must be the name of a network (torchvision's, mn01 to mn40, timm:NAME) or a "
                 "function of your own, file.py:make"),
    "weights": ("audioset", "audioset is not published for resnet18, which has imagenet"),
    "method": ("svm", "should be 'train' or 'probe'"),
    "probe_c": (0.0, "should be greater than 0"),
    "head_start": ("zero", "should be 'random' or 'probe'"),
    "batch_norm": ("off", "should be 'train' or 'frozen'"),
    "layer_decay": (0.0, "should be greater than 0"),
    "dropout": (1.0, "should be less than 1"),
    "freeze_stages": (-1, "should be greater than or equal to 0"),
    "head_lr_multiple": (0.0, "should be greater than 0"),
    "epochs": (0, "should be greater than or equal to 1"),
    "batch_size": (1, "should be greater than or equal to 2"),
    "optimizer": ("lion", "should be 'adam', 'adamw' or 'sgd'"),
    "lr": (0.0, "should be greater than 0"),
    "momentum": (1.0, "should be less than 1"),
    "weight_decay": (-0.001, "should be greater than or equal to 0"),
    "warmup_epochs": (-1, "should be greater than or equal to 0"),
    "warmup": ("exp", "should be 'staircase' or 'linear'"),
    "schedule": ("linear", "should be 'constant', 'step' or 'cosine'"),
    "step_size": (0, "should be greater than or equal to 1"),
    "gamma": (1.5, "should be less than or equal to 1"),
    "label_smoothing": (1.0, "should be less than 1"),
    "class_balanced": ("yes", "should be a valid boolean"),
    "grad_clip": (-1.0, "should be greater than or equal to 0"),
    "ema": (1.0, "should be less than 1"),
    "patience": (-1, "should be greater than or equal to 0"),
    "seed": (-1, "should be greater than or equal to 0"),
    "device": ("tpu", "must be auto, cpu, cuda, cuda:N or mps"),
    "precision": ("fp8", "should be 'auto', 'fp32', 'bf16' or 'fp16'"),
    "channels_last": (1, "should be a valid boolean"),
    "compile": ("yes", "should be a valid boolean"),
}  # fmt: skip


def problems(**values: Any) -> list[str]:
    """What is said of these values."""
    with pytest.raises(InputError) as caught:
        checked_config({"weights": "none", **values}, source="mine.yaml")
    return list(caught.value.problems)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_refuses_a_wrong_value_and_says_the_rule(field: str) -> None:
    value, rule = WRONG[field]
    (line,) = problems(**{field: value})
    assert line.startswith(f"mine.yaml: {field}: {rule}, got {value!r}. ")


def test_all_problems_come_at_once() -> None:
    lines = problems(lr=0.0, learning_rate=1e-3, epochs=0)
    assert [line.split(": ")[1] for line in lines] == ["learning_rate", "epochs", "lr"]
    assert lines[0] == "mine.yaml: learning_rate: unknown key, got 0.001. Did you mean lr?"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1e-4", True])
def test_a_number_must_be_one(value: Any) -> None:
    assert len(problems(lr=value)) == 1


@pytest.mark.parametrize("value", [20.0, True, "20"])
def test_a_whole_number_must_be_one(value: Any) -> None:
    assert problems(epochs=value) == [f"mine.yaml: epochs: should be a valid integer, got {value!r}. Change the value."]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"val_share": 0.6, "test_share": 0.4},
            "val_share: with test_share must stay below 1, got 1. Leave clips to learn from.",
        ),
        ({"fold": 6}, "fold: must be at most n_folds (5), got 6. Lower it, or raise n_folds."),
        ({"warmup_epochs": 21}, "warmup_epochs: must be at most epochs (20), got 21. Lower it."),
        (
            {"sample_rate": 16000, "f_max": 9000.0},
            "f_max: must be at most half the sample rate (8000 Hz), got 9000. Lower it or omit it.",
        ),
        ({"f_min": 8000.0, "f_max": 4000.0}, "f_min: must be below f_max (4000 Hz), got 8000. Lower it."),
        ({"sample_rate": 16000, "f_min": 8000.0}, "f_min: must be below f_max (8000 Hz), got 8000. Lower it."),
        (
            {"scale": "log", "gain": 0.2},
            "gain: multiplies a power mel, but scale is log, got 0.2. Use gain_db instead.",
        ),
        (
            {"backbone": "inception_v3", "image_size": 64},
            "image_size: must be at least 75 px for inception_v3, got 64. Raise it.",
        ),
    ],
)
def test_values_that_do_not_go_together_say_why(values: dict[str, Any], line: str) -> None:
    assert problems(**values) == [f"mine.yaml: {line}"]


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:7", "cuda:15", "mps"])
def test_a_device_may_be_named_by_its_number(name: str) -> None:
    assert TrialConfig.parse({"weights": "none", "device": name}).device == name


@pytest.mark.parametrize(
    "name",
    ["cuda:abc", "cuda:", "cuda:-1", "cuda:01", "cuda:255", "cuda:1:2", "cuda 1", "cuda:0\n", "cpu:0", "mps:1", ""],
)
def test_a_device_that_torch_could_not_read_is_refused(name: str) -> None:
    assert problems(device=name) == [
        f"mine.yaml: device: must be auto, cpu, cuda, cuda:N or mps, got {name!r}. Name one of them."
    ]


def test_the_defaults_are_the_simple_recipe_and_everything_else_is_off() -> None:
    assert TrialConfig.parse(RECIPES["tutorial-simple"]) == TrialConfig()
    off = ("time_masks", "freq_masks", "roll", "noise", "gain", "gain_db", "mixup", "cutmix", "random_resized_crop",
           "dropout", "freeze_stages", "label_smoothing", "grad_clip", "ema", "patience", "warmup_epochs")  # fmt: skip
    assert {getattr(TrialConfig(), field) for field in off} == {0}


def test_the_json_of_a_configuration_is_the_same_configuration() -> None:
    config = TrialConfig.parse({**RECIPES["tutorial-strong"], "crop_seconds": 3.0, "f_max": 8000.0})
    assert TrialConfig.parse(config.to_json()) == config
    assert list(config.to_json()) == list(FIELDS)


def test_all_shared_fields_are_fields() -> None:
    assert set(SHARED_FIELDS) <= set(FIELDS)
