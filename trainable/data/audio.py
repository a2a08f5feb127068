"""From a file to a mono waveform, and what a file holds, found by decoding all of it once."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import torch
import torchaudio

from trainable.cores import allowed_cores
from trainable.errors import InputError
from trainable.files import write_atomically
from trainable.progress import Progress

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


_PAGE = b"OggS"  # how every page begins
_LAST = 0x04  # a flag: this page is the last of its stream
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_damage(path: str | Path) -> str:
    """What an OGG file has lost, "" where its pages are all there; this takes a hundredth of decoding them.

    What follows the last page, such as a tag, is left alone. A file that ends with a whole page is whole, although not
    marked as the last one: recorders of radio streams never mark it.

    Source: RFC 3533, section 6.
    """
    content = Path(path).read_bytes()
    position = whole_until = gaps = 0
    marked = broken = False  # whether the last whole page says that it is the last, and whether one begins after it
    while (begin := content.find(_PAGE, position)) >= 0:
        segments = content[begin + 27 : begin + 27 + content[begin + 26]] if begin + 26 < len(content) else b""
        end = begin + 27 + len(segments) + sum(segments)
        if _is_whole(content[begin:end], end - begin):
            gaps += begin > whole_until
            position = whole_until = end
            marked, broken = bool(content[begin + 5] & _LAST), False
        else:  # its length may be what is wrong, so the next page is looked for everywhere
            position, broken = begin + 1, True
    if not whole_until or (broken and not marked):
        return "truncated: its last page is missing or damaged"
    return f"damaged: pages are missing or damaged in {gaps} place{'s' * (gaps > 1)}" if gaps else ""


def _is_whole(page: bytes, length: int) -> bool:
    """Whether a page has all its bytes, and they give its checksum.

    That is a CRC-32 from the highest bit down: zlib's, with the bits of every byte and of the result mirrored.
    """
    if len(page) < length:
        return False
    blank = page[:22] + bytes(4) + page[26:]  # the checksum's own place counts as zeros
    register = zlib.crc32(blank.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{register:032b}"[::-1], 2) == int.from_bytes(page[22:26], "little")


SILENCE = 1e-4  # -80 dB of full scale: below the dither of a 16-bit recording with nothing in it
_BLOCK = 1 << 20  # frames decoded at a time, so that an hour of audio needs no gigabyte
_TRUNCATED = 0.01  # share of the promised samples that may be missing; careless writers miscount by a header's length
_TRUNCATED_MP3 = 0.1  # the same for MP3, whose length may be an estimate
_SYSTEM_ERROR = 2  # libsndfile: the system refused, not the format
_UNKNOWN = 1 << 60  # frames: what libsndfile says of a stream without a length
_VERSION = f"4, libsndfile {soundfile.__libsndfile_version__}"  # another version may answer differently


@dataclass(frozen=True)
class Probe:
    """What a file holds, after decoding all of it; `reason` says why it is of no use, "" where it is."""

    bytes: int = 0  # size of the file when it was decoded
    mtime_ns: int = 0  # when it had been changed, ns since 1970
    frames: int = 0
    sample_rate: int = 0  # Hz
    channels: int = 0
    content: str = ""  # hash of the decoded samples, whatever the container; equal for exact duplicates
    reason: str = ""
    lasting: bool = True  # False where the reason lies outside the file (permissions, a network that is away)


def probe_files(paths: Sequence[str], key: str, progress: Progress | None = None) -> list[Probe]:
    """What each of `paths` holds, in their order; only files that are new or changed are decoded, in parallel.

    `key` names the data set, so that each has its own small file of answers.
    """
    from trainable.files import cache_folder

    store = cache_folder() / "probes" / f"{hashlib.sha256(key.encode(errors='replace')).hexdigest()[:24]}.json"
    known = _read_store(store)
    answers = {path: probe for path in paths if (probe := known.get(path)) and _is_current(path, probe)}
    new = [path for path in paths if path not in answers]
    if new:
        with ThreadPoolExecutor(allowed_cores()) as pool:  # libsndfile and NumPy let go of the interpreter's lock
            for done, (path, probe) in enumerate(zip(new, pool.map(probe_file, new), strict=True), start=1):
                answers[path] = probe
                if progress:
                    progress("Reading clips", done, len(new))
        lasting = {path: dataclasses.astuple(probe) for path, probe in answers.items() if probe.lasting}
        store.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(store, json.dumps({"version": _VERSION, "probes": lasting}))
    return [answers[path] for path in paths]


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
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (probe.bytes, probe.mtime_ns)


def probe_file(path: str) -> Probe:
    """What `path` holds. Never raises for a bad file: the reason is part of the answer."""
    try:
        status = Path(path).stat()
        facts = Probe(status.st_size, status.st_mtime_ns)
        if not facts.bytes:
            return replace(facts, reason="empty file (0 bytes)")
        with soundfile.SoundFile(openable(path)) as file:
            found = _decode(file, facts, missing_share(path))
        lost = ogg_damage(path) if file.format == "OGG" else ""
        return replace(found, reason=lost) if lost else found
    except FileNotFoundError:
        return Probe(reason="no such file", lasting=False)
    except soundfile.LibsndfileError as error:
        return replace(facts, reason=why_unreadable(error), lasting=error.code != _SYSTEM_ERROR)
    except OSError as error:
        return Probe(reason=why_unreadable(error), lasting=False)


def _decode(file: soundfile.SoundFile, facts: Probe, missing: float) -> Probe:
    """`facts` completed by what the samples are; `missing` is the share of them that the file has lost."""
    digest = hashlib.sha256(f"{file.samplerate} {file.channels}".encode())
    frames, bad, loudest = 0, 0, 0.0
    low, high = math.inf, -math.inf  # of the averaged channels, which are what is learned from
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):  # blocks() repeats old samples at a cut
        frames += len(block)
        digest.update(block.tobytes())
        bad += int(np.count_nonzero(~np.isfinite(block)))
        mono = block.mean(axis=1)
        low, high = min(low, float(mono.min())), max(high, float(mono.max()))
        loudest = max(loudest, float(np.ptp(block, axis=0).max()))
    facts = replace(
        facts, frames=frames, sample_rate=file.samplerate, channels=file.channels, content=digest.hexdigest()[:32]
    )
    if 0 < file.frames < _UNKNOWN:
        missing = max(missing, 1 - frames / file.frames)
    if missing > (_TRUNCATED_MP3 if file.format == "MP3" else _TRUNCATED):
        return replace(facts, reason=f"truncated: {missing:.0%} of the samples that its header promises are missing")
    if frames == 0:
        return replace(facts, reason="no samples")
    if bad:
        return replace(facts, reason=f"{bad} NaN or infinite samples")
    if high - low <= 2 * SILENCE:
        cancels = loudest > 2 * SILENCE
        return replace(facts, reason="silent once its channels are averaged" if cancels else "silent")
    return facts


def missing_share(path: str | Path) -> float:
    """The share of its samples that a WAV, AIFF or AU file promises and does not hold; 0 for all other files.

    libsndfile quietly shortens such a file, so its header is read here. Sizes at the end of the range, or 0, are what
    writers to a pipe put there and promise nothing.
    """
    with Path(path).open("rb") as file:
        end = file.seek(0, 2)
        file.seek(0)
        head = file.read(12)
        if head[:4] == b".snd":  # AU: where the samples begin, and how many bytes they are
            return _lost(int.from_bytes(head[8:], "big"), end - int.from_bytes(head[4:8], "big"))
        if head[:4] not in (b"RIFF", b"FORM") or head[8:] not in (b"WAVE", b"AIFF", b"AIFC"):
            return 0.0
        order: Literal["little", "big"] = "little" if head[:4] == b"RIFF" else "big"
        position = 12
        while position + 8 <= end:
            file.seek(position)
            chunk = file.read(8)
            length = int.from_bytes(chunk[4:], order)
            if chunk[:4] in (b"data", b"SSND"):
                return _lost(length, end - position - 8)
            position += 8 + length + length % 2
    return 0.0


def _lost(promised: int, held: int) -> float:
    streamed = promised == 0 or promised >= 0x7FFF0000
    return 0.0 if streamed or held >= promised else 1 - held / promised
