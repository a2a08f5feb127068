"""`TrialConfig`: everything that decides one training run, and the only place where a default lives.

Named recipes from the literature, as configurations: what a search is compared with.

A recipe holds only what its source decides. Data, split and seed come from the search, so that a recipe is scored on
the same clips as everything else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainable.errors import InputError, did_you_mean

Share = float  # a fraction in [0, 1]


class TrialConfig(BaseModel):
    """One trial, flat and frozen. Build it with `parse`, which reports every problem at once.

    The defaults are the tutorial's simple recipe where it has an opinion, and "off" where it has none, so that a
    configuration says everything in which it differs from that recipe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # Data: what is learned and what is scored. Shared by all trials of a search, or they could not be compared.
    data: str = "demo"  # a folder of class folders, a CSV, or the built-in set
    split: Literal["auto", "stratified", "grouped", "folds", "given", "gtzan-filtered"] = "auto"  # as the data asks
    val_share: Share = Field(0.2, gt=0, lt=1)  # the tutorial's
    test_share: Share = Field(0.0, ge=0, lt=1)  # the tutorial has no test set; the shipped spaces set one
    split_seed: int = Field(42, ge=0)  # the tutorial's
    n_folds: int = Field(5, ge=2)  # five folds leave 80% to learn from, as the tutorial does
    fold: int = Field(1, ge=1)  # which fold is held out; the next one validates
    # What retraining learns from. Where it is more than train, no validation clips are left: every epoch is trained and
    # the last one kept. other-folds: all clips out of `fold`, whatever the split; all: for a model to hand over.
    train_on: Literal["train", "train+val", "other-folds", "all"] = "train"

    # Front end: waveform to mel. The tutorial's numbers, for 22,050 Hz.
    sample_rate: int | None = Field(None, ge=1000, le=384_000)  # Hz; None: the data set's most common rate
    scale: Literal["power", "log", "db", "pcen"] = "power"  # the tutorial's; every strong recipe uses log or dB
    n_mels: int = Field(128, ge=8, le=512)
    n_fft: int = Field(2048, ge=32, le=32_768)  # samples
    window_ms: float | None = Field(None, gt=0, le=1000)  # milliseconds; replaces n_fft by the nearest power of two
    hop_length: int = Field(640, ge=1)  # samples
    hop_ms: float | None = Field(None, gt=0)  # milliseconds; replaces hop_length where given
    f_min: float = Field(0.0, ge=0)  # Hz
    f_max: float | None = Field(None, gt=0)  # Hz; None: half the rate
    normalise: Literal["none", "clip", "train"] = "none"  # none: the tutorial's; train: fitted on training clips only
    channels: Literal["repeat", "deltas", "windows"] = "repeat"  # windows: n_fft, its half and its quarter

    # Clips: how much of one the network sees at once.
    crop_seconds: float | None = Field(None, gt=0)  # s; None: the whole clip, as the tutorial
    train_crops: int = Field(1, ge=1, le=64)  # crops drawn of each clip in an epoch; few long clips want several
    eval_crops: int = Field(8, ge=1, le=64)  # at most so many evenly spaced crops are averaged per clip
    padding: Literal["zero", "repeat", "reflect"] = "zero"  # for clips shorter than the crop or the window
    image_size: int = Field(224, ge=16, le=1024)  # px, square; what ImageNet models were trained on

    # Augmentation, on the batch, each clip drawn for itself; 0 is off.
    time_masks: int = Field(0, ge=0, le=8)
    time_mask: float = Field(20, gt=0)  # largest width: frames from 1 up, a share of the frames below 1
    freq_masks: int = Field(0, ge=0, le=8)
    freq_mask: float = Field(20, gt=0)  # largest width: mel rows from 1 up, a share of the rows below 1
    roll: Share = Field(0.0, ge=0, le=1)  # largest shift in time, a share of the frames, wrapping round
    noise: float = Field(0.0, ge=0)  # standard deviation of gaussian noise, in units of the (normalised) mel
    noise_p: Share = Field(0.5, ge=0, le=1)  # share of clips that get it: the tutorial's
    gain: float = Field(0.0, ge=0, lt=1)  # the mel times U(1 - gain, 1 + gain), as the tutorial on its power mel
    gain_db: float = Field(0.0, ge=0, le=30)  # a level change by U(-gain_db, gain_db) dB, right for every scale
    gain_p: Share = Field(0.5, ge=0, le=1)  # share of clips that get gain or gain_db: the tutorial's
    mixup: float = Field(0.0, ge=0)  # alpha of the Beta that mixes two clips
    cutmix: float = Field(0.0, ge=0)  # alpha; with mixup too, each batch draws one of the two
    random_resized_crop: Share = Field(0.0, ge=0, lt=1)  # the crop's area is U(1 - value, 1) of the mel

    # Backbone.
    backbone: str = "resnet18"  # any torchvision classification model by its own name
    weights: Literal["imagenet", "auto", "none"] = "imagenet"  # the tutorial's; auto: what can be had
    dropout: Share = Field(0.0, ge=0, lt=1)  # before the new head
    freeze_stages: int = Field(0, ge=0)  # so many of the first stages keep their weights
    head_lr_multiple: float = Field(1.0, gt=0)  # the new head learns this much faster than the rest

    # Optimisation: the tutorial's Adam at 1e-4, batch 16.
    epochs: int = Field(20, ge=1)  # the schedule's horizon, wherever a scheduler cuts
    batch_size: int = Field(16, ge=2)  # batch norm cannot be trained on a single clip
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(1e-4, gt=0)
    momentum: Share = Field(0.9, ge=0, lt=1)  # sgd only, where 0.9 is everybody's
    weight_decay: float = Field(0.0, ge=0)  # never on norms and biases
    warmup_epochs: int = Field(0, ge=0)
    warmup: Literal["staircase", "linear"] = "staircase"  # the tutorial's, by the epoch; linear: by the step
    schedule: Literal["constant", "step", "cosine"] = "constant"
    step_size: int = Field(10, ge=1)  # epochs; the tutorial's StepLR(10, 0.1)
    gamma: float = Field(0.1, gt=0, le=1)
    label_smoothing: Share = Field(0.0, ge=0, lt=1)
    class_balanced: bool = False  # weighs each class by the inverse of its training clips
    grad_clip: float = Field(0.0, ge=0)  # largest gradient norm
    ema: float = Field(0.0, ge=0, lt=1)  # decay of the averaged weights that are scored and kept
    patience: int = Field(0, ge=0)  # epochs without a better validation accuracy before stopping

    # Machine. None of these is meant to change what is learned.
    seed: int = Field(42, ge=0)
    device: str = "auto"  # auto: a GPU where there is one
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: what is fast on this device
    channels_last: bool = True  # convolutions are faster so, on CPU and GPU alike
    compile: bool = False  # minutes of compilation before it pays

    @classmethod
    def validated(cls, values: Mapping[str, Any]) -> tuple[TrialConfig | None, list[str]]:
        """The configuration, None where a value is none of its field's, and the problems as `KEY: rule, got VALUE.`"""
        problems = _unknown_keys(values)
        known = {key: value for key, value in values.items() if key in cls.model_fields}
        try:
            config = cls.model_validate(known)
        except ValidationError as error:
            return None, problems + describe(error)
        return config, problems + _conflicts(config)

    @classmethod
    def parse(cls, values: Mapping[str, Any], source: str = "configuration") -> TrialConfig:
        """A checked configuration; `trainable.training.network.checked_config` looks at its backbone too.

        Raises:
            InputError: with every problem of `values`, each line starting with `source`.
        """
        config, problems = cls.validated(values)
        if config is None or problems:
            raise InputError([f"{source}: {line}" for line in problems])
        return config

    @property
    def drawn_crops(self) -> int:
        """How often an epoch draws each training clip; whole clips are seen once."""
        return self.train_crops if self.crop_seconds else 1

    @property
    def scored_crops(self) -> int:
        """How many windows of a clip are averaged at most; whole clips are seen once."""
        return self.eval_crops if self.crop_seconds else 1

    def to_json(self) -> dict[str, Any]:
        """Plain values that `parse` turns back into an equal configuration."""
        return self.model_dump(mode="json")


FIELDS: tuple[str, ...] = tuple(TrialConfig.model_fields)
# Fields that must be the same for all trials of a search, because they decide which clips are learned and scored.
SHARED_FIELDS: tuple[str, ...] = (
    "data", "split", "val_share", "test_share", "split_seed", "n_folds", "fold", "train_on",
)  # fmt: skip
_DEVICE = r"auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?"  # torch counts devices in a byte and takes 255 for "any"


def describe(error: ValidationError) -> list[str]:
    """Pydantic's complaints as `KEY: rule, got VALUE. What to do.`, one line each."""
    lines: dict[str, str] = {}
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"] if not str(part).startswith(("function-", "constrained-")))
        rule = item["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
        rule = rule[0].lower() + rule[1:]
        lines.setdefault(key, f"{key}: {rule}, got {item['input']!r}. Change the value.")
    return list(lines.values())


def _unknown_keys(values: Mapping[str, Any]) -> list[str]:
    unknown = [key for key in values if key not in TrialConfig.model_fields]
    return [f"{key}: unknown key, got {values[key]!r}. {did_you_mean(key, FIELDS)}" for key in unknown]


def _conflicts(config: TrialConfig) -> list[str]:
    """The rules that take more than one field; what a backbone takes, `trainable.backbones` knows."""
    problems = []
    if config.val_share + config.test_share >= 1:
        total = config.val_share + config.test_share
        problems.append(f"val_share: with test_share must stay below 1, got {total:g}. Leave clips to learn from.")
    if config.fold > config.n_folds:
        problems.append(
            f"fold: must be at most n_folds ({config.n_folds}), got {config.fold}. Lower it, or raise n_folds."
        )
    if config.warmup_epochs > config.epochs:
        problems.append(
            f"warmup_epochs: must be at most epochs ({config.epochs}), got {config.warmup_epochs}. Lower it."
        )
    nyquist = config.sample_rate / 2 if config.sample_rate else math.inf
    if config.f_max is not None and config.f_max > nyquist:
        problems.append(
            f"f_max: must be at most half the sample rate ({nyquist:g} Hz), got {config.f_max:g}. Lower it or omit it."
        )
    top = config.f_max if config.f_max is not None else nyquist
    if config.f_min >= top:
        problems.append(f"f_min: must be below f_max ({top:g} Hz), got {config.f_min:g}. Lower it.")
    if config.scale != "power" and config.gain:
        problems.append(
            f"gain: multiplies a power mel, but scale is {config.scale}, got {config.gain:g}. Use gain_db instead."
        )
    if not re.fullmatch(_DEVICE, config.device):
        problems.append(f"device: must be auto, cpu, cuda, cuda:N or mps, got {config.device!r}. Name one of them.")

    return problems


_TUTORIAL: dict[str, Any] = {
    "sample_rate": None, "scale": "power", "n_mels": 128, "n_fft": 2048, "window_ms": None, "hop_length": 640,
    "hop_ms": None, "f_min": 0.0, "f_max": None, "normalise": "none", "channels": "repeat", "crop_seconds": None,
    "weights": "imagenet", "optimizer": "adam", "lr": 1e-4, "batch_size": 16, "weight_decay": 0.0,
}  # fmt: skip
_SIMPLE: dict[str, Any] = {**_TUTORIAL, "backbone": "resnet18", "image_size": 224, "epochs": 20, "schedule": "constant"}
_STRONG: dict[str, Any] = {
    **_TUTORIAL, "backbone": "resnext101_32x8d", "image_size": 512, "epochs": 30,
    "time_masks": 1, "time_mask": 20, "freq_masks": 1, "freq_mask": 20,
    "noise": 0.01, "noise_p": 0.5, "gain": 0.2, "gain_p": 0.5,
    "warmup_epochs": 5, "warmup": "staircase", "schedule": "step", "step_size": 10, "gamma": 0.1,
}  # fmt: skip
_LOG: dict[str, Any] = {"scale": "log", "normalise": "train"}
# Source: Palanisamy, Singhania, Yao: Rethinking CNN Models for Audio Classification, 2020 (arXiv:2007.11154), and the
# GTZAN configuration of their code. Theirs differs where this project has no knob for it: each of the three windows
# (25, 50, 100 ms) has a hop of its own (10, 25, 50 ms) where ours share the shortest; the picture is 128 x 1500 px,
# ours a square of about as many; every clip comes a second time per epoch, shifted in pitch and stretched in time;
# weight decay acts on norms and biases too; the last 20 files of each genre validate.
_PALANISAMY: dict[str, Any] = {
    "sample_rate": 22_050, "scale": "log", "n_mels": 128, "n_fft": 2205, "window_ms": None, "hop_ms": 10.0,
    "f_min": 0.0, "f_max": None,
    "normalise": "none", "channels": "windows", "crop_seconds": None, "image_size": 448,
    "backbone": "densenet201", "weights": "imagenet", "optimizer": "adam", "lr": 1e-4, "weight_decay": 1e-3,
    "batch_size": 32, "epochs": 70, "schedule": "step", "step_size": 30, "gamma": 0.1,
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    # The tutorial as it stands: 71.5% and 87.5% on GTZAN, 80/20 per class, best epoch of the scored clips.
    "tutorial-simple": _SIMPLE,
    "tutorial-strong": _STRONG,
    # The same with the one change that all strong recipes share. A gain of 0.8 to 1.2 is about 1 dB either way.
    "tutorial-simple-log": {**_SIMPLE, **_LOG},
    "tutorial-strong-log": {**_STRONG, **_LOG, "gain": 0.0, "gain_db": 1.0},
    "palanisamy-2020": _PALANISAMY,
}
