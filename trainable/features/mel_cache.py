"""The mels of data sets, made once per front end and kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from trainable.config import TrialConfig
from trainable.cores import allowed_cores
from trainable.data.audio import read_waveform
from trainable.data.dataset import Clip, Dataset
from trainable.errors import InputError, Unavailable
from trainable.features.disk_cache import ABOUT, CacheEntry, Store
from trainable.features.frontend import (
    FRONTEND_VERSION,
    Frontend,
    check_frequencies,
    frame_count,
    mel_settings,
    shortest_samples,
    window_sizes,
)
from trainable.files import cache_folder
from trainable.progress import Progress

VALUES = "values.f32"
INDEX = "index.npz"


@dataclass(frozen=True)
class MelCache:
    """The mels of all clips of a data set, one after the other, frame by frame.

    Legend: n clips, T frames of all clips together, c channels (1, or 3 windows), m mel rows.
    """

    # [T, c * m] float32 (power spans more than half precision holds), in the front end's scale, memory-mapped: its
    # pages are shared by all processes.
    values: Tensor
    offsets: Tensor  # [n + 1] int64: clip i has the frames from offsets[i] to offsets[i + 1]
    mean: Tensor  # [n, c] float64: of each clip's values
    mean_square: Tensor  # [n, c] float64
    silence: Tensor  # [n] float32: what silence would be in the clip's mel
    n_mels: int
    sample_rate: int  # Hz
    hop: int  # samples
    holder: IO[Any] | None = None  # keeps the entry from being removed for as long as this object lives

    @property
    def channels(self) -> int:
        """How many mels lie side by side in a row of `values`."""
        return self.values.shape[1] // self.n_mels


@dataclass(frozen=True)
class _Mel:
    """One clip's mel and what the index says of it."""

    values: Tensor  # [f, c * m]
    mean: Tensor  # [c]
    mean_square: Tensor  # [c]
    silence: float


def build_mels(dataset: Dataset, frontend: Frontend, folder: Path, progress: Progress | None) -> None:
    """Writes the mels of all clips into `folder`, decoding in parallel.

    Raises:
        InputError: with every clip that cannot be read any more, or whose mel is not finite.
    """
    offsets, index = [0], []
    problems: list[str] = []
    refusal: type[InputError] = InputError
    with (folder / VALUES).open("wb") as file:
        for done, (clip, mel) in enumerate(_in_parallel(dataset.clips, frontend), start=1):
            if isinstance(mel, InputError):
                problems += mel.problems
                refusal = Unavailable  # it could be read when the data set was listed
            elif not torch.isfinite(mel.mean_square).all():
                problems.append(f"{clip.path}: the mel must be finite, got NaN or infinity. Leave the file out.")
            else:
                file.write(mel.values.numpy().data)
                offsets.append(offsets[-1] + len(mel.values))
                index.append((mel.mean, mel.mean_square, mel.silence))
            if progress:
                progress("Making mels", done, len(dataset.clips))
    if problems:
        raise refusal(problems)
    np.savez(
        folder / INDEX,
        offsets=np.array(offsets, dtype=np.int64),
        mean=torch.stack([mean for mean, _, _ in index]).numpy(),
        mean_square=torch.stack([square for _, square, _ in index]).numpy(),
        silence=np.array([silence for _, _, silence in index], dtype=np.float32),
    )
    about = {
        "dataset": dataset.name, "clips": len(dataset.clips), "scale": frontend.scale, "n_mels": frontend.n_mels,
        "windows": frontend.sizes, "hop": frontend.hop, "sample_rate": frontend.sample_rate,
    }  # fmt: skip
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n")


def _in_parallel(clips: tuple[Clip, ...], frontend: Frontend) -> Iterator[tuple[Clip, _Mel | InputError]]:
    """Each clip and its mel, in order, a few clips ahead of the reader.

    Threads, not processes: decoding and transforms let go of the interpreter's lock, and a process that has to import
    torch first pays for a hundred clips. Each worker keeps to one core, or the transforms would fight over them.
    """
    workers = allowed_cores()
    threads = torch.get_num_threads()
    waiting: deque[tuple[Clip, Future[_Mel | InputError]]] = deque()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for clip in clips:
                waiting.append((clip, pool.submit(_mel_of, clip, frontend)))
                if len(waiting) > 4 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
    finally:
        torch.set_num_threads(threads)


def _mel_of(clip: Clip, frontend: Frontend) -> _Mel | InputError:
    """The mel of one clip, or why there is none."""
    try:
        waveform, _ = read_waveform(clip.path, frontend.sample_rate, clip.stretch)
    except InputError as error:
        return error
    return _mel(waveform, frontend)


def _mel(waveform: Tensor, frontend: Frontend) -> _Mel:
    """The mel of a waveform [n]."""
    with torch.no_grad():
        mel = frontend(waveform[None])  # [1, c, m, f]
        # Means in float32 over a frame's rows, in float64 over the frames: exact enough, and no float64 copy is made.
        mean = mel[0].mean(dim=1).double().mean(dim=-1)
        square = mel[0].square().mean(dim=1).double().mean(dim=-1)
        values = mel[0].permute(2, 0, 1).reshape(mel.shape[3], -1).contiguous()
        return _Mel(values, mean, square, float(frontend.silence(mel)))


def mels_of_waveform(waveform: Tensor, frontend: Frontend) -> MelCache:
    """The mel of one waveform [n], in memory on its device, as if it were a data set of one clip."""
    mel = _mel(waveform, frontend)
    return MelCache(
        mel.values, torch.tensor([0, len(mel.values)]), mel.mean[None].cpu(), mel.mean_square[None].cpu(),
        torch.tensor([mel.silence]), frontend.n_mels, frontend.sample_rate, frontend.hop,
    )  # fmt: skip


def open_mels(folder: Path, holder: IO[Any]) -> MelCache:
    """The mels in `folder`, in milliseconds: nothing is read but the index."""
    about = json.loads((folder / ABOUT).read_text())
    with np.load(folder / INDEX) as index:
        arrays = {name: torch.from_numpy(index[name]) for name in ("offsets", "mean", "mean_square", "silence")}
    frames, columns = int(arrays["offsets"][-1]), about["n_mels"] * len(about["windows"])
    # Private: a stray write would change this process's copy, never the file.
    flat = torch.from_file(str(folder / VALUES), shared=False, size=frames * columns, dtype=torch.float32)
    return MelCache(
        flat.view(frames, columns), **arrays,
        n_mels=about["n_mels"], sample_rate=about["sample_rate"], hop=about["hop"], holder=holder,
    )  # fmt: skip


DEFAULT_GB = 20.0  # GTZAN at 128 mels is 0.5 GB, so forty front ends of it


def mels_of(dataset: Dataset, config: TrialConfig, progress: Progress | None = None) -> MelCache:
    """The mels of all clips, memory-mapped: at once where they were made before, else decoded and made in parallel.

    Raises:
        InputError: the front end does not fit the clips, a file can no longer be read, the disk is too full, or
            AUDIO_SEARCH_CACHE_GB is not a size.
    """
    check_front_end(dataset, config)
    sample_rate = config.sample_rate or dataset.sample_rate
    store, key = _store(), mel_key(dataset, config)
    holder = store.hold(key)
    if holder is None:
        frontend = Frontend(config, sample_rate)

        def make(folder: Path) -> None:
            build_mels(dataset, frontend, folder, progress)

        def waiting() -> None:
            if progress:
                progress("Waiting for another process that makes the same mels", 0, 1)

        holder = store.build(key, _estimated_bytes(dataset, config, frontend), make, waiting)
    return open_mels(store.folder / key, holder)


def cache_entries() -> list[CacheEntry]:
    """The mels in the cache, the most recently used first."""
    return _store().entries()


def clear_cache() -> tuple[int, int]:
    """How many sets of mels were removed, and their bytes; what a living process uses stays.

    The features that networks have made of them go along and are not counted.
    """
    feature_store().clear()
    return _store().clear()


def mel_key(dataset: Dataset, config: TrialConfig) -> str:
    """What names the mels of these clips under this front end, the same on every machine.

    A clip counts by the hash of its decoded samples (by name, size and time of change where that is not known),
    so neither moving nor relabelling a data set costs anything, and no field that leaves the mels alone is in it.
    """
    rate = config.sample_rate or dataset.sample_rate
    shortest = shortest_samples(config, rate)
    settings = {
        "version": FRONTEND_VERSION,
        **mel_settings(config, rate),
        "padding": config.padding if any(clip_samples(clip, rate) < shortest for clip in dataset.clips) else None,
        "clips": [clip.content or (clip.name, clip.bytes, clip.mtime_ns) for clip in dataset.clips],
    }
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:24]


def check_front_end(dataset: Dataset, config: TrialConfig) -> None:
    """Refuses frequencies that the clips do not have, and a window that most do not fill: their mels would be padding.

    Raises:
        InputError: f_max lies above half the rate, f_min not below f_max, or more than half of the clips are shorter
            than the window.
    """
    sample_rate = config.sample_rate or dataset.sample_rate
    check_frequencies(config, sample_rate)
    lengths = sorted(clip_samples(clip, sample_rate) for clip in dataset.clips)
    window = window_sizes(config, sample_rate)[0]
    short = sum(length < window for length in lengths)
    if 2 * short > len(lengths):
        middle = lengths[len(lengths) // 2]
        fitting = max(32, 2 ** (max(middle, 1).bit_length() - 1))
        field, most = ("n_fft", fitting) if config.window_ms is None else ("window_ms", 1000 * fitting // sample_rate)
        raise InputError(
            f"{field}: at least half of the clips must be that long, got {window} samples "
            f"({1000 * window / sample_rate:.0f} ms at {sample_rate} Hz), and {short} of {len(lengths)} clips "
            f"are shorter (half of them below {1000 * middle / sample_rate:.0f} ms). Lower {field} to {most} or less."
        )


def cache_limit() -> int:
    """How many bytes of mels are kept; `AUDIO_SEARCH_CACHE_GB` replaces the default.

    Raises:
        InputError: that variable is not a positive number.
    """
    text = os.environ.get("AUDIO_SEARCH_CACHE_GB", str(DEFAULT_GB))
    try:
        size = float(text)
    except ValueError:
        size = -1
    if not 0 < size < float("inf"):
        raise InputError(f"AUDIO_SEARCH_CACHE_GB: must be a positive number of gigabytes, got {text!r}. Change it.")
    return int(size * 1e9)


def clip_samples(clip: Clip, sample_rate: int) -> int:
    """How many samples a clip has at that rate, Hz."""
    return round(clip.seconds * sample_rate)


def clip_frames(clip: Clip, config: TrialConfig, sample_rate: int) -> int:
    """How many frames the mel of a clip has at that rate, Hz."""
    return frame_count(config, sample_rate, clip_samples(clip, sample_rate))


def _estimated_bytes(dataset: Dataset, config: TrialConfig, frontend: Frontend) -> int:
    row = 4 * frontend.n_mels * len(frontend.sizes)
    return sum(row * clip_frames(clip, config, frontend.sample_rate) for clip in dataset.clips)


def feature_store() -> Store:
    """Where the features of frozen networks are kept: a few KB a clip."""
    return _store("features")


def _store(kind: str = "mels") -> Store:
    folder = cache_folder() / kind
    folder.mkdir(exist_ok=True)
    return Store(folder, cache_limit())
