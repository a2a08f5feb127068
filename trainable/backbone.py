"""torchvision's classification models as backbones: what they ask for, their ImageNet weights, their new head."""

from __future__ import annotations

from torchvision import models

from trainable.config import did_you_mean

# Smallest input side, px, by the start of the name; longer starts win. Everything else takes the smallest size that a
# configuration allows. A test runs every model once at its smallest size, so that an upgrade of torchvision that moves
# one is noticed.
_SMALLEST = {
    "alexnet": 63, "convnext": 32, "densenet": 29, "inception": 75, "squeezenet1_0": 21, "squeezenet1_1": 17, "vgg": 32,
}  # fmt: skip
# Sides must be a multiple of this, px: a vision transformer cuts whole patches, and MaxViT has windows of 7 at strides
# of 4 to 32.
_MULTIPLE = {"maxvit": 224, "vit_b_16": 16, "vit_b_32": 32, "vit_l_16": 16, "vit_l_32": 32, "vit_h_14": 14}

BACKBONES: tuple[str, ...] = tuple(models.list_models(module=models))


def smallest_size(name: str) -> int:
    """The smallest `image_size` that backbone `name` takes, px."""
    return max(16, _by_start(_SMALLEST, name, 16), _by_start(_MULTIPLE, name, 1))


def check_backbone(name: str, image_size: int) -> list[str]:
    """What is wrong with this backbone at this input size: lines that start with `backbone: ` or `image_size: `."""
    if name not in BACKBONES:
        hint = did_you_mean(name, BACKBONES)
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


def _by_start(table: dict[str, int], name: str, default: int) -> int:
    starts = [start for start in table if name.startswith(start)]
    return table[max(starts, key=len)] if starts else default
