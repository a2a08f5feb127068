"""How long a configuration takes on this machine, from a few batches."""

from __future__ import annotations

import itertools
import time

from trainable.config import TrialConfig
from trainable.data.dataset import load_dataset
from trainable.data.split import split_dataset
from trainable.progress import Progress
from trainable.training.cost import windows_scored
from trainable.training.loop import train

BATCHES = 3  # timed after the first, which warms up allocators and kernels
FORWARD_SHARE = 1 / 3  # of a training step; backward costs about twice as much as forward


class _Enough(Exception):
    """The batches that were wanted are timed."""


def seconds_per_epoch(config: TrialConfig, progress: Progress | None = None) -> float:
    """Seconds that an epoch of `config` takes here, from a few batches of real training; nothing is written.

    Validation is not timed but counted: a forward pass per window of a validation clip. Where an epoch has no more
    batches than are wanted, two whole ones are trained and the second is timed as it is.

    Raises:
        InputError: its data or weights cannot be had.
        Diverged: the loss became NaN or infinite within the few batches.
        OutOfMemory: there is no room for this batch and image size.
    """
    dataset = load_dataset(config.data, progress, config.group_column)
    split = split_dataset(dataset, config)
    ticks: list[float] = []
    batches: list[int] = []
    at_least_two = config.model_copy(update={"epochs": max(2, config.epochs)})
    try:
        for result in train(at_least_two, progress=_watch(ticks, batches, progress)):
            if result.epoch == 2:
                return result.seconds
    except _Enough:
        pass
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    step = sorted(steps)[len(steps) // 2]
    forwards = windows_scored(dataset, split.val, config) / (config.drawn_crops * len(split.train))
    return step * batches[0] * (1 + FORWARD_SHARE * forwards)


def _watch(ticks: list[float], batches: list[int], progress: Progress | None) -> Progress:
    """A progress that notes when each batch ends, passes other steps on, and ends the training when it has enough."""

    def note(description: str, done: int, total: int) -> None:
        if not description.startswith("Epoch"):
            if progress:
                progress(description, done, total)
            return
        ticks.append(time.perf_counter())
        batches.append(total)
        if done > BATCHES:
            raise _Enough

    return note
