from __future__ import annotations

import torch

from trainable.config import TrialConfig
from trainable.features.frontend import deviation, fit


def test_train_weighs_clips_by_their_frames() -> None:
    clips = [torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), torch.tensor([10.0], dtype=torch.float64)]
    mean = torch.stack([clip.mean()[None] for clip in clips])
    square = torch.stack([clip.square().mean()[None] for clip in clips])
    fitted = fit(TrialConfig(normalise="train"), mean, square, torch.tensor([3, 1]))
    together = torch.cat(clips)
    assert fitted.mean == (together.mean().item(),)
    assert abs(fitted.std[0] - together.std(correction=0).item()) < 1e-12


def test_none_and_clip_hold_no_numbers() -> None:
    nothing = torch.zeros(1, 1, dtype=torch.float64)
    for kind in ("none", "clip"):
        fitted = fit(TrialConfig(normalise=kind), nothing, nothing, torch.tensor([1]))
        assert (fitted.kind, fitted.mean, fitted.std) == (kind, (), ())


def test_a_constant_clip_has_a_deviation_that_does_not_blow_up_rounding() -> None:
    mean = torch.tensor([-13.8, 0.0], dtype=torch.float64)
    assert (deviation(mean, mean.square()) > torch.tensor([0.01, 0.0])).all()


def test_fixed_numbers_are_the_configurations_whatever_the_clips_are() -> None:
    anything = torch.rand(2, 3, dtype=torch.float64)
    settings = TrialConfig(normalise="fixed", fixed_mean=-4.5, fixed_deviation=5.0, channels="deltas")
    fitted = fit(settings, anything, anything, torch.tensor([1, 2]))
    assert (fitted.mean, fitted.std) == ((-4.5, 0.0, 0.0), (5.0, 5.0, 5.0))
    same = fit(settings.model_copy(update={"channels": "windows"}), anything, anything, torch.tensor([1, 2]))
    assert same.mean == (-4.5, -4.5, -4.5)
