"""Cached mels to network inputs, batched on the device.

Legend: n clips of the data set, b clips of a batch, w windows (stretches of clips), c channels that the network takes,
k classes; h = w = s, the image size, or h mel rows and w frames where mels keep their shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.config import TrialConfig
from trainable.data.dataset import Dataset
from trainable.data.split import Split
from trainable.features import augment
from trainable.features.crops import (
    crop_frames,
    drawn_windows,
    free_bytes,
    make_source,
    on_device,
    scoring_windows,
    statistics,
)
from trainable.features.frontend import Frontend, Normalisation, fit
from trainable.features.images import Renderer
from trainable.features.mel_cache import MelCache, mels_of_waveform

# Images that never change are made once and kept, up to this size: 5000 of 224 x 224. Making one takes 0.1 ms.
KEPT_BYTES = 1 << 30
# Whole clips that keep their shape are learned with others of about their length: so many batches are put in order of
# length at a time. More would be more alike, and each epoch's batches more like the last's.
SORTED_BATCHES = 8


class Inputs:
    """The inputs of one trial: random augmented ones to learn from, fixed ones to score.

    Without random crops and changes to the mel itself an image never changes, so it is made once and kept; what is
    drawn for each batch then acts on the image.

    Mels that keep their shape are never padded to each other's length, so what stands beside a clip changes nothing.
    Scoring takes those of one length at a time. To learn from whole clips, a batch holds clips of about one length,
    and each is cut, at a random place, to the shortest of them.
    """

    def __init__(
        self, mels: MelCache, dataset: Dataset, split: Split, config: TrialConfig, device: torch.device
    ) -> None:
        """Inputs made of `mels` on `device`; `split.train` alone decides what normalises them."""
        self.config = config
        self.device = device
        self.classes = len(dataset.labels)
        self._mels = mels  # as long as it lives, its entry stays in the cache
        self._labels = torch.tensor([clip.label for clip in dataset.clips], device=device)
        mean, square = statistics(mels, config)
        train = torch.as_tensor(split.train)
        self.normalisation = fit(config, mean[train], square[train], mels.offsets.diff()[train])
        self._source = make_source(mels, config, self.normalisation, mean, square, device)
        self._renderer = Renderer(config, mels.n_mels)
        self._crop = crop_frames(config, mels.sample_rate, mels.hop)
        self._fixed = self._crop is None and not self._renderer.changes_frames and config.image_size is not None
        self._kept: dict[int, Tensor] = {}  # clip to its images in the mel's scale [windows, c, h, w]
        self._room = min(KEPT_BYTES, free_bytes(device) // 8)

    @property
    def of_many_lengths(self) -> bool:
        """Whether whole clips keep their shape, so that images differ in length."""
        return self.config.image_size is None and self._crop is None

    def batches(self, order: Tensor) -> list[Tensor]:
        """Clips in a random `order` [n] as batches [b] to learn from; of about one length where lengths matter."""
        size = self.config.batch_size
        if not self.of_many_lengths:
            return list(torch.split(order, size))
        frames = self.lengths(order)
        parts = torch.split(torch.arange(len(order)), SORTED_BATCHES * size)
        alike = torch.cat([part[torch.argsort(frames[part], stable=True)] for part in parts])
        batches = list(torch.split(order[alike], size))
        # By the drawn order again: long clips are not always the last that are learned from.
        return sorted(batches, key=lambda batch: int((order == batch[0]).nonzero()[0]))

    def lengths(self, clips: Tensor) -> Tensor:
        """The frames [n] of an image of each of `clips` [n]; all alike where images are squares or crops."""
        if not self.of_many_lengths:
            return torch.zeros_like(clips)
        return torch.tensor(self._source.lengths(clips.tolist()))

    def train_batch(self, clips: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Augmented images [b, c, h, w] and target distributions [b, k] of `clips` [b].

        `clips` are indices into `dataset.clips`, best on the CPU: elsewhere they have to be waited for.
        """
        chosen = clips.tolist()
        source, config = self._source, self.config
        clip = on_device(chosen, self.device)
        decibels = self._renderer.decibels(len(chosen), rng, self.device)
        if self._fixed:
            image = torch.cat(self._images(chosen))
        else:
            local = source.local(chosen)
            crop = min(source.lengths(chosen)) if self.of_many_lengths else self._crop
            windows = drawn_windows(local, chosen, clip, crop, rng)
            if self._renderer.changes_frames:
                image = self._renderer.changed(local, windows, decibels, rng)
            else:
                image = self._renderer.plain(local, windows)
        image = self._renderer.warp(image, source, clip, rng)
        image = self._renderer.normalise(self._renderer.level(image, decibels, rng), source, clip)
        targets = F.one_hot(self._labels[clip], self.classes).float()
        if config.random_resized_crop:
            image = augment.random_resized_crop(image, 1 - config.random_resized_crop, rng)
        if config.mixup or config.cutmix:
            image, targets = augment.mix(image, targets, config.mixup, config.cutmix, rng)
        return image.expand(-1, config.input_channels, -1, -1), targets

    def eval_batch(self, clips: Tensor) -> list[tuple[Tensor, Tensor]]:
        """All scoring windows of `clips` [b]: images [w, c, h, w] of one shape, and whose each is, for each shape.

        Whose is [w], a position in `clips`.
        """
        chosen = clips.tolist()
        images = self._images(chosen)
        groups: dict[int, list[int]] = {}
        for place, image in enumerate(images):
            groups.setdefault(image.shape[3], []).append(place)
        result = []
        for places in groups.values():
            owner = on_device([place for place in places for _ in range(len(images[place]))], self.device)
            joined = torch.cat([images[place] for place in places])
            image = self._renderer.normalise(joined, self._source, on_device(chosen, self.device)[owner])
            result.append((image.expand(-1, self.config.input_channels, -1, -1), owner))
        return result

    def _images(self, chosen: Sequence[int]) -> list[Tensor]:
        """Each clip's scoring windows as images [w, c, h, w] in the mel's scale, kept while there is room."""
        missing = [clip for clip in dict.fromkeys(chosen) if clip not in self._kept]
        made: dict[int, Tensor] = {}
        alike: dict[int, list[int]] = {}
        for clip, frames in zip(missing, self.lengths(torch.tensor(missing, dtype=torch.int64)).tolist(), strict=True):
            alike.setdefault(frames, []).append(clip)
        for group in alike.values():
            source = self._source.local(group)
            windows, counts = scoring_windows(source, group, self._crop, self.config.eval_crops)
            image = self._renderer.plain(source, windows)
            new = dict(zip(group, torch.split(image, counts), strict=True))
            made.update(new)
            if image.nbytes <= self._room:
                self._kept.update(new)
                self._room -= image.nbytes
        return [self._kept[clip] if clip in self._kept else made[clip] for clip in chosen]


def waveform_windows(waveform: Tensor, frontend: Frontend, config: TrialConfig, normalisation: Normalisation) -> Tensor:
    """All scoring windows [w, c, h, w] of one waveform [n] at the front end's rate, as the trained network sees them.

    They are those of `Inputs.eval_batch` for the same clip, on the waveform's device.
    """
    mels = mels_of_waveform(waveform, frontend)
    mean, square = statistics(mels, config)
    source = make_source(mels, config, normalisation, mean, square, waveform.device)
    windows, _ = scoring_windows(source, [0], crop_frames(config, mels.sample_rate, mels.hop), config.eval_crops)
    renderer = Renderer(config, mels.n_mels)
    image = renderer.normalise(renderer.plain(source, windows), source, windows.clip)
    return image.expand(-1, config.input_channels, -1, -1)
