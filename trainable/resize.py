"""Adaptive average pooling of mels that lie frame by frame, each of its own length: torch's result, much faster.

A mel's rectangle is averaged over time first, on rows of all mels as they lie in the cache, then over the mel rows;
the mean of a rectangle is the mean of its rows' means. Legend: w windows (stretches of clips), T frames of all
windows together, k columns (c channels of m mel rows), s the image size.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor


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
