"""torchvision's classification models as backbones: what they ask for, their new head, their frozen stages."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from torch import nn
from torchvision import models

from trainable.config import TrialConfig, did_you_mean
from trainable.weights import fetch_weights, load_weights, weights_available, weights_file

__all__ = [
    "BACKBONES",
    "build_backbone",
    "check_backbone",
    "fetch_weights",
    "operations",
    "parameter_groups",
    "smallest_size",
    "stages",
    "train_mode",
    "weights_available",
    "weights_file",
]

# Smallest input side, px, by the start of the name; everything else takes the smallest size that a configuration
# allows. A test runs every model once at its smallest size, so that an upgrade that moves one is noticed.
_SMALLEST = {
    "alexnet": 63, "convnext": 32, "densenet": 29, "inception": 75, "squeezenet1_0": 21, "squeezenet1_1": 17, "vgg": 32,
}  # fmt: skip
# Sides must be a multiple of this, px: a vision transformer cuts whole patches, and MaxViT has windows of 7 at strides
# of 4 to 32.
_MULTIPLE = {"maxvit": 224, "vit_b_16": 16, "vit_b_32": 32, "vit_l_16": 16, "vit_l_32": 32, "vit_h_14": 14}
_LEAST = 16  # px: what a configuration allows at least
# MobileNetV3 has 0.01 and MnasNet 0.0003, for the hundred thousands of steps of ImageNet. A training of a few hundred
# steps would be scored with the statistics it began with: at chance, however well it has learned.
_LEAST_MOMENTUM = 0.1

BACKBONES: tuple[str, ...] = tuple(models.list_models(module=models))


def smallest_size(name: str) -> int:
    """The smallest `image_size` that backbone `name` takes, px."""
    multiple = _by_start(_MULTIPLE, name, 1)
    return -(-max(_LEAST, _by_start(_SMALLEST, name, _LEAST)) // multiple) * multiple


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


@lru_cache
def operations(name: str) -> tuple[float, int]:
    """10^9 operations of a backbone for one image, and that image's side in px, as torchvision states them."""
    weights: Any = models.get_model_weights(name).DEFAULT
    return float(weights.meta["_ops"]), int(weights.transforms.keywords["crop_size"])


def build_backbone(config: TrialConfig, classes: int) -> nn.Module:
    """The network of `config` on the CPU: images [b, 3, h, w] to logits [b, k].

    The classifier's last layer is replaced by one for `classes`, with `config.dropout` before it in addition to what
    the model has of its own; all other layers, the first convolution among them, are torchvision's. Batch statistics
    follow the batches at least as fast as torch's default. Nothing is ever downloaded: `weights: imagenet` reads the
    file that `fetch_weights` has put into torch's cache.

    Legend: b clips, h = w = image_size, k classes.

    Raises:
        InputError: `weights: imagenet`, and the file is not there or is not this model's.
    """
    pretrained = config.weights == "imagenet" or (config.weights == "auto" and weights_available(config.backbone))
    model = _torchvision_model(config.backbone, config.image_size, initialise=not pretrained)
    if pretrained:
        load_weights(model, config.backbone, config.image_size)
    _replace_head(model, classes, config.dropout)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, _LEAST_MOMENTUM)
    for part in stages(model)[: config.freeze_stages]:
        for parameter in part:
            parameter.requires_grad_(False)
    return model


def parameter_groups(model: nn.Module, config: TrialConfig) -> list[dict[str, Any]]:
    """Optimiser groups with `params`, `lr_multiple` and `weight_decay`; frozen parameters are in none of them.

    The head's learning rate is `head_lr_multiple` times the body's. Norms, biases and everything else that is a vector
    (layer scales, class tokens) get no weight decay: pulling them to zero regularises nothing.
    """
    head = {id(parameter) for parameter in _head(model)[1].parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        multiple = config.head_lr_multiple if id(parameter) in head else 1.0
        decay = 0.0 if parameter.squeeze().ndim <= 1 else config.weight_decay
        groups.setdefault((multiple, decay), []).append(parameter)
    return [
        {"params": params, "lr_multiple": multiple, "weight_decay": decay}
        for (multiple, decay), params in groups.items()
    ]


def train_mode(model: nn.Module) -> None:
    """Puts `model` into training mode, all but the batch norms of frozen stages, whose statistics stay as they are."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.weight.requires_grad:
            module.eval()


def stages(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of the stages that `freeze_stages` counts, from the input on, the head left out.

    A stage is one block of the model as torchvision divides it (`layer1`, `denseblock1`, `features.3`, ...). Single
    layers that stand side by side, such as a first convolution and its norm, are one stage; a pooling ends it.
    """
    head = {id(parameter) for parameter in _head(model)[1].parameters()}
    found: list[list[nn.Parameter]] = []
    open_stage = False
    for module in _blocks(model):
        parameters = [parameter for parameter in module.parameters() if id(parameter) not in head]
        single = not any(True for _ in module.children())
        if "Pool" in type(module).__name__:
            open_stage = False
        if not parameters:
            continue
        if single and open_stage:
            found[-1] += parameters
        else:
            found.append(parameters)
        open_stage = single
    known = head.union(*({id(parameter) for parameter in part} for part in found))
    # What belongs to no block, such as a class token, goes in at the beginning.
    found[0] += [parameter for parameter in model.parameters() if id(parameter) not in known]
    return found


def is_depthwise(model: nn.Module) -> bool:
    """Whether the model is built of depthwise convolutions with batch norms, as MobileNet and EfficientNet are.

    These wait for memory rather than for arithmetic. ConvNeXt and MaxViT have depthwise convolutions too, but spend
    their time in matrix products; their layer norms give them away.
    """
    depthwise = any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in model.modules())
    return depthwise and not any(isinstance(m, nn.LayerNorm) for m in model.modules())


def _torchvision_model(name: str, image_size: int, initialise: bool) -> nn.Module:
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


def _head(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Name and layer of the classifier's last layer: the last linear one, or SqueezeNet's last convolution."""
    layers = dict(model.named_modules())
    linear = [(name, layer) for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    # Squeeze-and-excitation and attention may use linear layers too, but never after the classifier.
    convolutions = [(name, layer) for name, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    return linear[-1] if linear else convolutions[-1]


def _replace_head(model: nn.Module, classes: int, dropout: float) -> None:
    name, old = _head(model)
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, classes, bias=old.bias is not None)
    else:
        new = nn.Conv2d(old.in_channels, classes, old.kernel_size)  # type: ignore[arg-type]
    if dropout:
        new = nn.Sequential(nn.Dropout(dropout), new)
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new)


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The model's blocks in the order of the data, with torchvision's wrappers around all of them taken off."""
    for name, child in model.named_children():
        if name in ("features", "trunk_output", "layers", "blocks", "encoder"):
            yield from _blocks(child)
        else:
            yield child


def _by_start(table: dict[str, int], name: str, default: int) -> int:
    return next((value for start, value in table.items() if name.startswith(start)), default)
