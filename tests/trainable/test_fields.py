"""Every field does something: another value changes the split, the mels, the batch, the network or the steps.

A feature that is added to the configuration and forgotten on the way to where it acts fails here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.sounds import scored
from trainable.config import FIELDS, MACHINE_FIELDS, MEL_FIELDS, SHARED_FIELDS, TrialConfig, facts_of, range_of
from trainable.data.dataset import Dataset, load_dataset
from trainable.data.split import Split, split_dataset
from trainable.features.inputs import Inputs
from trainable.features.mel_cache import mel_key, mels_of
from trainable.training.loop import train
from trainable.training.network import build_network
from trainable.training.trial_folder import EpochResult

SMALL: dict[str, Any] = {
    "backbone": "shufflenet_v2_x0_5", "weights": "none", "image_size": 32, "n_fft": 256, "hop_length": 64, "n_mels": 24,
    "split": "stratified", "epochs": 2, "batch_size": 4, "lr": 1e-3, "device": "cpu",
}  # fmt: skip

# For each field: another value, and what must be set beside it for either to mean anything.
OTHER: dict[str, tuple[Any, dict[str, Any]]] = {
    "split": ("folds", {}), "val_share": (0.4, {}), "test_share": (0.3, {}), "split_seed": (1, {}),
    "group_column": ("speaker", {"split": "grouped", "n_folds": 3}),
    "n_folds": (4, {"split": "folds"}), "fold": (2, {"split": "folds"}), "val_fold": (2, {}),
    "train_on": ("train+val", {}),
    "sample_rate": (4000, {}), "scale": ("log", {}), "n_mels": (16, {}), "n_fft": (128, {}), "window_ms": (16.0, {}),
    "hop_length": (32, {}), "hop_ms": (4.0, {}), "f_min": (100.0, {}), "f_max": (3000.0, {}),
    "win_ms": (16.0, {}), "window": ("symmetric", {}), "mel_scale": ("kaldi", {}), "pre_emphasis": (0.9, {}),
    "log_eps": (1e-3, {"scale": "log"}), "normalise": ("train", {}), "fixed_mean": (-4.5, {"normalise": "fixed"}),
    "fixed_deviation": (5.0, {"normalise": "fixed"}), "channels": ("windows", {}),
    "crop_seconds": (0.3, {}), "train_crops": (2, {"crop_seconds": 0.3}), "eval_crops": (2, {"crop_seconds": 0.2}),
    "padding": ("repeat", {"crop_seconds": 2.0}), "image_size": (48, {}),
    "time_masks": (1, {}), "time_mask": (60, {"time_masks": 2}), "freq_masks": (1, {}),
    "freq_mask": (0.9, {"freq_masks": 2}), "roll": (0.5, {}), "noise": (0.1, {}), "noise_p": (1.0, {"noise": 0.1}),
    "gain": (0.2, {"gain_p": 1.0}), "gain_db": (6.0, {"gain_p": 1.0}), "gain_p": (1.0, {"gain_db": 6.0}),
    "mixup": (0.4, {}), "cutmix": (0.4, {}), "random_resized_crop": (0.5, {}),
    "freq_shift": (0.2, {}), "freq_stretch": (0.2, {}), "tempo": (0.3, {}),
    "backbone": ("squeezenet1_1", {}), "weights": ("imagenet", {"backbone": "mobilenet_v2"}), "dropout": (0.3, {}),
    "freeze_stages": (1, {}), "head_lr_multiple": (5.0, {}),
    "method": ("probe", {}), "probe_c": (10.0, {"method": "probe"}), "head_start": ("probe", {}),
    "batch_norm": ("frozen", {}), "layer_decay": (0.5, {}),
    "epochs": (3, {"schedule": "cosine"}), "batch_size": (8, {}), "optimizer": ("sgd", {}), "lr": (1e-2, {}),
    "momentum": (0.5, {"optimizer": "sgd"}), "weight_decay": (0.5, {"optimizer": "adamw"}), "warmup_epochs": (2, {}),
    "warmup": ("linear", {"warmup_epochs": 2}), "schedule": ("cosine", {}), "step_size": (1, {"schedule": "step"}),
    "gamma": (0.5, {"schedule": "step", "step_size": 1}), "label_smoothing": (0.1, {}), "class_balanced": (True, {}),
    "grad_clip": (1e-3, {"optimizer": "sgd"}), "ema": (0.5, {}), "patience": (1, {"epochs": 4, "lr": 1e-9}),
}  # fmt: skip

# Fields of the backbone that act on how it learns.
IN_TRAINING = ("method", "probe_c", "head_start", "batch_norm", "head_lr_multiple", "layer_decay")


def config(data: Path, **values: Any) -> TrialConfig:
    """The small configuration with these values."""
    return TrialConfig.parse({**SMALL, "data": str(data), **values})


@pytest.fixture
def clips(make_clips: Callable[..., Path]) -> Path:
    """Two classes, of which one has half as many clips."""
    root = make_clips(classes=2, clips=12)
    for file in sorted((root / "class1").iterdir())[6:]:
        file.unlink()
    return root


def table_of(clips: Path) -> Path:
    """A CSV of the clips, which are parted by their group in one way and by their speaker in another."""
    rows = [
        f"{file},{file.parent.name},g{place % 3},s{place % 6 // 2}"
        for place, file in enumerate(sorted(clips.glob("*/*")))
    ]
    table = clips.parent / "clips.csv"
    table.write_text("\n".join(["path,label,group,speaker", *rows]))
    return table


def pair(name: str, clips: Path) -> tuple[TrialConfig, TrialConfig]:
    """Two configurations that differ in that field."""
    value, beside = OTHER[name]
    return config(clips, **beside), config(clips, **{**beside, name: value})


def of_group(*groups: str) -> list[str]:
    """The fields of these groups."""
    return [name for name in FIELDS if facts_of(name)["group"] in groups]


@pytest.mark.parametrize("name", [name for name in SHARED_FIELDS if name != "data"])
def test_a_field_of_the_data_changes_the_split(name: str, clips: Path) -> None:
    data = table_of(clips) if name == "group_column" else clips
    one, other = (split_dataset(load_dataset(each.data, None, each.group_column), each) for each in pair(name, data))
    assert one.hash != other.hash


@pytest.mark.slow
@pytest.mark.parametrize("name", of_group("front end", "crops", "augmentation"))
def test_a_field_on_the_way_to_the_network_changes_what_arrives(name: str, clips: Path) -> None:
    dataset = load_dataset(str(clips))
    one, other = pair(name, clips)
    assert (mel_key(dataset, one) != mel_key(dataset, other)) == (name in MEL_FIELDS)
    split = split_dataset(dataset, one)
    seen = [arriving(dataset, split, each) for each in (one, other)]
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(*seen, strict=True))


def arriving(dataset: Dataset, split: Split, settings: TrialConfig) -> tuple[torch.Tensor, ...]:
    """An epoch's learned images and targets, and the scored images."""
    inputs = Inputs(mels_of(dataset, settings), dataset, split, settings, torch.device("cpu"))
    train_clips = torch.as_tensor(split.train).repeat(settings.drawn_crops)
    images, targets = inputs.train_batch(train_clips, torch.Generator().manual_seed(3))
    return images, targets, scored(inputs, torch.as_tensor(split.val))[0]


@pytest.mark.parametrize("name", [name for name in of_group("backbone") if name not in ("weights", *IN_TRAINING)])
def test_a_field_of_the_backbone_changes_the_network(name: str, clips: Path) -> None:
    networks = [build_network(each, 2) for each in pair(name, clips)]
    one, other = ([(key, parameter.shape, parameter.requires_grad) for key, parameter in network.named_parameters()]
                  + [repr(network)] for network in networks)  # fmt: skip
    assert one != other


def test_weights_change_the_network(shared_data: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(shared_data / "weights"))
    one, other = (build_network(each, 2).state_dict() for each in pair("weights", clips))
    assert any(not torch.equal(one[key], other[key]) for key in one if "classifier" not in key)


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize("name", [*of_group("optimisation"), *IN_TRAINING])
def test_a_field_of_the_optimisation_changes_the_steps(name: str, clips: Path) -> None:
    one, other = pair(name, clips)
    assert trained(one) != trained(other)


@cache  # most fields share what the other value is compared with
def trained(settings: TrialConfig) -> list[EpochResult]:
    """All epochs of a training, without their times."""
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in train(settings)]


def test_every_field_is_tried_here_or_is_the_machines() -> None:
    assert set(OTHER) | set(MACHINE_FIELDS) | {"data"} == set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_a_meaning_a_group_and_a_range(name: str) -> None:
    meaning = TrialConfig.model_fields[name].description or ""
    assert 10 < len(meaning) < 240
    assert not meaning.endswith(".")
    assert range_of(name)
    assert facts_of(name)["group"]
