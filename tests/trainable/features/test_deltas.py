from __future__ import annotations

import torch
import torchaudio

from trainable.features.frontend import with_deltas


def test_deltas_are_torchaudios_within_each_window() -> None:
    lengths = [1, 2, 3, 4, 5, 6, 40]
    rows = torch.randn(sum(lengths), 1, 8, generator=torch.Generator().manual_seed(0))
    ends = torch.tensor(lengths).cumsum(0).tolist()
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    ours = with_deltas(rows, spans)
    for start, end in spans:
        mel = rows[start:end, 0].T
        first = torchaudio.functional.compute_deltas(mel)
        expected = torch.stack([mel, first, torchaudio.functional.compute_deltas(first)])
        torch.testing.assert_close(ours[start:end].permute(1, 2, 0), expected, rtol=1e-5, atol=1e-6)
