"""Stretches of clips: which frames one network input shows.

Legend: w windows, T frames of all windows together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainable.augment import Layout, uniform
from trainable.config import TrialConfig
from trainable.frontend import wrap
from trainable.source import Source, on_device


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
        """T."""
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
    lengths = [source.offsets[index + 1] - source.offsets[index] for index in chosen]
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
    lengths = [source.offsets[index + 1] - source.offsets[index] for index in chosen]
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
