"""Why a model gives its answer: the stretch of a clip that decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainable.errors import InputError
from trainable.inference.model import Model, Network, Sound, facts_of
from trainable.training.device import find_device
from trainable.training.trial_folder import TrialFolder

STRETCHES = 12  # that are tried, each overlapping half of the next
FADE_S = 0.005  # s, at both ends of what is replaced, or the cut itself would be heard


@dataclass(frozen=True)
class Stretch:
    """A part of a clip and what the answer owes to it."""

    start: float  # s
    end: float  # s
    drop: float  # by how much the answer's probability falls where it is missing
    profile: tuple[tuple[float, float], ...]  # the middle of each stretch that was tried, s, and its drop


def decisive_stretch(model: Model, sound: Sound, label: str, stretches: int = STRETCHES) -> Stretch:
    """The stretch without which `label` loses most of its probability.

    Each stretch is replaced in turn by noise of the clip's own spectrum and level, so that nothing is missing but what
    happens there. It says what this model listens to, not what a person would.

    Source: Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks" (occlusion).
    """
    waveform, rate = sound
    noise = _like(waveform)
    bounds = _bounds(waveform.numel(), stretches)
    variants = [_replaced(waveform, noise, start, end, int(FADE_S * rate)) for start, end in bounds]
    place = model.labels.index(label)
    probabilities = model.probabilities([(each, rate) for each in [waveform, *variants]])[:, place]
    drops = probabilities[0] - probabilities[1:]
    most = int(drops.argmax())
    profile = tuple(((start + end) / 2 / rate, float(drop)) for (start, end), drop in zip(bounds, drops, strict=True))
    return Stretch(bounds[most][0] / rate, bounds[most][1] / rate, float(drops[most]), profile)


def _bounds(samples: int, stretches: int) -> list[tuple[int, int]]:
    """First and last sample of stretches that overlap by half and cover a clip of so many samples."""
    edges = np.linspace(0, samples, stretches + 2).astype(int)
    return [(int(start), int(end)) for start, end in zip(edges[:-2], edges[2:], strict=True)]


def _like(waveform: Tensor) -> Tensor:
    """Noise with the spectrum and the level of a waveform [n]: its Fourier transform with phases drawn anew."""
    spectrum = torch.fft.rfft(waveform.double())
    phases = torch.rand(len(spectrum), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shuffled = torch.polar(spectrum.abs(), 2 * torch.pi * phases)
    shuffled[0] = spectrum[0].abs()
    noise: Tensor = torch.fft.irfft(shuffled, n=waveform.numel()).to(waveform.dtype)
    return noise


def _replaced(waveform: Tensor, noise: Tensor, start: int, end: int, fade: int) -> Tensor:
    """The waveform with noise from `start` to `end`, faded in and out."""
    length = end - start
    ramp = ((torch.arange(length) + 1) / (fade + 1)).clamp(max=1)
    share = torch.minimum(ramp, ramp.flip(0)).to(waveform.dtype)
    made = waveform.clone()
    made[start:end] = (1 - share) * waveform[start:end] + share * noise[start:end]
    return made


def model_of_trial(trial: TrialFolder, temperature: float = 1.0) -> Model:
    """The best checkpoint of a trial as a model.

    Raises:
        InputError: it is gone, or holds scores without weights.
    """
    state: dict[str, Any] | None = trial.load("best")
    if state is None or "weights" not in state:
        raise InputError(f"{trial.checkpoint('best')}: must hold a network's weights, got none. Train again.")
    facts = facts_of(state, str(trial.path))
    return Model(facts.labels, [Network(facts, state["weights"], find_device("auto"))], [1], temperature, {})
