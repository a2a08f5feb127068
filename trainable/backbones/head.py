"""The new head of a network, and the stages of its body."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def train_mode(model: nn.Module, batch_norm: str = "train") -> None:
    """Puts `model` into training mode, all but the batch norms whose statistics stay as they are.

    Those are the ones of frozen stages, and with `batch_norm="frozen"` all of them; their scales still learn.
    """
    model.train()
    for module in model.modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        if batch_norm == "frozen" or (module.weight is not None and not module.weight.requires_grad):
            module.eval()


def stages(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of the stages that `freeze_stages` counts, from the input on, the head left out.

    A stage is one block of the model as torchvision divides it (`layer1`, `denseblock1`, `features.3`, ...). Single
    layers that stand side by side, such as a first convolution and its norm, are one stage; a pooling ends it.
    """
    head = {id(parameter) for parameter in head_of(model)[1].parameters()}
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
    found = found or [[]]
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


def head_of(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Name and layer of the classifier's last layer: the last linear one, or SqueezeNet's last convolution."""
    layers = dict(model.named_modules())
    linear = [(name, layer) for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    # Squeeze-and-excitation and attention may use linear layers too, but never after the classifier.
    convolutions = [(name, layer) for name, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    return linear[-1] if linear else convolutions[-1]


def replace_head(model: nn.Module, classes: int) -> None:
    """Puts a new last layer for `classes` into `model`."""
    name, old = head_of(model)
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, classes, bias=old.bias is not None)
    else:
        new = nn.Conv2d(old.in_channels, classes, old.kernel_size)  # type: ignore[arg-type]
    _put(model, name, new)


def add_dropout(model: nn.Module, share: float) -> None:
    """Puts a dropout before the last layer of `model`, in addition to what it has of its own."""
    name, head = head_of(model)
    _put(model, name, nn.Sequential(nn.Dropout(share), head))


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d | None]:
    """Name and layer of the convolution that sees the input; none in a model without any."""
    return next(((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)), ("", None))


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The model's blocks in the order of the data, with torchvision's wrappers around all of them taken off."""
    for name, child in model.named_children():
        if name in ("features", "trunk_output", "layers", "blocks", "encoder"):
            yield from _blocks(child)
        else:
            yield child
