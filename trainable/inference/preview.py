"""A clip as something to look at and to listen to, small enough for a report."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import torch

from trainable.config import TrialConfig
from trainable.data.audio import read_waveform, resample
from trainable.features.frontend import Frontend

# The sample rates that MP3 knows, Hz. MP3 because every browser plays it, phones included.
_MP3_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_RANGE_DB = 70.0  # what a picture shows below the loudest point; below that there is mostly noise


@dataclass(frozen=True)
class Excerpt:
    """A part of a clip."""

    start: float  # in the clip, s
    seconds: float  # of it, s
    mel: npt.NDArray[np.uint8]  # [m, f], high frequencies first; 255 is the loudest point
    mp3: bytes


def excerpt(path: str | Path, config: TrialConfig, seconds: float = 10.0, around: float = 0.0) -> Excerpt:
    """`seconds` of a clip: the mel of the configuration's front end, in dB, and the sound as MP3.

    `around`: a moment, s, that is to lie in its middle, as far as the clip's ends allow; 0 for its beginning.

    Raises:
        InputError: the file is gone or cannot be decoded.
    """
    wave, rate = read_waveform(path, config.sample_rate)
    wanted = max(1, int(seconds * rate))
    first = max(0, min(int(around * rate) - wanted // 2, wave.numel() - wanted))
    wave = wave[first : first + wanted]
    return Excerpt(first / rate, wave.numel() / rate, _picture(wave, rate, config), _mp3(wave, rate))


def cut(path: str | Path, start: float, end: float) -> bytes:
    """The sound of a clip from `start` to `end`, s, as MP3.

    Raises:
        InputError: the file is gone or cannot be decoded.
    """
    wave, rate = read_waveform(path)
    first = int(start * rate)
    return _mp3(wave[first : max(int(end * rate), first + 1)], rate)


def _picture(wave: torch.Tensor, rate: int, config: TrialConfig) -> npt.NDArray[np.uint8]:
    # In dB whatever the network sees: on a power mel one sees nothing. The clip's own rate may be below the set's.
    f_max = min(config.f_max, rate / 2) if config.f_max is not None else None
    seen = config.model_copy(update={"scale": "db", "channels": "repeat", "f_max": f_max})
    with torch.no_grad():
        mel = Frontend(seen, rate)(wave[None])[0, 0]
    bright = ((mel - mel.max()) / _RANGE_DB + 1).clamp(0, 1) * 255
    picture: npt.NDArray[np.uint8] = bright.flip(0).to(torch.uint8).numpy()
    return picture


def _mp3(wave: torch.Tensor, rate: int) -> bytes:
    target = min(_MP3_RATES, key=lambda known: (known < min(rate, 44_100), abs(known - rate)))
    if target != rate:
        wave = resample(wave, rate, target)
    peak = float(wave.abs().max())
    samples = (wave / peak * 0.9 if peak > 0 else wave).numpy()  # as loud as its neighbours, or one hears only some
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, target, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE",
                    compression_level=0.6)  # fmt: skip
    return buffer.getvalue()
