from __future__ import annotations

import torch

from trainable.features.frontend import deviation, fit


def test_train_weighs_clips_by_their_frames() -> None:
    clips = [torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), torch.tensor([10.0], dtype=torch.float64)]
    mean = torch.stack([clip.mean()[None] for clip in clips])
    square = torch.stack([clip.square().mean()[None] for clip in clips])
    fitted = fit("train", mean, square, torch.tensor([3, 1]))
    together = torch.cat(clips)
    assert fitted.mean == (together.mean().item(),)
    assert abs(fitted.std[0] - together.std(correction=0).item()) < 1e-12


def test_none_and_clip_hold_no_numbers() -> None:
    nothing = torch.zeros(1, 1, dtype=torch.float64)
    for kind in ("none", "clip"):
        fitted = fit(kind, nothing, nothing, torch.tensor([1]))
        assert (fitted.kind, fitted.mean, fitted.std) == (kind, (), ())


def test_a_constant_clip_has_a_deviation_that_does_not_blow_up_rounding() -> None:
    mean = torch.tensor([-13.8, 0.0], dtype=torch.float64)
    assert (deviation(mean, mean.square()) > torch.tensor([0.01, 0.0])).all()
