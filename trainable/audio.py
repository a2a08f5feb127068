"""From a file to a mono waveform at the rate that is asked for."""

from __future__ import annotations

import functools
import math
import os
from fractions import Fraction
from pathlib import Path

import soundfile
import torch
import torchaudio

from trainable.errors import InputError

_LARGEST_KERNEL = 1 << 22  # taps of a resampling kernel: 16 MiB


def read_waveform(path: str | Path, sample_rate: int | None = None) -> tuple[torch.Tensor, int]:
    """The waveform [n] in float32, full scale 1, channels averaged, and its sample rate in Hz.

    With `sample_rate` the waveform is resampled by torchaudio's windowed sinc (Hann, 6 zero crossings, roll-off 0.99).

    Raises:
        InputError: the file is gone or cannot be decoded.
    """
    try:
        samples, rate = soundfile.read(openable(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path}: {why_unreadable(error)}. Mend the file or leave it out.") from None
    wave = torch.from_numpy(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1))
    if sample_rate is None or sample_rate == rate:
        return wave.contiguous(), rate
    return resample(wave, rate, sample_rate), sample_rate


def resample(wave: torch.Tensor, rate: int, new_rate: int) -> torch.Tensor:
    """`wave` [..., n] at `new_rate` Hz, [..., ceil(n * new_rate / rate)].

    Source: torchaudio.functional.resample with its defaults.
    """
    return _resampler(rate, new_rate)(wave)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=32)
def _resampler(rate: int, new_rate: int) -> torchaudio.transforms.Resample:
    """The filter for a pair of rates, kept: a data set has few pairs and thousands of clips.

    The kernel grows with the product of the reduced rates. For odd pairs (44,099 to 22,050 Hz would take gigabytes)
    the nearest ratio of small numbers is used; the pitch is then off by less than 0.05%, a hundredth of a
    semitone.
    """
    ratio = Fraction(new_rate, rate)
    if ratio.numerator * ratio.denominator > _LARGEST_KERNEL:
        ratio = ratio.limit_denominator(math.isqrt(int(_LARGEST_KERNEL / ratio)))
    return torchaudio.transforms.Resample(ratio.denominator, ratio.numerator)


def openable(path: str | Path) -> str | bytes:
    """`path` as soundfile takes it: on Linux a file's name is bytes, and need not be valid text."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def why_unreadable(error: Exception) -> str:
    """libsndfile's or the system's words for a file that cannot be read, without the path that they repeat."""
    if isinstance(error, soundfile.LibsndfileError):
        text = error.error_string.strip().rstrip(".").removeprefix("Error : ")
        if "possibly a pipe" in text:  # what libmpg123 says of a file that is no MP3
            text = "format not recognised"
        return f"not readable as audio ({text[0].lower() + text[1:]})" if text else "not readable as audio"
    return f"cannot be opened ({error.strerror or error})" if isinstance(error, OSError) else str(error)
