"""Clips that are in a data set twice: sample for sample, or so nearly that hearing tells no difference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count

import numpy as np
import soundfile
from numpy.typing import NDArray

from trainable.audio import openable
from trainable.dataset import Clip, Dataset
from trainable.progress import Progress

# Measured on 100 clips of GTZAN and on the demo set: copies that were made softer, equalised, resampled, sent through
# MP3 or Vorbis, or hissed on at 20 dB correlate by 0.90 to 1.00 with their originals, two different clips by at most
# 0.62. Words of under 2 s are another matter: one speaker's repeats of a word (FSDD) reach 0.97.
NEAR = 0.9
SHORTEST = 2.0  # s
_LOOKED_AT = 5.0  # s from a clip's beginning: enough, and copies cut at their end are found
_STEP = 0.02  # s between frames, each twice as long
_BANDS = 24
_LOW, _HIGH = 100.0, 3800.0  # Hz: what telephone-rate and lossy copies keep
MOST = 20_000  # clips; beyond, comparing all pairs takes minutes


@dataclass(frozen=True)
class Copies:
    """Clips with the same content, as indices into `Dataset.clips`."""

    clips: tuple[int, ...]
    similarity: float  # 1 for equal samples, else the lowest correlation that ties one of them to the others


def exact_copies(dataset: Dataset) -> list[Copies]:
    """All sets of two clips or more whose decoded samples, rate and channels are equal, whatever the files are."""
    by_content: dict[str, list[int]] = defaultdict(list)
    for index, clip in enumerate(dataset.clips):
        by_content[clip.content].append(index)
    return [Copies(tuple(clips), 1.0) for clips in by_content.values() if len(clips) > 1]


def comparable(dataset: Dataset) -> list[int]:
    """The clips among which near copies are looked for: one of each exact copy, and long enough to tell."""
    first = {clip.content: index for index, clip in reversed(list(enumerate(dataset.clips)))}
    chosen = sorted(index for index in first.values() if dataset.clips[index].seconds >= SHORTEST)
    return chosen if len(chosen) <= MOST else []


def near_copies(dataset: Dataset, progress: Progress | None = None) -> list[Copies]:
    """Sets of clips that sound alike from their first sample on, exact copies left out; found whatever the gain.

    Two clips are alike where the courses of their levels in 24 bands correlate by `NEAR` or more. A copy that begins
    elsewhere in the recording is not found.
    """
    chosen = comparable(dataset)
    if len(chosen) < 2:
        return []
    rows = np.empty((len(chosen), _BANDS * round(_LOOKED_AT / _STEP)), dtype=np.float32)
    with ThreadPoolExecutor(cpu_count() or 1) as pool:
        prints = pool.map(lambda index: fingerprint(dataset.clips[index]), chosen)
        for row, values in enumerate(prints):
            rows[row] = values
            if progress:
                progress("Comparing clips", row + 1, len(chosen))
    pairs = []
    for start in range(0, len(rows), 512):
        alike = rows[start : start + 512] @ rows[start:].T
        for i, j in zip(*np.nonzero(np.triu(alike, k=1) >= NEAR), strict=True):
            pairs.append((chosen[start + i], chosen[start + j], float(alike[i, j])))
    return _joined(pairs)


def fingerprint(clip: Clip) -> NDArray[np.float32]:
    """The course of a clip's level in 24 bands, [24 * frames], of unit length; free of gain and equaliser.

    Each band has its own mean taken away, so unrelated clips correlate by about 0.
    """
    samples, rate = soundfile.read(
        openable(clip.path), frames=int(_LOOKED_AT * clip.sample_rate), dtype="float32", always_2d=True
    )
    wave = samples.mean(axis=1)
    hop = max(1, round(_STEP * rate))
    frames = np.lib.stride_tricks.sliding_window_view(wave, 2 * hop)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(2 * hop).astype(np.float32))) ** 2
    edges = np.geomspace(_LOW, _HIGH, _BANDS + 1)
    band = np.searchsorted(edges, np.fft.rfftfreq(2 * hop, 1 / rate), side="right") - 1
    membership = (band[:, None] == np.arange(_BANDS)).astype(np.float32)  # [frequencies, 24]
    levels = power.astype(np.float32) @ membership
    levels = np.log(levels + 1e-4 * levels.mean() + 1e-20)  # 40 dB below the mean, what was silence stays silence
    levels -= levels.mean(axis=0)
    whole = np.zeros((round(_LOOKED_AT / _STEP), _BANDS), dtype=np.float32)
    whole[: len(levels)] = levels[: len(whole)]
    flat = whole.ravel()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-9))


def _joined(pairs: Iterable[tuple[int, int, float]]) -> list[Copies]:
    """Pairs that share a clip, put together."""
    sets: list[tuple[set[int], float]] = []
    for i, j, similarity in pairs:
        touching = [item for item in sets if item[0] & {i, j}]
        sets = [item for item in sets if item not in touching]
        members = {i, j}.union(*(item[0] for item in touching))
        sets.append((members, min([similarity, *(item[1] for item in touching)])))
    return [Copies(tuple(sorted(members)), similarity) for members, similarity in sorted(sets, key=lambda s: min(s[0]))]
