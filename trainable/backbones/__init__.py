"""The registry of backbones: names, sizes, cost, weights, and the network with a new head; plain arguments only."""

from __future__ import annotations

from torch import nn

from trainable.backbones.head import replace_head, stages
from trainable.backbones.torchvision import BACKBONES, check_backbone, operations, smallest_size, torchvision_model
from trainable.backbones.weights import fetch_weights, load_weights, weights_available, weights_file

__all__ = [
    "BACKBONES", "build_backbone", "check_backbone", "fetch_weights", "operations", "smallest_size",
    "weights_available", "weights_file",
]  # fmt: skip

# MobileNetV3 has 0.01 and MnasNet 0.0003, for the hundred thousands of steps of ImageNet. A training of a few hundred
# steps would be scored with the statistics it began with: at chance, however well it has learned.
_LEAST_MOMENTUM = 0.1


def build_backbone(
    name: str, classes: int, *, image_size: int, weights: str, dropout: float = 0.0, frozen_stages: int = 0
) -> nn.Module:
    """The network `name` on the CPU: images [b, 3, h, w] to logits [b, k].

    The classifier's last layer is replaced by one for `classes`, with `dropout` before it in addition to what the model
    has of its own; all other layers, the first convolution among them, are torchvision's. Batch statistics follow the
    batches at least as fast as torch's default. Nothing is ever downloaded: `weights="imagenet"` reads the file that
    `fetch_weights` has put into torch's cache, "auto" does so where it is there, "none" starts from random numbers.

    Legend: b clips, h = w = image_size, k classes.

    Raises:
        InputError: `weights="imagenet"`, and the file is not there or is not this model's.
    """
    pretrained = weights == "imagenet" or (weights == "auto" and weights_available(name))
    model = torchvision_model(name, image_size, initialise=not pretrained)
    if pretrained:
        load_weights(model, name, image_size)
    replace_head(model, classes, dropout)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, _LEAST_MOMENTUM)
    for part in stages(model)[:frozen_stages]:
        for parameter in part:
            parameter.requires_grad_(False)
    return model
