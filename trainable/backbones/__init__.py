"""The registry of backbones: names, sizes, cost, weights, and the network with a new head; plain arguments only.

A source is registered in `_SOURCES` and nowhere else: a module with `NAMES` and `find(name)`, which gives a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from trainable.backbones import efficientat, own, timm, torchvision
from trainable.backbones.head import add_dropout, stages
from trainable.backbones.own import located, source_hash
from trainable.backbones.record import KINDS, SPOKEN, Backbone, Weights
from trainable.backbones.weights import check_own, fetch, folder_facts, load_own, load_published
from trainable.errors import InputError, did_you_mean
from trainable.progress import Progress

__all__ = [
    "BACKBONES", "KINDS", "SPOKEN", "Backbone", "Weights", "backbone", "best_weights", "build_backbone",
    "check_backbone", "fetch_weights", "located", "matching", "native_values", "pretraining", "source_hash",
    "weights_here",
]  # fmt: skip

_SOURCES = (torchvision, efficientat, timm, own)
BACKBONES: tuple[str, ...] = tuple(name for source in _SOURCES for name in source.NAMES)

# MobileNetV3 has 0.01 and MnasNet 0.0003, for the hundred thousands of steps of ImageNet. A training of a few hundred
# steps would be scored with the statistics it began with: at chance, however well it has learned.
_LEAST_MOMENTUM = 0.1


def backbone(name: str) -> Backbone:
    """The record of the backbone of that name.

    Raises:
        InputError: no source has one.
    """
    found = _find(name)
    if found:
        return found
    records = [record for other in BACKBONES if (record := _find(other))]
    by_cost = tuple(record.name for record in sorted(records, key=lambda record: record.operations or 0.0))
    hint = did_you_mean(name, by_cost, "backbones")
    raise InputError(
        "backbone: must be the name of a network (torchvision's, mn01 to mn40, timm:NAME) or a function of your own, "
        f"file.py:make, got {name!r}. {hint}"
    )


def _find(name: str) -> Backbone | None:
    finders: tuple[Callable[[str], Backbone | None], ...] = tuple(source.find for source in _SOURCES)
    return next((found for find in finders if (found := find(name))), None)


def matching(pattern: str | None) -> tuple[str, ...]:
    """The names of all backbones that hold `pattern`; timm's only where it asks for them, one's own by its name."""
    if pattern and pattern.startswith(timm.PREFIX):
        return timm.search(pattern)
    if pattern and own.is_own(pattern):
        return (pattern,)
    return tuple(name for name in BACKBONES if pattern is None or pattern in name)


def check_backbone(
    name: str, image_size: int | None, channels: int = 3, weights: str = "none", rows: int | None = None
) -> list[str]:
    """What is wrong with this backbone for this input and these weights: lines that start with a field's name.

    `rows` of a mel that keeps its shape.
    """
    try:
        record = backbone(name)
    except InputError as error:
        return list(error.problems)
    problems = _wrong_size(record, image_size, rows)
    if channels not in record.channels:
        takes = " or ".join(map(str, record.channels))
        problems.append(f"channels: must make {takes} for {name}, got {channels}. Use channels: repeat.")
    if weights in KINDS and record.of_kind(weights) is None:
        there = [*(known.kind for known in record.weights), "none", "auto"]
        problems.append(
            f"weights: {weights} is not published for {name}, which has {' and '.join(there[:-2]) or 'no weights'}, "
            f"got {weights!r}. Use {' or '.join(there)}."
        )
    elif weights not in (*KINDS, "auto", "none") and (problem := _wrong_path(name, weights)):
        problems.append(problem)
    return problems


def _wrong_size(record: Backbone, image_size: int | None, rows: int | None) -> list[str]:
    name, smallest, multiple = record.name, record.smallest, record.multiple
    if image_size is None:
        if not record.any_shape:
            return [f"image_size: must be a square for {name}, got null. Use {max(smallest, 224)}."]
        if rows is not None and rows < smallest:
            return [f"n_mels: must be at least {smallest} for {name} with image_size: null, got {rows}. Raise it."]
        return []
    if image_size < smallest:
        return [f"image_size: must be at least {smallest} px for {name}, got {image_size}. Raise it."]
    if image_size % multiple:
        below = image_size // multiple * multiple
        return [
            f"image_size: must be a multiple of {multiple} px for {name}, got {image_size}. "
            f"Use {below} or {below + multiple}."
        ]
    return []


def _wrong_path(name: str, weights: str) -> str | None:
    if not Path(weights).exists() and "/" not in weights and "." not in weights:
        hint = did_you_mean(weights, (*KINDS, "auto", "none"))
        return f"weights: must be audioset, imagenet, none, auto or a path, got {weights!r}. {hint}"
    return check_own(name, Path(weights))


def native_values(name: str, weights: str) -> Mapping[str, Any]:
    """The values of fields that a configuration leaves open: those that the weights, or the network, were made with.

    A model's folder knows its own front end. Nothing where the backbone or the folder is not there.
    """
    try:
        record = backbone(name)
    except InputError:  # `check_backbone` says so
        return {}
    if weights in (*KINDS, "auto", "none") or not Path(weights).is_dir():
        return record.native
    about = folder_facts(Path(weights))
    return record.native if about is None else about["config"]


def weights_here(name: str, kind: str) -> bool:
    """Whether this machine has the weights: published ones in torch's cache, own ones at their path.

    Raises:
        InputError: it does not even have the network.
    """
    published = backbone(name).of_kind(kind)
    if kind not in KINDS:
        return kind == "none" or Path(kind).exists()
    return published is not None and published.here


def best_weights(name: str) -> str:
    """The kind that `weights: auto` means on this machine: of what is here, that which fits sound best."""
    return next((known.kind for known in backbone(name).weights if known.here), "none")


def pretraining(name: str, kind: str) -> tuple[str, str]:
    """What a network of that name begins with, in words, and the licence of that; `kind` is never "auto".

    What a model's folder began with is told too, as far as folders go that are still there.
    """
    record = backbone(name)
    if published := record.of_kind(kind):
        return f"{SPOKEN[kind]}: weights of {record.source}", published.licence
    if kind == "none":
        return "nothing: random weights", "none applies"
    facts = folder_facts(Path(kind)) if Path(kind).is_dir() else None
    if facts is None:
        return f"the weights in {kind}", "as whoever made them says"
    before, licence = pretraining(name, facts["config"]["weights"])
    return f"the model in {kind}, which began with {before}", licence


def fetch_weights(wanted: Iterable[tuple[str, str]], progress: Progress | None = None) -> None:
    """Downloads the published weights, pairs of a backbone and a kind, that torch's cache lacks.

    Raises:
        InputError: with a line for each file that could not be had, and what to do about it.
    """
    records = [(backbone(name), kind) for name, kind in wanted]
    fetch(((record, found) for record, kind in records if (found := record.of_kind(kind))), progress)


def build_backbone(
    name: str,
    classes: int,
    *,
    image_size: int | None,
    channels: int = 3,
    weights: str,
    dropout: float = 0.0,
    frozen_stages: int = 0,
) -> nn.Module:
    """The network `name` on the CPU: images [b, channels, h, w] to logits [b, k].

    The classifier's last layer is a new one for `classes`, with `dropout` before it in addition to what the model has
    of its own; all other layers are the source's. Batch statistics follow the batches at least as fast as torch's
    default. Nothing is ever downloaded: `weights="audioset"` and `"imagenet"` read the file that `fetch_weights` has
    put into torch's cache, "auto" the best that is there, "none" starts from random numbers, and anything else is the
    path of a model's folder or of a state.

    Legend: b clips, h = w = image_size, or rows x frames where it is None, k classes.

    Raises:
        InputError: the weights are not there or are not this model's.
    """
    record = backbone(name)
    kind = best_weights(name) if weights == "auto" else weights
    model = record.make(classes, channels, image_size, kind == "none")
    if published := record.of_kind(kind):
        load_published(model, record, published, image_size)
    elif kind != "none":
        load_own(model, record, Path(kind), image_size)
    if dropout:
        add_dropout(model, dropout)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, _LEAST_MOMENTUM)
    for part in stages(model)[:frozen_stages]:
        for parameter in part:
            parameter.requires_grad_(False)
    return model
