"""How long a configuration takes on this machine, from a few batches."""

from __future__ import annotations

import itertools
import time

import torch

from trainable.backbones.head import train_mode
from trainable.config import TrialConfig
from trainable.data.dataset import load_dataset
from trainable.data.split import split_dataset
from trainable.features.frontend import Frontend
from trainable.progress import Progress
from trainable.training.cost import windows_scored
from trainable.training.device import choose_precision, find_device
from trainable.training.loop import train
from trainable.training.network import build_network, input_shape

BATCHES = 3  # timed after the first, which warms up allocators and kernels
TIMED_BATCH = 8  # inputs; batch norm wants two, and more say the same
ENOUGH_S = 2.0  # s: a network that takes so long is not timed again
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


def window_seconds(config: TrialConfig, frames: int, classes: int, threads: int) -> float:
    """Seconds to learn from one input of so many frames here on so many `threads`, from a few steps on made-up ones.

    Needs neither clips nor weights. The optimiser's own part is left out.

    Raises:
        InputError: the network cannot be built.
        RuntimeError: it does not run, or has no room.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _window_seconds(config, frames, classes)
    finally:
        torch.set_num_threads(before)


def _window_seconds(config: TrialConfig, frames: int, classes: int) -> float:
    device = find_device(config.device)
    model = build_network(config.model_copy(update={"weights": "none"}), classes)
    precision = choose_precision(config, model, device)
    model = model.to(device, memory_format=precision.layout)  # type: ignore[call-overload]
    train_mode(model, config.batch_norm)
    size = min(config.batch_size, TIMED_BATCH)
    images = torch.zeros(size, config.input_channels, *input_shape(config, frames), device=device)
    ticks = [time.perf_counter()]
    while len(ticks) < 4 and (len(ticks) == 1 or ticks[-1] - ticks[0] < ENOUGH_S):
        precision.forward(model, images).logsumexp(dim=1).mean().backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ticks.append(time.perf_counter())
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    return min(steps) / size


@torch.inference_mode()
def mel_seconds(config: TrialConfig, rate: int) -> float:
    """Seconds for the mel of one second of audio at `rate` Hz here, on the CPU."""
    frontend = Frontend(config, rate)
    waveform = torch.zeros(1, 2 * rate)
    frontend(waveform)
    started = time.perf_counter()
    frontend(waveform)
    return (time.perf_counter() - started) / 2


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
