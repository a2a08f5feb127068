from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainable.training.loop import clip_probabilities


class Windows:
    """Clip i has `counts[i]` windows; each image holds its clip's and its window's number."""

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts
        self.most = 0

    def lengths(self, clips: Tensor) -> Tensor:
        return -clips  # the last clip is the shortest: the order of their names is not theirs

    def eval_batch(self, clips: Tensor) -> list[tuple[Tensor, Tensor]]:
        rows = [(clip, window) for clip in clips.tolist() for window in range(self.counts[clip])]
        owner = [position for position, clip in enumerate(clips.tolist()) for _ in range(self.counts[clip])]
        self.most = max(self.most, len(rows))
        images = torch.tensor(rows).float()[:, :, None, None].expand(-1, -1, 2, 2)
        return [(torch.cat([images, images[:, :1]], dim=1), torch.tensor(owner))]


class Logits(nn.Module):
    """Logits that depend on the clip's and the window's number."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        clip, window = images[:, 0, 0, 0], images[:, 1, 0, 0]
        return self.dropout(torch.stack([clip, 2 * window, torch.ones_like(clip)], dim=1))


def expected(clip: int, windows: int) -> Tensor:
    logits = torch.tensor([[clip, 2 * window, 1] for window in range(windows)]).float()
    return logits.softmax(dim=1).mean(dim=0)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_a_clip_has_the_mean_of_its_windows_probabilities_whatever_the_batches(batch_size: int) -> None:
    counts = [1, 4, 2, 3]
    order = [2, 0, 3, 1]
    rows = clip_probabilities(Logits().train(), Windows(counts), torch.tensor(order), batch_size, crops=4)
    torch.testing.assert_close(rows, torch.stack([expected(clip, counts[clip]) for clip in order]))


def test_no_more_windows_than_a_batch_are_made_or_run_at_once() -> None:
    model, windows = Logits(), Windows([4] * 10)
    clip_probabilities(model, windows, torch.arange(10), batch_size=8, crops=4)
    assert windows.most == 8
    assert max(model.batches) == 8
    clip_probabilities(model, windows, torch.arange(10), batch_size=3, crops=4)
    assert windows.most == 8
    assert max(model.batches[5:]) == 3


def test_scoring_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="got none"):
        clip_probabilities(Logits(), Windows([1]), torch.tensor([], dtype=torch.long), 8)
