"""Mean and deviation of mels: what a normalised input has had taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# A deviation below this share of the mean is rounding, not sound: float32 sums are exact to about that.
_SMALLEST = 1e-3


@dataclass(frozen=True)
class Normalisation:
    """What is subtracted from and divided out of a mel: one mean and one deviation per channel, not per mel row.

    One pair for all rows keeps the spectrum's tilt, which tells instruments apart; AST and EfficientAT do the same.
    `none` leaves the mel as it is, `clip` takes each clip's own numbers (and holds none), `train` holds those of the
    training clips, every frame counting the same.
    """

    kind: Literal["none", "clip", "train"]
    mean: tuple[float, ...] = ()  # per channel, in the mel's scale; () unless kind is train
    std: tuple[float, ...] = ()


def fit(kind: Literal["none", "clip", "train"], mean: Tensor, mean_square: Tensor, frames: Tensor) -> Normalisation:
    """The normalisation of that kind for clips with these statistics.

    Args:
        kind: as in the configuration.
        mean: [n, c] each training clip's mean per channel, float64.
        mean_square: [n, c] each training clip's mean of squares.
        frames: [n] how much each clip counts.
    """
    if kind != "train":
        return Normalisation(kind)
    share = (frames.double() / frames.sum())[:, None]
    total = (mean * share).sum(0)
    std = deviation(total, (mean_square * share).sum(0))
    return Normalisation(kind, tuple(total.tolist()), tuple(std.tolist()))


def deviation(mean: Tensor, mean_square: Tensor) -> Tensor:
    """Standard deviations from means and means of squares (float64), never so small that dividing makes noise."""
    variance = (mean_square - mean.square()).clamp(min=0)
    return torch.maximum(variance.sqrt(), _SMALLEST * mean.abs() + 1e-12)
