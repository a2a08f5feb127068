from __future__ import annotations

import numpy as np
import pytest

from trainable.data.demo.synth import DRUMS, PLAYERS, RATE, colour, glide, hiss


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", PLAYERS)
@pytest.mark.parametrize("pitch", [110.0, 440.0])
def test_a_player_plays_the_pitch_and_the_length_that_is_asked_for(name: str, pitch: float) -> None:
    wave = PLAYERS[name](pitch, 1.0, rng())
    assert len(wave) == RATE
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(RATE)))  # 1 Hz a bin
    energy = spectrum**2
    width = 0.11 if name == "voice" else 0.02  # a voice wavers
    near = sum(energy[int(k * pitch * (1 - width)) : int(k * pitch * (1 + width)) + 1].sum() for k in range(1, 9))
    assert near / energy.sum() > 0.9  # all but a trace lies at multiples of the pitch


@pytest.mark.parametrize("name", sorted(set(PLAYERS) - {"distorted"}))  # distorting makes new harmonics, which fold
def test_no_player_sounds_above_half_the_rate(name: str) -> None:
    wave = PLAYERS[name](3000.0, 0.5, rng())
    assert np.isfinite(wave).all()
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))  # 2 Hz a bin
    assert spectrum[:1300].max() < 0.05 * spectrum.max()  # nothing folded down


def test_the_kick_is_low_the_hat_is_high_and_the_snare_is_wide() -> None:
    def centre(name: str) -> float:
        energy = np.abs(np.fft.rfft(DRUMS[name](rng()), RATE)) ** 2
        return float((energy * np.arange(energy.size)).sum() / energy.sum())

    assert centre("kick") < 150
    assert centre("hat") > 6000
    assert 1500 < centre("snare") < 7000


def test_a_glide_arrives_at_the_note_and_starts_below_it() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    bent = glide(tone, -5)

    def pitch(part: np.ndarray) -> float:
        return float(np.argmax(np.abs(np.fft.rfft(part * np.hanning(part.size), RATE))))

    assert pitch(bent[: RATE // 20]) < 400
    assert pitch(bent[RATE * 6 // 10 : RATE * 8 // 10]) == pytest.approx(440, abs=2)


def test_a_colour_of_zero_changes_nothing() -> None:
    wave = rng().standard_normal(RATE)
    np.testing.assert_allclose(colour(wave, rng(), 0.0, 0.0, 0.0), wave, atol=1e-9)
    assert np.abs(colour(wave, rng(), 2.0, 5.0, 0.4) - wave).max() > 0.1


def test_hiss_has_unit_power_and_falls_with_frequency_or_is_white() -> None:
    noise = hiss(RATE, rng())
    assert noise.std() == pytest.approx(1)
    power = np.abs(np.fft.rfft(noise)) ** 2
    assert power[100:1000].mean() > 0.8 * power[5000:10_000].mean()
