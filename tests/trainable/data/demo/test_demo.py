from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trainable.data import demo
from trainable.data.dataset import load_dataset
from trainable.data.demo import demo_folder, make_demo
from trainable.data.demo.band import STYLES, play
from trainable.errors import InputError

GENRES = ["blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"]


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.wav"))
    }


@pytest.mark.slow
def test_the_demo_set_has_gtzans_names_layout_and_format(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "x", clips_per_class=2, seconds=1.0)
    assert folder == tmp_path / "x" / "genres_original"
    assert sorted(path.name for path in folder.iterdir()) == GENRES
    assert sorted(path.name for path in (folder / "rock").iterdir()) == ["rock.00000.wav", "rock.00001.wav"]
    info = soundfile.info(folder / "jazz" / "jazz.00001.wav")
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (22_050, 1, "PCM_16", 22_050)
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["genres_original"]


@pytest.mark.slow
def test_one_seed_gives_the_same_files_on_one_core_and_on_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "allowed_cores", lambda: 1)
    one = hashes(make_demo(tmp_path / "a", clips_per_class=2, seconds=1.5))
    monkeypatch.setattr(demo, "allowed_cores", lambda: 4)
    assert hashes(make_demo(tmp_path / "b", clips_per_class=2, seconds=1.5)) == one
    assert len(set(one.values())) == 20
    other = hashes(make_demo(tmp_path / "c", clips_per_class=2, seconds=1.5, seed=1))
    assert not set(other.values()) & set(one.values())


@pytest.mark.slow
def test_a_larger_set_begins_with_the_clips_of_a_smaller_one(tmp_path: Path) -> None:
    small = hashes(make_demo(tmp_path / "a", clips_per_class=1, seconds=1.0))
    large = hashes(make_demo(tmp_path / "b", clips_per_class=2, seconds=1.0))
    assert small.items() <= large.items()


@pytest.mark.slow
def test_the_average_spectrum_tells_classes_apart_in_part_and_no_more(tmp_path: Path) -> None:
    dataset = load_dataset(str(make_demo(tmp_path / "demo", clips_per_class=20)))  # a larger set begins with these
    assert len(dataset.clips) == 20 * len(GENRES)
    assert dataset.rejected == ()
    mel = torchaudio.transforms.MelSpectrogram(22_050, n_fft=2048, hop_length=640, n_mels=128)
    means = []
    for clip in dataset.clips:
        wave = torch.from_numpy(soundfile.read(clip.path, dtype="float32")[0])
        means.append((mel(wave) + 1e-6).log().mean(dim=-1).numpy())
    labels = [clip.label for clip in dataset.clips]
    judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    accuracy = cross_val_score(judge, np.stack(means), labels, cv=5).mean()
    assert 0.40 < accuracy < 0.75


@pytest.mark.parametrize("label", GENRES)
def test_every_style_plays_clips_that_are_loud_enough_and_never_clipped(label: str) -> None:
    for number in range(3):
        wave = play(STYLES[label], 3.0, np.random.default_rng(number))
        assert len(wave) == 3 * 22_050
        assert np.isfinite(wave).all()
        assert 0.15 < np.abs(wave).max() < 0.95  # -14 to -1 dB of full scale
        assert wave.std() > 0.005


def test_clips_of_a_class_differ_in_tempo_level_and_key() -> None:
    waves = [play(STYLES["disco"], 3.0, np.random.default_rng(number)) for number in range(4)]
    assert len({round(float(np.abs(wave).max()), 4) for wave in waves}) == 4
    spectra = [np.abs(np.fft.rfft(wave)) for wave in waves]
    assert len({int(np.argmax(spectrum)) for spectrum in spectra}) > 1


def test_the_cached_set_is_made_once_however_many_ask_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUDIO_SEARCH_CACHE", str(tmp_path))
    made: list[Path] = []
    original = make_demo

    def small(dest: Path, **options: object) -> Path:
        made.append(dest)
        return original(dest, clips_per_class=1, seconds=0.5)

    monkeypatch.setattr(demo, "make_demo", small)
    (tmp_path / f"demo-{demo.VERSION}" / ".genres_original.tmp1").mkdir(parents=True)  # what a kill leaves
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(demo_folder())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / f"demo-{demo.VERSION}" / "genres_original"] * 4
    assert len(made) == 1
    assert [path.name for path in found[0].parent.iterdir()] == ["genres_original"]


def test_an_interrupted_or_failed_generation_leaves_nothing_half_made(tmp_path: Path) -> None:
    def stop(description: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "x", clips_per_class=1, seconds=0.5, progress=stop)
    assert list((tmp_path / "x").iterdir()) == []


def test_a_folder_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    folder = make_demo(tmp_path, clips_per_class=1, seconds=0.5)
    before = hashes(folder)
    with pytest.raises(InputError) as caught:
        make_demo(tmp_path, clips_per_class=1, seconds=0.5, seed=1)
    assert str(caught.value) == f"{folder}: must not be there yet, got a folder. Name another place, or remove it."
    assert hashes(folder) == before


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        make_demo(tmp_path / "file", clips_per_class=1, seconds=0.5)
    assert str(caught.value) == f"{tmp_path / 'file'}: cannot be written (Not a directory). Name another place."


def test_what_a_killed_maker_has_left_behind_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / ".genres_original.unfinished" / "blues"
    left.mkdir(parents=True)
    (left / "blues.00099.wav").write_bytes(b"half a clip")
    made = make_demo(tmp_path, clips_per_class=1, seconds=0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["genres_original"]
    assert len(list(made.rglob("*.wav"))) == 10
