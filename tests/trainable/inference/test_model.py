"""The saved model as a notebook uses it: arrays in, labels out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.saved_models import save_small
from trainable import load_model
from trainable.errors import InputError
from trainable.inference.model import Label, Model, save_model

RATE = 8000


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A small model of three classes."""
    save_small(tmp_path / "model")
    return load_model(tmp_path / "model")


def tone(pitch: float = 500.0, seconds: float = 1.0) -> Any:
    """A sine as an array of float64."""
    return 0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * RATE)) / RATE)


@pytest.mark.slow
def test_an_array_a_tensor_and_integers_of_the_same_sound_get_the_same_label(model: Model) -> None:
    one = model.predict(tone(), RATE)
    assert isinstance(one, Label)
    assert one.label in model.labels
    assert list(one.probabilities.values()) == sorted(one.probabilities.values(), reverse=True)
    assert one.probability == one.probabilities[one.label] == max(one.probabilities.values())
    assert sum(one.probabilities.values()) == pytest.approx(1)
    assert model.predict(torch.from_numpy(tone()), RATE).probability == pytest.approx(one.probability, abs=1e-6)
    assert model.predict(tone().astype(np.float32), RATE).probability == pytest.approx(one.probability, abs=1e-6)
    whole = np.round(tone() * 32768).astype(np.int16)
    assert model.predict(whole, RATE).probability == pytest.approx(one.probability, abs=1e-2)


@pytest.mark.slow
def test_several_waveforms_of_any_length_get_a_label_each_in_their_order(model: Model) -> None:
    alone = [model.predict(wave, RATE) for wave in (tone(), tone(1300, 0.4))]
    together = model.predict([tone(), tone(1300, 0.4)], RATE)
    assert [each.label for each in together] == [each.label for each in alone]
    batch = model.predict(np.stack([tone(), tone(1300)]), RATE)
    assert len(batch) == 2
    assert batch[0].probability == pytest.approx(alone[0].probability, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("waveform", "words"),
    [
        (np.zeros(0), "got the shape [0]"),
        (np.zeros((2, 3, 4)), "got the shape [3, 4]"),
        (np.array([0.1, np.nan]), "got NaN or infinity"),
        ("clip.wav", "got str"),
    ],
)
def test_what_is_no_waveform_is_refused_with_what_it_was(model: Model, waveform: Any, words: str) -> None:
    with pytest.raises(InputError) as error:
        model.predict(waveform, RATE)
    assert words in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0, -8000, 44_100.5])
def test_a_rate_that_is_none_is_refused(model: Model, rate: Any) -> None:
    with pytest.raises(InputError, match="rate: must be a whole number of Hz above 0"):
        model.predict(tone(), rate)


@pytest.mark.slow
def test_others_may_read_a_model_as_far_as_their_umask_says(tmp_path: Path, model: Model) -> None:
    before = os.umask(0o022)
    try:
        network = model.networks[0]
        save_model(tmp_path / "copy", network.facts, network.module.state_dict())
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "copy").iterdir()} == {"0o644"}
    assert [path.name for path in sorted((tmp_path / "copy").iterdir())] == ["model.json", "weights.safetensors"]
