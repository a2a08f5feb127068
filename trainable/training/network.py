"""What a configuration says of its network: whether it can be built, and the network itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from trainable.backbones import build_backbone, check_backbone, native_values
from trainable.config import FIELDS, TrialConfig, facts_of
from trainable.errors import InputError

# What belongs to the weights: how the sound was shown to the network that learned from it.
_SHOWN = tuple(name for name in FIELDS if facts_of(name)["group"] == "front end" or name == "image_size")
# Two ways to say one thing: whoever says one of them has left nothing open.
_ALIKE = ({"n_fft", "window_ms"}, {"hop_length", "hop_ms"}, {"fixed_mean", "fixed_deviation", "normalise"})


def checked_config(values: Mapping[str, Any], source: str = "configuration") -> TrialConfig:
    """The configuration of `values`, all of its rules checked: its own, and those of the backbone that it names.

    What `values` leave open of the front end is as the backbone, or the model that its weights come from, was taught;
    the configuration then says it in full, so that nothing has to be looked up when it is read again.

    Raises:
        InputError: with every problem of `values`, each line starting with `source`.
    """
    config, problems = TrialConfig.validated({**_native(values), **values})
    if config is not None:
        rows = config.n_mels if config.image_size is None else None
        problems += check_backbone(config.backbone, config.image_size, config.input_channels, config.weights, rows)
    if config is None or problems:
        raise InputError([f"{source}: {line}" for line in problems])
    return config


def _native(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the fields that `values` leave open and the backbone's weights decide."""
    default = TrialConfig.model_fields
    name, weights = (values.get(field, default[field].default) for field in ("backbone", "weights"))
    if not isinstance(name, str) or not isinstance(weights, str):
        return {}  # which is told as a problem of its own
    said = set(values)
    for alike in _ALIKE:
        said |= alike if alike & said else set()
    return {key: value for key, value in native_values(name, weights).items() if key in _SHOWN and key not in said}


def build_network(config: TrialConfig, classes: int) -> nn.Module:
    """The network of `config` on the CPU: images [b, c, h, w] to logits [b, k], for k `classes`.

    Raises:
        InputError: the weights that it asks for are not there, or are not this model's.
    """
    return build_backbone(
        config.backbone, classes, image_size=config.image_size, channels=config.input_channels, weights=config.weights,
        dropout=config.dropout, frozen_stages=config.freeze_stages,
    )  # fmt: skip


@torch.no_grad()
def check_shape(config: TrialConfig, classes: int, frames: int) -> None:
    """Tries the network of `config` on two inputs of so many frames, as its mels will arrive.

    Raises:
        InputError: it does not take them, or gives something else than a logit per class.
    """
    rows, columns = input_shape(config, frames)
    images = torch.zeros(2, config.input_channels, rows, columns)
    with torch.random.fork_rng(devices=[]):
        model = build_network(config.model_copy(update={"weights": "none"}), classes).eval()
        try:
            answer = model(images)
        except Exception as error:  # somebody's own code
            raise InputError(
                f"backbone: {config.backbone} must take inputs of the shape {list(images.shape)} (clips, channels, "
                f"rows, frames), got {type(error).__name__}: {error}. Change the network, image_size or crop_seconds."
            ) from error
    shape = list(getattr(answer, "shape", []))
    if shape != [2, classes]:
        raise InputError(
            f"backbone: {config.backbone} must give logits [2, {classes}] for {list(images.shape)}, got "
            f"{shape or type(answer).__name__}. Change the network's last layer."
        )


def input_shape(config: TrialConfig, frames: int) -> tuple[int, int]:
    """Rows and columns of an input that shows so many frames."""
    return (config.n_mels, frames) if config.image_size is None else (config.image_size, config.image_size)


def input_in_words(config: TrialConfig) -> str:
    """The size of an input as a person says it."""
    return f"{config.n_mels} mel rows" if config.image_size is None else f"{config.image_size} px"
