"""torchvision's classification models: their names, what sizes they take, their cost and their ImageNet weights."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlparse

from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from trainable.backbones.head import replace_head
from trainable.backbones.record import Backbone, State, Weights

# Smallest input side, px, by the start of the name; everything else takes the smallest size that a configuration
# allows. A test runs every model once at its smallest size, so that an upgrade that moves one is noticed.
_SMALLEST = {
    "alexnet": 63, "convnext": 32, "densenet": 29, "inception": 75, "squeezenet1_0": 21, "squeezenet1_1": 17, "vgg": 32,
}  # fmt: skip
# Sides must be a multiple of this, px: a vision transformer cuts whole patches, and MaxViT has windows of 7 at strides
# of 4 to 32.
_MULTIPLE = {"maxvit": 224, "vit_b_16": 16, "vit_b_32": 32, "vit_l_16": 16, "vit_l_32": 32, "vit_h_14": 14}
_LEAST = 16  # px: what a configuration allows at least
NAMES: tuple[str, ...] = tuple(models.list_models(module=models))


@lru_cache
def find(name: str) -> Backbone | None:
    """The record of torchvision's model of that name, None where there is none."""
    if name not in NAMES:
        return None
    default: Any = models.get_model_weights(name).DEFAULT
    side = int(default.transforms.keywords["crop_size"])
    multiple = _by_start(_MULTIPLE, name, 1)
    smallest = -(-max(_LEAST, _by_start(_SMALLEST, name, _LEAST)) // multiple) * multiple
    return Backbone(
        name,
        f"torchvision's {name}",
        lambda classes, channels, side, initialise: _make(name, classes, side, initialise),
        weights=(_weights(name),),
        # Transformers that count their positions; Swin's windows wrap round any shape.
        any_shape=not name.startswith(("vit", "maxvit")),
        smallest=smallest,
        multiple=multiple,
        parameters=int(default.meta["num_params"]),
        operations=float(default.meta["_ops"]),
        size=(side, side),
        translate=lambda state, model, side: _translate(state, model, side),
    )


def _weights(name: str) -> Weights:
    """The ImageNet weights of a model.

    IMAGENET1K_V1 where there is one, whatever else exists: what the tutorial's `pretrained` means, the same on every
    machine, and V2's long recipe gains on ImageNet itself rather than on what is fine-tuned from it. Two models (RegNet
    Y-128GF, ViT-H/14) have no V1 and take torchvision's default.
    """
    known: dict[str, Any] = models.get_model_weights(name).__members__
    chosen = known.get("IMAGENET1K_V1") or known["DEFAULT"]
    licence = "CC BY-NC 4.0" if "swag" in chosen.url else "BSD-3-Clause"
    hashed = Path(urlparse(chosen.url).path).stem.rpartition("-")[
        2
    ]  # as torch.hub has it: its beginning is in the name
    size = round(float(chosen.meta["_file_size"]) * 2**20)
    return Weights("imagenet", str(chosen.url), licence, size, hashed)


def _make(name: str, classes: int, side: int | None, initialise: bool) -> nn.Module:
    options: dict[str, Any] = {"weights": None}
    if name in ("googlenet", "inception_v3"):
        # The auxiliary heads are a crutch for training from scratch in 2014, and they ask for larger images.
        options |= {"aux_logits": False, "init_weights": initialise}
    if name.startswith("vit"):
        options["image_size"] = side
    if name.startswith("maxvit"):
        options["input_size"] = (side, side)
    model: nn.Module = models.get_model(name, **options)
    replace_head(model, classes)
    return model


def _translate(state: State, model: nn.Module, side: int | None) -> State:
    """A published state as today's model wants it; a vision transformer's position embeddings fit its `side`."""
    # DenseNet's files predate the rule that a module's name has no dot.
    state = {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", key): state[key] for key in state}
    state = {key: value for key, value in state.items() if not key.lower().startswith("aux")}
    if isinstance(model, VisionTransformer) and side is not None:
        state = interpolate_embeddings(side, int(model.patch_size), cast("Any", state))
    return state


def _by_start(table: dict[str, int], name: str, default: int) -> int:
    return next((value for start, value in table.items() if name.startswith(start)), default)
