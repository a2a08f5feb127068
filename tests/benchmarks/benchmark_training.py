"""Where the time of training goes: prints one Markdown table from one run.

    python -m tests.benchmarks.benchmark_training            # about ten minutes on two idle cores
    python -m tests.benchmarks.benchmark_training --quick    # does it run at all
    python -m tests.benchmarks.benchmark_training --mels     # only mels that keep their shape, and the probe

For every backbone and image size, seconds per epoch of

    (a) item by item: decode, mel, augment and resize in __getitem__, as the tutorial does, without workers
    (b) ours, with a warm cache
    (c) the backbone alone: forward, backward and step on ready batches

and (b) and (c) for an AudioSet network on crops that keep their shape, which no tutorial has,
at the same precision, memory format and optimiser, so that they differ in nothing but the input. Each round measures
all three one after the other, so that what else the machine does meets all of them; the medians of the rounds count.

The peak of memory is that of (b) with nothing of the others there: the GPU's, else the whole process's, of which
Python and its libraries are 0.8 GB.

The probe is measured by the features of whole clips with a warm cache, against the network alone, forward, on ready
batches of as many.

Measured with --clips 48 --rounds 3 on two cores with AMX; the ratios, from one run, are what counts:

    backbone            px   augmentation     precision  a, s  b, s  c, s  b/c   a/b
    mobilenet_v3_small  64   none             float32    0.50  0.08  0.08  1.02  6.4
    mobilenet_v3_small  64   tutorial-strong  float32    0.50  0.10  0.08  1.22  4.9
    mobilenet_v3_small  224  none             float32    0.73  0.26  0.25  1.03  2.8
    mobilenet_v3_small  224  tutorial-strong  float32    0.76  0.27  0.25  1.08  2.8
    resnet18            64   none             bfloat16   0.55  0.16  0.16  1.01  3.5
    resnet18            64   tutorial-strong  bfloat16   0.66  0.19  0.16  1.16  3.5
    resnet18            224  none             bfloat16   1.25  0.78  0.79  0.99  1.6
    resnet18            224  tutorial-strong  bfloat16   1.28  0.82  0.79  1.03  1.6

With --mels --clips 16 --rounds 5 on one thread of two cores without AMX: b/c is 1.04 for mn04 at 128 x 500 and at
128 x 1000 (0.53 s and 1.05 s per epoch), and the probe's features of 100 clips of 15 s take 1.02 of the network alone.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from trainable.backbones.head import train_mode
from trainable.config import RECIPES, TrialConfig
from trainable.data.audio import read_waveform
from trainable.data.dataset import Dataset, load_dataset
from trainable.features.frontend import Frontend
from trainable.features.inputs import Inputs
from trainable.features.mel_cache import clear_cache, mels_of
from trainable.training.cost import shown_frames
from trainable.training.device import choose_precision, find_device, free_memory
from trainable.training.loop import Learner, train
from trainable.training.network import build_network, checked_config, input_shape
from trainable.training.optim import Loss, make_optimizer, set_learning_rate
from trainable.training.probe import compute

RATE = 22_050  # Hz, GTZAN's
STRONG = ("time_masks", "time_mask", "freq_masks", "freq_mask", "noise", "noise_p", "gain", "gain_p")
SIZES_OF_TRIALS = (64, 224, 96, 160)  # px, of the trials that follow each other in one process


def make_clips(folder: Path, clips: int, seconds: float) -> None:
    """Writes two classes of chords in noise."""
    rng = np.random.default_rng(0)
    moments = np.arange(int(seconds * RATE)) / RATE
    for index in range(clips):
        place = folder / f"class{index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pitches = rng.uniform(80, 2000, size=3)
        wave = sum(0.1 * np.sin(2 * np.pi * pitch * moments) for pitch in pitches)
        wave = wave + 0.05 * rng.standard_normal(moments.size)
        soundfile.write(place / f"{index:04d}.wav", wave, RATE, subtype="PCM_16")


class ItemByItem(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """The tutorial's data set: everything is done for one clip at a time, whenever it is asked for."""

    def __init__(self, dataset: Dataset, size: int, strong: bool) -> None:
        self.clips = dataset.clips
        self.size = size
        self.strong = strong
        self.mel = torchaudio.transforms.MelSpectrogram(RATE, n_fft=2048, hop_length=640, n_mels=128)
        self.time_mask = torchaudio.transforms.TimeMasking(20)
        self.frequency_mask = torchaudio.transforms.FrequencyMasking(20)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        wave, _ = soundfile.read(self.clips[index].path, dtype="float32", always_2d=True)
        mel = self.mel(torch.from_numpy(wave).mean(dim=1)[None])
        if self.strong:
            mel = self.frequency_mask(self.time_mask(mel))
            if torch.rand(()) < 0.5:
                mel = mel + 0.01 * torch.randn_like(mel)
            if torch.rand(()) < 0.5:
                mel = mel * (0.8 + 0.4 * torch.rand(()))
        mel = mel.clamp(min=0).repeat(3, 1, 1)
        return F.adaptive_avg_pool2d(mel, (self.size, self.size)), self.clips[index].label


class Bare:
    """Model, optimiser and loss as `trainable.training.loop` has them, without anything around them."""

    def __init__(self, config: TrialConfig, classes: int) -> None:
        device = find_device(config.device)
        model = build_network(config, classes)
        self.precision = choose_precision(config, model, device)
        self.model: nn.Module = model.to(device).to(memory_format=self.precision.layout)
        self.optimizer = make_optimizer(self.model, config)
        set_learning_rate(self.optimizer, config.lr)
        self.loss = Loss(config, torch.ones(classes, device=device))
        train_mode(self.model)

    def epoch(self, batches: Iterator[tuple[Tensor, Tensor]] | list[tuple[Tensor, Tensor]]) -> float:
        """Seconds for one pass over `batches` of images [b, c, h, w] and target distributions [b, k]."""
        synchronise(self.precision.device)
        started = time.perf_counter()
        for images, targets in batches:
            self.loss(self.precision.forward(self.model, images), targets).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        synchronise(self.precision.device)
        return time.perf_counter() - started

    def ready(self, sizes: list[int], shape: tuple[int, ...], classes: int) -> list[tuple[Tensor, Tensor]]:
        """Batches of so many images of a `shape`, on the device and as the products want them."""
        precision = self.precision
        images = [torch.rand(count, *shape, device=precision.device) for count in sizes]
        targets = [torch.full((count, classes), 1 / classes, device=precision.device) for count in sizes]
        laid_out = [image.to(precision.dtype, memory_format=precision.layout) for image in images]
        return list(zip(laid_out, targets, strict=True))

    def loaded(self, loader: torch.utils.data.DataLoader[Any], classes: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an item-by-item loader."""
        for images, labels in loader:
            yield images.to(self.precision.device), F.one_hot(labels, classes).float().to(self.precision.device)


def synchronise(device: torch.device) -> None:
    """Waits until the GPU has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(config: TrialConfig, dataset: Dataset, strong: bool, rounds: int) -> dict[str, float]:
    """Median seconds per epoch of (a), (b) and (c), those of (b)'s first, and the peak of memory of that one, GB.

    Without (a) where mels keep their shape.

    The first epoch warms up, makes the images that are kept and the optimiser's state: no later one needs more. It
    runs before there is anything of (a) and (c), so that the peak is (b)'s alone.
    """
    classes = len(dataset.labels)
    seconds: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    epochs = train(config)  # trains on all clips and validates on none
    free_memory()  # of the measurement before
    reset_peak()
    first = next(epochs).seconds
    peak = peak_memory()
    torch.manual_seed(0)
    bare = Bare(config, classes)
    counts = [len(part) for part in torch.split(torch.arange(len(dataset.clips)), config.batch_size)]
    shape = (config.input_channels, *input_shape(config, shown_frames(dataset, 0, config)))
    ready = bare.ready(counts, shape, classes)
    bare.epoch(ready)
    for _ in range(rounds):
        seconds["b"].append(next(epochs).seconds)
        seconds["c"].append(bare.epoch(ready))
    epochs.close()
    if config.image_size is not None:
        item = Bare(config, classes)
        loader = torch.utils.data.DataLoader(
            ItemByItem(dataset, config.image_size, strong), config.batch_size, shuffle=True
        )
        for _ in range(max(1, rounds // 3)):
            seconds["a"].append(item.epoch(item.loaded(loader, classes)))
    medians = {name: statistics.median(values) for name, values in seconds.items() if values}
    return medians | {"first": first, "peak": peak}


def measure_probe(config: TrialConfig, rounds: int) -> tuple[float, float]:
    """Median seconds for the features of all clips with a warm cache, and for the network alone on ready batches."""
    state = Learner(config, None, None)
    clips, precision, model = len(state.dataset.clips), state.precision, state.model
    shape = (config.input_channels, *input_shape(config, shown_frames(state.dataset, 0, config)))
    counts = [len(part) for part in torch.split(torch.arange(clips), config.batch_size)]
    ready = [torch.rand(count, *shape, device=precision.device) for count in counts]
    ready = [images.to(memory_format=precision.layout) for images in ready]
    mels = mels_of(state.dataset, config)
    model.eval()

    @torch.inference_mode()
    def alone() -> None:
        for images in ready:
            precision.forward(model, images)
        synchronise(precision.device)

    def features() -> None:
        inputs = Inputs(mels, state.dataset, state.split, config, state.device)  # it keeps what it has made
        compute(model, inputs, clips, config, precision)

    alone()
    features()
    pairs = [(timed(features), timed(alone)) for _ in range(rounds)]
    return statistics.median(ours for ours, _ in pairs), statistics.median(bare for _, bare in pairs)


def reset_peak() -> None:
    """Starts the measurement of the peak anew, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """The most memory that was in use since `reset_peak`, GB: the GPU's where there is one, else this process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure_cache(dataset: Dataset, config: TrialConfig) -> tuple[float, float]:
    """Seconds to build the cache, and for decoding and the mel alone on as many cores, with nothing kept."""
    frontend = Frontend(config, RATE)

    def mel(path: str) -> None:
        with torch.no_grad():
            frontend(read_waveform(path, RATE)[0][None])

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()

    def bare() -> None:
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(mel, [clip.path for clip in dataset.clips]))
        torch.set_num_threads(threads)

    bare()  # the files are in memory from now on, for both
    rounds = []
    for _ in range(3):
        clear_cache()
        rounds.append((timed(lambda: mels_of(dataset, config)), timed(bare)))
    return statistics.median(build for build, _ in rounds), statistics.median(alone for _, alone in rounds)


def timed(work: Callable[[], object]) -> float:
    """How long `work` takes, s."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def memory_after_trials(config: TrialConfig, trials: int) -> list[float]:
    """Memory in use after each of several trials in this process, GB: the GPU's where there is one."""
    used = []
    for size in itertools.islice(itertools.cycle(SIZES_OF_TRIALS), trials):
        epochs = train(config.model_copy(update={"image_size": size, "epochs": 2}))
        next(epochs)
        epochs.close()
        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            used.append((total - free) / 1e9)
        else:
            pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
            used.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e9)
    return used


def main(words: Sequence[str] | None = None) -> None:
    """Measures and prints, by these words of a command line or the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and short clips of one small size, one round")
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backbones", nargs="+", default=["mobilenet_v3_small", "resnet18"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 224])
    parser.add_argument("--network", default="mn04", help="of mels that keep their shape")
    parser.add_argument("--frames", nargs="+", type=int, default=[500, 1000], help="of 10 ms, for that network")
    parser.add_argument("--probed", type=int, default=100, help="clips of half the length, for the probe")
    parser.add_argument("--mels", action="store_true", help="only what keeps its shape")
    flags = parser.parse_args(words)
    seconds = 30.0
    if flags.quick:
        flags.clips, flags.rounds, flags.trials, flags.sizes, seconds = 8, 1, 2, [32], 3.0
        flags.network, flags.frames, flags.probed = "mn01", [50], 10
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUDIO_SEARCH_CACHE"] = f"{folder}/cache"
        make_clips(Path(folder) / "clips", flags.clips, seconds)
        if not flags.mels:
            report(flags, f"{folder}/clips", seconds)
        make_clips(Path(folder) / "probed", flags.probed, seconds / 2)
        report_mels(flags, f"{folder}/clips", f"{folder}/probed", seconds / 2)


def report(flags: argparse.Namespace, data: str, seconds: float) -> None:
    """Prints the table and the numbers below it."""
    # Horizons and weights play no part in speed; "all" leaves no clips to validate, which only (b) would do.
    base = {**RECIPES["tutorial-simple"], "data": data, "weights": "none", "train_on": "all", "epochs": 10_000}
    base["device"] = flags.device
    config = TrialConfig.parse(base)
    dataset = load_dataset(data)
    build, alone = measure_cache(dataset, config)
    device = find_device(flags.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    print(
        f"{flags.clips} clips of {seconds:g} s, batch {config.batch_size}, {device.type} ({name}), {threads} threads\n"
    )
    columns = ("backbone", "px", "augmentation", "precision", "a, s", "b, s", "c, s", "b/c", "a/b", "peak GB")
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for backbone, size, strong in itertools.product(flags.backbones, flags.sizes, (False, True)):
        augmentation = {key: RECIPES["tutorial-strong"][key] for key in STRONG} if strong else {}
        cell = TrialConfig.parse({**base, "backbone": backbone, "image_size": size, **augmentation})
        precision = choose_precision(cell, build_network(cell, 2), device).dtype
        got = measure(cell, dataset, strong, flags.rounds)
        print(
            f"| {backbone} | {size} | {'strong' if strong else 'none'} | {str(precision).removeprefix('torch.')} "
            f"| {got['a']:.2f} | {got['b']:.2f} | {got['c']:.2f} | {got['b'] / got['c']:.2f} "
            f"| {got['a'] / got['b']:.1f} | {got['peak']:.2f} |",
            flush=True,
        )
    print(f"\ncache: {build:.2f} s to build, {alone:.2f} s for decoding and mels alone: {build / alone:.2f}")
    used = memory_after_trials(config.model_copy(update={"backbone": "resnet18"}), flags.trials)
    where = "GPU memory" if torch.cuda.is_available() else "memory of the process"
    print(f"{where} after each of {len(used)} trials, GB: " + ", ".join(f"{value:.2f}" for value in used))


def report_mels(flags: argparse.Namespace, data: str, probed: str, seconds: float) -> None:
    """Prints (b) and (c) for mels that keep their shape, and the probe of clips of so many seconds."""
    base = {"backbone": flags.network, "weights": "none", "device": flags.device, "lr": 1e-4}
    dataset = load_dataset(data)
    print("\n| network | mel | b, s | c, s | b/c | peak GB |\n" + "|---" * 6 + "|")
    for frames in flags.frames:
        cell = checked_config({**base, "data": data, "train_on": "all", "epochs": 10_000, "crop_seconds": frames / 100})
        got = measure(cell, dataset, False, flags.rounds)
        print(
            f"| {flags.network} | {cell.n_mels} x {frames} | {got['b']:.2f} | {got['c']:.2f} "
            f"| {got['b'] / got['c']:.2f} | {got['peak']:.2f} |",
            flush=True,
        )
    ours, bare = measure_probe(checked_config({**base, "data": probed, "method": "probe"}), flags.rounds)
    print(
        f"\nprobe: features of {flags.probed} clips of {seconds:g} s in {ours:.2f} s, the network alone {bare:.2f} s: "
        f"{ours / bare:.2f}"
    )


if __name__ == "__main__":
    main()
