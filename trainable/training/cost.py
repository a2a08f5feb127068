"""What it costs to use a configuration: parameters, operations, time per clip and memory.

Parameters and operations follow from the configuration alone; time is measured on the machine at hand, on a clip of
the data set's usual length as `predict` treats it: from the waveform to probabilities, without reading the file.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trainable.backbones import Backbone, backbone
from trainable.config import FIELDS, TrialConfig, facts_of
from trainable.data.dataset import Dataset
from trainable.data.split import Indices
from trainable.features.crops import crop_frames, crop_starts
from trainable.features.frontend import Frontend, Normalisation, hop_samples
from trainable.features.inputs import waveform_windows
from trainable.features.mel_cache import clip_frames
from trainable.training.device import find_device
from trainable.training.network import build_network, input_shape
from trainable.training.trial_folder import Cost

RUNS = 7  # timed after the first, which warms up; the fastest counts, as what other trials disturb least
_CLASSES = 10  # of a network that is built to be counted: GTZAN's
ENOUGH_S = 1.0  # s: a clip that takes so long is not timed again


def cost_of(config: TrialConfig, dataset: Dataset, timed: bool = True) -> Cost:
    """The cost of a configuration before it is trained; without a latency unless it is to be `timed`.

    A network is built and timed once for all configurations that use it alike.
    """
    clip = usual_clip(dataset)
    windows = windows_scored(dataset, [clip], config)
    rows, columns = input_shape(config, shown_frames(dataset, clip, config))
    network = _of_network(config, ("backbone",)).model_copy(update={"channels": config.channels})
    parameters, operations = _counted(network, len(dataset.labels), windows, rows, columns)
    if not timed:
        return Cost(parameters, operations, None, None)
    rate = config.sample_rate or dataset.sample_rate
    seconds = dataset.clips[clip].seconds
    return Cost(
        parameters,
        operations,
        _timed(_of_network(config, ("front end", "crops", "backbone")), len(dataset.labels), rate, seconds),
        None,
    )


def measured_cost(config: TrialConfig, dataset: Dataset, model: nn.Module, device: torch.device) -> Cost:
    """The cost of a configuration whose network is at hand; it is left in evaluation mode."""
    clip = usual_clip(dataset)
    rate = config.sample_rate or dataset.sample_rate
    shape = input_shape(config, shown_frames(dataset, clip, config))
    parameters, operations = _count(model, windows_scored(dataset, [clip], config), config.input_channels, *shape)
    return Cost(parameters, operations, latency(model, config, rate, dataset.clips[clip].seconds, device), None)


def windows_scored(dataset: Dataset, clips: Sequence[int] | Indices, config: TrialConfig) -> int:
    """How many windows the network sees to score `clips`: fewer than `eval_crops` of each that is short."""
    rate = config.sample_rate or dataset.sample_rate
    crop = crop_frames(config, rate, hop_samples(config, rate))
    frames = [clip_frames(dataset.clips[index], config, rate) for index in clips]
    return sum(len(crop_starts(number, crop, config.eval_crops)) for number in frames)


def shown_frames(dataset: Dataset, clip: int, config: TrialConfig) -> int:
    """How many frames an input shows of a clip, by its index."""
    rate = config.sample_rate or dataset.sample_rate
    crop = crop_frames(config, rate, hop_samples(config, rate))
    return crop or clip_frames(dataset.clips[clip], config, rate)


def usual_clip(dataset: Dataset) -> int:
    """The clip of median length, an index."""
    order = sorted(range(len(dataset.clips)), key=lambda index: dataset.clips[index].seconds)
    return order[len(order) // 2]


@torch.inference_mode()
def latency(model: nn.Module, config: TrialConfig, rate: int, seconds: float, device: torch.device) -> float:
    """Milliseconds from a waveform of so many `seconds` at `rate` Hz to its probabilities, in float32."""
    frontend = Frontend(config, rate).to(device).eval()
    noise = torch.randn(max(1, int(seconds * rate)), generator=torch.Generator().manual_seed(0))
    waveform = (0.1 * noise).to(device)
    model.eval()

    def once() -> None:
        images = waveform_windows(waveform, frontend, config, Normalisation("none"))
        for part in torch.split(images, config.batch_size):
            # Not compiled: another size of batch would be compiled anew. `cpu` waits for a GPU.
            model.forward(part).float().softmax(dim=1).cpu()

    first = _seconds(once)
    return 1000 * (first if first > ENOUGH_S else min(_seconds(once) for _ in range(RUNS)))


def _seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _of_network(config: TrialConfig, groups: Sequence[str]) -> TrialConfig:
    """The configuration with nothing of its own but the fields of some groups and the input's size."""
    kept = {name: getattr(config, name) for name in FIELDS if facts_of(name)["group"] in groups}
    own = {"weights": "none", "image_size": config.image_size, "device": config.device, "method": "train"}
    return TrialConfig.model_validate({**kept, **own})


@lru_cache(maxsize=256)
def _counted(config: TrialConfig, classes: int, windows: int, rows: int, columns: int) -> tuple[int, int]:
    """Parameters, and multiply-adds for the windows of one clip, of a network that is built for this alone."""
    with torch.random.fork_rng(devices=[]):
        model = build_network(config, classes).to("meta")  # there shapes are counted and nothing is computed
    return _count(model, windows, config.input_channels, rows, columns)


@torch.no_grad()
def _count(model: nn.Module, windows: int, channels: int, rows: int, columns: int) -> tuple[int, int]:
    weights = list(model.parameters())
    images = torch.zeros(windows, channels, rows, columns, device=weights[0].device)
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model.forward(images)
    return sum(weight.numel() for weight in weights), counter.get_total_flops() // 2  # a multiply-add counts as two


@lru_cache(maxsize=256)
def _timed(config: TrialConfig, classes: int, rate: int, seconds: float) -> float:
    """The latency of a network that is built for this alone, ms."""
    device = find_device(config.device)
    with torch.random.fork_rng(devices=[]):
        return latency(build_network(config, classes).to(device), config, rate, seconds, device)


def giga_operations(config: TrialConfig, rows: int, columns: int) -> float:
    """10^9 multiply-adds of the network for one input: as its source states them, else counted."""
    stated = backbone(config.backbone).giga(rows * columns)
    if stated is not None:
        return stated
    network = _of_network(config, ("backbone",)).model_copy(update={"channels": config.channels})
    return _counted(network, 2, 1, rows, columns)[1] / 1e9


def network_size(record: Backbone) -> tuple[int, float]:
    """Parameters, and 10^9 multiply-adds for one input of `record.size`: as its source states them, else counted."""
    if record.parameters is not None and record.operations is not None:
        return record.parameters, record.operations
    channels = record.input_channels
    # Somebody's own function may read files, which takes memory for their numbers; timm's networks need none here.
    with torch.random.fork_rng(devices=[]), torch.device("meta") if record.bare else nullcontext():
        model = record.make(_CLASSES, channels, record.size[0], False).to("meta")
    parameters, operations = _count(model, 1, channels, *record.size)
    return parameters, operations / 1e9


class PeakMemory:
    """The most memory that a training takes at once: on a GPU what torch allocates there, else what the process adds.

    Where the system does not let a process begin its peak anew, it is the peak of all trainings of this process.
    """

    def __init__(self, device: torch.device) -> None:
        """Begins to measure."""
        self._device = device
        self._before = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            forget = Path("/proc/self/clear_refs")
            if forget.exists():
                forget.write_text("5")  # the high water mark begins anew
                self._before = _peak_bytes()

    def megabytes(self) -> float:
        """The peak so far, MB."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e6
        return max(_peak_bytes() - self._before, 0) / 1e6


def _peak_bytes() -> int:
    """The most memory that this process has had since its peak was begun anew."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
