"""Differences over time, the second and third channel of `channels: deltas`."""

from __future__ import annotations

import torch
from torch import Tensor


def with_deltas(rows: Tensor, frames: Tensor, position: Tensor) -> Tensor:
    """Mels [T, 1, m] with their first and second differences over time, [T, 3, m].

    `frames` [T] and `position` [T] say how long each frame's window is and where in it the frame lies.
    Source: torchaudio.functional.compute_deltas with a window of five, the ends repeated.
    """
    here = torch.arange(len(rows), device=rows.device)

    def delta(x: Tensor) -> Tensor:
        result = torch.zeros_like(x)
        for reach in (1, 2):
            later = here + torch.minimum(frames - 1 - position, torch.full_like(position, reach))
            earlier = here - position.clamp(max=reach)
            result.add_(x.index_select(0, later), alpha=reach / 10)
            result.sub_(x.index_select(0, earlier), alpha=reach / 10)
        return result

    first = delta(rows)
    return torch.cat([rows, first, delta(first)], dim=1)
