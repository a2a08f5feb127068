"""Whatever wrote a file: all of its sound is read, or it is refused by name."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.recordings import (
    FFMPEG,
    LIES,
    PITCH,
    RATE,
    SNDFILE,
    SOX,
    by_ffmpeg,
    by_sox,
    needs_ffmpeg,
    needs_sox,
    sound,
    write_source,
)
from trainable.data.audio import probe_file, read_waveform
from trainable.data.decode import Unreadable, open_sound
from trainable.data.stretches import Stretch

LENGTH = len(sound())
CODEC = 0.2  # s that a codec may put before and after the sound, and lose there


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path)


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)


def seconds(path: Path) -> float:
    """How long the sound in the file is, once it is known to be all of it: hiss first and the tone to the end."""
    wave, rate = read_waveform(path)
    tail = wave.numpy()[-int(0.7 * rate) : -int(0.3 * rate)]
    spectrum = np.abs(np.fft.rfft(tail * np.hanning(len(tail))))
    assert abs(np.argmax(spectrum) * rate / len(tail) - PITCH) < 10
    return len(wave) / rate


def whole_or_refused(path: Path) -> str:
    """The reason why a file is refused, "" where all of its sound is read."""
    found = probe_file(str(path))
    if not found.reason:
        assert found.frames / found.sample_rate >= LENGTH / RATE - CODEC
        assert seconds(path) == pytest.approx(found.frames / found.sample_rate)
    return found.reason


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("kind", FFMPEG)
def test_what_ffmpeg_writes_is_read_whole(source: Path, kind: str, pipe: bool) -> None:
    path = by_ffmpeg(source, kind, pipe)
    reason = whole_or_refused(path)
    if pipe and kind in ("rf64", "caf", "caf float"):  # sizes that say nothing, and rests that ffmpeg stumbles over
        assert reason
    else:
        assert reason == ""
        assert seconds(path) == pytest.approx(LENGTH / RATE, abs=CODEC)


@pytest.mark.slow
@needs_sox
@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("ending", SOX)
def test_what_sox_writes_is_read_whole(source: Path, ending: str, pipe: bool) -> None:
    path = by_sox(source, ending, pipe)
    assert whole_or_refused(path) == ""
    assert seconds(path) == pytest.approx(LENGTH / RATE, abs=CODEC)


@pytest.mark.slow
@pytest.mark.parametrize(("container", "subtype"), SNDFILE, ids=[" ".join(kind) for kind in SNDFILE])
def test_every_container_is_read_whole_without_ffmpeg(
    tmp_path: Path, no_ffmpeg: None, container: str, subtype: str
) -> None:
    soundfile.write(tmp_path / "a.x", sound(), RATE, format=container, subtype=subtype)
    assert whole_or_refused(tmp_path / "a.x") == ""
    assert seconds(tmp_path / "a.x") == pytest.approx(LENGTH / RATE, abs=CODEC)


@pytest.mark.slow
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("ffmpeg", [pytest.param(True, marks=needs_ffmpeg), False], ids=["ffmpeg", "no ffmpeg"])
def test_a_header_that_lies_never_costs_a_part_of_the_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str, ffmpeg: bool
) -> None:
    container, subtype, change = LIES[lie]
    path = tmp_path / f"a.{container.lower()}"
    soundfile.write(path, sound(), RATE, format=container, subtype=subtype)
    path.write_bytes(change(path.read_bytes()))
    if not ffmpeg:
        monkeypatch.setattr(shutil, "which", lambda name: None)
    reason = whole_or_refused(path)
    if lie.startswith("two of") and not reason:
        assert seconds(path) >= 2 * LENGTH / RATE - 3 * CODEC


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.parametrize(
    "kind",
    ["flac", "vorbis", "mp3 vbr, no header", "mp3 vbr, bare", "m4a", "webm", "caf alac", "wavpack", "wma"],
)
def test_samples_are_those_that_ffmpeg_decodes(source: Path, kind: str) -> None:
    path = by_ffmpeg(source, kind, pipe=kind not in ("m4a", "caf alac"))
    decoded = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-f", "f32le", "-"], capture_output=True, check=True
    ).stdout
    wanted = np.frombuffer(decoded, dtype="<f4")
    wave = read_waveform(path)[0].numpy()
    assert len(wave) == len(wanted)
    np.testing.assert_allclose(wave, wanted, atol=2e-3)


@needs_ffmpeg
@pytest.mark.parametrize("kind", ["flac", "mp3 vbr, no header"])
def test_without_ffmpeg_a_file_that_needs_it_is_refused_in_plain_words(
    source: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = by_ffmpeg(source, kind, pipe=True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = probe_file(str(path))
    assert found.reason == (
        "its header does not tell how much sound it holds: install ffmpeg, which reads it, or convert the file to WAV "
        "or FLAC"
    )
    assert not found.lasting  # it is tried again once ffmpeg is there


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.parametrize("kind", FFMPEG)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_file_that_breaks_off_is_refused_or_as_long_as_its_rest(source: Path, kind: str, share: float) -> None:
    path = by_ffmpeg(source, kind, pipe=False)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    found = probe_file(str(path))
    streams = ("mp3", "mp2", "aac", "ac3", "ircam", "voc", "rf64")  # with no end that they could lack
    assert found.reason or kind.startswith(streams)


def test_a_stretch_is_what_a_slice_of_the_whole_is(tmp_path: Path) -> None:
    for ending, exact in (("wav", True), ("flac", True), ("aiff", True), ("ogg", False), ("mp3", True)):
        path = tmp_path / f"a.{ending}"
        soundfile.write(path, sound(), RATE)
        whole, _ = read_waveform(path)
        part, rate = read_waveform(path, stretch=Stretch(1.25, 2.75))
        assert rate == RATE
        wanted = whole[int(1.25 * RATE) : int(2.75 * RATE)]
        assert len(part) == len(wanted)
        np.testing.assert_allclose(part.numpy(), wanted.numpy(), atol=1e-7 if exact else 1e-4)


@pytest.mark.slow
def test_a_stretch_at_the_end_of_a_long_recording_is_read_without_decoding_what_lies_before(tmp_path: Path) -> None:
    minute = np.random.default_rng(0).standard_normal(60 * RATE) * 0.1
    soundfile.write(tmp_path / "a.wav", np.tile(minute, 10), RATE)
    with open_sound(tmp_path / "a.wav") as opened:
        stop = 10 * 60 * RATE
        blocks = list(opened.blocks(stop - RATE, stop))
    assert sum(map(len, blocks)) == RATE
    assert opened.frames == RATE  # type: ignore[attr-defined]


@pytest.mark.slow
@needs_ffmpeg
def test_a_stretch_of_what_only_ffmpeg_reads_is_a_slice_of_the_whole(source: Path) -> None:
    path = by_ffmpeg(source, "m4a", pipe=False)
    whole, _ = read_waveform(path)
    part, _ = read_waveform(path, stretch=Stretch(1.0, 2.0))
    np.testing.assert_allclose(part.numpy(), whole[RATE : 2 * RATE].numpy())


@pytest.mark.parametrize("make", ["folder", "pipe", "nul"])
def test_what_is_no_file_is_refused_and_waits_for_nobody(tmp_path: Path, make: str) -> None:
    path = tmp_path / "a.wav"
    if make == "folder":
        path.mkdir()
    elif make == "pipe":
        os.mkfifo(path)
    name = f"{path}\0" if make == "nul" else path
    with pytest.raises(Unreadable), open_sound(name):
        pass


@pytest.mark.slow
@needs_ffmpeg
def test_a_playlist_that_calls_itself_audio_opens_no_other_file(source: Path) -> None:
    path = source.with_name("a.m4a")
    path.write_text(f"#EXTM3U\n#EXTINF:4,\n{source}\n#EXT-X-ENDLIST\n")
    assert probe_file(str(path)).reason
    path.write_text(f"ffconcat version 1.0\nfile '{source}'\n")
    assert probe_file(str(path)).reason


@pytest.mark.slow
@needs_ffmpeg
def test_names_that_ffmpeg_would_take_for_something_else_are_names(source: Path) -> None:
    made = by_ffmpeg(source, "m4a", pipe=False)
    for name in ("-i.m4a", "http:x.m4a", "a%03d.m4a", "caf\udce9.m4a"):
        path = made.with_name(name)
        shutil.copy(made, path)
        assert probe_file(str(path)).reason == ""
