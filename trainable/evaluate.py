"""Clips to probabilities, one row per clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn


class EvalInputs(Protocol):
    """What makes scoring windows of clips: `trainable.inputs.Inputs`."""

    def eval_batch(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Images [w, 3, s, s] of the windows of `clips` [b], and whose each is [w]: a position in `clips`."""


def plain(model: nn.Module, images: Tensor) -> Tensor:
    """The logits of `images` with no change of precision."""
    logits: Tensor = model(images)
    return logits


@torch.no_grad()
def clip_probabilities(
    model: nn.Module,
    inputs: EvalInputs,
    clips: Tensor,
    batch_size: int,
    crops: int = 1,
    forward: Callable[[nn.Module, Tensor], Tensor] = plain,
) -> Tensor:
    """The probabilities [n, k] of `clips` [n], float32 on the CPU: softmax, then the mean over a clip's windows.

    `crops` is how many windows a clip has at most, so that about `batch_size` windows are in memory at once, however
    many there are per clip. Leaves `model` in evaluation mode.

    Legend: n clips, w windows of all clips of a batch, k classes, s image size.
    """
    if not len(clips):
        raise ValueError("there must be clips to score, got none")
    model.eval()
    rows = []
    for batch in torch.split(clips, max(1, batch_size // crops)):
        images, owner = inputs.eval_batch(batch)
        parts = [forward(model, part).float().softmax(dim=1) for part in torch.split(images, batch_size)]
        windows = torch.cat(parts)
        share = torch.nn.functional.one_hot(owner, len(batch)).to(windows.dtype)
        rows.append((share.T @ windows) / share.sum(0)[:, None])
    return torch.cat(rows).cpu()
