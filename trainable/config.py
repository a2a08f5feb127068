"""`TrialConfig`: everything that decides one training run, and the only place where a default lives.

Named recipes from the literature, as configurations: what a search is compared with.

A recipe holds only what its source decides. Data, split and seed come from the search, so that a recipe is scored on
the same clips as everything else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from types import NoneType, UnionType
from typing import Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainable.errors import InputError, did_you_mean, shown

Share = float  # a fraction in [0, 1]
Group = Literal["data", "front end", "crops", "augmentation", "backbone", "optimisation", "machine"]


def _field(default: Any, meaning: str, group: Group, unit: str = "", *, mels: bool = False, acts_on: str = "",
           searched: bool = True, **limits: Any) -> Any:  # fmt: skip
    """A field that says everything about itself; whatever depends on a field follows from this.

    Args:
        default: what an empty configuration has; the reason stands in a comment.
        meaning: in the words of the field, for `fields`, the schema and the README.
        group: data is shared by all trials of a search, and machine is not meant to change what is learned.
        unit: what it is counted in. Epochs follow when `--epochs` changes the length of training.
        mels: whether another value makes other mels, so that those in the cache are of no use.
        acts_on: what an augmentation changes, where its value is not 0: frames, level, image or batch.
        searched: False where a search that varied it would compare what cannot be compared.
        limits: pydantic's, such as ge and lt.
    """
    facts: dict[str, Any] = {"group": group, "unit": unit, "mels": mels, "acts_on": acts_on, "searched": searched}
    return Field(default, description=meaning, json_schema_extra=facts, **limits)


_data = partial(_field, group="data", searched=False)
# What these two take for granted is slow where it is wrong, and safe: mels and images are made anew.
_front_end = partial(_field, group="front end", mels=True)
_crops = partial(_field, group="crops")
_augmentation = partial(_field, group="augmentation", acts_on="frames")
_backbone = partial(_field, group="backbone")
_optimisation = partial(_field, group="optimisation")
_machine = partial(_field, group="machine")


class TrialConfig(BaseModel):
    """One trial, flat and frozen. Build it with `parse`, which reports every problem at once.

    The defaults are the tutorial's simple recipe where it has an opinion, and "off" where it has none, so that a
    configuration says everything in which it differs from that recipe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # Data: what is learned and what is scored.
    data: str = _data("demo", "a folder of class folders, a CSV, or demo, the built-in set", max_length=4096)
    group_column: str | None = _data(
        None, "column of a CSV whose values keep clips in one part, such as a speaker; null: group, or the recording"
    )
    split: Literal["auto", "stratified", "grouped", "folds", "given", "gtzan-filtered"] = _data(
        "auto", "how clips are parted; auto: as the data asks"
    )
    val_share: Share = _data(0.2, "share of the clips that validate", gt=0, lt=1)  # the tutorial's
    # The tutorial has no test set; the shipped spaces set one.
    test_share: Share = _data(0.0, "share of the clips that are kept apart for the test", ge=0, lt=1)
    split_seed: int = _data(42, "which clips the shares take", ge=0)  # the tutorial's
    n_folds: int = _data(5, "folds of split: folds and grouped", ge=2)  # leaves 80% to learn from, as the tutorial does
    fold: int = _data(1, "which fold is held out; the next one validates", ge=1)
    val_fold: int = _data(1, "which fold of the clips that are not tested validates; 1: the split's own", ge=1)
    train_on: Literal["train", "train+val", "other-folds", "all"] = _data(
        "train",
        "what retraining learns from; more than train leaves no validation clips, so every epoch is trained and the "
        "last one kept. other-folds: all clips out of fold, whatever the split; all: for a model to hand over",
    )

    # Front end: waveform to mel. The tutorial's numbers, for 22,050 Hz.
    sample_rate: int | None = _front_end(
        None, "rate that audio is resampled to; null: the data set's most common one", unit="Hz",
        ge=1000, le=384_000,
    )  # fmt: skip
    scale: Literal["power", "log", "db", "pcen"] = _front_end(  # the tutorial's; every strong recipe uses log or dB
        "power", "scale of the mel; power is the tutorial's, log and db are what strong recipes use"
    )
    n_mels: int = _front_end(128, "rows of the mel", ge=8, le=512)
    n_fft: int = _front_end(2048, "length of the window and of the transform", unit="samples",
                            ge=32, le=32_768)  # fmt: skip
    window_ms: float | None = _front_end(None, "replaces n_fft by the nearest power of two", unit="ms", gt=0, le=1000)
    win_ms: float | None = _front_end(
        None, "length of the window where it is shorter than the transform, in whose middle it lies; null: n_fft",
        unit="ms", gt=0, le=1000,
    )  # fmt: skip
    window: Literal["periodic", "symmetric"] = _front_end(  # torchaudio's and librosa's
        "periodic", "the Hann window: periodic as most libraries have it, or symmetric with zeros at both ends"
    )
    hop_length: int = _front_end(640, "from one frame to the next", unit="samples", ge=1)
    hop_ms: float | None = _front_end(None, "replaces hop_length", unit="ms", gt=0)
    f_min: float = _front_end(0.0, "lowest frequency of the mel", unit="Hz", ge=0)
    f_max: float | None = _front_end(None, "highest frequency of the mel; null: half the rate", unit="Hz", gt=0)
    mel_scale: Literal["htk", "slaney", "kaldi"] = _front_end(  # torchaudio's default
        "htk", "where the rows lie and how their triangles run: straight in Hz (htk, slaney) or in mel (kaldi)"
    )
    pre_emphasis: Share = _front_end(
        0.0, "share of each sample that is subtracted from the next one; 0: none", ge=0, lt=1
    )  # fmt: skip
    log_eps: float = _front_end(  # -60 dB below a mel power of 1, quieter than 16-bit noise
        1e-6, "power that scale: log adds before the logarithm", gt=0, le=1
    )
    normalise: Literal["none", "clip", "train", "fixed"] = _front_end(  # none is the tutorial's
        "none",
        "whose mean and deviation are taken out of a mel: nobody's, the clip's, the training clips', or fixed_mean and "
        "fixed_deviation",
        mels=False,
    )
    fixed_mean: float = _front_end(0.0, "what normalise: fixed subtracts, in the mel's scale", mels=False)
    fixed_deviation: float = _front_end(1.0, "what normalise: fixed divides by", mels=False, gt=0)
    channels: Literal["repeat", "one", "deltas", "windows"] = _front_end(
        "repeat", "the mel three times, or once for networks that take one channel, or with its differences over time, "
        "or through windows of n_fft, its half and its quarter",
    )  # fmt: skip

    # Crops: how much of a clip the network sees at once.
    crop_seconds: float | None = _crops(  # the tutorial takes whole clips
        None, "length of the crops that are learned and scored; null: whole clips", unit="s", gt=0
    )
    train_crops: int = _crops(1, "crops drawn of each clip in an epoch; few long clips want several", ge=1, le=64)
    eval_crops: int = _crops(8, "evenly spaced crops that are averaged per clip, at most", ge=1, le=64)
    padding: Literal["zero", "repeat", "reflect"] = _crops(
        "zero", "what fills clips that are shorter than the crop or the window"
    )
    image_size: int | None = _crops(  # what ImageNet models were trained on
        224, "side of the square that a mel is averaged into; null: the mel as it is, rows by frames", unit="px",
        ge=16, le=1024,
    )  # fmt: skip

    # Augmentation, on the batch, each clip drawn for itself; 0 is off.
    time_masks: int = _augmentation(0, "stretches of time that are masked", ge=0, le=8)
    time_mask: float = _augmentation(
        20,
        "largest width of a time mask: frames from 1 up, a share of the frames below 1",
        unit="frames",
        gt=0,
        acts_on="",
    )
    freq_masks: int = _augmentation(0, "stretches of mel rows that are masked", ge=0, le=8)
    freq_mask: float = _augmentation(
        20,
        "largest width of a frequency mask: rows from 1 up, a share of the rows below 1",
        unit="rows",
        gt=0,
        acts_on="",
    )
    roll: Share = _augmentation(0.0, "largest shift in time, a share of the frames, wrapping round", ge=0, le=1)
    noise: float = _augmentation(0.0, "gaussian noise on the mel, in units of the mel's standard deviation", ge=0)
    noise_p: Share = _augmentation(0.5, "share of clips that get noise", ge=0, le=1, acts_on="")  # the tutorial's
    gain: float = _augmentation(
        0.0, "the mel times U(1 - gain, 1 + gain), as the tutorial does on its power mel", acts_on="level", ge=0, lt=1
    )
    gain_db: float = _augmentation(
        0.0, "a level change by U(-gain_db, gain_db), right for every scale", unit="dB", acts_on="level", ge=0, le=30
    )
    gain_p: Share = _augmentation(
        0.5, "share of clips that get gain or gain_db", ge=0, le=1, acts_on=""
    )  # the tutorial's
    mixup: float = _augmentation(0.0, "alpha of the Beta distribution that mixes two clips", acts_on="batch", ge=0)
    cutmix: float = _augmentation(
        0.0, "alpha of the Beta distribution of the pasted area; with mixup too, each batch draws one of the two",
        acts_on="batch", ge=0,
    )  # fmt: skip
    freq_shift: Share = _augmentation(
        0.0, "largest shift along the mel rows, up or down, a share of the rows", acts_on="image", ge=0, lt=1
    )
    freq_stretch: Share = _augmentation(
        0.0, "largest stretch of the mel rows from the lowest on: by a factor of up to 1 + value or its inverse",
        acts_on="image", ge=0, lt=1,
    )  # fmt: skip
    tempo: Share = _augmentation(
        0.0, "largest change of tempo, pitch kept: by a factor of up to 1 + value or its inverse", acts_on="image",
        ge=0, lt=1,
    )  # fmt: skip
    random_resized_crop: Share = _augmentation(
        0.0, "the area that is cropped and resized is U(1 - value, 1) of the mel", acts_on="image", ge=0, lt=1
    )

    # Backbone.
    backbone: str = _backbone(
        "resnet18", "the network, by its own name (run_search.py backbones lists them) or as file.py:function",
        max_length=500,
    )  # fmt: skip
    weights: str = _backbone(  # the tutorial's
        "imagenet",
        "what the network starts from: audioset, imagenet, none (random numbers), auto (the best for sound that can be "
        "had), or the path of a model's folder or of a file of weights",
        max_length=500,
    )
    method: Literal["train", "probe"] = _backbone(
        "train", "train the network, or probe it: a logistic regression on what its frozen last layer reads, in seconds"
    )
    probe_c: float = _backbone(  # flat from 0.01 to 1 on 100 clips of music
        0.1, "inverse strength of the regression's penalty, on features of unit deviation", gt=0
    )
    head_start: Literal["random", "probe"] = _backbone(
        "random", "what the new last layer begins with: random numbers, or the probe of the frozen network"
    )
    batch_norm: Literal["train", "frozen"] = _backbone(
        "train", "whether the statistics of batch norms follow the clips; a few dozen clips are better off frozen"
    )
    dropout: Share = _backbone(0.0, "dropout before the new head", ge=0, lt=1)
    freeze_stages: int = _backbone(0, "so many of the first stages keep their weights", ge=0)
    head_lr_multiple: float = _backbone(1.0, "how much faster the new head learns than the rest", gt=0)
    layer_decay: float = _backbone(
        1.0, "how much slower each stage learns than the one after it, counted from the head: a factor", gt=0, le=1
    )

    # Optimisation: the tutorial's Adam at 1e-4, batch 16.
    epochs: int = _optimisation(20, "length of the whole training, wherever a scheduler cuts", unit="epochs", ge=1)
    batch_size: int = _optimisation(  # batch norm cannot be trained on a single clip
        16, "clips, or crops, of a step", unit="clips", ge=2
    )
    optimizer: Literal["adam", "adamw", "sgd"] = _optimisation("adam", "adamw decays weights apart from the gradient")
    lr: float = _optimisation(1e-4, "highest learning rate", gt=0)
    momentum: Share = _optimisation(0.9, "momentum of sgd", ge=0, lt=1)  # 0.9 is everybody's
    weight_decay: float = _optimisation(0.0, "weight decay, never on norms and biases", ge=0)
    warmup_epochs: int = _optimisation(0, "epochs in which the rate grows", unit="epochs", ge=0)
    warmup: Literal["staircase", "linear"] = _optimisation(  # staircase is the tutorial's
        "staircase", "whether the rate grows by the epoch or by the step"
    )
    schedule: Literal["constant", "step", "cosine"] = _optimisation("constant", "how the rate falls after the warmup")
    step_size: int = _optimisation(  # the tutorial's StepLR(10, 0.1)
        10, "epochs between two falls of schedule: step", unit="epochs", ge=1
    )
    gamma: float = _optimisation(0.1, "factor of a fall of schedule: step", gt=0, le=1)
    label_smoothing: Share = _optimisation(0.0, "share of the target that all classes divide", ge=0, lt=1)
    class_balanced: bool = _optimisation(False, "weighs each class by the inverse of its training clips")
    grad_clip: float = _optimisation(0.0, "largest norm of the gradient; 0: any", ge=0)
    ema: float = _optimisation(
        0.0, "decay of the average of the weights that is scored and kept; 0: the weights themselves", ge=0, lt=1
    )
    patience: int = _optimisation(
        0, "epochs without a better validation accuracy before training stops; 0: never", unit="epochs", ge=0
    )

    # Machine. None of these is meant to change what is learned.
    seed: int = _machine(42, "start of all random numbers of the trial", searched=False, ge=0)
    device: str = _machine(
        "auto", "auto, cpu, cuda, cuda:N or mps; auto: a GPU where there is one", searched=False, max_length=20
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = _machine(
        "auto", "type of the products; auto: what is fast on the device"
    )
    # Convolutions are faster so, on CPU and GPU alike.
    channels_last: bool = _machine(True, "order of the numbers of an image in memory")
    compile: bool = _machine(False, "torch.compile, which takes minutes before it pays")

    @model_validator(mode="before")
    @classmethod
    def _probe_is_one_epoch(cls, values: Any) -> Any:
        """A probe is solved at once, whatever the trainings beside it take: here, so that everybody counts one."""
        if isinstance(values, Mapping) and values.get("method") == "probe":
            return {**values, "epochs": 1, "warmup_epochs": 0}
        return values

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
    def input_channels(self) -> int:
        """How many channels the network sees."""
        return 1 if self.channels == "one" else 3

    @property
    def scored_crops(self) -> int:
        """How many windows of a clip are averaged at most; whole clips are seen once."""
        return self.eval_crops if self.crop_seconds else 1

    def to_json(self) -> dict[str, Any]:
        """Plain values that `parse` turns back into an equal configuration."""
        return self.model_dump(mode="json")


FIELDS: tuple[str, ...] = tuple(TrialConfig.model_fields)


def facts_of(name: str) -> dict[str, Any]:
    """What a field says of itself beside its type, default and limits: see `_field`."""
    return cast("dict[str, Any]", TrialConfig.model_fields[name].json_schema_extra)


def range_of(name: str) -> str:
    """The values that a field takes, as one line: `adam | adamw | sgd`, `from 0 to below 1`, `above 0, or null`."""
    field = TrialConfig.model_fields[name]
    types = get_args(field.annotation) if isinstance(field.annotation, UnionType) else (field.annotation,)
    kind = types[0]
    if get_origin(kind) is Literal:
        text = " | ".join(get_args(kind))
    elif kind is bool:
        text = "true | false"
    elif kind is str:
        text = "text"
    else:
        words = {"ge": "from {:g}", "gt": "above {:g}", "le": "to {:g}", "lt": "to below {:g}"}
        limits = (word.format(getattr(limit, key)) for limit in field.metadata for key, word in words.items()
                  if hasattr(limit, key))  # fmt: skip
        text = " ".join(["whole" if kind is int else "", *limits]).strip() or "any number"
    return f"{text}, or null" if NoneType in types else text


def _those(fact: str, *values: Any) -> tuple[str, ...]:
    return tuple(name for name in FIELDS if facts_of(name)[fact] in values)


SHARED_FIELDS = _those("group", "data")  # decide which clips are learned and scored: the same for all trials
MACHINE_FIELDS = _those("group", "machine")
NOT_SEARCHED = _those("searched", False)  # the shared ones, luck, and the machine
COUNTED_IN_EPOCHS = tuple(name for name in _those("unit", "epochs") if name != "epochs")  # follow --epochs
MEL_FIELDS = _those("mels", True)
FRAME_AUGMENTATIONS = _those("acts_on", "frames")  # make a clip's image a new one each time


_DEVICE = r"auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?"  # torch counts devices in a byte and takes 255 for "any"


def describe(error: ValidationError) -> list[str]:
    """Pydantic's complaints as `KEY: rule, got VALUE. What to do.`, one line each."""
    lines: dict[str, str] = {}
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"] if not str(part).startswith(("function-", "constrained-")))
        rule = item["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
        rule = rule[0].lower() + rule[1:]
        lines.setdefault(key, f"{key}: {rule}, got {shown(item['input'])}. {_way_out(item['input'], item['type'])}")
    return list(lines.values())


def _way_out(value: Any, rule: str) -> str:
    """What to do about a value; YAML reads some words as others than people mean."""
    if isinstance(value, bool) and rule in ("literal_error", "string_type"):
        return "YAML reads yes, on, no and off as true and false: put the word into quotes."
    if isinstance(value, str) and value.lower() in ("none", "nil", "nan"):
        return "Write null where nothing is meant."
    return "Change the value."


def _unknown_keys(values: Mapping[str, Any]) -> list[str]:
    unknown = [key for key in values if key not in TrialConfig.model_fields]
    return [f"{key}: unknown key, got {shown(values[key])}. {did_you_mean(key, FIELDS)}" for key in unknown]


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
    n_fft_ms = None if config.sample_rate is None else 1000 * config.n_fft / config.sample_rate
    if config.win_ms and config.window_ms is None and n_fft_ms and config.win_ms > n_fft_ms:
        problems.append(f"win_ms: must be at most n_fft ({n_fft_ms:g} ms), got {config.win_ms:g}. Lower it or omit it.")
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
    "win_ms": None, "window": "periodic", "mel_scale": "htk", "pre_emphasis": 0.0, "method": "train",
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
    "f_min": 0.0, "f_max": None, "win_ms": None, "window": "periodic", "mel_scale": "htk", "pre_emphasis": 0.0,
    "method": "train", "normalise": "none", "channels": "windows", "crop_seconds": None, "image_size": 448,
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
