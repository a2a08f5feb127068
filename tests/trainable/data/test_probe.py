from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.recordings import needs_ffmpeg
from trainable.data import audio as probe
from trainable.data import decode
from trainable.data.audio import probe_file, probe_files

RATE = 8000
TONE = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)


def write(path: Path, wave: np.ndarray = TONE, rate: int = RATE, subtype: str | None = "PCM_16") -> str:
    soundfile.write(path, wave, rate, subtype=subtype)
    return str(path)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_usual_depth_of_wav_is_read(tmp_path: Path, subtype: str) -> None:
    found = probe_file(write(tmp_path / "a.wav", subtype=subtype))
    assert (found.frames, found.sample_rate, found.channels, found.reason) == (RATE, RATE, 1, "")


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "au", "aiff"])
def test_every_usual_format_is_read(tmp_path: Path, ending: str) -> None:
    found = probe_file(write(tmp_path / f"a.{ending}", subtype=None))
    assert (found.frames, found.sample_rate, found.reason) == (RATE, RATE, "")


def test_six_channels_at_96_khz_and_a_hundredth_of_a_second_are_no_reason_to_refuse(tmp_path: Path) -> None:
    found = probe_file(write(tmp_path / "a.wav", np.tile(TONE[:960, None], (1, 6)), 96_000))
    assert (found.frames, found.sample_rate, found.channels, found.reason) == (960, 96_000, 6, "")


def test_a_file_longer_than_a_block_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_BLOCK", 1000)
    long = np.concatenate([np.zeros(RATE), TONE, [np.nan]])
    assert probe_file(write(tmp_path / "a.wav", long, subtype="FLOAT")).reason == "1 NaN or infinite samples"


def test_the_content_is_that_of_the_samples_and_not_of_the_file(tmp_path: Path) -> None:
    tone = (TONE * 32768).astype(np.int16)
    wav, flac = write(tmp_path / "a.wav", tone), write(tmp_path / "b.flac", tone)
    other, slower = write(tmp_path / "c.wav", tone - 1), write(tmp_path / "d.wav", tone, RATE // 2)
    contents = [probe_file(path).content for path in (wav, flac, other, slower)]
    assert contents[0] == contents[1]
    assert len(set(contents)) == 3


def nan_bearing(path: Path) -> None:
    wave = TONE.copy()
    wave[10:13] = (np.nan, np.inf, -np.inf)
    write(path, wave, subtype="FLOAT")


def cut_to(share: float) -> object:
    def make(path: Path) -> None:
        write(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(44 + share * (len(content) - 44))])

    return make


BAD = {
    "empty file (0 bytes)": lambda path: path.write_bytes(b""),
    "no samples": lambda path: write(path, TONE[:0]),
    "silent": lambda path: write(path, np.zeros(RATE)),
    "3 NaN or infinite samples": nan_bearing,
    "not readable as audio (format not recognised)": lambda path: path.write_text("RIFF is a word, and this is text"),
    "truncated: 75% of the samples that its header promises are missing": cut_to(0.25),
    "silent once its channels are averaged": lambda path: write(path, np.stack([TONE, -TONE], axis=1)),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_useless_file_is_named_with_its_reason(tmp_path: Path, reason: str) -> None:
    BAD[reason](tmp_path / "a.wav")
    assert probe_file(str(tmp_path / "a.wav")).reason == reason


def test_a_constant_offset_is_silence_and_so_is_dither(tmp_path: Path) -> None:
    dither = np.random.default_rng(0).choice([-1, 0, 1], size=RATE).astype(np.int16)
    assert probe_file(write(tmp_path / "a.wav", np.full(RATE, 0.25))).reason == "silent"
    assert probe_file(write(tmp_path / "b.wav", dither)).reason == "silent"
    assert probe_file(write(tmp_path / "c.wav", TONE * 1e-3)).reason == ""


@pytest.mark.parametrize("ending", ["wav", "aiff", "au", "mp3"])
def test_a_file_that_lost_its_second_half_is_refused_in_formats_that_say_their_length(
    tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"a.{ending}"
    write(path, subtype=None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert probe_file(str(path)).reason.startswith("truncated: ")


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ("flac", "truncated: 49% of the samples that its header promises are missing"),
        ("ogg", "truncated: its last page is missing or damaged"),
    ],
)
def test_a_compressed_file_that_breaks_off_where_it_cannot_be_decoded_is_refused(
    tmp_path: Path, ending: str, reason: str
) -> None:
    path = tmp_path / f"a.{ending}"
    write(path, subtype=None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert probe_file(str(path)).reason == reason


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (16, 0xFF, "error in WAV file. No 'data' chunk marker"),  # the length of the chunk
        (20, 0xFF, "error in WAV/W64/RF64 file. Malformed 'fmt ' chunk"),  # the kind of samples
        (22, 0, "channel count is zero"),  # channels
        (34, 99, "file contains data in an unimplemented format"),  # bits
    ],
)
def test_a_wav_with_a_damaged_format_is_refused(tmp_path: Path, place: int, value: int, reason: str) -> None:
    path = Path(write(tmp_path / "a.wav"))
    content = bytearray(path.read_bytes())
    content[place] = value
    path.write_bytes(content)
    assert probe_file(str(path)).reason == f"not readable as audio ({reason})"


@pytest.fixture(params=["VORBIS", "OPUS"])
def half_a_minute(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An OGG of 30 s, many pages."""
    soundfile.write(tmp_path / "a.ogg", np.tile(TONE, 30), RATE, format="OGG", subtype=request.param)
    assert probe_file(str(tmp_path / "a.ogg")).reason == ""
    return tmp_path / "a.ogg"


@pytest.mark.slow
def test_an_ogg_that_breaks_off_is_refused(half_a_minute: Path) -> None:
    content = half_a_minute.read_bytes()
    for length in (len(content) // 2, content.rindex(b"OggS") + 4, len(content) - 1):
        half_a_minute.write_bytes(content[:length])
        assert probe_file(str(half_a_minute)).reason == "truncated: its last page is missing or damaged"


@pytest.mark.slow
def test_an_ogg_whose_last_page_is_whole_but_not_marked_is_a_recording_of_a_stream(half_a_minute: Path) -> None:
    content = half_a_minute.read_bytes()
    half_a_minute.write_bytes(content[: content.rindex(b"OggS")])
    assert probe_file(str(half_a_minute)).reason == ""


@pytest.mark.slow
def test_an_ogg_with_damage_inside_is_refused(half_a_minute: Path) -> None:
    content = half_a_minute.read_bytes()
    page = content.index(b"OggS", len(content) // 2)
    for byte in (0, 5, 26, 27, 200):  # its mark, its flags, its number of segments, the first one's length, its body
        damaged = bytearray(content)
        damaged[page + byte] ^= 0xFF
        half_a_minute.write_bytes(damaged)
        assert probe_file(str(half_a_minute)).reason == "damaged: pages are missing or damaged in 1 place"
    damaged[content.index(b"OggS", len(content) // 4) + 200] ^= 1
    half_a_minute.write_bytes(damaged)
    assert probe_file(str(half_a_minute)).reason == "damaged: pages are missing or damaged in 2 places"


@pytest.mark.slow
def test_a_tag_at_the_end_is_no_damage_to_an_ogg(half_a_minute: Path) -> None:
    half_a_minute.write_bytes(half_a_minute.read_bytes() + b"TAG" + bytes(125))
    assert probe_file(str(half_a_minute)).reason == ""


@pytest.mark.slow
@needs_ffmpeg
def test_streams_in_a_row_are_read_to_the_last_one(half_a_minute: Path) -> None:
    one = probe_file(str(half_a_minute))
    half_a_minute.write_bytes(2 * half_a_minute.read_bytes())
    both = probe_file(str(half_a_minute))
    assert both.reason == ""
    assert both.frames / both.sample_rate == pytest.approx(2 * one.frames / one.sample_rate, abs=0.1)


def test_levels_that_no_sound_has_are_refused_and_those_of_whole_numbers_noted(tmp_path: Path) -> None:
    for value in (1e29, -3e6, 2.0e9):
        wave = TONE.copy()
        wave[50] = value
        reason = probe_file(write(tmp_path / "a.wav", wave, subtype="FLOAT")).reason
        assert reason == f"peaks at {abs(value):.1e} where full scale is 1: no sound has such a level"
    found = probe_file(write(tmp_path / "b.wav", 32_767 * TONE / np.abs(TONE).max(), subtype="FLOAT"))
    assert found.reason == ""
    assert found.peak == pytest.approx(32_767)


@pytest.mark.parametrize("rate", [1, 99, 20_000_000])
def test_a_sample_rate_that_no_recording_has_is_refused(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", rate=rate)
    assert probe_file(path).reason == f"a sample rate of {rate} Hz, which no recording has"


def test_a_header_that_is_a_few_bytes_off_and_one_without_a_length_are_forgiven(tmp_path: Path) -> None:
    cut_to(0.995)(tmp_path / "a.wav")  # type: ignore[operator]
    assert probe_file(str(tmp_path / "a.wav")).reason == ""
    content = bytearray(Path(write(tmp_path / "b.wav")).read_bytes())
    content[40:44] = b"\xff\xff\xff\xff"  # as ffmpeg writes into a pipe
    (tmp_path / "b.wav").write_bytes(content)
    assert probe_file(str(tmp_path / "b.wav")).reason == ""


def test_a_file_that_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    assert probe_file(str(tmp_path / "a.wav")).reason == "no such file"


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes on posix only")
def test_a_name_that_is_not_valid_text_is_read(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    write(tmp_path / "a.wav")
    (tmp_path / "a.wav").rename(path)
    assert probe_file(path).reason == ""
    assert [found.frames for found in probe_files([path], "set")] == [RATE]


def test_only_new_and_changed_files_are_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path / f"{number}.wav", TONE[number:]) for number in range(4)]
    decoded: list[str] = []
    monkeypatch.setattr(probe, "probe_file", lambda path: decoded.append(path) or probe_file(path))
    first = probe_files(paths, str(tmp_path))
    assert sorted(decoded) == paths
    decoded.clear()
    assert probe_files(paths, str(tmp_path)) == first
    assert decoded == []
    write(tmp_path / "1.wav", TONE[:100])
    new = write(tmp_path / "4.wav")
    found = probe_files([*paths, new], str(tmp_path))
    assert sorted(decoded) == [paths[1], new]
    assert [item.frames for item in found] == [RATE, 100, RATE - 2, RATE - 3, RATE]


def test_the_answers_of_another_libsndfile_and_damaged_ones_are_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    path = write(tmp_path / "a.wav")
    probe_files([path], str(tmp_path))
    decoded: list[str] = []
    monkeypatch.setattr(probe, "probe_file", lambda path: decoded.append(path) or probe_file(path))
    monkeypatch.setattr(probe, "_VERSION", "another")
    probe_files([path], str(tmp_path))
    assert decoded == [path]
    for store in (cache_folder / "probes").glob("*.json"):
        store.write_text(store.read_text()[:-5])
    probe_files([path], str(tmp_path))
    assert decoded == [path, path]


def test_a_missing_file_is_looked_for_again_at_the_next_start(tmp_path: Path) -> None:
    path = str(tmp_path / "a.wav")
    assert probe_files([path], str(tmp_path))[0].reason == "no such file"
    write(tmp_path / "a.wav")
    assert probe_files([path], str(tmp_path))[0].reason == ""


def test_progress_counts_the_files_that_are_decoded(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.wav") for number in range(3)]
    steps: list[tuple[str, int, int]] = []
    probe_files(paths, str(tmp_path), progress=lambda *step: steps.append(step))
    assert steps == [("Reading clips", 1, 3), ("Reading clips", 2, 3), ("Reading clips", 3, 3)]
    probe_files(paths, str(tmp_path), progress=lambda *step: steps.append(step))
    assert len(steps) == 3
