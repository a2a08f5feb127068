"""Differences over time, the second and third channel of `channels: deltas`."""

from __future__ import annotations

import torch
from torch import Tensor


def with_deltas(rows: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    """Mels [T, 1, m] with their first and second differences over time, [T, 3, m].

    `spans` say where each window's frames lie: no difference reaches from one window into the next.
    Source: torchaudio.functional.compute_deltas with its window of five, the ends repeated.
    """
    result = rows.new_empty(len(rows), 3, rows.shape[2])
    result[:, :1] = rows
    edges = _edges(spans, rows.device)
    for channel in (1, 2):
        _delta(result[:, channel - 1], edges, out=result[:, channel])
    return result


def _delta(x: Tensor, edges: tuple[Tensor, ...], out: Tensor) -> None:
    """Differences of x [T, m] over time into `out` [T, m]: of all frames as of one clip, then of the edges."""
    if len(x) > 4:
        torch.sub(x[4:], x[:-4], out=out[2:-2]).mul_(2).add_(x[3:-1]).sub_(x[1:-3]).div_(10)
    at, one_later, one_earlier, two_later, two_earlier = edges
    out[at] = (2 * (x[two_later] - x[two_earlier]) + x[one_later] - x[one_earlier]) / 10


def _edges(spans: list[tuple[int, int]], device: torch.device) -> tuple[Tensor, ...]:
    """The frames that lie within two of an end, and for each the frames 1 later, 1 earlier, 2 later and 2 earlier."""
    near = [
        (at, min(at + 1, end - 1), max(at - 1, start), min(at + 2, end - 1), max(at - 2, start))
        for start, end in spans
        for at in sorted({*range(start, min(start + 2, end)), *range(max(end - 2, start), end)})
    ]
    return torch.tensor(near).to(device, non_blocking=True).unbind(1)
