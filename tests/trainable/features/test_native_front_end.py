"""The front end of EfficientAT's weights, against the published recipe written out in loops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.sounds import scored, write_set
from trainable.backbones import build_backbone
from trainable.backbones.efficientat import AUDIOSET_CLASSES
from trainable.config import TrialConfig
from trainable.data.audio import read_waveform, resample
from trainable.data.dataset import Dataset
from trainable.data.split import Split
from trainable.errors import InputError
from trainable.features.frontend import Frontend, frame_count
from trainable.features.inputs import Inputs, waveform_windows
from trainable.features.mel_cache import mel_key, mels_of
from trainable.training.network import checked_config

RATE = 32_000


def native(**values: Any) -> TrialConfig:
    return checked_config({"backbone": "mn04", "weights": "none", **values})


def reference(wave: Tensor) -> Tensor:
    """What the network is shown of a waveform [n] at 32 kHz: [128, f] float64, from the recipe's sentences."""
    samples = wave.double()
    emphasised = samples[1:] - 0.97 * samples[:-1]
    place = torch.arange(800, dtype=torch.float64)
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * place / 799)  # not periodic: both ends are zero
    mirrored = torch.cat([emphasised[1:513].flip(0), emphasised, emphasised[-513:-1].flip(0)])

    def to_mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    step = to_mel(15_000) / 129
    bank = torch.zeros(128, 513, dtype=torch.float64)
    for row in range(128):
        for bin in range(512):  # Kaldi leaves the bin at half the rate out
            at = to_mel(bin * RATE / 1024) / step - row
            bank[row, bin] = max(0.0, min(at, 2 - at))
    columns = []
    for start in range(0, len(mirrored) - 1023, 320):
        frame = torch.zeros(1024, dtype=torch.float64)
        frame[112:912] = mirrored[start + 112 : start + 912] * hann
        columns.append(bank @ torch.fft.rfft(frame).abs().square())
    return (torch.log(torch.stack(columns, dim=1) + 1e-5) + 4.5) / 5


def shown(wave: Tensor, settings: TrialConfig) -> Tensor:
    """What the network is shown of a waveform by this project: [128, f]."""
    mel = Frontend(settings, RATE)(wave[None])[0, 0]
    return (mel.double() - settings.fixed_mean) / settings.fixed_deviation


def sweep(seconds: float = 1.0) -> Tensor:
    time = torch.arange(int(seconds * RATE), dtype=torch.float64) / RATE
    return (0.5 * torch.sin(2 * math.pi * (20 * time + 7740 / seconds * time.square()))).float()


def sine(pitch: float, seconds: float = 10.0) -> Tensor:
    return 0.3 * torch.sin(2 * math.pi * pitch * torch.arange(int(seconds * RATE)) / RATE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sweep", "noise", "silence", "short", "real"])
def test_it_is_the_published_recipe(name: str, request: pytest.FixtureRequest) -> None:
    rng = torch.Generator().manual_seed(0)
    if name == "real":
        folder: Path = request.getfixturevalue("shared_data") / "gtzan100" / "genres_original" / "jazz"
        clip, rate = read_waveform(min(folder.glob("*.wav")))
        wave = resample(clip[: 2 * rate], rate, RATE)
    else:
        sounds = {"sweep": sweep(), "noise": 0.1 * torch.randn(RATE, generator=rng), "silence": torch.zeros(RATE)}
        wave = sounds.get(name, sweep(0.1))
    expected, found = reference(wave), shown(wave, native())
    assert found.shape == expected.shape == (128, frame_count(native(), RATE, len(wave)))
    # Of the largest number: where the scale passes zero no relative difference has a meaning.
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4
    assert float((found - expected).norm() / expected.norm()) < 2e-5


def test_ten_seconds_are_a_thousand_frames_as_the_weights_were_taught() -> None:
    assert Frontend(native(), RATE)(torch.zeros(1, 10 * RATE)).shape == (1, 1, 128, 1000)


def test_a_configuration_takes_it_unless_it_says_otherwise_and_then_says_all_of_it() -> None:
    settings = native()
    assert (settings.sample_rate, settings.image_size, settings.channels) == (RATE, None, "one")
    assert checked_config(settings.to_json()) == settings
    other = native(hop_ms=5.0, normalise="train", image_size=64, n_mels=64)
    assert (other.hop_ms, other.normalise, other.image_size, other.n_mels) == (5.0, "train", 64, 64)
    assert (other.sample_rate, other.mel_scale, other.pre_emphasis) == (RATE, "kaldi", 0.97)
    assert checked_config({"backbone": "resnet18"}) == TrialConfig()


def test_shorter_than_the_window_is_padded_first() -> None:
    wave = torch.full((300,), 0.1)
    padded = torch.cat([wave, torch.zeros(725)])
    torch.testing.assert_close(shown(wave, native()), shown(padded, native()))


def test_a_window_longer_than_its_transform_is_refused() -> None:
    with pytest.raises(InputError, match=r"win_ms: must be at most n_fft \(16 ms\), got 25"):
        native(n_fft=512)
    with pytest.raises(
        InputError, match=r"win_ms: must be at most the length of the transform \(23.2\d* ms at 22050 Hz"
    ):
        Frontend(TrialConfig(n_fft=512, win_ms=30.0), 22_050)


@pytest.mark.parametrize("scale", ["htk", "slaney", "kaldi"])
def test_every_mel_scale_has_a_row_of_its_own_for_every_tone(scale: Any) -> None:
    settings = TrialConfig(n_mels=32, n_fft=1024, hop_length=160, mel_scale=scale)
    module = Frontend(settings, 8000)
    loudest = []
    for pitch in (200, 400, 800, 1600, 3200):
        tone = torch.sin(2 * math.pi * pitch * torch.arange(8000) / 8000)
        loudest.append(int(module(tone[None])[0, 0].mean(dim=1).argmax()))
    assert loudest == sorted(set(loudest))


def test_slaney_is_librosas_bank_of_rows_of_equal_area() -> None:
    filters = Frontend(TrialConfig(n_mels=40, n_fft=1024, mel_scale="slaney"), 16_000).filters0
    area = filters.sum(dim=0) * 16_000 / 1024
    torch.testing.assert_close(area[10:], torch.ones(30), rtol=0.05, atol=0)


def test_pre_emphasis_takes_from_each_sample_a_share_of_the_one_before() -> None:
    module = Frontend(TrialConfig(pre_emphasis=0.5, n_fft=32, hop_length=16, n_mels=8), 8000)
    wave = torch.arange(40.0)[None]
    assert module.prepared(wave)[0].tolist() == [n - 0.5 * (n - 1) for n in range(1, 40)]


# --- mn04 says what it hears


@pytest.fixture
def tagger(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """mn04 with its own head: a waveform at 32 kHz to the likeliest of AudioSet's 527 classes."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(shared_data / "weights" / "hub"))
    settings = native(weights="audioset")
    model = build_backbone("mn04", AUDIOSET_CLASSES, image_size=None, channels=1, weights="audioset").eval()
    state = torch.load(next((shared_data / "weights").rglob("mn04_as*.pt")), weights_only=True)
    model.classifier[3].load_state_dict({"weight": state["classifier.5.weight"], "bias": state["classifier.5.bias"]})
    from trainable.features.frontend import fit

    numbers = fit(settings, torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1))

    def tag(wave: Tensor) -> int:
        with torch.inference_mode():
            return int(model(waveform_windows(wave, Frontend(settings, RATE), settings, numbers)).argmax())

    return tag


SPEECH, MUSIC, SILENCE, SINE = 0, 137, 500, 501


@pytest.mark.parametrize("pitch", [440, 1000])
def test_mn04_knows_a_sine_wave(tagger: Any, pitch: float) -> None:
    assert tagger(sine(pitch)) == SINE


def test_mn04_knows_silence(tagger: Any) -> None:
    assert tagger(torch.zeros(10 * RATE)) == SILENCE


@pytest.mark.slow
def test_mn04_knows_music_and_speech(tagger: Any, shared_data: Path) -> None:
    def heard(path: Path) -> int:
        wave, rate = read_waveform(path)
        return tagger(resample(wave, rate, RATE))

    music = [heard(path) for path in sorted((shared_data / "gtzan100" / "genres_original").glob("*/*0.wav"))]
    assert music.count(MUSIC) >= 9
    speech = [heard(path) for path in sorted((shared_data / "fsdd" / "recordings").glob("*_theo_1.wav"))]
    assert speech.count(SPEECH) >= 7


# --- mels that keep their shape


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Six clips of 0.3 to 1.3 s, no two of one length."""
    rng = np.random.default_rng(0)
    waves = {f"{'ab'[index % 2]}/{index}.wav": 0.1 * rng.standard_normal(int(8000 * (0.3 + 0.2 * index)))
             for index in range(6)}  # fmt: skip
    return write_set(tmp_path / "set", waves)


def inputs_of(dataset: Dataset, settings: TrialConfig) -> Inputs:
    everything = np.arange(len(dataset.clips))
    split = Split("test", everything, everything)
    return Inputs(mels_of(dataset, settings), dataset, split, settings, torch.device("cpu"))


def test_the_mel_arrives_as_it_is(dataset: Dataset) -> None:
    settings = native()
    inputs = inputs_of(dataset, settings)
    for index, clip in enumerate(dataset.clips):
        wave = resample(read_waveform(clip.path)[0], 8000, RATE)
        images, _ = scored(inputs, torch.tensor([index]))
        assert images.shape == (1, 1, 128, frame_count(settings, RATE, len(wave)))
        torch.testing.assert_close(images[0, 0].double(), shown(wave, settings), rtol=1e-3, atol=1e-3)


def test_what_stands_beside_a_clip_changes_nothing_of_its_input(dataset: Dataset) -> None:
    inputs = inputs_of(dataset, native())
    alone = {index: scored(inputs, torch.tensor([index]))[0] for index in range(6)}
    together = inputs.eval_batch(torch.tensor([3, 0, 5, 0, 1]))
    chosen = [3, 0, 5, 0, 1]
    seen = {}
    for images, owner in together:
        for image, place in zip(images, owner.tolist(), strict=True):
            assert torch.equal(image, alone[chosen[place]][0])
            seen[place] = True
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_whole_clips_are_learned_beside_those_of_about_their_length_and_never_padded(dataset: Dataset) -> None:
    settings = native(batch_size=2)
    inputs = inputs_of(dataset, settings)
    lengths = inputs.lengths(torch.arange(6))
    batches = inputs.batches(torch.tensor([5, 0, 3, 2, 4, 1]))
    assert sorted(torch.cat(batches).tolist()) == list(range(6))
    assert [sorted(batch.tolist()) for batch in sorted(batches, key=min)] == [[0, 1], [2, 3], [4, 5]]
    for batch in batches:
        images, targets = inputs.train_batch(batch, torch.Generator().manual_seed(0))
        assert images.shape == (2, 1, 128, int(lengths[batch].min()))
        shortest = int(lengths[batch].argmin())
        whole, _ = scored(inputs, batch[shortest : shortest + 1])
        torch.testing.assert_close(images[shortest], whole[0])
        assert targets.shape == (2, 2)


def test_crops_of_clips_shorter_than_them_are_padded_with_silence(dataset: Dataset) -> None:
    inputs = inputs_of(dataset, native(crop_seconds=0.5))
    images, _ = scored(inputs, torch.tensor([0]))
    assert images.shape == (1, 1, 128, 50)
    silence = (math.log(1e-5) + 4.5) / 5
    torch.testing.assert_close(images[0, 0, :, -10:], torch.full((128, 10), silence))


def test_mels_of_one_front_end_are_shared_by_all_networks_that_use_it(dataset: Dataset) -> None:
    assert mel_key(dataset, native()) == mel_key(dataset, native(backbone="mn10", crop_seconds=0.5, normalise="train"))
    assert mel_key(dataset, native()) != mel_key(dataset, native(pre_emphasis=0.9))
