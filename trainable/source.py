"""Where frames come from, and what is known of the clips that they belong to.

Legend: n clips of the data set, T frames of all of them together, c channels, k columns (c mels side by side).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainable.config import TrialConfig
from trainable.deltas import with_deltas
from trainable.mels import MelCache
from trainable.normalise import Normalisation, deviation

GPU_SHARE = 0.5  # of the free GPU memory that the mels of all clips may take: the rest is the network's


@dataclass(frozen=True)
class Source:
    """Frames, and tables of all clips; the tables are on the device that the inputs are for."""

    values: Tensor  # [T, k] float32
    resident: bool  # whether they are on the device; if not, `local` carries over what a batch needs
    offsets: tuple[int, ...]  # n + 1 rows of `values` at which clips begin, known without asking the device
    origin: Tensor  # [n] int64, the same on the device, without the last
    frames: Tensor  # [n] int64
    silence: Tensor  # [n] what silence is in each clip's mel
    mean: Tensor  # [n, c] what normalisation subtracts; c is 3 for deltas
    std: Tensor  # [n, c] what it divides by
    fill: Tensor  # [n, c] what a mask shows

    def local(self, chosen: Sequence[int]) -> Source:
        """A source with the frames of the `chosen` clips on the device: itself, or one that carries just them over.

        They travel from pinned memory while the device still computes the batch before.
        """
        device = self.frames.device
        if self.resident:
            return self
        parts = [self.values[self.offsets[clip] : self.offsets[clip + 1]] for clip in dict.fromkeys(chosen)]
        pinned = torch.empty(sum(map(len, parts)), self.values.shape[1], pin_memory=device.type == "cuda")
        torch.cat(parts, out=pinned)
        order = on_device(list(dict.fromkeys(chosen)), device)
        origin = torch.zeros_like(self.origin)
        frames = self.frames[order]
        origin[order] = frames.cumsum(0) - frames
        values = pinned.to(device, non_blocking=True)
        return dataclasses.replace(self, values=values, resident=True, origin=origin)


def make_source(
    mels: MelCache,
    config: TrialConfig,
    normalisation: Normalisation,
    mean: Tensor,
    square: Tensor,
    device: torch.device,
) -> Source:
    """The source of all clips' frames for that device; `mean` and `square` [n, c] as `statistics` gives them."""
    clip_mean, clip_std = mean, deviation(mean, square)
    used_mean, used_std = clip_mean, clip_std
    if normalisation.kind == "train":
        used_mean = torch.tensor(normalisation.mean, dtype=torch.float64).expand_as(mean)
        used_std = torch.tensor(normalisation.std, dtype=torch.float64).expand_as(mean)
    fill = used_mean if normalisation.kind == "train" else clip_mean
    if config.scale == "power":  # silence, as in the tutorial
        fill = torch.zeros_like(mean)
    if normalisation.kind == "none":
        used_mean, used_std = torch.zeros_like(mean), torch.ones_like(mean)
    offsets = mels.offsets.to(device)

    def table(numbers: Tensor) -> Tensor:
        return numbers.float().to(device)

    values = _placed(mels.values, device)
    return Source(
        values, values.device.type == device.type, tuple(mels.offsets.tolist()), offsets[:-1], offsets.diff(),
        table(mels.silence), table(used_mean), table(used_std), table(fill),
    )  # fmt: skip


def statistics(mels: MelCache, config: TrialConfig) -> tuple[Tensor, Tensor]:
    """Mean and mean of squares of every clip's values per channel of the network's input, both [n, c] float64.

    The cache knows them for what it holds. Those of deltas are found here, from frames of whole clips, where they are
    asked for.
    """
    if config.channels != "deltas":
        return mels.mean, mels.mean_square
    if config.normalise == "none" and config.scale == "power":
        filler = torch.zeros(len(mels.mean), 2, dtype=torch.float64)
        return torch.cat([mels.mean, filler], 1), torch.cat([mels.mean_square, filler + 1], 1)
    mean, square = [], []
    for start, end in zip(mels.offsets[:-1].tolist(), mels.offsets[1:].tolist(), strict=True):
        rows = with_deltas(mels.values[start:end, None], [(0, end - start)])
        mean.append(rows.mean(dim=2).double().mean(dim=0))
        square.append(rows.square().mean(dim=2).double().mean(dim=0))
    return torch.stack(mean), torch.stack(square)


def on_device(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Whole numbers [n] on the device, without waiting for what it computes at the moment."""
    return torch.tensor(numbers).to(device, non_blocking=True)


def _placed(values: Tensor, device: torch.device) -> Tensor:
    """`values` on the device where there is room, else where they are."""
    return values.to(device) if values.nbytes <= GPU_SHARE * free_bytes(device) else values


def free_bytes(device: torch.device) -> int:
    """How much memory the GPU has left; for anything else, more than will be asked for."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 1 << 62
