"""Frames of clips, and the stretches of them that one network input shows.

Legend: n clips of the data set, w windows (stretches of clips), T frames of all clips or of all windows together,
c channels, k columns (c mels side by side).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainable.config import TrialConfig
from trainable.features.augment import Layout, uniform
from trainable.features.frontend import Normalisation, deviation, with_deltas, wrap
from trainable.features.mel_cache import MelCache

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

    def lengths(self, chosen: Sequence[int]) -> list[int]:
        """How many frames each of the `chosen` clips has, known without asking the device."""
        return [self.offsets[index + 1] - self.offsets[index] for index in chosen]

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
    if normalisation.mean:
        used_mean = torch.tensor(normalisation.mean, dtype=torch.float64).expand_as(mean)
        used_std = torch.tensor(normalisation.std, dtype=torch.float64).expand_as(mean)
    fill = used_mean if normalisation.mean else clip_mean
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


@dataclass(frozen=True)
class Windows:
    """Windows of clips whose frames lie in one long tensor; all tensors on one device.

    The lengths are known twice, on the device and (`host_frames`) without asking it.
    """

    clip: Tensor  # [w] int64: which clip of the data set each shows
    origin: Tensor  # [w] int64: the row at which the clip begins
    clip_frames: Tensor  # [w] int64: frames in the clip
    start: Tensor  # [w] int64: the window's first frame within the clip
    frames: Tensor  # [w] int64: frames in the window, more than the clip has where it is padded
    host_frames: tuple[int, ...]
    inside: bool  # no window reaches beyond its clip

    @property
    def total(self) -> int:
        """The frames of all windows together, T."""
        return sum(self.host_frames)

    @property
    def first(self) -> Tensor:
        """Where each window's frames begin among the frames of all windows, [w]."""
        return self.frames.cumsum(0) - self.frames

    def layout(self) -> Layout:
        """Which frame of all windows is which."""
        device, count = self.frames.device, len(self.frames)
        owner = torch.repeat_interleave(torch.arange(count, device=device), self.frames, output_size=self.total)
        position = torch.arange(self.total, device=device) - self.first.index_select(0, owner)
        ends = list(itertools.accumulate(self.host_frames))
        spans = list(zip([0, *ends[:-1]], ends, strict=True))
        return Layout(owner, position, self.frames.index_select(0, owner), spans)

    def rows(self, layout: Layout, shift: Tensor | None, padding: str) -> tuple[Tensor, Tensor | None]:
        """The row of every frame [T], and where it is beyond its clip and silent [T] bool (None: nowhere).

        `shift` [w] rolls each window by so many frames, wrapping round.
        """
        owner, position = layout.owner, layout.position
        if shift is not None:
            position = (position - shift.index_select(0, owner)) % layout.frames
        if self.inside:
            return (self.origin + self.start).index_select(0, owner).add_(position), None
        frame = self.start.index_select(0, owner).add_(position)
        length, origin = self.clip_frames.index_select(0, owner), self.origin.index_select(0, owner)
        if padding != "zero":
            return origin + wrap(frame, length, padding), None
        return origin + torch.minimum(frame, length - 1), frame >= length


def crop_frames(config: TrialConfig, sample_rate: int, hop: int) -> int | None:
    """The frames of a crop; None where the whole clip is seen."""
    return None if config.crop_seconds is None else max(1, round(config.crop_seconds * sample_rate / hop))


def drawn_windows(
    source: Source, chosen: Sequence[int], clip: Tensor, crop: int | None, rng: torch.Generator
) -> Windows:
    """One window of each of the `chosen` clips: a crop at a uniform place, or all of it where `crop` is None.

    `clip` [w] is `chosen` on the device.
    """
    device = source.frames.device
    frames = source.frames[clip]
    lengths = source.lengths(chosen)
    if crop is None:
        start = torch.zeros_like(frames)
        return Windows(clip, source.origin[clip], frames, start, frames, tuple(lengths), inside=True)
    spare = (frames - crop).clamp(min=0)
    start = (uniform((len(chosen),), rng, device) * (spare + 1)).long().minimum(spare)  # rounding may reach the end
    seen = torch.full_like(frames, crop)
    inside = min(lengths) >= crop
    return Windows(clip, source.origin[clip], frames, start, seen, (crop,) * len(chosen), inside)


def scoring_windows(source: Source, chosen: Sequence[int], crop: int | None, at_most: int) -> tuple[Windows, list[int]]:
    """The windows that score the `chosen` clips, clip by clip, and how many of them each clip has."""
    device = source.frames.device
    lengths = source.lengths(chosen)
    starts = [crop_starts(length, crop, at_most) for length in lengths]
    counts = [len(places) for places in starts]
    clip = on_device([index for index, count in zip(chosen, counts, strict=True) for _ in range(count)], device)
    host = tuple(crop or length for length, count in zip(lengths, counts, strict=True) for _ in range(count))
    start = on_device([place for places in starts for place in places], device)
    seen = on_device(host, device)
    inside = crop is None or min(lengths) >= crop
    return Windows(clip, source.origin[clip], source.frames[clip], start, seen, host, inside), counts


def crop_starts(frames: int, crop: int | None, at_most: int) -> list[int]:
    """The first frames of the windows that score a clip of so many frames: evenly spaced from its start to its end.

    As many as cover the clip, but `at_most` so many; a single one where the clip is no longer than the crop, and one in
    the middle where only one is allowed. Frames are centred, so a clip exactly as long as the crop has one more.
    """
    if crop is None or frames <= crop + 1:
        return [0]
    count = min(at_most, -(-frames // crop))
    if count == 1:
        return [(frames - crop) // 2]
    return [round(index * (frames - crop) / (count - 1)) for index in range(count)]
