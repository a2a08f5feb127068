"""One sound in every container, written in every way that ffmpeg, sox and libsndfile know, and by headers that lie."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 16_000
SECONDS = 4.0
PITCH = 440.0  # Hz, of the second half

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
needs_sox = pytest.mark.skipif(shutil.which("sox") is None, reason="sox is not installed")


def sound() -> np.ndarray:
    """Hiss, which takes many bytes of an MP3, then a tone, which takes few: [n], n = 4 s."""
    time = np.arange(int(SECONDS / 2 * RATE)) / RATE
    hiss = np.random.default_rng(0).standard_normal(len(time))
    return np.concatenate([0.2 * hiss, 0.4 * np.sin(2 * np.pi * PITCH * time)]).clip(-1, 1)


def write_source(folder: Path) -> Path:
    """`sound` as a WAV of 16 bits."""
    path = folder / "source.wav"
    soundfile.write(path, sound(), RATE)
    return path


# Ending and arguments; ffmpeg writes each to a file and to a pipe.
FFMPEG: dict[str, tuple[str, ...]] = {
    **{f"wav {codec}": ("wav", "-c:a", codec) for codec in (
        "pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw", "adpcm_ms",
        "adpcm_ima_wav", "libmp3lame",
    )},
    "rf64": ("wav", "-rf64", "always"),
    "w64": ("w64",),
    "aiff": ("aiff",), "aiff float": ("aiff", "-c:a", "pcm_f32be"),
    "au": ("au",), "au float": ("au", "-c:a", "pcm_f32be"), "au mu-law": ("au", "-c:a", "pcm_mulaw"),
    "caf": ("caf",), "caf alac": ("caf", "-c:a", "alac"), "caf float": ("caf", "-c:a", "pcm_f32le"),
    "flac": ("flac",), "flac of three blocks": ("flac", "-frame_size", "30000"),
    "vorbis": ("ogg", "-c:a", "libvorbis"), "flac in ogg": ("ogg", "-c:a", "flac"),
    "speex": ("ogg", "-c:a", "libspeex"),
    "opus": ("opus",),
    "mp3": ("mp3",), "mp3 vbr": ("mp3", "-q:a", "2"), "mp3 vbr, no header": ("mp3", "-q:a", "2", "-write_xing", "0"),
    "mp3 cbr, no header": ("mp3", "-b:a", "64k", "-write_xing", "0"),
    "mp3 vbr, bare": ("mp3", "-q:a", "2", "-write_xing", "0", "-id3v2_version", "0"),
    "mp3 with two tags": ("mp3", "-q:a", "2", "-write_id3v1", "1"),
    "mp3 8 kHz": ("mp3", "-q:a", "2", "-write_xing", "0", "-ar", "8000"),
    "mp3 44.1 kHz": ("mp3", "-q:a", "2", "-write_xing", "0", "-ar", "44100"),
    "mp2": ("mp2",), "voc": ("voc",), "ircam": ("ircam", "-f", "ircam"),
    "m4a": ("m4a",), "webm": ("webm",), "matroska": ("mka",), "aac": ("aac",), "ac3": ("ac3",), "wavpack": ("wv",),
    "tta": ("tta",), "wma": ("wma",),
}  # fmt: skip
_MUXERS = {"m4a": "ipod", "mka": "matroska", "aac": "adts", "wma": "asf"}
_NO_PIPE = ("m4a", "caf alac")
SOX = ("wav", "aiff", "aifc", "au", "caf", "flac", "ogg", "mp3", "sph", "voc", "sf", "avr", "w64", "paf", "pvf", "8svx")
_CONTAINERS = (
    "WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "NIST", "VOC", "IRCAM", "AVR", "PAF",
    "PVF", "SVX", "SDS",
)  # fmt: skip
SNDFILE = [
    (container, subtype)
    for container in _CONTAINERS
    for subtype in soundfile.available_subtypes(container)
    if not subtype.startswith(("DWVW", "NMS", "G7", "GSM", "VOX"))
    and (subtype.startswith("MPEG_LAYER_III")) == (container == "MP3")
]  # fmt: skip


def by_ffmpeg(source: Path, kind: str, pipe: bool) -> Path:
    """`source` as ffmpeg writes it to a file or a pipe."""
    ending, *arguments = FFMPEG[kind]
    if pipe and kind in _NO_PIPE:
        pytest.skip(f"ffmpeg does not write {kind} to a pipe")
    target = source.with_name(f"target.{ending}")
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(source), *arguments]
    if pipe:
        muxer = [] if "-f" in arguments else ["-f", _MUXERS.get(ending, ending)]
        with target.open("wb") as file:
            subprocess.run([*command, *muxer, "-"], stdout=file, check=True)
    else:
        subprocess.run([*command, str(target)], check=True)
    return target


def by_sox(source: Path, ending: str, pipe: bool) -> Path:
    """`source` as sox writes it to a file or a pipe."""
    target = source.with_name(f"target.{ending}")
    with target.open("wb") as file:
        end = ["-t", ending, "-"] if pipe else [str(target)]
        subprocess.run(["sox", "-V1", str(source), *end], stdout=file if pipe else None, check=True)
    return target


def _patched(content: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    place = content.index(mark) + offset
    return content[:place] + value + content[place + len(value) :]


def _flac_total(samples: int, content: bytes) -> bytes:
    fields = int.from_bytes(content[18:26], "big") >> 36 << 36 | samples
    return content[:18] + fields.to_bytes(8, "big") + content[26:]


def _last_granule(position: int, content: bytes) -> bytes:
    """An OGG whose last page gives another position, with the right checksum."""
    begin = content.rindex(b"OggS")
    page = bytearray(content[begin:])
    page[6:14] = struct.pack("<q", position)
    page[22:26] = bytes(4)
    register = 0
    for byte in page:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ 0x04C11DB7 if register & 1 << 31 else register << 1) & 0xFFFFFFFF
    page[22:26] = register.to_bytes(4, "little")
    return content[:begin] + page


def _patches(mark: bytes, offset: int, code: str, values: tuple[int, ...]) -> Iterator[Callable[[bytes], bytes]]:
    for value in values:
        yield partial(_patched, mark=mark, offset=offset, value=struct.pack(code, value))


_FEW = 6000  # bytes or samples that a header may speak of, of 64,000 samples
LIES: dict[str, tuple[str, str, Callable[[bytes], bytes]]] = {}  # name: container, subtype, change


def _add(name: str, container: str, subtype: str, *changes: Callable[[bytes], bytes]) -> None:
    for number, change in enumerate(changes):
        LIES[f"{name} {number}"] = (container, subtype, change)


_add(
    "wav, size of the samples", "WAV", "PCM_16", *_patches(b"data", 4, "<I", (0, 1, _FEW, 2**31 - 1, 2**31, 2**32 - 1))
)
_add("wav, size of all", "WAV", "PCM_16", *_patches(b"RIFF", 4, "<I", (0, _FEW, 2**31 - 1, 2**32 - 1)))
_add("float wav, size of the samples", "WAV", "FLOAT", *_patches(b"data", 4, "<I", (0, _FEW, 2**32 - 1)))
_add("aiff, size of the samples", "AIFF", "PCM_16", *_patches(b"SSND", 4, ">I", (0, _FEW, 2**32 - 1)))
_add("aiff, frames", "AIFF", "PCM_16", *_patches(b"COMM", 10, ">I", (0, _FEW, 2**32 - 1)))
_add("aiff, size of all", "AIFF", "PCM_16", *_patches(b"FORM", 4, ">I", (0, _FEW, 2**32 - 1)))
_add("au, size", "AU", "PCM_16", *_patches(b".snd", 8, ">I", (0, _FEW, 2**32 - 1)))
_add("caf, size", "CAF", "PCM_16", *_patches(b"data", 4, ">Q", (0, _FEW, 2**63 - 1, 2**64 - 1)))
_add("w64, size", "W64", "PCM_16", *_patches(b"data\xf3\xac", 16, "<Q", (0, _FEW, 2**63 - 1, 2**64 - 1)))
_add("rf64, size of the samples", "RF64", "PCM_16", *_patches(b"ds64", 16, "<Q", (0, _FEW, 2**63 - 1, 2**64 - 1)))
_add("rf64, frames", "RF64", "PCM_16", *_patches(b"ds64", 24, "<Q", (0, _FEW, 2**64 - 1)))
_add("nist, samples", "NIST", "PCM_16", partial(_patched, mark=b"sample_count", offset=16, value=b"6000\n"))
_add("flac, samples", "FLAC", "PCM_16", *(partial(_flac_total, n) for n in (0, _FEW, 10**6, 2**36 - 1)))
_add("vorbis, last position", "OGG", "VORBIS", *(partial(_last_granule, n) for n in (0, _FEW, 10**8, -1)))
_add("opus, last position", "OGG", "OPUS", *(partial(_last_granule, n) for n in (0, _FEW, 10**8, -1)))
_add("mp3, frames", "MP3", "MPEG_LAYER_III", *_patches(b"Xing", 8, ">I", (0, 10, 10**6)))
_add("mp3 behind garbage", "MP3", "MPEG_LAYER_III", lambda content: bytes(5000) + content)
for _container, _subtype in SNDFILE:
    _add(f"two of {_container} {_subtype}", _container, _subtype, lambda content: content + content)
