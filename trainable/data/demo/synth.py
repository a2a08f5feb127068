"""Instruments of the demo set: a pitch and a length to a waveform at 22.05 kHz, plain NumPy.

Source: textbook additive, subtractive and noise synthesis; no recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float64]
Rng = np.random.Generator
RATE = 22_050  # Hz, GTZAN's


def kick(rng: Rng) -> Wave:
    """A drum whose pitch falls from about 150 to 50 Hz."""
    time = _time(0.22)
    low = rng.uniform(45, 60)
    return np.sin(2 * np.pi * (low * time + rng.uniform(2, 4) * (1 - np.exp(-time * 40)))) * np.exp(-time * 16)


def snare(rng: Rng) -> Wave:
    """A noise burst over a short tone at 180 to 240 Hz."""
    time = _time(0.2)
    tone = np.sin(2 * np.pi * rng.uniform(180, 240) * time) * np.exp(-time * 30)
    return 0.5 * tone + rng.standard_normal(time.size) * np.exp(-time * rng.uniform(18, 30))


def hat(rng: Rng) -> Wave:
    """A short hiss above about 5 kHz."""
    time = _time(0.09)
    noise = np.diff(rng.standard_normal(time.size + 2), n=2)  # two differences: 12 dB more per octave
    return noise * np.exp(-time * rng.uniform(45, 90))


def bass(pitch: float, seconds: float, rng: Rng) -> Wave:
    """A plucked low string: eight harmonics that fade at 3/s."""
    return _pluck(pitch, seconds, 8, 1.4, 3.0)


def guitar(pitch: float, seconds: float, rng: Rng) -> Wave:
    """A plucked string: fourteen harmonics, the high ones fade first."""
    return _pluck(pitch, seconds, 14, 0.9, 4.0)


def piano(pitch: float, seconds: float, rng: Rng) -> Wave:
    """A struck string: ten harmonics, the low ones strong."""
    return _pluck(pitch, seconds, 10, 1.3, 3.0)


def organ(pitch: float, seconds: float, rng: Rng) -> Wave:
    """Held drawbars with a tremolo of 6 Hz."""
    time = _time(seconds)
    step = np.exp(2j * np.pi * pitch * time)
    wave = _sum_harmonics(step, pitch, {1: 1.0, 2: 0.8, 3: 0.6, 4: 0.4, 6: 0.3, 8: 0.2})
    return wave * (1 + 0.2 * np.sin(2 * np.pi * 6 * time)) * _fade(time, 0.015, 0.03)


def strings(pitch: float, seconds: float, rng: Rng) -> Wave:
    """Bowed: a soft sawtooth that swells and shakes by a third of a semitone at 5.5 Hz."""
    time = _time(seconds)
    return _saw(pitch, time, 12, shake=0.004) * _fade(time, min(0.12, seconds / 3), 0.08)


def reed(pitch: float, seconds: float, rng: Rng) -> Wave:
    """Blown: odd harmonics, a quick attack, a shake that sets in late."""
    time = _time(seconds)
    shake = 0.006 * np.clip(time * 4, 0, 1)
    phase = 2 * np.pi * np.cumsum(pitch * (1 + shake * np.sin(2 * np.pi * 5 * time))) / RATE
    wave = _sum_harmonics(np.exp(1j * phase), pitch, {k: k**-0.9 for k in (1, 2, 3, 5, 7)})
    return wave * _fade(time, 0.03, 0.04)


def distorted(pitch: float, seconds: float, rng: Rng) -> Wave:
    """An overdriven guitar: a sawtooth through a hard knee."""
    time = _time(seconds)
    return np.tanh(4 * _saw(pitch, time, 16)) * np.exp(-time * 1.0) * _fade(time, 0.003, 0.02)


def voice(pitch: float, seconds: float, rng: Rng) -> Wave:
    """A syllable: a buzz through two random formants, its pitch wavering by a semitone and a half at 5 Hz."""
    time = _time(seconds)
    first, second = rng.uniform(350, 800), rng.uniform(1000, 2300)  # Hz, vowels of speech
    phase = 2 * np.pi * pitch * (time + 0.003 * np.sin(2 * np.pi * 5 * time))
    levels = {
        k: np.exp(-(((k * pitch - first) / 150) ** 2)) + 0.6 * np.exp(-(((k * pitch - second) / 220) ** 2)) + 0.03
        for k in range(1, max(2, min(20, int(3500 / pitch))))
    }
    return _sum_harmonics(np.exp(1j * phase), pitch, levels) * _fade(time, 0.02, 0.05)


PLAYERS: dict[str, Callable[[float, float, Rng], Wave]] = {
    "bass": bass, "guitar": guitar, "piano": piano, "organ": organ, "strings": strings, "reed": reed,
    "distorted": distorted, "voice": voice,
}  # fmt: skip
DRUMS: dict[str, Callable[[Rng], Wave]] = {"kick": kick, "snare": snare, "hat": hat}


def glide(wave: Wave, semitones: float) -> Wave:
    """`wave` with its pitch bent from `semitones` below (or above) to its own within the first half."""
    course = 2 ** (semitones * np.clip(1 - np.linspace(0, 2, wave.size), 0, 1) / 12)
    where = np.cumsum(course)
    return np.asarray(np.interp(where - where[0], np.arange(wave.size), wave, right=0.0))


def colour(wave: Wave, rng: Rng, tilt: float, bump: float, wet: float) -> Wave:
    """`wave` in a random room and through a random equaliser.

    Args:
        tilt: largest slope, dB per octave either way
        bump: largest height of each of three broad peaks or dips, dB
        wet: largest share of the room in the sum
    """
    padded = wave.size + RATE // 2
    frequencies = np.maximum(np.fft.rfftfreq(padded, 1 / RATE), 20.0)
    octaves = np.log2(frequencies / 1000)
    gain = rng.uniform(-tilt, tilt) * np.clip(octaves, -4, 3)
    for centre in rng.uniform(-4, 3, size=3):
        gain += rng.uniform(-bump, bump) * np.exp(-0.5 * ((octaves - centre) / 0.7) ** 2)
    tail = _time(0.5)
    room = rng.standard_normal(tail.size) * np.exp(-tail / rng.uniform(0.03, 0.12))
    room *= rng.uniform(0, wet) / np.sqrt((room**2).sum())
    room[0] += 1
    spectrum = np.fft.rfft(wave, padded) * np.fft.rfft(room, padded) * 10 ** (gain / 20)
    return np.fft.irfft(spectrum, padded)[: wave.size]


def hiss(samples: int, rng: Rng) -> Wave:
    """Noise of unit power whose spectrum falls by a random 0 to 6 dB per octave."""
    spectrum = rng.standard_normal(2 * (samples // 2 + 1)).view(np.complex128)
    spectrum *= np.maximum(np.arange(spectrum.size), 20.0) ** -rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, samples)
    return np.asarray(noise / noise.std())


def _time(seconds: float) -> Wave:
    return np.arange(max(2, int(seconds * RATE))) / RATE


def _fade(time: Wave, attack: float, release: float) -> Wave:
    """An envelope that rises within `attack` s and falls within the last `release` s."""
    return np.asarray(np.clip(np.minimum(time / attack, (time[-1] - time) / release), 0, 1))


def _sum_harmonics(step: NDArray[np.complex128], pitch: float, levels: Mapping[int, float]) -> Wave:
    """The sum of `levels[k]` times the imaginary part of step**k, for the harmonics k that the rate can carry.

    `step` is exp(i phase) of the first harmonic; its powers cost a multiplication where a sine costs ten.
    """
    wave = np.zeros(step.size)
    power = np.ones(step.size, dtype=np.complex128)
    for k in range(1, min(max(levels), int(RATE / 2.2 / pitch)) + 1):
        power *= step
        if k in levels:
            wave += levels[k] * power.imag
    return wave


def _saw(pitch: float, time: Wave, harmonics: int, shake: float = 0.0) -> Wave:
    """A sawtooth of so many harmonics, its pitch shaken by a share of itself at 5.5 Hz."""
    phase = 2 * np.pi * pitch * (time + shake / (2 * np.pi * 5.5) * np.sin(2 * np.pi * 5.5 * time))
    return _sum_harmonics(np.exp(1j * phase), pitch, {k: 1 / k for k in range(1, harmonics + 1)})


def _pluck(pitch: float, seconds: float, harmonics: int, slope: float, fading: float) -> Wave:
    """A string whose harmonic k starts at k**-slope and fades at fading * (1 + 0.3 k) per second."""
    time = _time(seconds)
    step = np.exp((2j * np.pi * pitch - 0.3 * fading) * time)
    wave = _sum_harmonics(step, pitch, {k: k**-slope for k in range(1, harmonics + 1)})
    return wave * np.exp(-fading * time) * _fade(time, 0.004, 0.015)
