"""How long a configuration takes on this machine, from a few batches."""

from __future__ import annotations

import time

from trainable.backbone import train_mode
from trainable.config import TrialConfig
from trainable.evaluate import clip_probabilities
from trainable.learner import Learner
from trainable.progress import Progress

BATCHES = 3  # after one that warms up allocators and kernels


def seconds_per_epoch(config: TrialConfig, progress: Progress | None = None) -> float:
    """Seconds that an epoch of `config` takes here, training and validation, extrapolated from a few batches.

    Raises:
        InputError: its data or weights cannot be had.
    """
    learner = Learner(config, None, progress)
    train_mode(learner.model)
    batches = learner.batches()
    times = []
    for clips in [batches[0], *batches[:BATCHES]]:
        started = time.perf_counter()
        images, targets = learner.inputs.train_batch(clips, learner.rng)
        learner.step(learner.loss(learner.precision.forward(learner.model, images), targets))
        times.append(time.perf_counter() - started)
    training = sorted(times[1:])[len(times[1:]) // 2] * len(batches)

    some = learner.val_clips[: config.batch_size]
    crops = config.eval_crops if config.crop_seconds else 1
    started = time.perf_counter()
    clip_probabilities(learner.model, learner.inputs, some, config.batch_size, crops, learner.precision.forward)
    validation = (time.perf_counter() - started) * len(learner.val_clips) / max(len(some), 1)
    return training + validation
