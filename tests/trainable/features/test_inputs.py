from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchaudio
from scipy import stats
from torch import Tensor

from tests.support.sounds import labelled, mels_from, scored, wave, write_set
from trainable.config import RECIPES, TrialConfig
from trainable.data.audio import read_waveform
from trainable.data.dataset import Dataset, load_dataset
from trainable.data.split import Split
from trainable.features import inputs as inputs_module
from trainable.features.frontend import Frontend
from trainable.features.inputs import Inputs, waveform_windows
from trainable.features.mel_cache import cache_entries, mel_key, mels_of

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"n_fft": 256, "hop_length": 100, "n_mels": 16, "image_size": 16}


def config(**values: Any) -> TrialConfig:
    return TrialConfig(**{**SMALL, **values})


def inputs_of(dataset: Dataset, settings: TrialConfig, train: list[int] | None = None) -> Inputs:
    everything = np.arange(len(dataset.clips))
    split = Split("test", everything if train is None else np.array(train), everything)
    return Inputs(mels_of(dataset, settings), dataset, split, settings, CPU)


def inputs_from(mels: list[Tensor], silence: float = 0.0, train: list[int] | None = None, **values: Any) -> Inputs:
    index = np.arange(len(mels)) if train is None else np.array(train)
    cache = mels_from(mels, silence)
    settings = TrialConfig(**{"image_size": 16, "n_mels": mels[0].shape[1], **values})
    return Inputs(cache, labelled(len(mels)), Split("test", index, index), settings, CPU)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Six clips of 0.2 to 0.7 s."""
    waves = {f"{label}/{index}.wav": wave(0.2 + 0.1 * (3 * place + index), seed=index)
             for place, label in enumerate("ab") for index in range(3)}  # fmt: skip
    return write_set(tmp_path / "set", waves)


def tutorial_input(waveform: Tensor, rate: int, size: int) -> Tensor:
    """The tutorial's own steps, with its own libraries."""
    mel = torchaudio.transforms.MelSpectrogram(rate, n_fft=2048, hop_length=640, n_mels=128)(waveform)
    return F.adaptive_avg_pool2d(mel.clamp(min=0).repeat(3, 1, 1), (size, size))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["tutorial-simple", "tutorial-strong"])
def test_the_networks_input_for_a_real_file_is_the_tutorials(shared_data: Path, tmp_path: Path, recipe: str) -> None:
    source = shared_data / "gtzan100" / "genres_original"
    for genre in ("blues", "rock"):
        (tmp_path / "gtzan" / genre).mkdir(parents=True)
        for path in sorted((source / genre).glob("*.wav"))[:2]:
            (tmp_path / "gtzan" / genre / path.name).symlink_to(path)
    dataset = load_dataset(str(tmp_path / "gtzan"))
    settings = TrialConfig(**{**RECIPES[recipe], "sample_rate": None})
    images, owner = scored(inputs_of(dataset, settings), torch.arange(4))
    assert owner.tolist() == [0, 1, 2, 3]
    for image, clip in zip(images, dataset.clips, strict=True):
        expected = tutorial_input(*read_waveform(clip.path), settings.image_size)
        torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("size", [32, 64, 224])
def test_without_augmentation_training_sees_the_tutorials_input(tmp_path: Path, size: int) -> None:
    dataset = write_set(tmp_path / "set", {"a/1.wav": wave(3.0, 22050), "b/2.wav": wave(2.5, 22050, seed=1)}, 22050)
    images, targets = inputs_of(dataset, TrialConfig(image_size=size)).train_batch(torch.tensor([1, 0, 1]), rng())
    for image, index in zip(images, (1, 0, 1), strict=True):
        expected = tutorial_input(read_waveform(dataset.clips[index].path)[0], 22050, size)
        torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-8)
    assert targets.tolist() == [[0, 1], [1, 0], [0, 1]]


def test_clips_of_many_lengths_are_each_pooled_over_their_own_frames(dataset: Dataset) -> None:
    settings = config(scale="log", image_size=24)
    images, _ = scored(inputs_of(dataset, settings), torch.tensor([5, 0, 3]))
    for image, index in zip(images, (5, 0, 3), strict=True):
        mel = Frontend(settings, 8000)(read_waveform(dataset.clips[index].path)[0][None])[0]
        torch.testing.assert_close(image, F.adaptive_avg_pool2d(mel, 24).expand(3, -1, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
def test_windows_fill_the_three_channels(dataset: Dataset) -> None:
    images, _ = scored(inputs_of(dataset, config(channels="windows")), torch.tensor([2]))
    waveform = read_waveform(dataset.clips[2].path)[0]
    for channel, n_fft in zip(images[0], (256, 128, 64), strict=True):
        mel = torchaudio.transforms.MelSpectrogram(8000, n_fft=n_fft, hop_length=100, n_mels=16)(waveform)
        torch.testing.assert_close(channel, F.adaptive_avg_pool2d(mel[None], 16)[0], rtol=1e-5, atol=1e-7)


def test_deltas_are_taken_over_the_frames_before_the_resize(dataset: Dataset) -> None:
    settings = config(channels="deltas", scale="db")
    images, _ = scored(inputs_of(dataset, settings), torch.tensor([4, 1]))
    for image, index in zip(images, (4, 1), strict=True):
        mel = Frontend(settings, 8000)(read_waveform(dataset.clips[index].path)[0][None])[0, 0]
        delta = torchaudio.functional.compute_deltas(mel)
        stack = torch.stack([mel, delta, torchaudio.functional.compute_deltas(delta)])
        torch.testing.assert_close(image, F.adaptive_avg_pool2d(stack, 16), rtol=1e-4, atol=1e-4)


# --- crops and padding


def test_scoring_crops_are_evenly_spaced_windows_of_the_mel() -> None:
    mel = torch.rand(1, 16, 100, generator=rng())
    inputs = inputs_from([mel, mel[..., :30], mel[..., :20]], crop_seconds=0.25, hop_length=100)  # 20 frames at 8 kHz
    images, owner = scored(inputs, torch.tensor([2, 0, 1]))
    assert owner.tolist() == [0, 1, 1, 1, 1, 1, 2, 2]
    for image, start in zip(images, (0, 0, 20, 40, 60, 80, 0, 10), strict=True):
        expected = F.adaptive_avg_pool2d(mel[..., start : start + 20], 16).expand(3, -1, -1)
        torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-6)


def test_no_more_scoring_crops_than_allowed() -> None:
    inputs = inputs_from([torch.rand(1, 16, 100)], crop_seconds=0.25, eval_crops=2)
    assert scored(inputs, torch.tensor([0]))[1].tolist() == [0, 0]


def test_training_crops_are_random_windows_of_the_mel() -> None:
    mel = torch.arange(50.0).expand(1, 16, 50)
    inputs = inputs_from([mel], crop_seconds=0.2)  # 16 frames: the resize changes nothing
    images, _ = inputs.train_batch(torch.zeros(3500, dtype=torch.int64), rng())
    starts = images[:, 0, 0, 0]
    assert torch.equal(images[:, 0, 3], starts[:, None] + torch.arange(16.0))
    counts = torch.bincount(starts.long(), minlength=35)
    assert len(counts) == 35
    assert ((counts - 100).square() / 100).sum() < 65  # chi-square with 34 degrees of freedom: p = 0.001


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("padding", ["zero", "repeat", "reflect"])
def test_a_clip_shorter_than_the_crop_is_padded_with_its_scales_silence_or_itself(
    padding: Any, augmented: bool
) -> None:
    mel = torch.rand(1, 16, 10, generator=rng())
    more = {"zero": torch.full((1, 16, 6), -13.8), "repeat": mel[..., :6], "reflect": mel[..., 3:9].flip(2)}[padding]
    # A roll of less than a frame is none, and takes the way of what changes the mel.
    values: dict[str, Any] = {"roll": 0.001} if augmented else {}
    inputs = inputs_from([mel], silence=-13.8, crop_seconds=0.2, padding=padding, scale="log", **values)
    for image in (inputs.train_batch(torch.tensor([0]), rng())[0][0], scored(inputs, torch.tensor([0]))[0][0]):
        torch.testing.assert_close(image[:1], torch.cat([mel, more], dim=2), rtol=1e-5, atol=1e-6)


# --- normalisation


def test_train_normalisation_is_fitted_on_training_clips_only() -> None:
    mels = [torch.randn(1, 16, 16 + 5 * index, generator=rng(index)) * (1 + index) + index for index in range(4)]
    fitted = inputs_from(mels, train=[0, 2], scale="log", normalise="train").normalisation
    seen = torch.cat([mels[0].flatten(), mels[2].flatten()]).double()
    assert fitted.mean == pytest.approx((seen.mean().item(),), rel=1e-6)
    assert fitted.std == pytest.approx((seen.std(correction=0).item(),), rel=1e-6)
    mels[1] *= 100
    assert inputs_from(mels, train=[0, 2], scale="log", normalise="train").normalisation == fitted


@pytest.mark.parametrize("normalise", ["none", "clip", "train"])
@pytest.mark.parametrize("channels", ["repeat", "deltas", "windows"])
def test_normalised_inputs_are_those_of_a_normalised_mel(normalise: Any, channels: Any) -> None:
    channel_count = 3 if channels == "windows" else 1
    mels = [3 + 2 * torch.randn(channel_count, 16, 20 + index, generator=rng(index)) for index in range(3)]
    inputs = inputs_from(mels, train=[0, 1], scale="log", normalise=normalise, channels=channels)
    if channels == "deltas":
        first = [torchaudio.functional.compute_deltas(mel) for mel in mels]
        mels = [torch.cat([m, d, torchaudio.functional.compute_deltas(d)]) for m, d in zip(mels, first, strict=True)]
    seen = torch.cat([mels[0].flatten(1), mels[1].flatten(1)], dim=1)
    batch, _ = inputs.train_batch(torch.arange(3), rng())
    for image, mel in zip(batch, mels, strict=True):
        over = {"none": None, "clip": mel.flatten(1), "train": seen}[normalise]
        if over is not None:
            mel = (mel - over.mean(1)[:, None, None]) / over.std(1, correction=0)[:, None, None]
        torch.testing.assert_close(image, F.adaptive_avg_pool2d(mel, 16).expand(3, -1, -1), rtol=1e-4, atol=1e-4)


# --- batches


AUGMENTED: dict[str, Any] = {
    "scale": "log", "normalise": "train", "time_masks": 1, "time_mask": 0.2, "freq_masks": 1, "freq_mask": 0.2,
    "noise": 0.1, "gain_db": 3.0, "roll": 0.2, "mixup": 0.2, "random_resized_crop": 0.2,
}  # fmt: skip


@pytest.mark.parametrize("values", [{}, AUGMENTED, {**AUGMENTED, "crop_seconds": 0.3, "channels": "deltas"}])
def test_equal_generators_give_equal_batches(dataset: Dataset, values: dict[str, Any]) -> None:
    first, second = (inputs_of(dataset, config(**values)).train_batch(torch.arange(6), rng()) for _ in "12")
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert first[0].shape == (6, 3, 16, 16)
    assert torch.isfinite(first[0]).all()
    torch.testing.assert_close(first[1].sum(1), torch.ones(6))


def test_scoring_is_never_augmented(dataset: Dataset) -> None:
    plain = scored(inputs_of(dataset, config(scale="log", normalise="train")), torch.arange(6))[0]
    inputs = inputs_of(dataset, config(**AUGMENTED))
    inputs.train_batch(torch.arange(6), rng())
    assert torch.equal(scored(inputs, torch.arange(6))[0], plain)


@pytest.mark.parametrize("values", [{"gain_db": 3.0, "normalise": "clip"}, {"crop_seconds": 0.3}])
def test_kept_images_are_the_same_as_new_ones_and_are_not_changed_by_use(
    dataset: Dataset, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeps = inputs_of(dataset, config(scale="log", **values))
    monkeypatch.setattr(inputs_module, "KEPT_BYTES", 0)
    makes = inputs_of(dataset, config(scale="log", **values))
    for seed, clips in enumerate(([0, 1], [1, 2, 1, 5], [0, 1, 2, 3, 4, 5])):
        chosen = torch.tensor(clips)
        for kept, made in (
            (keeps.train_batch(chosen, rng(seed)), makes.train_batch(chosen, rng(seed))),
            (scored(keeps, chosen), scored(makes, chosen)),
        ):
            torch.testing.assert_close(kept[0], made[0], rtol=1e-6, atol=1e-6)
            assert torch.equal(kept[1], made[1])
    assert keeps._kept
    assert not makes._kept


def test_images_made_while_scoring_can_be_learned_from(dataset: Dataset) -> None:
    inputs = inputs_of(dataset, config())
    with torch.inference_mode():
        scored(inputs, torch.arange(6))
    images, _ = inputs.train_batch(torch.arange(6), rng())
    weight = torch.ones(1, requires_grad=True)
    (images * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("values", [{}, AUGMENTED, {"crop_seconds": 0.3}])
def test_clips_that_are_carried_over_batch_by_batch_give_the_same(dataset: Dataset, values: dict[str, Any]) -> None:
    resident, carried = inputs_of(dataset, config(**values)), inputs_of(dataset, config(**values))
    carried._source = dataclasses.replace(carried._source, resident=False)
    chosen = torch.tensor([4, 1, 4, 0])
    for ours, theirs in (
        (carried.train_batch(chosen, rng()), resident.train_batch(chosen, rng())),
        (scored(carried, chosen), scored(resident, chosen)),
    ):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


def test_inputs_keep_their_mels_from_being_thrown_away(dataset: Dataset) -> None:
    settings = config(n_mels=17)
    inputs = inputs_of(dataset, settings)

    def in_use() -> bool:
        return next(entry for entry in cache_entries() if entry.key == mel_key(dataset, settings)).in_use

    gc.collect()
    assert in_use()
    del inputs
    gc.collect()
    assert not in_use()


# --- what changes images: each field of the configuration does what it says

BATCH, SIZE = 64, 32


def mixed(batches: int = 1, **values: Any) -> tuple[Tensor, Tensor]:
    """Images [n, 32, 32] of clips that are each constant at their number, and targets [n, 64], each its own class."""
    mels = mels_from([torch.full((1, SIZE, SIZE), float(number)) for number in range(BATCH)])
    settings = TrialConfig(image_size=SIZE, n_mels=SIZE, **values)
    index, generator = np.arange(BATCH), rng()
    inputs = Inputs(mels, labelled(BATCH, classes=BATCH), Split("test", index, index), settings, CPU)
    drawn = [inputs.train_batch(torch.arange(BATCH), generator) for _ in range(batches)]
    return torch.cat([images for images, _ in drawn])[:, 0], torch.cat([targets for _, targets in drawn])


def shares(targets: Tensor) -> np.ndarray:
    """What each clip keeps of its own target, [n]: see `told`."""
    return told(targets.view(-1, BATCH, BATCH).diagonal(dim1=1, dim2=2).double().numpy())


def told(share: np.ndarray) -> np.ndarray:
    """The shares that can be told from all and nothing: not of a clip mixed with itself, nor by less than a pixel."""
    edge = 0.5 / SIZE**2
    return share[(share > edge) & (share < 1 - edge)]


def is_pasted(images: Tensor) -> Tensor:
    """Which images hold numbers of clips as they are, [n]: none of those between them."""
    return (images == images.round()).flatten(1).all(dim=1)


def expected_shares(mixup: float = 0.0, cutmix: float = 0.0) -> np.ndarray:
    """What a clip keeps, by the definition of one of the two in NumPy, [n]."""
    draws = np.random.default_rng(0)
    kept = draws.beta(mixup or cutmix, mixup or cutmix, 100_000)
    if cutmix:
        half = np.sqrt(1 - kept) / 2
        centre = draws.uniform(size=(2, len(half)))
        kept = 1 - (np.minimum(centre + half, 1) - np.maximum(centre - half, 0)).prod(axis=0)
    return told(kept)


def same_distribution(found: np.ndarray, expected: np.ndarray) -> None:
    assert len(found) > 2000
    assert found.mean() == pytest.approx(expected.mean(), abs=0.02)
    assert found.std() == pytest.approx(expected.std(), rel=0.05)


def test_without_mixing_every_clip_is_its_own() -> None:
    images, targets = mixed()
    assert torch.equal(targets, torch.eye(BATCH))
    assert torch.equal(images, torch.arange(float(BATCH))[:, None, None].expand_as(images))


@pytest.mark.parametrize("values", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_targets_are_mixed_as_images_are(values: dict[str, float]) -> None:
    images, targets = mixed(8, **values)
    assert (targets.amax(dim=1) < 1).float().mean() > 0.5
    torch.testing.assert_close(targets @ torch.arange(float(BATCH)), images.mean(dim=(1, 2)), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_alone_blends_whole_images_by_shares_of_its_beta(alpha: float) -> None:
    images, targets = mixed(60, mixup=alpha)
    torch.testing.assert_close(images, images[:, :1, :1].expand_as(images))
    same_distribution(shares(targets), expected_shares(mixup=alpha))


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_cutmix_alone_pastes_rectangles_of_shares_of_its_beta(alpha: float) -> None:
    images, targets = mixed(60, cutmix=alpha)
    assert is_pasted(images).all()
    same_distribution(shares(targets), expected_shares(cutmix=alpha))


@pytest.mark.slow
def test_with_both_each_of_the_two_keeps_its_own_shares() -> None:
    images, targets = mixed(200, mixup=8.0, cutmix=0.2)
    pasted = is_pasted(images).view(-1, BATCH).all(dim=1)  # per batch
    assert 70 < pasted.sum() < 130
    by_batch = targets.view(-1, BATCH, BATCH)
    same_distribution(shares(by_batch[~pasted]), expected_shares(mixup=8.0))
    same_distribution(shares(by_batch[pasted]), expected_shares(cutmix=0.2))


@pytest.mark.parametrize("value", [0.2, 0.7])
def test_a_random_resized_crop_shows_all_but_at_most_its_value_of_the_area(value: float) -> None:
    size, middle = 64, 32
    mel = torch.arange(float(size)) + 100 * torch.arange(float(size))[:, None]  # steps of 1 across and of 100 down
    inputs = inputs_from([mel[None]], image_size=size, random_resized_crop=value)
    images = inputs.train_batch(torch.zeros(2000, dtype=torch.int64), rng())[0][:, 0].double()
    across = (images[:, middle, middle + 8] - images[:, middle, middle - 8]) / 16
    down = (images[:, middle + 8, middle] - images[:, middle - 8, middle]) / 1600
    assert stats.kstest((across * down).numpy(), stats.uniform(1 - value, value).cdf).pvalue > 0.001


# --- one waveform


@pytest.mark.parametrize(
    "values",
    [
        {}, {"crop_seconds": 0.2}, {"crop_seconds": 2.0, "padding": "reflect"}, {"n_fft": 2800, "padding": "repeat"},
        {"scale": "db", "channels": "deltas", "normalise": "clip"}, {"scale": "pcen", "normalise": "train"},
        {"scale": "log", "channels": "windows", "normalise": "train", "crop_seconds": 0.2, "sample_rate": 11025},
    ],
)  # fmt: skip
def test_one_waveform_gives_the_windows_that_its_clip_is_scored_by(dataset: Dataset, values: dict[str, Any]) -> None:
    settings = config(**values)
    inputs = inputs_of(dataset, settings, train=[0, 1])
    rate = settings.sample_rate or 8000
    for index, clip in enumerate(dataset.clips):
        waveform, _ = read_waveform(clip.path, rate)
        ours = waveform_windows(waveform, Frontend(settings, rate), settings, inputs.normalisation)
        torch.testing.assert_close(ours, scored(inputs, torch.tensor([index]))[0], rtol=1e-5, atol=1e-5)


# --- on a GPU

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: mels live there, or are sent there")


@needs_gpu
@pytest.mark.parametrize("share", [0.5, 0.0])
@pytest.mark.parametrize("values", [{}, {"crop_seconds": 0.3, "scale": "log", "normalise": "train"}])
def test_a_gpu_sees_what_a_cpu_sees(
    dataset: Dataset, values: dict[str, Any], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainable.features.crops.GPU_SHARE", share)  # 0: carried over batch by batch
    settings = config(**values)
    index = np.arange(6)
    on_gpu = Inputs(mels_of(dataset, settings), dataset, Split("", index, index), settings, torch.device("cuda"))
    ours, owner = scored(on_gpu, torch.arange(6))
    theirs, _ = scored(inputs_of(dataset, settings), torch.arange(6))
    assert ours.device.type == owner.device.type == "cuda"
    torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-5)


@needs_gpu
def test_training_batches_on_a_gpu_are_finite_and_repeat(dataset: Dataset) -> None:
    settings = config(**AUGMENTED)
    index, device = np.arange(6), torch.device("cuda")
    inputs = Inputs(mels_of(dataset, settings), dataset, Split("", index, index), settings, device)
    first, again = (inputs.train_batch(torch.arange(6), torch.Generator(device).manual_seed(0))[0] for _ in "12")
    assert torch.isfinite(first).all()
    torch.testing.assert_close(first, again)
