"""Training that takes no time: accuracy curves from a seeded family, written like real ones.

The shape is that of real fine-tuning runs: fast at first, then slower, towards a ceiling that depends on the learning
rate and on the backbone, with noise of a point or two from epoch to epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainable.config import TrialConfig
from trainable.errors import Diverged
from trainable.training.trial_folder import EpochResult, TrialFolder

CEILING = {"resnet18": 0.90, "mobilenet_v3_small": 0.86, "squeezenet1_1": 0.78, "densenet121": 0.92}


def clean_curve(config: TrialConfig) -> np.ndarray:
    """`curve` without its noise: what a configuration is worth after each epoch, `[epochs]`, fractions."""
    off = math.log10(config.lr / 5e-4)  # decades away from the best learning rate
    ceiling = CEILING.get(config.backbone, 0.85) - 0.12 * off**2 - 0.3 * (config.mixup - 0.2) ** 2
    speed = 2.0 + 6.0 * max(0.0, -off)  # epochs to get two thirds of the way; small rates are slow
    epochs = np.arange(1, config.epochs + 1)
    return np.asarray(0.1 + (ceiling - 0.1) * (1 - np.exp(-epochs / speed)))


def curve(config: TrialConfig) -> np.ndarray:
    """Validation accuracy after each epoch, `[epochs]`, fractions; a pure function of the configuration."""
    rng = np.random.default_rng([config.seed, int(1e9 * config.lr), int(1e4 * config.mixup)])
    return np.clip(clean_curve(config) + rng.normal(0, 0.01, config.epochs), 0.0, 1.0)


def train(
    config: TrialConfig, folder: Path, resume: bool = True, progress: Any = None, *, seconds: float = 0.0
) -> Iterator[EpochResult]:
    """Yields the epochs of `curve`, each after `seconds` s of sleep; epochs.jsonl is its checkpoint."""
    files = TrialFolder(folder)
    done = len(files.epochs())
    for epoch, accuracy in enumerate(curve(config)[done:], start=done + 1):
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
            if progress:
                progress(f"epoch {epoch}", 0, 1)
        if config.lr > 0.5:
            raise Diverged(f"the loss became nan in epoch {epoch}")
        if config.lr > 0.4:
            raise RuntimeError("a bug that only this configuration meets")
        result = EpochResult(epoch, 1 - accuracy, accuracy, 1 - accuracy, float(accuracy), config.lr, seconds)
        files.append(result)
        yield result


def slow(seconds: float) -> Any:
    """`train` with epochs of `seconds` s; can be sent to workers."""
    return partial(train, seconds=seconds)
