"""Excerpts of clips to look at and to listen to."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from trainable.config import TrialConfig
from trainable.errors import InputError
from trainable.inference.preview import excerpt

CONFIG = TrialConfig.parse({"n_fft": 512, "hop_length": 256, "n_mels": 32})


@pytest.mark.parametrize("rate", [8000, 11_000, 44_100, 96_000])
def test_the_sound_is_short_small_and_as_long_as_it_says(tmp_path: Path, rate: int) -> None:
    noise = 0.01 * np.random.default_rng(0).standard_normal((rate * 10, 2))
    soundfile.write(tmp_path / "long.wav", noise, rate)
    start = excerpt(tmp_path / "long.wav", CONFIG, seconds=4)
    sound, mp3_rate = soundfile.read(io.BytesIO(start.mp3))
    assert start.seconds == 4
    assert len(sound) / mp3_rate == pytest.approx(4, abs=0.2)
    assert len(start.mp3) < 120_000
    assert np.abs(sound).max() > 0.3  # quiet clips are made as loud as the others


def test_the_picture_has_high_frequencies_on_top_and_the_loudest_point_bright(tmp_path: Path) -> None:
    time = np.arange(8000) / 8000
    soundfile.write(tmp_path / "low.wav", 0.5 * np.sin(2 * np.pi * 200 * time), 8000)
    mel = excerpt(tmp_path / "low.wav", CONFIG).mel
    assert mel.shape[0] == 32
    assert mel.max() == 255
    assert np.unravel_index(mel.argmax(), mel.shape)[0] > 24


def test_a_clip_below_the_configurations_highest_frequency_is_still_shown(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.wav", 0.1 * np.ones(800) * np.sin(np.arange(800)), 8000)
    assert excerpt(tmp_path / "clip.wav", CONFIG.model_copy(update={"f_max": 10_000.0})).mel.size


def test_a_lost_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone"):
        excerpt(tmp_path / "gone.wav", CONFIG)
