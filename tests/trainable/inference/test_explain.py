"""The stretch that decides is the one where the deciding sound is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.saved_models import save_small
from trainable.errors import InputError
from trainable.inference.explain import decisive_stretch, model_of_trial
from trainable.inference.model import Model, load_model
from trainable.training.trial_folder import TrialFolder

RATE = 8000


class Listener(Model):
    """A model that says "beep" by how much of 2 kHz it hears, wherever in the clip that is."""

    def __init__(self) -> None:
        self.labels = ("other", "beep")

    def probabilities(self, sounds: Any) -> Any:
        rows = []
        for waveform, rate in sounds:
            frames = torch.stft(waveform, 256, window=torch.hann_window(256), return_complex=True).abs()
            loudest = frames[round(2000 / rate * 256)].max()
            share = float(torch.sigmoid(0.5 * (loudest - 10)))
            rows.append([1 - share, share])
        return np.array(rows)


@pytest.mark.parametrize("at", [0.0, 0.9, 2.3, 3.7])
def test_the_stretch_that_decides_holds_the_sound_that_decides(at: float) -> None:
    time = torch.arange(4 * RATE) / RATE
    inside = (time >= at) & (time < at + 0.3)
    waveform = 0.01 * torch.randn(4 * RATE, generator=torch.Generator().manual_seed(1))
    waveform = waveform + 0.5 * torch.sin(2 * torch.pi * 2000 * time) * inside
    found = decisive_stretch(Listener(), (waveform, RATE), "beep")
    assert found.start - 0.35 <= at <= found.end
    assert found.end - found.start == pytest.approx(4 * 2 / 13, abs=0.01)
    assert found.drop > 0.05  # the noise in its place has some 2 kHz too
    assert len(found.profile) == 12
    assert max(drop for _, drop in found.profile) == found.drop
    quiet = [drop for middle, drop in found.profile if abs(middle - at - 0.15) > 0.8]
    assert max(quiet) < found.drop / 5


def test_what_replaces_a_stretch_has_the_clips_own_spectrum_and_level_so_that_silence_decides_nothing() -> None:
    noise = 0.1 * torch.randn(2 * RATE, generator=torch.Generator().manual_seed(2))
    found = decisive_stretch(Listener(), (noise, RATE), "other")
    assert abs(found.drop) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 7, 400])
def test_the_shortest_clips_have_an_answer_too(samples: int, tmp_path: Path) -> None:
    save_small(tmp_path / "model")
    found = decisive_stretch(load_model(tmp_path / "model"), (0.1 * torch.ones(samples), RATE), "class1")
    assert 0 <= found.start <= found.end <= samples / RATE


@pytest.mark.slow
def test_the_same_clip_has_the_same_answer(tmp_path: Path) -> None:
    save_small(tmp_path / "model")
    model = load_model(tmp_path / "model")
    sound = (0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(3)), RATE)
    assert decisive_stretch(model, sound, "class0") == decisive_stretch(model, sound, "class0")


def test_a_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"best\.pt: must hold a network's weights"):
        model_of_trial(TrialFolder(tmp_path))
