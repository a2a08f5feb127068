"""What a source says of a backbone: how it is built, its weights, the input that it takes and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]
# What a network was taught with, in the order in which `weights: auto` tries: what has heard something comes first.
KINDS = ("audioset", "imagenet")
SPOKEN = {"audioset": "AudioSet", "imagenet": "ImageNet", "none": "random"}  # how a person is told


@dataclass(frozen=True)
class Weights:
    """A published file of weights."""

    kind: str  # one of KINDS
    url: str
    licence: str
    bytes: int | None = None  # None: not known here
    sha256: str | None = None  # its beginning is enough; None: not known here
    name: str = ""  # in the cache; left out: the address's last part

    @property
    def file(self) -> Path:
        """Where torch's cache keeps it, there or not; `TORCH_HOME` moves the cache."""
        return Path(torch.hub.get_dir()) / "checkpoints" / (self.name or Path(urlparse(self.url).path).name)

    @property
    def here(self) -> bool:
        """Whether torch's cache has it."""
        return self.file.is_file()


@dataclass(frozen=True)
class Backbone:
    """One network: images [b, channels, h, w] to logits.

    `make(classes, channels, side, initialise)` builds it with random weights; `side` is that of a square input in px,
    None where mels keep their shape, and without `initialise` random numbers that will be overwritten may be left out.
    """

    name: str
    source: str  # what it is, in words: "torchvision's resnet18"
    make: Callable[[int, int, int | None, bool], nn.Module]
    channels: tuple[int, ...] = (3,)  # how many it can take
    weights: tuple[Weights, ...] = ()  # the best for sound first
    native: Mapping[str, Any] = field(default_factory=dict)  # fields that a configuration leaves open get these values
    any_shape: bool = True  # whether mels may keep their shape, rows x frames
    smallest: int = 1  # px: the shortest side that it takes
    multiple: int = 1  # px: its sides must be multiples of this
    parameters: int | None = None  # with its published classes; None: depends on what somebody wrote
    operations: float | None = None  # 10^9 multiply-adds for an input of `size`
    size: tuple[int, int] = (224, 224)  # rows and columns of the input that it was made for
    bare: bool = True  # whether it can be built without memory for its numbers, to be counted
    # A state under torchvision's or the module's own names, whatever those of the file; `side` as for `make`.
    translate: Callable[[State, nn.Module, int | None], State] = lambda state, model, side: state

    @property
    def input_channels(self) -> int:
        """How many channels it sees where a configuration leaves that open."""
        return 1 if self.native.get("channels") == "one" else 3

    def giga(self, pixels: int) -> float | None:
        """10^9 multiply-adds for an input of so many pixels, None where nobody has counted."""
        return None if self.operations is None else self.operations * pixels / (self.size[0] * self.size[1])

    def of_kind(self, kind: str) -> Weights | None:
        """The published weights of that kind."""
        return next((weights for weights in self.weights if weights.kind == kind), None)
