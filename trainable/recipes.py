"""Named recipes from the literature, as configurations: what a search is compared with.

A recipe holds only what its source decides. Data, split and seed come from the search, so that a recipe is scored on
the same clips as everything else.
"""

from __future__ import annotations

from typing import Any

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
