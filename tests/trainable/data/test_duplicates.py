from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from trainable.config import TrialConfig
from trainable.data import duplicates
from trainable.data.dataset import Dataset, load_dataset
from trainable.data.demo.band import STYLES, play
from trainable.data.duplicates import Copies, exact_copies, fingerprints, near_copies_across
from trainable.data.split import split_dataset

RATE = 22_050
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes `wave` as a file of the data set; two clips of other classes are always there."""

    def call(name: str, wave: np.ndarray, rate: int = RATE, subtype: str | None = "PCM_16") -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, wave, rate, subtype=subtype)

    call("pop/0.wav", music("pop", 0))
    call("rock/0.wav", music("rock", 0))
    return call


def music(style: str, seed: int, seconds: float = 6.0) -> np.ndarray:
    return play(STYLES[style], seconds, np.random.default_rng(seed)) * 0.9


def near_copies(dataset: Dataset) -> list[Copies]:
    return duplicates.near_copies(fingerprints(dataset))


def names(dataset: Dataset, copies: list) -> list[list[str]]:  # type: ignore[type-arg]
    return [[dataset.clips[index].name for index in item.clips] for item in copies]


@pytest.mark.slow
def test_the_same_samples_are_exact_copies_in_any_lossless_file(write: Write, tmp_path: Path) -> None:
    samples = (music("disco", 1) * 32768).astype(np.int16)
    write("disco/a.wav", samples)
    write("disco/b.flac", samples)
    write("rock/c.wav", samples)
    write("rock/d.wav", samples - 1)
    dataset = load_dataset(str(tmp_path))
    (copies,) = exact_copies(dataset)
    assert names(dataset, [copies]) == [["disco/a.wav", "disco/b.flac", "rock/c.wav"]]
    assert copies.similarity == 1


VARIANTS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, int]]] = {
    "softer": lambda wave: (wave * 0.1, RATE),
    "8 bits": lambda wave: (np.round(wave * 128) / 128, RATE),
    "noise at 20 dB": lambda wave: (
        wave + wave.std() * 0.1 * np.random.default_rng(0).standard_normal(wave.size),
        RATE,
    ),
    "equalised": lambda wave: (np.convolve(wave, [1, -0.7])[: wave.size], RATE),
    "cut short": lambda wave: (wave[: int(4.0 * RATE)], RATE),
    "padded with silence": lambda wave: (np.concatenate([wave[: 3 * RATE], np.zeros(2 * RATE)]), RATE),
    "half the rate": lambda wave: (wave.reshape(-1, 2).mean(axis=1), RATE // 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", VARIANTS)
@pytest.mark.parametrize("style", ["jazz", "classical", "metal"])
def test_a_changed_copy_is_found(write: Write, tmp_path: Path, how: str, style: str) -> None:
    wave = music(style, 1)
    write(f"{style}/a.wav", wave)
    changed, rate = VARIANTS[how](wave)
    write("rock/b.wav", changed, rate)
    dataset = load_dataset(str(tmp_path))
    assert exact_copies(dataset) == []
    (copies,) = near_copies(dataset)
    assert names(dataset, [copies]) == [[f"{style}/a.wav", "rock/b.wav"]]
    assert 0.9 <= copies.similarity <= 1


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["mp3", "ogg"])
def test_a_lossy_copy_is_found(write: Write, tmp_path: Path, ending: str) -> None:
    write("pop/a.wav", music("pop", 1))
    write(f"pop/b.{ending}", music("pop", 1), subtype=None)
    dataset = load_dataset(str(tmp_path))
    assert names(dataset, near_copies(dataset)) == [["pop/a.wav", f"pop/b.{ending}"]]


@pytest.mark.slow
def test_several_copies_of_one_clip_are_one_set_and_exact_ones_are_not_said_twice(write: Write, tmp_path: Path) -> None:
    wave = music("disco", 2)
    for name, factor in (("a", 1.0), ("b", 0.5), ("c", 0.25), ("d", 1.0)):
        write(f"disco/{name}.wav", wave * factor)
    dataset = load_dataset(str(tmp_path))
    assert names(dataset, exact_copies(dataset)) == [["disco/a.wav", "disco/d.wav"]]
    assert names(dataset, near_copies(dataset)) == [["disco/a.wav", "disco/b.wav", "disco/c.wav"]]


def test_short_clips_are_not_compared(write: Write, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(f"disco/{name}.wav", music("disco", 2, seconds=1.9) * (1 if name == "a" else 0.5))
    dataset = load_dataset(str(tmp_path))
    assert len(fingerprints(dataset).clips) == 2
    assert near_copies(dataset) == []


@pytest.mark.slow
def test_real_music_and_the_demo_set_give_no_false_alarm(shared_data: Path, tmp_path: Path) -> None:
    dataset = load_dataset(str(shared_data / "gtzan100" / "genres_original"))
    assert len(fingerprints(dataset).clips) == 100
    assert near_copies(dataset) == []
    assert exact_copies(dataset) == []
    for style in STYLES:  # one style's clips share patterns and instruments
        for seed in range(4):
            (tmp_path / style).mkdir(exist_ok=True)
            soundfile.write(tmp_path / style / f"{seed}.wav", music(style, seed), RATE)
    assert near_copies(load_dataset(str(tmp_path))) == []


def event(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A burst of noise in some band that dies away."""
    spectrum = np.fft.rfft(rng.standard_normal(round(seconds * RATE)))
    frequency = np.fft.rfftfreq(round(seconds * RATE), 1 / RATE)
    middle = np.exp(rng.uniform(np.log(200), np.log(3000)))
    wave = np.fft.irfft(spectrum / (1 + (2 * np.log2(np.maximum(frequency, 1) / middle)) ** 2), round(seconds * RATE))
    wave *= np.exp(-np.arange(len(wave)) / RATE / rng.uniform(0.1, 0.5))
    return np.asarray(wave / np.abs(wave).max() * 0.7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one short event", "long decay", "many events"])
@pytest.mark.parametrize("hiss", [0.0, 1e-3])
def test_unrelated_events_that_are_padded_with_silence_are_no_copies(
    write: Write, tmp_path: Path, kind: str, hiss: float
) -> None:
    rng = np.random.default_rng(0)
    for number in range(25):
        wave = hiss * rng.standard_normal(5 * RATE)
        start = 0
        for _ in range(8 if kind == "many events" else 1):
            one = event(rng.uniform(0.4, 1.2) if kind != "long decay" else rng.uniform(2, 4.5), rng)
            stop = min(start + len(one), 4 * RATE if kind == "many events" else 5 * RATE)
            wave[start:stop] += one[: stop - start]
            start = stop + round(rng.uniform(0, 0.2) * RATE)
            if start >= 4 * RATE:
                break
        write(f"event/{number}.wav", wave)
    assert near_copies(load_dataset(str(tmp_path))) == []


def test_a_copy_of_a_padded_clip_is_found(write: Write, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sound = np.concatenate([event(0.5, rng) for _ in range(6)])
    write("event/a.wav", np.concatenate([sound, np.zeros(2 * RATE)]))
    write("event/b.ogg", 0.3 * np.concatenate([sound, np.zeros(2 * RATE)]), subtype=None)
    write("event/c.wav", np.concatenate([event(0.5, rng) for _ in range(6)] + [np.zeros(2 * RATE)]))
    dataset = load_dataset(str(tmp_path))
    assert names(dataset, near_copies(dataset)) == [["event/a.wav", "event/b.ogg"]]


@pytest.mark.slow
def test_near_copies_in_two_parts_are_said_and_found_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for style in ("pop", "rock"):
        (tmp_path / style).mkdir()
        for seed in range(6):
            soundfile.write(tmp_path / style / f"{seed}.wav", music(style, seed), RATE)
    soundfile.write(tmp_path / "pop" / "0 again.wav", 0.5 * music("pop", 0), RATE)
    lines = ["path,label,split"]
    for path in sorted(tmp_path.glob("*/*.wav")):
        part = "test" if path.stem in ("0 again", "5") else "val" if path.stem == "4" else "train"
        lines.append(f"{path.parent.name}/{path.name},{path.parent.name},{part}")
    (tmp_path / "set.csv").write_text("\n".join(lines))
    dataset = load_dataset(str(tmp_path / "set.csv"))
    split = split_dataset(dataset, TrialConfig())
    (said,) = near_copies_across(dataset, split)
    assert said.startswith(
        "WARNING: 1 sets of clips that sound nearly the same are in several parts (pop/0 again.wav ~ pop/0.wav)"
    )
    monkeypatch.setattr(duplicates, "fingerprints", lambda *_: pytest.fail("found before"))
    assert near_copies_across(dataset, split) == (said,)
