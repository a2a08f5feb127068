"""What a configuration says of its network: whether it can be built, and the network itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from trainable.backbones import build_backbone, check_backbone
from trainable.config import TrialConfig
from trainable.errors import InputError


def checked_config(values: Mapping[str, Any], source: str = "configuration") -> TrialConfig:
    """The configuration of `values`, all of its rules checked: its own, and those of the backbone that it names.

    Raises:
        InputError: with every problem of `values`, each line starting with `source`.
    """
    config, problems = TrialConfig.validated(values)
    if config is not None:
        problems += check_backbone(config.backbone, config.image_size)
    if config is None or problems:
        raise InputError([f"{source}: {line}" for line in problems])
    return config


def build_network(config: TrialConfig, classes: int) -> nn.Module:
    """The network of `config` on the CPU: images [b, 3, h, w] to logits [b, k], for k `classes`.

    Raises:
        InputError: the weights that it asks for are not there, or are not this model's.
    """
    return build_backbone(
        config.backbone, classes, image_size=config.image_size, weights=config.weights, dropout=config.dropout,
        frozen_stages=config.freeze_stages,
    )  # fmt: skip
