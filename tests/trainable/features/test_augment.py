from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from tests.support.sounds import drawn, labelled, mels_from
from trainable.config import RECIPES, TrialConfig
from trainable.data.split import Split
from trainable.features import augment
from trainable.features.frontend import Frontend
from trainable.features.inputs import Inputs

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp() -> Tensor:
    """A mel [1, 64, 64] of power between 1 and 2, no two values alike."""
    return 1 + torch.arange(64.0 * 64).view(1, 64, 64) / 4096


def p_uniform(counts: Tensor) -> float:
    return float(stats.chisquare(counts.numpy()).pvalue)


# --- masks


def test_mask_widths_are_uniform_from_0_to_19_as_the_tutorials() -> None:
    spans = augment.draw_masks(1, 20, torch.full((20_000,), 1034), generator())[0]
    widths = spans[1] - spans[0]
    assert (widths.min(), widths.max()) == (0, 19)
    assert p_uniform(torch.bincount(widths)) > 0.001


def test_masks_start_uniformly_where_they_fit() -> None:
    spans = augment.draw_masks(1, 20, torch.full((50_000,), 60), generator())[0]
    narrow = spans[0][spans[1] - spans[0] == 0]
    assert p_uniform(torch.bincount(narrow // 10)[:6]) > 0.001
    assert (spans[1] <= 60).all()


def test_a_largest_width_below_one_is_a_share_of_each_clips_own_length() -> None:
    lengths = torch.tensor([40, 400]).repeat(5000)
    spans = augment.draw_masks(1, 0.25, lengths, generator())[0]
    widths = (spans[1] - spans[0]).view(-1, 2)
    assert widths.max(dim=0).values.tolist() == [9, 99]
    assert p_uniform(torch.bincount(widths[:, 0])) > 0.001


def test_a_mask_is_never_wider_than_the_clip() -> None:
    spans = augment.draw_masks(2, 20, torch.full((1000,), 5), generator())
    assert spans.min() >= 0
    assert spans.max() <= 5


def test_masked_frames_and_rows_are_silence_in_power_and_the_rest_is_untouched() -> None:
    images = drawn(ramp(), 500, time_masks=1, freq_masks=1)
    masked = images == 0
    whole_rows, whole_frames = masked.all(dim=3).sum(dim=2), masked.all(dim=2).sum(dim=2)
    assert p_uniform(torch.bincount(whole_rows.flatten(), minlength=20)) > 0.001
    assert p_uniform(torch.bincount(whole_frames.flatten(), minlength=20)) > 0.001
    row, frame = masked.all(dim=3, keepdim=True), masked.all(dim=2, keepdim=True)
    assert torch.equal(masked, row | frame)
    assert torch.equal(torch.where(masked, ramp(), images), ramp().expand_as(images))


@pytest.mark.parametrize("normalise", ["none", "clip", "train"])
def test_masks_show_the_mean_in_other_scales(normalise: Any) -> None:
    images = drawn(ramp().log(), 50, scale="log", time_masks=2, freq_masks=2, normalise=normalise)
    plain = drawn(ramp().log(), 1, scale="log", normalise=normalise)
    changed = images[(images != plain) & ((images - plain).abs() > 1e-5)]
    assert len(changed) > 1000
    torch.testing.assert_close(changed, torch.full_like(changed, float(plain.mean())), atol=1e-5, rtol=1e-5)


def test_masks_by_slices_and_by_position_are_the_same() -> None:
    lengths = [30, 5, 64]
    frames = torch.tensor(lengths)
    owner = torch.repeat_interleave(torch.arange(3), frames)
    spans = [(0, 30), (30, 35), (35, 99)]
    position = torch.cat([torch.arange(length) for length in lengths])
    layout = augment.Layout(owner, position, frames[owner], spans)
    rows, fill = torch.randn(99, 3, 16, generator=generator()), torch.randn(3, 3, generator=generator())
    for times, mels in ((2, 2), (0, 1), (1, 0)):
        in_time = augment.draw_masks(times, 20, frames, generator())
        in_mels = augment.draw_masks(mels, 0.5, torch.full((3,), 16), generator())
        by_position = augment.mask_by_position(rows, in_time, in_mels, fill, layout)
        by_slices = augment.apply_masks(rows.clone(), in_time, in_mels, fill, layout)
        assert torch.equal(by_slices, by_position)
        assert not torch.equal(by_slices, rows)


# --- noise and level


def test_half_of_the_clips_get_gaussian_noise_of_the_tutorials_deviation() -> None:
    noise = drawn(ramp(), 400, noise=0.01) - ramp()
    noisy = noise.abs().amax(dim=(1, 2, 3)) > 0
    assert stats.binomtest(int(noisy.sum()), 400, 0.5).pvalue > 0.001
    values = noise[noisy].flatten()[:200_000]
    assert stats.kstest((values / 0.01).numpy(), "norm").pvalue > 0.001
    # Independent between clips, frames and rows.
    part = noise[noisy][:, 0]
    for shifted in (part.roll(1, 0), part.roll(1, 1), part.roll(1, 2)):
        assert abs((part * shifted).mean() / part.var()) < 0.01


def test_noise_for_all_clips_at_once_has_the_same_statistics() -> None:
    frames = torch.tensor([30, 40])
    owner = torch.repeat_interleave(torch.arange(2), frames)
    layout = augment.Layout(owner, torch.arange(70), frames[owner], [(0, 30), (30, 70)])
    rows, std = torch.zeros(70, 2, 500), torch.tensor([[1.0, 1.0], [0.1, 2.0]])
    augment.noise_by_factor(rows, std, torch.tensor([False, True]), layout, generator())
    assert (rows[:30] == 0).all()
    for channel, expected in enumerate((0.1, 2.0)):
        assert stats.kstest((rows[30:, channel].flatten() / expected).numpy(), "norm").pvalue > 0.001


def test_noise_cannot_make_power_negative_but_other_scales_may_fall() -> None:
    nothing = torch.zeros(1, 64, 64)
    power = drawn(nothing, 20, noise=0.01, noise_p=1.0)
    assert power.min() == 0
    assert (power == 0).float().mean() == pytest.approx(0.5, abs=0.01)
    assert drawn(nothing, 20, noise=0.01, noise_p=1.0, scale="log").min() < -0.03


def test_noise_is_in_units_of_the_normalised_mel() -> None:
    values = {"scale": "log", "normalise": "train", "image_size": 64}
    noise = drawn(100 * ramp(), 50, noise=0.1, noise_p=1.0, **values) - drawn(100 * ramp(), 1, **values)
    assert noise.std() == pytest.approx(0.1, rel=0.01)


def test_half_of_the_clips_get_a_gain_uniform_in_the_tutorials_range() -> None:
    factors = (drawn(ramp(), 4000, gain=0.2) / ramp()).flatten(1)
    assert (factors.amax(1) - factors.amin(1)).max() < 1e-5
    factor = factors.mean(1)
    changed = factor[(factor - 1).abs() > 1e-6]
    assert stats.binomtest(len(changed), 4000, 0.5).pvalue > 0.001
    assert stats.kstest(changed.numpy(), stats.uniform(0.8, 0.4).cdf).pvalue > 0.001


def test_the_tutorials_strong_recipe_masks_first_then_adds_noise_and_scales_last() -> None:
    values = {key: RECIPES["tutorial-strong"][key] for key in (
        "time_masks", "time_mask", "freq_masks", "freq_mask", "noise", "noise_p", "gain", "gain_p")}  # fmt: skip
    images = drawn(100 * ramp(), 300, **values)[:, 0]
    # A masked row holds noise only, and about half of it was clamped; an unmasked one has at least 80.
    masked = images.amax(dim=2) < 1
    noisy = (images[masked] > 0).any(dim=1)
    assert 0.35 < noisy.float().mean() < 0.65
    inside = images[masked][noisy]
    assert (inside == 0).float().mean() == pytest.approx(0.5, abs=0.02)
    assert inside[inside > 0].square().mean().sqrt() == pytest.approx(0.01, rel=0.05)
    assert not torch.equal(images[0], images[1])


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["power", "log", "db", "pcen"])
@pytest.mark.parametrize("channels", ["repeat", "deltas", "windows"])
def test_gain_db_does_to_the_mel_what_it_does_to_the_sound(scale: Any, channels: Any) -> None:
    values = {"scale": scale, "channels": channels, "n_fft": 512, "hop_length": 160, "n_mels": 64, "image_size": 64}
    module = Frontend(TrialConfig(**values), 8000)
    noise = torch.randn(63 * 160, generator=generator())  # loud, so that no scale's floor is near
    mel = module(noise[None])[0]
    plain = drawn(mel, 1, **values)
    images = drawn(mel, 200, gain_db=6.0, **values)
    power = {"scale": "power", "n_fft": 512, "hop_length": 160, "n_mels": 64, "image_size": 64}
    power_mel = Frontend(TrialConfig(**power), 8000)(noise[None])[0]
    decibels = 10 * (drawn(power_mel, 200, gain_db=6.0, **power) / power_mel).mean(dim=(1, 2, 3)).log10()
    assert stats.binomtest(int((decibels.abs() > 1e-4).sum()), 200, 0.5).pvalue > 0.001
    assert 5 < decibels.max() <= 6.001
    for image, level in zip(images[:20], decibels[:20].tolist(), strict=True):
        louder = drawn(module(noise[None] * 10 ** (level / 20))[0], 1, **values)[0]
        heard = (plain[0] > plain.min() + 1).expand_as(image) if scale in ("log", "db") else torch.tensor(True)
        image, louder = torch.where(heard, image, 0), torch.where(heard, louder, 0)  # rows without a bin stay silent
        torch.testing.assert_close(image, louder, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))


# --- roll


def test_a_roll_is_uniform_in_both_directions_and_wraps_round() -> None:
    images = drawn(ramp(), 2000, roll=0.25)[:, 0]
    shifts = (images[:, 0] == ramp()[0, 0, 0]).int().argmax(dim=1)
    shifts = torch.where(shifts > 32, shifts - 64, shifts)
    assert (shifts.min(), shifts.max()) == (-16, 16)
    assert p_uniform(torch.bincount(shifts + 16)[1:-1]) > 0.001  # the ends round from half a bin
    for image, shift in zip(images[:50], shifts[:50].tolist(), strict=True):
        assert torch.equal(image, ramp()[0].roll(shift, dims=1))


# --- images


@pytest.mark.slow
def test_a_random_resized_crop_shows_an_area_uniform_in_its_range_and_all_places() -> None:
    size = 64
    across = torch.linspace(0, 1, size).expand(1, 1, size, size)
    images = torch.cat([across, across.transpose(2, 3)], dim=1).repeat(3000, 1, 1, 1)
    crops = augment.random_resized_crop(images, 0.5, generator())
    inner = slice(8, -8)  # 47 steps between pixels, away from the repeated border
    width = (crops[:, 0, 32, inner][:, -1] - crops[:, 0, 32, inner][:, 0]) / (size - 17) * (size - 1)
    height = (crops[:, 1, inner, 32][:, -1] - crops[:, 1, inner, 32][:, 0]) / (size - 17) * (size - 1)
    area = (width * height).double()
    assert stats.kstest(area.numpy(), stats.uniform(0.5, 0.5).cdf).pvalue > 0.001
    ratio = width / height
    assert ratio.max() < 4 / 3 + 0.01
    assert ratio.min() > 3 / 4 - 0.01
    left = crops[:, 0, 32, 32] - width / 2
    assert left.min() < 0.05
    assert (left + width).max() > 0.95


def test_a_crop_of_everything_is_the_image() -> None:
    images = torch.rand(4, 1, 32, 32, generator=generator())
    torch.testing.assert_close(augment.random_resized_crop(images, 1.0, generator()), images, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 4.0])
def test_beta_is_scipys(alpha: float) -> None:
    values = augment.beta(alpha, 20_000, generator(), CPU).double()
    assert torch.isfinite(values).all()
    assert values.min() >= 0
    assert values.max() <= 1
    inner = values[(values > 1e-4) & (values < 1 - 1e-4)]  # float32 cannot tell what is nearer to 1
    low, high = stats.beta.cdf([1e-4, 1 - 1e-4], alpha, alpha)
    assert stats.binomtest(len(inner), 20_000, high - low).pvalue > 0.001
    assert stats.kstest(inner.numpy(), lambda x: (stats.beta.cdf(x, alpha, alpha) - low) / (high - low)).pvalue > 0.001


def one_hot_images(count: int = 64, size: int = 32) -> tuple[Tensor, Tensor]:
    """Images [b, 1, h, w] that are constant at their number, and the targets that name it."""
    return torch.arange(float(count)).view(-1, 1, 1, 1).expand(-1, 1, size, size), torch.eye(count)


def test_mixup_mixes_images_and_targets_by_one_share_per_clip() -> None:
    images, targets = one_hot_images()
    mixed, mixed_targets = augment.mix(images, targets, 0.4, 0.0, generator())
    torch.testing.assert_close(mixed_targets.sum(1), torch.ones(64))
    torch.testing.assert_close(mixed[:, 0, 0, 0], mixed_targets @ torch.arange(64.0), rtol=1e-4, atol=1e-4)
    assert (mixed == mixed[..., :1, :1]).all()
    assert len(mixed_targets.amax(1).unique()) > 30
    assert ((mixed_targets > 0).sum(1) <= 2).all()


def test_cutmix_pastes_a_rectangle_of_another_clip_and_weighs_targets_by_its_area() -> None:
    images, targets = one_hot_images()
    mixed, mixed_targets = augment.mix(images, targets, 0.0, 1.0, generator())
    for index, (image, target) in enumerate(zip(mixed[:, 0], mixed_targets, strict=True)):
        foreign = image != index
        if foreign.any():
            rows, columns = foreign.any(1), foreign.any(0)
            assert torch.equal(foreign, rows[:, None] & columns)
            assert target[int(image[foreign][0])] == pytest.approx(foreign.float().mean().item(), abs=1e-6)
        assert target[index] == pytest.approx((~foreign).float().mean().item(), abs=1e-6)
    assert 20 < sum(bool((image != index).any()) for index, image in enumerate(mixed[:, 0])) <= 64


@pytest.mark.slow
def test_with_mixup_and_cutmix_each_batch_draws_one_of_the_two() -> None:
    images, targets = one_hot_images(16)
    rng = generator()
    cut = 0
    for _ in range(200):
        mixed, _ = augment.mix(images, targets, 1.0, 1.0, rng)
        cut += bool((mixed == mixed.round()).all())
    assert stats.binomtest(cut, 200, 0.5).pvalue > 0.001


# --- the generator


def test_equal_generators_give_equal_batches_and_others_do_not() -> None:
    values: dict[str, Any] = {
        "scale": "log", "time_masks": 2, "freq_masks": 2, "roll": 0.5, "noise": 0.1, "gain_db": 6.0, "mixup": 0.3,
        "cutmix": 1.0, "random_resized_crop": 0.3, "crop_seconds": 0.5,
    }  # fmt: skip
    first, again, other = (drawn(ramp(), 8, seed, **values) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_augmentation_draws_from_no_other_generator() -> None:
    before = torch.get_rng_state()
    drawn(ramp(), 8, time_masks=1, freq_masks=1, roll=0.5, noise=0.1, gain=0.2, mixup=0.3, random_resized_crop=0.3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: noise and masks take another path there")
def test_on_a_gpu_noise_and_masks_have_the_same_statistics() -> None:
    device = torch.device("cuda")
    config = TrialConfig(image_size=64, n_mels=64, noise=0.01, time_masks=1)
    index = torch.arange(1).numpy()
    inputs = Inputs(mels_from([ramp()]), labelled(1), Split("", index, index), config, device)
    rng = torch.Generator(device).manual_seed(0)
    images, _ = inputs.train_batch(torch.zeros(400, dtype=torch.int64), rng)
    images = images[:, 0].cpu()
    masked = images.amax(dim=1) < 0.5  # [400, 64] frames
    assert p_uniform(torch.bincount(masked.sum(dim=1), minlength=20)) > 0.001
    noise = torch.where(masked[:, None], 0, images - ramp())
    noisy = noise.abs().amax(dim=(1, 2)) > 0
    assert stats.binomtest(int(noisy.sum()), 400, 0.5).pvalue > 0.001
    assert noise[noisy][noise[noisy] != 0].std() == pytest.approx(0.01, rel=0.01)


# --- shifts and stretches


def bar(row: int, frame: int = 32) -> Tensor:
    """A mel [1, 64, 64] of silence, -10, with a bright spot, smooth enough to be found between rows."""
    rows, frames = torch.arange(64.0)[:, None], torch.arange(64.0)
    return (10 * torch.exp(-((rows - row).square() + (frames - frame).square()) / 8) - 10)[None]


def centre(images: Tensor, axis: int) -> Tensor:
    """Where the bright spot of each image [b, 1, 64, 64] lies along an axis, [b]."""
    energy = (images[:, 0] + 10).clamp(min=0).sum(dim=2 if axis == 1 else 1)
    return (energy * torch.arange(64.0)).sum(dim=1) / energy.sum(dim=1)


def test_a_shift_along_the_rows_is_uniform_both_ways_and_brings_in_silence() -> None:
    images = drawn(bar(32), 600, silence=-10.0, scale="log", freq_shift=0.25)
    moved = centre(images, 1) - 32
    assert stats.kstest(moved.numpy() / 16, stats.uniform(-1, 2).cdf).pvalue > 0.001
    assert float(images.min()) == pytest.approx(-10.0, abs=1e-4)
    torch.testing.assert_close(centre(images, 2), torch.full((600,), 32.0), atol=0.05, rtol=0)


def test_a_stretch_of_the_rows_leaves_the_lowest_where_it_is_and_is_log_uniform() -> None:
    images = drawn(bar(30), 600, silence=-10.0, scale="log", freq_stretch=0.25)
    factor = (centre(images, 1) + 0.5) / 30.5
    assert stats.kstest(factor.log().numpy() / math.log(1.25), stats.uniform(-1, 2).cdf).pvalue > 0.001
    low = drawn(bar(3), 100, silence=-10.0, scale="log", freq_stretch=0.25)
    assert float((centre(low, 1) - 3).abs().max()) < 1.1


def test_a_change_of_tempo_moves_frames_about_the_middle_and_no_row() -> None:
    images = drawn(bar(20, frame=48), 600, silence=-10.0, scale="log", tempo=0.25)
    factor = (centre(images, 2) - 31.5) / 16.5
    assert stats.kstest(factor.log().numpy() / math.log(1.25), stats.uniform(-1, 2).cdf).pvalue > 0.001
    torch.testing.assert_close(centre(images, 1), torch.full((600,), 20.0), atol=0.05, rtol=0)


def test_of_differences_over_time_silence_has_none() -> None:
    images = drawn(bar(32), 200, silence=-10.0, scale="log", channels="deltas", freq_shift=0.9)
    assert float(images[:, 0].min()) == pytest.approx(-10.0, abs=1e-4)
    assert float(images[:, 1:, 0].abs().mean()) < 0.05
