"""From frames to images: windows of clips, augmented or not, as the network sees them.

The resize is adaptive average pooling of mels that lie frame by frame, each of its own length: torch's result, much
faster. A mel's rectangle is averaged over time first, on rows of all mels as they lie in the cache, then over the mel
rows; the mean of a rectangle is the mean of its rows' means.

Where `image_size` is None nothing is resized: an image is the mel itself, m rows by f frames, and all windows of one
call have the same number of frames.

Statistics and silence belong to the clean clip. Noise and level changes act on the mel in its own scale, and
normalisation comes last, on the image: it is linear, so it commutes with averaging, and touches fewer numbers there.

Legend: n clips, w windows (stretches of clips), T frames of all windows together, k columns (c channels of m mel rows),
s the image size.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.config import FRAME_AUGMENTATIONS, TrialConfig
from trainable.features import augment
from trainable.features.crops import Source, Windows
from trainable.features.frontend import with_deltas


@functools.lru_cache(maxsize=4096)
def pooled_inputs(length: int, size: int) -> int:
    """How many inputs the `size` bins over `length` inputs read together; bins overlap where they do not divide."""
    return sum(-(-(bin + 1) * length // size) - bin * length // size for bin in range(size))


def bins(lengths: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The first input [w, size] and the number of inputs [w, size] of each bin over `lengths` [w] inputs.

    Source: torch.nn.AdaptiveAvgPool2d: bin i of s reads from floor(i n / s) to ceil((i + 1) n / s).
    """
    edge = torch.arange(size + 1, device=lengths.device) * lengths[:, None]
    first = edge[:, :-1].div(size, rounding_mode="floor")
    return first, edge[:, 1:].add(size - 1).div(size, rounding_mode="floor") - first


def pool_frames(rows: Tensor, first: Tensor, lengths: Tensor, total: int, size: int) -> Tensor:
    """Means over time [w, size, k] of windows whose frames lie in `rows` [any, k].

    Args:
        rows: frames, of which a window's lie one after the other.
        first: [w] the row at which each window begins.
        lengths: [w] frames in each window.
        total: the sum of `pooled_inputs` over the windows, known without asking the device.
        size: bins per window.
    """
    start, count = bins(lengths, size)
    start, flat = (start + first[:, None]).flatten(), count.flatten()
    offset = flat.cumsum(0) - flat
    order = torch.repeat_interleave(start - offset, flat, output_size=total)
    order += torch.arange(total, device=rows.device)
    sums = F.embedding_bag(order, rows, offset, mode="sum").view(len(lengths), size, -1)
    return sums.div_(count[..., None])


def pool_mels(means: Tensor, channels: int, size: int) -> Tensor:
    """Images [w, c, size, t] from means over time [w, t, c * m]: mel rows averaged into `size` rows."""
    windows, times, columns = means.shape
    n_mels = columns // channels
    lines = means.transpose(1, 2).contiguous()  # [w, c * m, t]
    if n_mels == size:
        return lines.view(windows, channels, size, times)
    order, offset, count = (table.to(means.device, non_blocking=True) for table in _mel_bins(n_mels, size))
    line = torch.arange(windows * channels, device=means.device)[:, None]
    order, offset = (order + line * n_mels).flatten(), (offset + line * len(order)).flatten()
    sums = F.embedding_bag(order, lines.view(-1, times), offset, mode="sum")
    return sums.view(windows, channels, size, times).div_(count[:, None])


@functools.lru_cache(maxsize=64)
def _mel_bins(n_mels: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the `size` bins of one mel read: rows one bin after the other, where each bin begins, and rows per bin."""
    start, count = bins(torch.tensor([n_mels]), size)
    offset = count[0].cumsum(0) - count[0]
    order = torch.repeat_interleave(start[0] - offset, count[0]) + torch.arange(int(count.sum()))
    return order, offset, count[0]


class Renderer:
    """Windows of mels to images [w, c, s, s], or [w, c, m, f]; c is 3 for deltas and windows, else 1."""

    def __init__(self, config: TrialConfig, n_mels: int) -> None:
        self.config = config
        self.n_mels = n_mels

    @property
    def changes_frames(self) -> bool:
        """Whether augmentation changes the mel before it is resized, so that its image is new each time."""
        return self._bends or any(getattr(self.config, name) for name in FRAME_AUGMENTATIONS)

    @property
    def _bends(self) -> bool:
        """Whether a level change is more than a factor or a summand."""
        return self.config.gain_db > 0 and self.config.scale == "pcen"

    def plain(self, source: Source, windows: Windows) -> Tensor:
        """The images of `windows` in the mel's own scale, without augmentation."""
        if windows.inside and self.config.channels != "deltas":  # straight from the cache, without a copy
            return self._image(source.values, windows.origin + windows.start, windows)
        layout = windows.layout()
        rows = self._rows(source, windows, layout, None)
        if self.config.channels == "deltas":
            rows = with_deltas(rows, layout.spans)
        return self._image(rows.flatten(1), windows.first, windows)

    def decibels(self, count: int, rng: torch.Generator, device: torch.device) -> Tensor | None:
        """How much louder each of `count` clips becomes, dB; None where gain_db is off."""
        if not self.config.gain_db:
            return None
        draw = augment.uniform((2, count), rng, device)
        return (2 * draw[0] - 1) * self.config.gain_db * (draw[1] < self.config.gain_p)

    def changed(self, source: Source, windows: Windows, decibels: Tensor | None, rng: torch.Generator) -> Tensor:
        """As `plain`, with what augments frames, in the tutorial's order: masks, then noise.

        In power scale nothing falls below silence.
        """
        config, device, count = self.config, source.values.device, len(windows.frames)
        layout = windows.layout()
        shift = None
        if config.roll:
            shift = ((2 * augment.uniform((count,), rng, device) - 1) * config.roll * windows.frames).round().long()
        rows = self._rows(source, windows, layout, shift)
        if decibels is not None and self._bends:
            rows = augment.pcen_gain(rows, decibels.index_select(0, layout.owner)[:, None, None])
        if config.channels == "deltas":
            rows = with_deltas(rows, layout.spans)
        if config.time_masks or config.freq_masks:
            in_time = augment.draw_masks(config.time_masks, config.time_mask, windows.frames, rng)
            mels = torch.full((count,), self.n_mels, device=device)
            in_mels = augment.draw_masks(config.freq_masks, config.freq_mask, mels, rng)
            rows = augment.apply_masks(rows, in_time, in_mels, source.fill[windows.clip], layout)
        if config.noise:
            picked = augment.uniform((count,), rng, device) < config.noise_p
            std = config.noise * source.std[windows.clip]
            augment.add_noise(rows, std, picked, config.scale == "power", layout, rng)
        return self._image(rows.flatten(1), windows.first, windows)

    def warp(self, image: Tensor, source: Source, clip: Tensor, rng: torch.Generator) -> Tensor:
        """Images [w, c, h, w] of the clips `clip` [w], in the mel's own scale, moved along the rows and the frames."""
        config = self.config
        if not (config.freq_shift or config.freq_stretch or config.tempo):
            return image
        silence = source.silence[clip][:, None, None, None].expand(-1, image.shape[1], 1, 1)
        if config.channels == "deltas":  # in silence nothing changes
            silence = silence * torch.tensor([1.0, 0.0, 0.0], device=image.device)[:, None, None]
        return augment.warp(image - silence, config.freq_shift, config.freq_stretch, config.tempo, rng).add_(silence)

    def level(self, image: Tensor, decibels: Tensor | None, rng: torch.Generator) -> Tensor:
        """Images of mels [w, c, s, s] with the level changes that commute with averaging, in place.

        In log and dB the floor, and mel rows without a bin, move along.
        """
        config, count = self.config, len(image)
        if config.gain:
            draw = augment.uniform((2, count), rng, image.device)
            factor = 1 + (2 * draw[0] - 1) * config.gain * (draw[1] < config.gain_p)
            image *= factor[:, None, None, None]
        if decibels is None or self._bends:
            return image
        change = decibels[:, None, None, None]
        if config.scale == "power":
            image *= 10 ** (change / 10)
        else:  # a summand is nothing to a difference over time, and the same to all windows
            first = image[:, :1] if config.channels == "deltas" else image
            first += change if config.scale == "db" else change * math.log(10) / 10
        return image

    def normalise(self, image: Tensor, source: Source, clip: Tensor) -> Tensor:
        """Images [w, c, s, s] of the clips `clip` [w] normalised, in place."""
        if self.config.normalise == "none":
            return image
        return image.sub_(source.mean[clip][..., None, None]).div_(source.std[clip][..., None, None])

    def _rows(self, source: Source, windows: Windows, layout: augment.Layout, shift: Tensor | None) -> Tensor:
        """A copy of the windows' frames [T, c, m]."""
        index, silent = windows.rows(layout, shift, self.config.padding)
        rows = source.values.index_select(0, index).view(len(index), -1, self.n_mels)
        if silent is not None:
            silence = source.silence[windows.clip].index_select(0, layout.owner)
            rows = torch.where(silent[:, None, None], silence[:, None, None], rows)
        return rows

    def _image(self, rows: Tensor, first: Tensor, windows: Windows) -> Tensor:
        """`rows` [any, k], each window's frames from `first` [w] on, as images [w, c, s, s] or [w, c, m, f]."""
        size = self.config.image_size
        if size is None:
            return self._as_it_is(rows, first, windows)
        total = sum(pooled_inputs(frames, size) for frames in windows.host_frames)
        return pool_mels(pool_frames(rows, first, windows.frames, total, size), rows.shape[1] // self.n_mels, size)

    def _as_it_is(self, rows: Tensor, first: Tensor, windows: Windows) -> Tensor:
        frames = windows.host_frames[0]
        if rows.device.type == "cpu":  # slices are the cheapest where their places are known
            stack = torch.stack([rows[start : start + frames] for start in first.tolist()])
        else:
            places = first[:, None] + torch.arange(frames, device=rows.device)
            stack = rows.index_select(0, places.flatten())
        return stack.view(len(first), frames, -1, self.n_mels).permute(0, 2, 3, 1)
