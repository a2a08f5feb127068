"""The folder for everything that can be made again, and in it the mels: one entry per set of clips and front end.

An entry is a folder named by what it was made from (the clips' contents, the front end's settings, the code's
version), so it is never stale. It is built under a hidden name and renamed when it is whole; a builder that was
killed leaves only the hidden folder, which the next builder throws away. Locks are the system's, which lets go of
them when a process dies.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import filelock
import platformdirs

from trainable.config import TrialConfig
from trainable.dataset import Clip, Dataset
from trainable.errors import InputError
from trainable.frontend import FRONTEND_VERSION, Frontend, hop_samples, window_sizes
from trainable.mels import ABOUT, MelCache, build_mels, hold, is_held, open_mels
from trainable.progress import Progress

DEFAULT_GB = 20.0  # GTZAN at 128 mels is 0.5 GB, so forty front ends of it
_WAITING = "Waiting for another process that makes the same mels"


def cache_folder() -> Path:
    """The user's cache folder of this project, made if need be; `AUDIO_SEARCH_CACHE` names another one."""
    folder = Path(os.environ.get("AUDIO_SEARCH_CACHE") or platformdirs.user_cache_dir("audio-search"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def mels_of(dataset: Dataset, config: TrialConfig, progress: Progress | None = None) -> MelCache:
    """The mels of all clips, memory-mapped: at once where they were made before, else decoded and made in parallel.

    Raises:
        InputError: the front end does not fit the clips, a file can no longer be read, the disk is too full, or
            AUDIO_SEARCH_CACHE_GB is not a size.
    """
    sample_rate = config.sample_rate or dataset.sample_rate
    frontend = Frontend(config, sample_rate)
    check_lengths(dataset, config, sample_rate)
    key = mel_key(dataset, config)
    entry = _mels_folder() / key
    opened = _open(entry)
    if opened:
        return opened
    with _builder_lock(key, progress):
        opened = _open(entry)  # another process may have built it while this one waited
        if opened is None:
            _clean_up()
            building = _hidden(key)
            _make_room(_estimated_bytes(dataset, frontend))
            building.mkdir()
            build_mels(dataset, frontend, building, _describe(dataset, frontend), progress)
            building.rename(entry)
            opened = _open(entry)
    if opened is None:
        raise RuntimeError(f"{entry}: vanished as soon as it was built")
    _make_room(0)
    return opened


def mel_key(dataset: Dataset, config: TrialConfig) -> str:
    """What names the mels of these clips under this front end, the same on every machine.

    A clip counts by the hash of its decoded samples (by name, size and time of change where that is not known),
    so neither moving nor relabelling a data set costs anything, and no field that leaves the mels alone is in it.
    """
    rate = config.sample_rate or dataset.sample_rate
    sizes = window_sizes(config)
    settings = {
        "version": FRONTEND_VERSION, "sample_rate": rate, "scale": config.scale, "n_mels": config.n_mels,
        "sizes": sizes, "hop": hop_samples(config, rate), "f_min": config.f_min,
        "f_max": config.f_max if config.f_max is not None else float(rate // 2),
        "padding": config.padding if any(_samples(clip, rate) < sizes[0] for clip in dataset.clips) else None,
        "clips": [clip.content or (clip.name, clip.bytes, clip.mtime_ns) for clip in dataset.clips],
    }  # fmt: skip
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:24]


def check_lengths(dataset: Dataset, config: TrialConfig, sample_rate: int) -> None:
    """Refuses a window that most clips do not fill: their mels would be padding.

    Raises:
        InputError: more than half of the clips are shorter than n_fft.
    """
    lengths = sorted(_samples(clip, sample_rate) for clip in dataset.clips)
    short = sum(length < config.n_fft for length in lengths)
    if 2 * short > len(lengths):
        middle = lengths[len(lengths) // 2]
        fitting = max(32, 2 ** (max(middle, 1).bit_length() - 1))
        raise InputError(
            f"n_fft: at least half of the clips must be that long, got {config.n_fft} samples "
            f"({1000 * config.n_fft / sample_rate:.0f} ms at {sample_rate} Hz), and {short} of {len(lengths)} clips "
            f"are shorter (half of them below {1000 * middle / sample_rate:.0f} ms). Lower n_fft to {fitting} or less."
        )


@dataclass(frozen=True)
class CacheEntry:
    """One set of mels in the cache."""

    key: str
    bytes: int
    last_used: float  # s since 1970
    in_use: bool  # by a process that is alive
    dataset: str
    clips: int
    front_end: str  # its settings in words


def cache_entries() -> list[CacheEntry]:
    """What the cache of mels holds, the most recently used first."""
    entries = []
    for folder in _mels_folder().iterdir():
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        about_file = folder / ABOUT
        about = json.loads(about_file.read_text())
        size = sum(file.stat().st_size for file in folder.iterdir())
        used, held = about_file.stat().st_mtime, is_held(folder)
        entries.append(CacheEntry(folder.name, size, used, held, about["dataset"], about["clips"], about["front_end"]))
    return sorted(entries, key=lambda entry: entry.last_used, reverse=True)


def clear_cache() -> tuple[int, int]:
    """How many entries were removed, and their bytes; what a living process uses stays."""
    _clean_up()
    removed = [entry for entry in cache_entries() if _remove(entry)]
    return len(removed), sum(entry.bytes for entry in removed)


def limit_bytes() -> int:
    """How large the cache of mels may grow; `AUDIO_SEARCH_CACHE_GB` replaces the default.

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


def _samples(clip: Clip, sample_rate: int) -> int:
    return round(clip.seconds * sample_rate)


def _estimated_bytes(dataset: Dataset, frontend: Frontend) -> int:
    row = 4 * frontend.n_mels * len(frontend.sizes)
    return sum(row * (1 + _samples(clip, frontend.sample_rate) // frontend.hop) for clip in dataset.clips)


def _describe(dataset: Dataset, frontend: Frontend) -> dict[str, str | int]:
    windows = "/".join(map(str, frontend.sizes))
    text = f"{frontend.scale}, {frontend.n_mels} mels, window {windows}, hop {frontend.hop}, {frontend.sample_rate} Hz"
    return {"dataset": dataset.name, "clips": len(dataset.clips), "front_end": text}


def _mels_folder() -> Path:
    folder = cache_folder() / "mels"
    folder.mkdir(exist_ok=True)
    return folder


def _hidden(key: str) -> Path:
    return _mels_folder() / f".building-{key}"


def _lock_of(key: str) -> filelock.BaseFileLock:
    folder = cache_folder() / "locks"
    folder.mkdir(exist_ok=True)
    return filelock.FileLock(folder / f"{key}.lock")


def _builder_lock(key: str, progress: Progress | None) -> filelock.BaseFileLock:
    """The lock of the one builder of an entry, taken; whoever else wants to build it waits here."""
    lock = _lock_of(key)
    while True:
        try:
            lock.acquire(timeout=0 if progress else -1, poll_interval=0.05)
            return lock
        except filelock.Timeout:
            if progress:
                progress(_WAITING, 0, 1)
            time.sleep(0.1)


def _open(entry: Path) -> MelCache | None:
    """The entry, kept from eviction from now on; None where there is none."""
    holder = hold(entry)
    return open_mels(entry, holder) if holder else None


def _clean_up() -> None:
    """Removes what killed builders and removers left behind. What is being built has its lock taken, and stays."""
    for folder in _mels_folder().glob(".*"):
        lock = _lock_of(folder.name.partition("-")[2])
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)  # another process may be at the same
        except filelock.Timeout:
            continue


def _make_room(needed: int) -> None:
    """Removes the least recently used entries until `needed` more bytes fit into the limit, and checks the disk."""
    limit = limit_bytes()
    entries = cache_entries()
    total = sum(entry.bytes for entry in entries) + needed
    while total > limit and entries:
        entry = entries.pop()
        if _remove(entry):
            total -= entry.bytes
    free = shutil.disk_usage(_mels_folder()).free
    if needed > free:
        raise InputError(
            f"{cache_folder()}: the mels need {needed / 1e9:.1f} GB, got {free / 1e9:.1f} GB of free disk. "
            "Free some, or set AUDIO_SEARCH_CACHE to a folder on a larger disk."
        )


def _remove(entry: CacheEntry) -> bool:
    """Whether the entry could be removed; one that a living process uses cannot."""
    folder = _mels_folder() / entry.key
    if is_held(folder):
        return False
    trash = folder.with_name(f".removed-{entry.key}")
    try:
        folder.rename(trash)  # at once, so that nobody opens half an entry
    except FileNotFoundError:  # another process removed it
        return False
    shutil.rmtree(trash, ignore_errors=True)
    return True
