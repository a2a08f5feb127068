"""The folder for everything that can be made again, and in it the mels of data sets."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import platformdirs

from trainable.config import TrialConfig
from trainable.dataset import Clip, Dataset
from trainable.errors import InputError
from trainable.frontend import FRONTEND_VERSION, Frontend, check_frequencies, hop_samples, window_sizes
from trainable.mels import MelCache, build_mels, open_mels
from trainable.progress import Progress
from trainable.store import CacheEntry, Store

DEFAULT_GB = 20.0  # GTZAN at 128 mels is 0.5 GB, so forty front ends of it


def cache_folder() -> Path:
    """The user's cache folder of this project, made if need be; `AUDIO_SEARCH_CACHE` names another one.

    Raises:
        InputError: it cannot be made.
    """
    folder = Path(os.environ.get("AUDIO_SEARCH_CACHE") or platformdirs.user_cache_dir("audio-search"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"AUDIO_SEARCH_CACHE: must be a folder that can be made, got {folder} ({error.strerror}). "
            "Set it to another one."
        ) from None
    return folder


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

        holder = store.build(key, _estimated_bytes(dataset, frontend), make, waiting)
    return open_mels(store.folder / key, holder)


def cache_entries() -> list[CacheEntry]:
    """The mels in the cache, the most recently used first."""
    return _store().entries()


def clear_cache() -> tuple[int, int]:
    """How many sets of mels were removed, and their bytes; what a living process uses stays."""
    return _store().clear()


def mel_key(dataset: Dataset, config: TrialConfig) -> str:
    """What names the mels of these clips under this front end, the same on every machine.

    A clip counts by the hash of its decoded samples (by name, size and time of change where that is not known),
    so neither moving nor relabelling a data set costs anything, and no field that leaves the mels alone is in it.
    """
    rate = config.sample_rate or dataset.sample_rate
    sizes = window_sizes(config, rate)
    settings = {
        "version": FRONTEND_VERSION, "sample_rate": rate, "scale": config.scale, "n_mels": config.n_mels,
        "sizes": sizes, "hop": hop_samples(config, rate), "f_min": config.f_min,
        "f_max": config.f_max if config.f_max is not None else float(rate // 2),
        "padding": config.padding if any(clip_samples(clip, rate) < sizes[0] for clip in dataset.clips) else None,
        "clips": [clip.content or (clip.name, clip.bytes, clip.mtime_ns) for clip in dataset.clips],
    }  # fmt: skip
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


def _estimated_bytes(dataset: Dataset, frontend: Frontend) -> int:
    row = 4 * frontend.n_mels * len(frontend.sizes)
    return sum(row * (1 + clip_samples(clip, frontend.sample_rate) // frontend.hop) for clip in dataset.clips)


def _store() -> Store:
    folder = cache_folder() / "mels"
    folder.mkdir(exist_ok=True)
    return Store(folder, cache_limit())
