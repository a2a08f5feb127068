"""torchvision's classification models: their names, what sizes they take, and what they cost."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import nn
from torchvision import models

from trainable.errors import did_you_mean

# Smallest input side, px, by the start of the name; everything else takes the smallest size that a configuration
# allows. A test runs every model once at its smallest size, so that an upgrade that moves one is noticed.
_SMALLEST = {
    "alexnet": 63, "convnext": 32, "densenet": 29, "inception": 75, "squeezenet1_0": 21, "squeezenet1_1": 17, "vgg": 32,
}  # fmt: skip
# Sides must be a multiple of this, px: a vision transformer cuts whole patches, and MaxViT has windows of 7 at strides
# of 4 to 32.
_MULTIPLE = {"maxvit": 224, "vit_b_16": 16, "vit_b_32": 32, "vit_l_16": 16, "vit_l_32": 32, "vit_h_14": 14}
_LEAST = 16  # px: what a configuration allows at least
BACKBONES: tuple[str, ...] = tuple(models.list_models(module=models))


def smallest_size(name: str) -> int:
    """The smallest `image_size` that backbone `name` takes, px."""
    multiple = _by_start(_MULTIPLE, name, 1)
    return -(-max(_LEAST, _by_start(_SMALLEST, name, _LEAST)) // multiple) * multiple


def check_backbone(name: str, image_size: int) -> list[str]:
    """What is wrong with this backbone at this input size: lines that start with `backbone: ` or `image_size: `."""
    if name not in BACKBONES:
        by_cost = tuple(sorted(BACKBONES, key=lambda other: operations(other)[0]))
        hint = did_you_mean(name, by_cost, "python run_search.py backbones")
        return [f"backbone: must be a torchvision classification model by its own name, got {name!r}. {hint}"]
    smallest, multiple = smallest_size(name), _by_start(_MULTIPLE, name, 1)
    if image_size < smallest:
        return [f"image_size: must be at least {smallest} px for {name}, got {image_size}. Raise it."]
    if image_size % multiple:
        below = image_size // multiple * multiple
        return [
            f"image_size: must be a multiple of {multiple} px for {name}, got {image_size}. "
            f"Use {below} or {below + multiple}."
        ]
    return []


@lru_cache
def operations(name: str) -> tuple[float, int]:
    """10^9 operations of a backbone for one image, and that image's side in px, as torchvision states them."""
    weights: Any = models.get_model_weights(name).DEFAULT
    return float(weights.meta["_ops"]), int(weights.transforms.keywords["crop_size"])


def torchvision_model(name: str, image_size: int, initialise: bool) -> nn.Module:
    """torchvision's model with its 1000 classes; `initialise=False` spares the slow initialisation where it can."""
    options: dict[str, Any] = {"weights": None}
    if name in ("googlenet", "inception_v3"):
        # The auxiliary heads are a crutch for training from scratch in 2014, and they ask for larger images.
        options |= {"aux_logits": False, "init_weights": initialise}
    if name.startswith("vit"):
        options["image_size"] = image_size
    if name.startswith("maxvit"):
        options["input_size"] = (image_size, image_size)
    model: nn.Module = models.get_model(name, **options)
    return model


def _by_start(table: dict[str, int], name: str, default: int) -> int:
    return next((value for start, value in table.items() if name.startswith(start)), default)
