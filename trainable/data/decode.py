"""A file's samples, all of them or an error: by libsndfile, and by ffmpeg where libsndfile would give less."""

from __future__ import annotations

import functools
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from trainable.data.containers import Held, held, truncated

Block = NDArray[np.float32]  # [n, c] samples of c channels, full scale 1
_BLOCK = 1 << 20  # frames decoded at a time, so that an hour of audio needs no gigabyte
_TRUNCATED = 0.01  # share of the promised samples that may be missing; careless writers miscount by a header's length
_TRUNCATED_MP3 = 0.1  # the same for MP3, whose length may be an estimate
_SYSTEM_ERROR = 2  # libsndfile: the system refused, not the format
_UNKNOWN = 1 << 60  # frames: what libsndfile says of a stream without a length
_BYTES = {  # of a sample
    "PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1,
    "DPCM_8": 1, "DPCM_16": 2, "IMA_ADPCM": 0.54, "MS_ADPCM": 0.5, "GSM610": 0.203, "G721_32": 0.5, "G723_24": 0.375,
    "G723_40": 0.625, "VOX_ADPCM": 0.5,
    "SDS PCM_S8": 127 / 60, "SDS PCM_16": 127 / 40, "SDS PCM_24": 127 / 30, "PAF PCM_24": 3.2,  # in packets
}  # fmt: skip
FOREIGN = frozenset(  # endings of formats that only ffmpeg reads
    (".m4a", ".mp4", ".aac", ".wma", ".webm", ".mka", ".mkv", ".mov", ".avi", ".3gp", ".amr", ".ape", ".wv", ".tta",
     ".ac3", ".spx", ".dsf", ".mpc")
)  # fmt: skip
_WAY_OUT = "install ffmpeg, which reads it, or convert the file to WAV or FLAC"


class Unreadable(Exception):
    """Why a file gives no sound, or not all of its sound, as words that follow its name."""

    def __init__(self, reason: str, lasting: bool = True) -> None:
        """`lasting`: False where the reason lies outside the file (permissions, a program that is not installed)."""
        self.reason, self.lasting = reason, lasting
        super().__init__(reason)


class Sound(Protocol):
    """An open file."""

    rate: int  # Hz
    channels: int

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        """The samples from `start` to `stop` (None: to the end), a million at a time.

        Raises:
            Unreadable: they are damaged; or, at the end, there should have been more.
        """


@contextmanager
def open_sound(path: str | Path) -> Iterator[Sound]:
    """The sound in the file at `path`, by whichever decoder gives all of it.

    Raises:
        Unreadable: no decoder does; says why and what to do.
    """
    with ExitStack() as open_files:
        with _in_words():
            sound = _opened(path, open_files)
        yield sound


@contextmanager
def _in_words() -> Iterator[None]:
    """Turns the errors of libsndfile and the system into `Unreadable`."""
    try:
        yield
    except FileNotFoundError:
        raise Unreadable("no such file", lasting=False) from None
    except soundfile.LibsndfileError as error:
        raise Unreadable(_words(error), lasting=error.code != _SYSTEM_ERROR) from None
    except OSError as error:
        raise Unreadable(f"cannot be opened ({error.strerror or error})", lasting=False) from None


def _opened(path: str | Path, open_files: ExitStack) -> Sound:
    """The sound by the decoder that gives all of it; `open_files` closes it."""
    if "\0" in str(path):
        raise Unreadable("no such file: no name holds a NUL")
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("is a folder" if stat.S_ISDIR(status.st_mode) else "is no file")
    if not status.st_size:
        raise Unreadable("empty file (0 bytes)")
    file, why = _by_libsndfile(path)
    if file:
        open_files.enter_context(file)
    mp3 = file.format == "MP3" if file else Path(path).suffix.lower() == ".mp3"
    facts = _held(str(path), status.st_size, status.st_mtime_ns, mp3)
    if facts.damage:
        raise Unreadable(facts.damage)
    size = file.channels * _BYTES.get(f"{file.format} {file.subtype}", _BYTES.get(file.subtype, 0)) if file else 0
    if file and not facts.misleading and not facts.lacks(file.frames, size):
        return _Libsndfile(file)
    # A header that misleads is said in plain words; what libsndfile says of it helps nobody.
    return open_files.enter_context(_by_ffmpeg(path, facts, size, "" if file or facts.misleading else why))


@functools.lru_cache(maxsize=256)
def _held(path: str, size: int, mtime_ns: int, mp3: bool) -> Held:
    """What the file's structure says, found once however many stretches of it are read."""
    return held(path, mp3)


def _by_libsndfile(path: str | Path) -> tuple[soundfile.SoundFile | None, str]:
    """The open file, or None and why it cannot be opened.

    Raises:
        soundfile.LibsndfileError: the system refuses.
    """
    try:  # on Linux a file's name is bytes, and need not be valid text
        return soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else str(path)), ""
    except soundfile.LibsndfileError as error:
        if error.code == _SYSTEM_ERROR:
            raise
        return None, _words(error)


def _words(error: soundfile.LibsndfileError) -> str:
    """libsndfile's words for a file that cannot be read, without the path that they repeat."""
    text = error.error_string.strip().rstrip(".").removeprefix("Error : ")
    if "possibly a pipe" in text:  # what libmpg123 says of a file that is no MP3
        text = "format not recognised"
    return f"not readable as audio ({text[0].lower() + text[1:]})" if text else "not readable as audio"


class _Libsndfile:
    def __init__(self, file: soundfile.SoundFile) -> None:
        self.file, self.rate, self.channels = file, file.samplerate, file.channels
        self.frames = 0  # that were decoded

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        file, skipped = self.file, start
        if start and file.seekable() and file.format != "MP3":  # an MP3's frames need those before them
            file.seek(min(start, file.frames))
            skipped = 0
        yield from _between(self._read(), skipped, None if stop is None else stop - start)
        if stop is None and 0 < file.frames < _UNKNOWN:
            missing = 1 - (self.frames + start - skipped) / file.frames
            if missing > (_TRUNCATED_MP3 if file.format == "MP3" else _TRUNCATED):
                raise Unreadable(truncated(missing))

    def _read(self) -> Iterator[Block]:
        while True:
            with _in_words():  # not SoundFile.blocks(), which repeats old samples at a cut
                block = self.file.read(_BLOCK, dtype="float32", always_2d=True)
            if not len(block):
                return
            self.frames += len(block)
            yield block


def _between(blocks: Iterator[Block], skipped: int, count: int | None) -> Iterator[Block]:
    """`blocks` without the first `skipped` samples, and at most `count` of them."""
    for block in blocks:
        begin = min(skipped, len(block))
        skipped -= begin
        block = block[begin : None if count is None else begin + count]
        if len(block):
            yield block
        if count is not None:
            count -= len(block)
            if count <= 0:
                return


# What it may open: no playlists, which name other files and addresses, and no pictures.
_DEMUXERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,eac3,flac,flv,gsm,ircam,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,"
    "nistsphere,ogg,rm,spdif,sox,tta,voc,w64,wav,wv"
)


@contextmanager
def _by_ffmpeg(path: str | Path, facts: Held, size: float, why: str) -> Iterator[Sound]:
    """The sound as ffmpeg decodes it; `why` is what libsndfile says of the file, "" where it would give less.

    Raises:
        Unreadable: ffmpeg is not installed, or cannot read the file either.
    """
    program = shutil.which("ffmpeg")
    less = "its header does not tell how much sound it holds"
    if program is None:
        foreign = Path(path).suffix.lower() in FOREIGN
        raise Unreadable(f"{why or less}: {_WAY_OUT}" if foreign or not why else why, lasting=False)
    # An AU header is the simplest that says rate and channels before the samples.
    # Where nothing else tells whether all is there, any error is one too many.
    strict = [] if facts.frames or facts.checked or size else ["-xerror"]
    command: list[str | bytes] = [
        program, "-v", "error", "-nostdin", *strict, "-protocol_whitelist", "file", "-format_whitelist", _DEMUXERS,
        "-i", b"file:" + os.fsencode(path), "-map", "0:a:0", "-f", "au", "-c:a", "pcm_f32be", "-",
    ]  # fmt: skip
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        try:
            assert process.stdout is not None
            header = process.stdout.read(24)
            if len(header) < 24:
                raise Unreadable(why or f"not readable as audio ({_said(errors)})")
            start, rate, channels = (int.from_bytes(header[place : place + 4], "big") for place in (4, 16, 20))
            process.stdout.read(start - 24)
            yield _Ffmpeg(process, errors if strict else None, rate, channels, facts, size)
        finally:
            process.kill()
            process.communicate()


class _Ffmpeg:
    def __init__(
        self, process: subprocess.Popen[bytes], errors: IO[bytes] | None, rate: int, channels: int, facts: Held,
        size: float,
    ) -> None:  # fmt: skip
        """`errors`: what ffmpeg says, where the file is to be refused for it."""
        self.process, self.errors, self.rate, self.channels = process, errors, rate, channels
        self.facts, self.size = facts, size
        self.frames = 0

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        yield from _between(self._read(), start, None if stop is None else stop - start)
        if stop is not None:
            return
        if self.errors and (self.process.wait() or self.errors.tell()):
            raise Unreadable(f"not readable as audio ({_said(self.errors)})")
        if self.facts.lacks(self.frames, self.size):
            seconds = self.frames / self.rate
            raise Unreadable(f"its header speaks of {seconds:.1f} s, and it holds more: convert it to WAV or FLAC")

    def _read(self) -> Iterator[Block]:
        assert self.process.stdout is not None
        width = 4 * self.channels
        while data := self.process.stdout.read(_BLOCK * width):
            block = np.frombuffer(data[: len(data) // width * width], dtype=">f4").astype(np.float32)
            self.frames += len(block) // self.channels
            yield block.reshape(-1, self.channels)


def _said(errors: IO[bytes]) -> str:
    """The last line that ffmpeg wrote, without the names of its parts."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    text = lines[-1].rpartition(": ")[2].rpartition("] ")[2] if lines else "ffmpeg cannot decode it"
    return text[:1].lower() + text[1:].rstrip(".")
