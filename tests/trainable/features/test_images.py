from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trainable.features.images import bins, pool_frames, pool_mels, pooled_inputs


@pytest.mark.parametrize("size", [16, 64, 224, 300])
@pytest.mark.parametrize("n_mels", [40, 128, 224])
def test_frames_then_mels_give_torchs_adaptive_average_pooling(size: int, n_mels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [1, 7, size, 301]
    mels = [torch.rand(2, n_mels, length, generator=generator) for length in lengths]
    rows = torch.cat([mel.permute(2, 0, 1).flatten(1) for mel in mels])
    frames = torch.tensor(lengths)
    total = sum(pooled_inputs(length, size) for length in lengths)
    means = pool_frames(rows, frames.cumsum(0) - frames, frames, total, size)
    images = pool_mels(means, 2, size)
    expected = torch.stack([F.adaptive_avg_pool2d(mel, size) for mel in mels])
    torch.testing.assert_close(images, expected, rtol=1e-5, atol=1e-6)


def test_windows_may_lie_anywhere_and_overlap() -> None:
    rows = torch.arange(10.0)[:, None]
    means = pool_frames(rows, torch.tensor([6, 2]), torch.tensor([4, 6]), 4 + 6, 2)
    assert means[..., 0].tolist() == [[6.5, 8.5], [3.0, 6.0]]


def test_bins_overlap_where_the_size_does_not_divide() -> None:
    first, count = bins(torch.tensor([5]), 2)
    assert (first.tolist(), count.tolist()) == ([[0, 2]], [[3, 3]])
    assert pooled_inputs(5, 2) == 6
