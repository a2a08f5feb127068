"""timm's models, `timm:NAME`, where the optional package is installed: their sizes and weights as timm states them.

Published weights come from the Hugging Face hub. Only random weights have been tried here, without a network.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from torch import nn

from trainable.backbones.record import Backbone, Weights
from trainable.errors import InputError, did_you_mean

PREFIX = "timm:"
NAMES: tuple[str, ...] = ()  # well over a thousand, and only there with timm: not listed unless asked for


@lru_cache
def find(name: str) -> Backbone | None:
    """The record of `timm:NAME`, None where the name is not of that form.

    Raises:
        InputError: timm is not installed, or has no such model.
    """
    if not name.startswith(PREFIX):
        return None
    if find_spec("timm") is None:
        raise InputError(
            f"backbone: needs the package timm, which is not installed, got {name!r}. "
            "Install it: pip install -e '.[timm]'"
        )
    import timm

    own = name.removeprefix(PREFIX)
    if not timm.is_model(own):
        known = tuple(PREFIX + other for other in timm.list_models())
        raise InputError(f"backbone: must be one of timm's models, got {name!r}. {did_you_mean(name, known)}")
    expects = timm.get_pretrained_cfg(own)
    side = int((expects.input_size if expects else (3, 224, 224))[1])
    fixed = bool(expects and expects.fixed_input_size)
    least = expects.min_input_size[1] if expects and expects.min_input_size else 1
    return Backbone(
        name,
        f"timm's {own}",
        lambda classes, channels, side, initialise: _make(own, classes, channels),
        channels=(1, 3),
        weights=_weights(expects),
        # Networks that were taught with pictures whose numbers lie around 0 with a deviation of about 1.
        native={"image_size": side, "normalise": "train"},
        any_shape=not fixed,
        smallest=side if fixed else int(least),
        multiple=side if fixed else 1,
        size=(side, side),
    )


def search(pattern: str) -> tuple[str, ...]:
    """The names `timm:NAME` that hold `pattern`; none without timm."""
    if find_spec("timm") is None:
        return ()
    import timm

    return tuple(PREFIX + name for name in timm.list_models(f"*{pattern.removeprefix(PREFIX)}*"))


def _weights(expects: Any) -> tuple[Weights, ...]:
    """What timm's own place on the hub has; files of other people's, under other names, wait for timm to change them.

    A file of the hub is always called model.safetensors: in torch's cache it gets the name of its folder there.
    """
    if not expects or not str(expects.hf_hub_id).startswith("timm/") or expects.hf_hub_filename or expects.custom_load:
        return ()
    url = f"https://huggingface.co/{expects.hf_hub_id}/resolve/main/model.safetensors"
    kind = "audioset" if "audioset" in str(expects.tag) else "imagenet"
    name = f"timm-{expects.hf_hub_id.removeprefix('timm/')}.safetensors"
    return (Weights(kind, url, str(expects.license or "unknown"), name=name),)


def _make(own: str, classes: int, channels: int) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(own, pretrained=False, num_classes=classes, in_chans=channels)
    return model
