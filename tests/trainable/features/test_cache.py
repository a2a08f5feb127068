from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.sounds import wave, write_set
from trainable.config import TrialConfig
from trainable.data.audio import read_waveform
from trainable.data.dataset import Dataset, load_dataset
from trainable.errors import InputError
from trainable.features import mel_cache as cache
from trainable.features.frontend import Frontend
from trainable.features.mel_cache import cache_entries, cache_limit, clear_cache, mel_key, mels_of
from trainable.files import cache_folder

SMALL: dict[str, Any] = {"n_fft": 256, "hop_length": 100, "n_mels": 16}


def config(**values: Any) -> TrialConfig:
    return TrialConfig(**{**SMALL, **values})


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUDIO_SEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    waves = {f"{label}/{index}.wav": wave(0.2 + 0.1 * index, seed=index) for label in "ab" for index in range(4)}
    return write_set(tmp_path / "set", waves)


@pytest.mark.parametrize("values", [{}, {"scale": "db", "channels": "windows"}, {"sample_rate": 11025}])
def test_the_cache_holds_every_clips_mel_frame_by_frame(dataset: Dataset, values: dict[str, Any]) -> None:
    mels = mels_of(dataset, config(**values))
    module = Frontend(config(**values), mels.sample_rate)
    assert len(mels.offsets) == len(dataset.clips) + 1
    for index, clip in enumerate(dataset.clips):
        expected = module(read_waveform(clip.path, mels.sample_rate)[0][None])[0]  # [c, m, f]
        rows = mels.values[mels.offsets[index] : mels.offsets[index + 1]]
        torch.testing.assert_close(rows.view(-1, mels.channels, 16), expected.permute(2, 0, 1))
        torch.testing.assert_close(mels.mean[index], expected.double().mean(dim=(1, 2)), rtol=1e-5, atol=1e-9)
        square = expected.double().square().mean(dim=(1, 2))
        torch.testing.assert_close(mels.mean_square[index], square, rtol=1e-5, atol=1e-9)
        assert mels.silence[index] == module.silence(expected[None])


def test_a_second_request_opens_the_same_file_and_reads_none_of_it(dataset: Dataset) -> None:
    steps: list[tuple[str, int, int]] = []
    first = mels_of(dataset, config(), lambda *step: steps.append(step))
    assert steps == [("Making mels", done, 8) for done in range(1, 9)]
    second = mels_of(dataset, config(), lambda *step: steps.append(step))
    assert len(steps) == 8
    assert torch.equal(first.values, second.values)
    assert len(cache_entries()) == 1


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the pages of a mapping are told by Linux only")
def test_opening_maps_the_values_without_reading_them(dataset: Dataset, fresh_cache: Path) -> None:
    mels_of(dataset, config())
    mels = mels_of(dataset, config())

    def resident() -> int:
        (mapping,) = Path("/proc/self/smaps").read_text().split(f"{fresh_cache}/mels/")[1:]
        found = re.search(r"^Rss:\s+(\d+) kB", mapping, re.M)
        assert found
        return int(found.group(1))

    assert resident() == 0
    mels.values.sum()
    assert resident() > 0


def test_writing_to_the_values_changes_no_file(dataset: Dataset) -> None:
    mels = mels_of(dataset, config())
    before = mels.values[0, 0].item()
    mels.values[0, 0] = -1
    assert mels_of(dataset, config()).values[0, 0].item() == before


def test_building_leaves_the_number_of_threads_as_it_was(dataset: Dataset) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        mels_of(dataset, config())
        with ThreadPoolExecutor(1) as pool:  # a new thread takes over what was set last, wherever that was
            assert (torch.get_num_threads(), pool.submit(torch.get_num_threads).result()) == (3, 3)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "values",
    [
        {"n_mels": 17}, {"n_fft": 512}, {"window_ms": 64.0}, {"hop_length": 101}, {"hop_ms": 10.0}, {"f_min": 10.0},
        {"f_max": 3000.0}, {"scale": "log"}, {"channels": "windows"}, {"sample_rate": 16000},
    ],
)  # fmt: skip
def test_the_key_changes_with_what_changes_the_mel(dataset: Dataset, values: dict[str, Any]) -> None:
    assert mel_key(dataset, config(**values)) != mel_key(dataset, config())


@pytest.mark.parametrize(
    "values",
    [
        {"lr": 0.1}, {"normalise": "train"}, {"channels": "deltas"}, {"image_size": 64}, {"crop_seconds": 1.0},
        {"sample_rate": 8000}, {"f_max": 4000.0}, {"hop_ms": 12.5}, {"window_ms": 32.0}, {"seed": 1},
        {"padding": "reflect"},
    ],
)  # fmt: skip
def test_the_key_stays_with_what_leaves_the_mel_alone(dataset: Dataset, values: dict[str, Any]) -> None:
    assert mel_key(dataset, config(**values)) == mel_key(dataset, config())


def test_mels_of_another_version_of_the_front_end_are_not_taken(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = mel_key(dataset, config())
    monkeypatch.setattr(cache, "FRONTEND_VERSION", "another")
    assert mel_key(dataset, config()) != before


def test_padding_counts_where_a_clip_is_shorter_than_the_window(dataset: Dataset) -> None:
    assert mel_key(dataset, config(n_fft=2048, padding="reflect")) != mel_key(dataset, config(n_fft=2048))


def test_the_key_follows_contents_and_order_not_places_and_names(dataset: Dataset, tmp_path: Path) -> None:
    key = mel_key(dataset, config())
    waves = {f"{label}/{index}.wav": wave(0.2 + 0.1 * index, seed=index) for label in "xy" for index in range(4)}
    assert mel_key(write_set(tmp_path / "moved", waves), config()) == key
    waves["y/3.wav"][5] += 0.01
    assert mel_key(write_set(tmp_path / "edited", waves), config()) != key
    assert mel_key(replace(dataset, clips=dataset.clips[::-1]), config()) != key


def test_without_a_hash_of_its_contents_a_clip_counts_by_name_size_and_time(dataset: Dataset) -> None:
    bare = replace(dataset, clips=tuple(replace(clip, content="") for clip in dataset.clips))
    key = mel_key(bare, config())
    for change in ({"name": "z"}, {"bytes": 1}, {"mtime_ns": 1}):
        clips = (replace(bare.clips[0], **change), *bare.clips[1:])
        assert mel_key(replace(bare, clips=clips), config()) != key


def test_an_edited_file_of_a_folder_gets_a_new_entry(make_clips: Any) -> None:
    folder = make_clips(classes=2, clips=2)
    before = load_dataset(str(folder))
    first = mels_of(before, config())
    path = Path(before.clips[0].path)
    path.write_bytes(path.read_bytes()[:-2] + b"\x01\x02")  # the last sample: size and header stay
    os.utime(path, ns=(before.clips[0].mtime_ns, before.clips[0].mtime_ns + 1))
    second = mels_of(load_dataset(str(folder)), config())
    assert not torch.equal(first.values, second.values)
    assert len(cache_entries()) == 2


@pytest.mark.slow
def test_a_builder_killed_halfway_leaves_nothing_half_made(make_clips: Any, fresh_cache: Path, tmp_path: Path) -> None:
    folder = make_clips(classes=2, clips=4)
    script = """
import os, signal, sys
from trainable.features.mel_cache import mels_of
from trainable.config import TrialConfig
from trainable.data.dataset import load_dataset

def kill(description, done, total):
    if description == "Making mels" and done == 5:
        os.kill(os.getpid(), signal.SIGKILL)

mels_of(load_dataset(sys.argv[1]), TrialConfig(n_fft=256, hop_length=100, n_mels=16), kill)
"""
    ended = subprocess.run([sys.executable, "-c", script, str(folder)], cwd=Path(__file__).parents[3])
    assert ended.returncode == -signal.SIGKILL
    (leftover,) = (fresh_cache / "mels").iterdir()
    assert leftover.name.startswith(".building-")
    assert cache_entries() == []
    mels = mels_of(load_dataset(str(folder)), config())
    assert torch.isfinite(mels.values).all()
    assert [path.name for path in (fresh_cache / "mels").iterdir()] == [leftover.name.removeprefix(".building-")]


def test_the_list_says_what_an_entry_is(dataset: Dataset) -> None:
    mels = mels_of(dataset, config(scale="log"))
    (entry,) = cache_entries()
    assert entry.in_use
    assert entry.bytes > mels.values.nbytes
    assert entry.about == {
        "dataset": "test", "clips": 8, "scale": "log", "n_mels": 16, "windows": [256], "hop": 100,
        "sample_rate": 8000,
    }  # fmt: skip


def test_clearing_keeps_what_is_in_use(dataset: Dataset) -> None:
    used = mels_of(dataset, config())
    mels_of(dataset, config(n_mels=8))
    assert clear_cache()[0] == 1
    assert [entry.about["n_mels"] for entry in cache_entries()] == [16]
    assert torch.isfinite(used.values).all()


def test_the_limit_is_kept(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_SEARCH_CACHE_GB", "0.00003")  # an entry takes about 0.00002
    mels_of(dataset, config())
    mels_of(dataset, config(scale="log"))
    assert [entry.about["scale"] for entry in cache_entries()] == ["log"]


def test_a_limit_that_is_no_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("much", "-1", "nan", "inf", "0", ""):
        monkeypatch.setenv("AUDIO_SEARCH_CACHE_GB", text)
        with pytest.raises(InputError) as error:
            cache_limit()
        assert str(error.value) == (
            f"AUDIO_SEARCH_CACHE_GB: must be a positive number of gigabytes, got {text!r}. Change it."
        )


def test_a_window_that_most_clips_do_not_fill_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError) as error:
        mels_of(dataset, config(n_fft=4096))
    assert str(error.value) == (
        "n_fft: at least half of the clips must be that long, got 4096 samples (512 ms at 8000 Hz), and 8 of 8 clips "
        "are shorter (half of them below 400 ms). Lower n_fft to 2048 or less."
    )
    with pytest.raises(InputError, match=r"window_ms: .* got 4096 samples \(512 ms .* Lower window_ms to 256 or less"):
        mels_of(dataset, config(window_ms=500.0))
    mels_of(dataset, config(n_fft=2800))  # half of them are shorter, and padded


def test_f_max_above_the_resolved_rates_half_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"f_max: must be at most half the sample rate \(4000 Hz at 8000 Hz\)"):
        mels_of(dataset, config(f_max=4001.0))


@pytest.mark.parametrize("place", ["a file", "a file/cache", "/proc/cache"])
def test_a_cache_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("AUDIO_SEARCH_CACHE", str(tmp_path / place))
    with pytest.raises(InputError) as error:
        cache_folder()
    assert str(error.value).startswith(f"AUDIO_SEARCH_CACHE: must be a folder that can be made, got {tmp_path / place}")


def test_all_clips_that_cannot_be_read_any_more_are_named_at_once(dataset: Dataset) -> None:
    for index in (1, 5):
        Path(dataset.clips[index].path).unlink()
    with pytest.raises(InputError) as error:
        mels_of(dataset, config())
    assert len(error.value.problems) == 2
    for index, problem in zip((1, 5), error.value.problems, strict=True):
        assert problem.startswith(f"{dataset.clips[index].path}: ")
    assert cache_entries() == []


def test_a_mel_that_is_not_finite_is_refused_with_the_clips_name(tmp_path: Path) -> None:
    bad = wave()
    bad[100] = np.nan
    dataset = write_set(tmp_path / "bad", {"a/good.wav": wave(), "b/bad.wav": bad})
    with pytest.raises(InputError) as error:
        mels_of(dataset, config())
    assert error.value.problems == (
        f"{tmp_path}/bad/b/bad.wav: the mel must be finite, got NaN or infinity. Leave the file out.",
    )
