"""Small data sets and mels for tests of the inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from trainable.config import TrialConfig
from trainable.data.dataset import Clip, Dataset
from trainable.data.split import Split
from trainable.features.inputs import Inputs
from trainable.features.mel_cache import MelCache


def wave(seconds: float = 1.0, rate: int = 8000, seed: int = 0, pitch: float = 440.0) -> np.ndarray:
    """A tone that swells, in noise, [n] float64."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(time.size)
    return 0.3 * np.sin(2 * np.pi * pitch * time) * np.linspace(0.2, 1, time.size) + 0.02 * noise


def write_set(folder: Path, waves: Mapping[str, np.ndarray], rate: int = 8000) -> Dataset:
    """A data set of float WAV files under `folder`; a clip's label is its name up to the first slash."""
    labels = sorted({name.partition("/")[0] for name in waves})
    clips = []
    for name, samples in waves.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype="FLOAT")
        size, time = path.stat().st_size, path.stat().st_mtime_ns
        label, content = labels.index(name.partition("/")[0]), hashlib.sha256(samples.tobytes()).hexdigest()
        seconds = len(samples) / rate
        clips.append(Clip(str(path), name, label, seconds, rate, 1, size, time, content=content))
    return Dataset("test", str(folder), tuple(labels), tuple(clips))


def mels_from(mels: list[Tensor], silence: float = 0.0) -> MelCache:
    """Mels [c, m, f] as a cache in memory."""
    rows = [mel.permute(2, 0, 1).flatten(1) for mel in mels]
    lengths = torch.tensor([0, *(len(part) for part in rows)])
    return MelCache(
        torch.cat(rows).contiguous(), lengths.cumsum(0),
        torch.stack([mel.double().mean(dim=(1, 2)) for mel in mels]),
        torch.stack([mel.double().square().mean(dim=(1, 2)) for mel in mels]),
        torch.full((len(mels),), silence), mels[0].shape[1], 8000, 100,
    )  # fmt: skip


def labelled(count: int, classes: int = 2) -> Dataset:
    """A data set of clips that exist by name only, for mels made by hand."""
    clips = tuple(Clip("", f"{index}", index % classes, 1.0, 8000, 1, 0, 0) for index in range(count))
    return Dataset("test", "", tuple(map(str, range(classes))), clips)


def drawn(mel: Tensor, draws: int, seed: int = 0, silence: float = 0.0, **values: Any) -> Tensor:
    """What the network sees of one mel [c, 64, 64] in so many draws, [draws, c, 64, 64]: the resize changes nothing."""
    config = TrialConfig(**{"image_size": 64, "n_mels": 64, **values})
    index = torch.arange(1).numpy()
    inputs = Inputs(mels_from([mel], silence), labelled(1), Split("", index, index), config, torch.device("cpu"))
    images, _ = inputs.train_batch(torch.zeros(draws, dtype=torch.int64), torch.Generator().manual_seed(seed))
    return images[:, :1] if config.channels == "repeat" else images


def scored(inputs: Inputs, clips: Tensor) -> tuple[Tensor, Tensor]:
    """The scoring windows of clips whose images have one shape, and whose each is."""
    [(images, owner)] = inputs.eval_batch(clips)
    return images, owner
