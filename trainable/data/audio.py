"""From a file to a mono waveform, and what a file holds, found by decoding all of it once."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

from trainable.cores import allowed_cores
from trainable.data.decode import Block, Sound, Unreadable, open_sound
from trainable.data.stretches import Stretch, named_stretch, plain
from trainable.errors import InputError
from trainable.files import write_atomically
from trainable.progress import Progress

_LARGEST_KERNEL = 1 << 22  # taps of a resampling kernel: 16 MiB


def read_waveform(
    path: str | Path, sample_rate: int | None = None, stretch: Stretch | None = None
) -> tuple[torch.Tensor, int]:
    """The waveform [n] in float32, full scale 1, channels averaged, and its sample rate in Hz.

    With `sample_rate` the waveform is resampled by torchaudio's windowed sinc (Hann, 6 zero crossings, roll-off 0.99).
    With `stretch` only that is read; a path may also name it, as `Clip.place` does.

    Raises:
        InputError: the file is gone or cannot be decoded.
    """
    file = path
    if stretch is None:
        file, stretch = named_stretch(str(path))
    try:
        with open_sound(file) as sound:
            rate = sound.rate
            parts = [_mono(block) for block in sound.blocks(*(stretch.samples(rate) if stretch else (0, None)))]
    except Unreadable as error:
        raise InputError(f"{path}: {error.reason}. Mend the file or leave it out.") from None
    wave = torch.from_numpy(np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32))
    if sample_rate is None or sample_rate == rate:
        return wave.contiguous(), rate
    return resample(wave, rate, sample_rate), sample_rate


def read_spans(path: str | Path, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[torch.Tensor, int]]:
    """The waveforms [n] of several spans of samples of one file and their rate in Hz, channels averaged, one by one.

    The file is decoded once from its beginning, and no more of it is held than the longest span: `spans` must be in the
    order of their beginnings.

    Raises:
        InputError: the file is gone or cannot be decoded.
    """
    held, begin = np.zeros(0, dtype=np.float32), 0  # samples that are still wanted, and where they begin
    try:
        with open_sound(path) as sound:
            blocks = sound.blocks()
            for start, stop in spans:
                while begin + len(held) < stop and (block := next(blocks, None)) is not None:
                    held = np.concatenate([held, _mono(block)])
                    drop = min(max(0, start - begin), len(held))
                    held, begin = held[drop:], begin + drop
                yield torch.from_numpy(held[max(0, start - begin) : stop - begin].copy()), sound.rate
    except Unreadable as error:
        raise InputError(f"{path}: {error.reason}. Mend the file or leave it out.") from None


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


def _mono(block: Block) -> Block:
    """The channels' average [n] of samples [n, c]."""
    return np.ascontiguousarray(block[:, 0]) if block.shape[1] == 1 else block.mean(axis=1)


# Above, the square of a power mel leaves single precision: no sound is 100 dB above full scale.
ABSURD = 1e5
LOUD = 16.0  # full scale 1: above, whole numbers were written as floats (32,767 for 16 bits), or nearly so
_OVERHANG = 0.1  # s that an annotation may reach behind its recording: programs round, and codecs pad
_RATES = (100, 10_000_000)  # Hz: of what anything that hears can record
SILENCE = 1e-4  # -80 dB of full scale: below the dither of a 16-bit recording with nothing in it
_VERSION = f"5, libsndfile {soundfile.__libsndfile_version__}"  # another version may answer differently


@dataclass(frozen=True)
class Probe:
    """What a file holds, after decoding all of it; `reason` says why it is of no use, "" where it is."""

    bytes: int = 0  # size of the file when it was decoded
    mtime_ns: int = 0  # when it had been changed, ns since 1970
    frames: int = 0
    sample_rate: int = 0  # Hz
    channels: int = 0
    peak: float = 0.0  # largest value of a sample, full scale 1
    content: str = ""  # hash of the decoded samples, whatever the container; equal for exact duplicates
    reason: str = ""
    lasting: bool = True  # False where the reason lies outside the file (permissions, a network that is away)


def probe_files(
    paths: Sequence[str], key: str, progress: Progress | None = None, stretches: Sequence[Stretch | None] = ()
) -> list[Probe]:
    """What each of `paths` holds, in their order; only files that are new or changed are decoded, in parallel.

    Args:
        paths: the files.
        key: names the data set, so that each has its own small file of answers.
        progress: told of every file that is decoded.
        stretches: of the files, one each, where not all of them are meant whole.
    """
    from trainable.files import cache_folder

    store = cache_folder() / "probes" / f"{hashlib.sha256(key.encode(errors='replace')).hexdigest()[:24]}.json"
    known = _read_store(store)
    places = list(zip(paths, stretches or [None] * len(paths), strict=True))
    names = [stretch.named(path) if stretch else path for path, stretch in places]
    answers = {
        name: probe for name, (path, _) in zip(names, places, strict=True)
        if (probe := known.get(name)) and _is_current(path, probe)
    }  # fmt: skip
    new = {name: place for name, place in zip(names, places, strict=True) if name not in answers}
    if new:
        with ThreadPoolExecutor(allowed_cores()) as pool:  # libsndfile and NumPy let go of the interpreter's lock
            probes = pool.map(_probe_place, new.values())
            for done, (name, probe) in enumerate(zip(new, probes, strict=True), start=1):
                answers[name] = probe
                if progress:
                    progress("Reading clips", done, len(new))
        lasting = {name: dataclasses.astuple(probe) for name, probe in answers.items() if probe.lasting}
        store.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(store, json.dumps({"version": _VERSION, "probes": lasting}))
    return [answers[name] for name in names]


def _probe_place(place: tuple[str, Stretch | None]) -> Probe:
    path, stretch = place
    return probe_file(path, stretch) if stretch else probe_file(path)


def _read_store(store: Path) -> dict[str, Probe]:
    try:
        content = json.loads(store.read_text())
    except (OSError, ValueError):  # not there yet, or damaged: everything is decoded again
        return {}
    if content["version"] != _VERSION:
        return {}
    return {path: Probe(*values) for path, values in content["probes"].items()}


def _is_current(path: str, probe: Probe) -> bool:
    """Whether the file still is what was decoded, by its size and time of change."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # gone, or a name that no file has
        return False
    return (status.st_size, status.st_mtime_ns) == (probe.bytes, probe.mtime_ns)


def probe_file(path: str, stretch: Stretch | None = None) -> Probe:
    """What `path` holds, or a stretch of it. Never raises for a bad file: the reason is part of the answer."""
    try:
        with open_sound(path) as sound:
            return _measured(sound, _stamped(path), stretch)
    except Unreadable as error:
        return replace(_stamped(path), reason=error.reason, lasting=error.lasting)


def _stamped(path: str) -> Probe:
    """The size and time of a file that gives no sound, zeros where it has none."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return Probe()
    return Probe(status.st_size, status.st_mtime_ns)


def _measured(sound: Sound, facts: Probe, stretch: Stretch | None) -> Probe:
    """`facts` completed by what the samples are."""
    digest = hashlib.sha256(f"{sound.rate} {sound.channels}".encode())
    frames, bad, loudest, peak = 0, 0, 0.0, 0.0
    low, high = math.inf, -math.inf  # of the averaged channels, which are what is learned from
    for block in sound.blocks(*(stretch.samples(sound.rate) if stretch else (0, None))):
        frames += len(block)
        digest.update(block.tobytes())
        bad += int(np.count_nonzero(~np.isfinite(block)))
        mono = _mono(block)
        low, high = min(low, float(mono.min())), max(high, float(mono.max()))
        loudest = max(loudest, float(np.ptp(block, axis=0).max()))
        peak = max(peak, float(np.abs(block).max()))
    facts = replace(
        facts, frames=frames, sample_rate=sound.rate, channels=sound.channels, content=digest.hexdigest()[:32],
        peak=0.0 if bad else peak,
    )  # fmt: skip
    if not _RATES[0] <= sound.rate <= _RATES[1]:
        return replace(facts, reason=f"a sample rate of {sound.rate} Hz, which no recording has")
    if stretch and stretch.end is not None and frames < (stretch.end - stretch.start - _OVERHANG) * sound.rate:
        there = f"at {plain(stretch.start + frames / sound.rate)} s" if frames else "before it"
        return replace(facts, reason=f"the recording ends {there}")
    if frames == 0:
        return replace(facts, reason="no samples")
    if bad:
        return replace(facts, reason=f"{bad} NaN or infinite samples")
    if peak > ABSURD:
        return replace(facts, reason=f"peaks at {peak:.1e} where full scale is 1: no sound has such a level")
    if high - low <= 2 * SILENCE:
        cancels = loudest > 2 * SILENCE
        return replace(facts, reason="silent once its channels are averaged" if cancels else "silent")
    return facts
