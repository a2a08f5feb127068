"""Augmentation of a batch on its device, each clip drawn for itself from one explicit generator.

Legend: b clips, T frames of all clips together, c channels, m mel rows; images are [b, c, h, w]. Every draw is
uniform in [0, 1) first, so that the same generator gives the same batch whatever is done with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.features.frontend import PCEN_BIAS, PCEN_GAIN


@dataclass(frozen=True)
class Layout:
    """Which frame of a flat batch is which."""

    owner: Tensor  # [T] int64: the clip that each frame belongs to
    position: Tensor  # [T] int64: where it lies there
    frames: Tensor  # [T] int64: how many frames that clip has
    spans: list[tuple[int, int]]  # b: where each clip's frames lie, known without asking the device


def uniform(shape: tuple[int, ...], rng: torch.Generator, device: torch.device) -> Tensor:
    """Numbers in [0, 1), float32, drawn where the generator lives."""
    return torch.rand(shape, generator=rng, device=rng.device).to(device, non_blocking=True)


def draw_masks(count: int, largest: float, lengths: Tensor, rng: torch.Generator) -> Tensor:
    """`count` masks along an axis of `lengths` [b]: [count, 2, b] int64, the first position masked and the next not.

    Widths are whole and uniform below `largest`, which is a share of the length where it is below 1: 20 gives 0 to
    19, never 20. Places are uniform among those that fit.
    Source: torchaudio.functional.mask_along_axis, which the tutorial's TimeMasking(20) and FrequencyMasking(20) call.
    """
    draw = uniform((count, 2, len(lengths)), rng, lengths.device)
    limit = (largest * lengths if largest < 1 else torch.full_like(lengths, int(largest))).minimum(lengths)
    width = draw[:, 0] * limit
    start = (draw[:, 1] * (lengths - width)).floor()
    return torch.stack([start, start + width.floor()], dim=1).long()


def apply_masks(rows: Tensor, in_time: Tensor, in_mels: Tensor, fill: Tensor, layout: Layout) -> Tensor:
    """`rows` [T, c, m] with `fill` [b, c] where a mask lies; those handed in may be overwritten.

    `in_time` and `in_mels` are drawn by `draw_masks`. Slices are the cheapest on a CPU, where their places are known;
    a GPU would have to be waited for, and has bandwidth to spare.
    """
    if rows.device.type != "cpu":
        return mask_by_position(rows, in_time, in_mels, fill, layout)
    times, mels = in_time.permute(2, 0, 1).tolist(), in_mels.permute(2, 0, 1).tolist()
    for clip, (start, end) in enumerate(layout.spans):
        part, value = rows[start:end], fill[clip][:, None]
        for first, last in times[clip]:
            part[first:last] = value
        for first, last in mels[clip]:
            part[:, :, first:last] = value
    return rows


def mask_by_position(rows: Tensor, in_time: Tensor, in_mels: Tensor, fill: Tensor, layout: Layout) -> Tensor:
    """As `apply_masks`, by looking at each number's place: nothing has to be known on the CPU."""
    row = torch.arange(rows.shape[2], device=rows.device)
    start, end = in_time[:, 0, layout.owner], in_time[:, 1, layout.owner]
    hit_frames = ((layout.position >= start) & (layout.position < end)).any(0)
    hit_mels = ((row >= in_mels[:, 0, :, None]) & (row < in_mels[:, 1, :, None])).any(0)
    hit = hit_frames[:, None] | hit_mels[layout.owner]
    return torch.where(hit[:, None], fill[layout.owner][..., None], rows)


def add_noise(rows: Tensor, std: Tensor, picked: Tensor, clamp: bool, layout: Layout, rng: torch.Generator) -> None:
    """Adds gaussian noise to the `picked` [b] clips of `rows` [T, c, m] in place, of deviation `std` [b, c].

    With `clamp` channel 0 stays at or above 0, as power does.
    """
    if rows.device.type != "cpu":
        noise_by_factor(rows, std, picked, layout, rng)
    else:  # drawing is what costs, so only for those that get it
        for clip in picked.nonzero().flatten().tolist():
            part = rows[slice(*layout.spans[clip])]
            part += torch.randn(part.shape, generator=rng).mul_(std[clip][:, None])
    if clamp:
        rows[:, 0].clamp_(min=0)


def noise_by_factor(rows: Tensor, std: Tensor, picked: Tensor, layout: Layout, rng: torch.Generator) -> None:
    """As `add_noise`, drawing for all clips: nothing has to be known on the CPU."""
    noise = torch.randn(rows.shape, generator=rng, device=rng.device).to(rows.device, non_blocking=True)
    rows += noise.mul_((std * picked[:, None]).index_select(0, layout.owner)[..., None])


def pcen_gain(rows: Tensor, decibels: Tensor) -> Tensor:
    """PCEN values as they would be with the sound louder by `decibels`, which broadcasts to `rows`.

    A factor k on the sound's power becomes k ** (1 - PCEN_GAIN) before the bias: what the smoother has not removed.
    """
    root = math.sqrt(PCEN_BIAS)
    ratio = (rows + root).square() - PCEN_BIAS
    return (ratio * 10 ** (decibels * (1 - PCEN_GAIN) / 10) + PCEN_BIAS).sqrt() - root


def random_resized_crop(images: Tensor, least: float, rng: torch.Generator) -> Tensor:
    """Images of the same size [b, c, h, w] that show a random part of themselves, of area U(least, 1), bilinear.

    The side ratio is log-uniform in 3/4 to 4/3, as far as the part fits.
    Source: torchvision.transforms.RandomResizedCrop, without its retries: every drawn area is kept.
    """
    draw = uniform((4, len(images)), rng, images.device)
    area = least + (1 - least) * draw[0]
    limit = torch.minimum(-area.log(), torch.full_like(area, math.log(4 / 3)))
    ratio = ((2 * draw[1] - 1) * limit).exp()
    width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
    left, top = draw[2] * (1 - width), draw[3] * (1 - height)
    zero = torch.zeros_like(area)
    # affine_grid's coordinates run from -1 to 1.
    theta = torch.stack(
        [width, zero, 2 * left + width - 1, zero, height, 2 * top + height - 1], dim=1
    ).view(-1, 2, 3)  # fmt: skip
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def warp(images: Tensor, shift: float, stretch: float, tempo: float, rng: torch.Generator) -> Tensor:
    """Images [b, c, h, w], each moved along its rows and stretched along both axes, bilinear; 0 comes in from outside.

    Rows move by up to `shift` of them, up or down, after a stretch that leaves the lowest row where it is; frames are
    stretched about their middle. Stretches are log-uniform between 1 / (1 + value) and 1 + value. Voices differ so:
    in the length of the vocal tract, in pitch and in pace.
    """
    draw = 2 * uniform((3, len(images)), rng, images.device) - 1
    zero = torch.zeros_like(draw[0])
    wide, high = (draw[0] * math.log1p(tempo)).exp(), (draw[1] * math.log1p(stretch)).exp()
    # affine_grid's coordinates run from -1, where row 0 is, to 1; the shift is half of that range for each whole.
    theta = torch.stack([wide, zero, zero, zero, high, high - 1 + 2 * shift * draw[2]], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def mix(images: Tensor, targets: Tensor, mixup: float, cutmix: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images [b, c, h, w] and target distributions [b, k], each clip mixed with another of the batch.

    mixup: (1 - l) of the other clip everywhere, l ~ Beta(mixup, mixup) per clip. Source: Zhang et al. 2018.
    cutmix: the other clip in a rectangle of area 1 - l, l ~ Beta(cutmix, cutmix), at a uniform centre, cut at the
    border; the targets weigh what is left. Source: Yun et al. 2019. With both, a fair coin decides for each batch.
    """
    batch, _, height, width = images.shape
    device = images.device
    other = torch.randperm(batch, generator=rng, device=rng.device).to(device, non_blocking=True)
    coin = uniform((1,), rng, device) < 0.5
    weight = torch.zeros(batch, 1, 1, 1, device=device)
    if mixup:
        weight = (1 - beta(mixup, batch, rng, device)).view(-1, 1, 1, 1)
    if cutmix:
        box = _boxes(1 - beta(cutmix, batch, rng, device), height, width, rng)
        weight = torch.where(coin, box, weight) if mixup else box
    share = weight.mean(dim=(1, 2, 3))[:, None]
    return torch.lerp(images, images[other], weight), torch.lerp(targets, targets[other], share)


def _boxes(area: Tensor, height: int, width: int, rng: torch.Generator) -> Tensor:
    """Masks [b, 1, h, w], 1 in a rectangle of the image's shape that covers `area` [b] of it before it is cut off."""
    centre = uniform((2, len(area)), rng, area.device)
    half = area.sqrt() / 2

    def inside(middle: Tensor, size: int) -> Tensor:
        first = ((middle - half) * size).round()[:, None]
        last = ((middle + half) * size).round()[:, None]
        position = torch.arange(size, device=area.device)
        return (position >= first) & (position < last)

    return (inside(centre[0], height)[:, None, :, None] & inside(centre[1], width)[:, None, None, :]).float()


def beta(alpha: float, count: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """`count` draws of Beta(alpha, alpha), float32.

    From two uniform numbers each, exactly, on any device: t / sqrt(v + t^2) of a Student's t with v = 2 alpha degrees
    of freedom is 2 Beta - 1. Source: Bailey 1994, "Polar generation of random variates with the t-distribution".
    """
    draw = uniform((2, count), rng, device)
    cosine = (2 * math.pi * draw[0]).cos()
    rest = (1 - draw[1]).pow(1 / alpha)  # 1 - draw: in (0, 1]
    part = (1 - rest) * cosine.square()
    return 0.5 + 0.5 * cosine.sign() * (part / (rest + part).clamp(min=1e-38)).sqrt()
