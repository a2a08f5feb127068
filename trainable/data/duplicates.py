"""Clips that are in a data set twice: sample for sample, or so nearly that hearing tells no difference."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainable.cores import allowed_cores
from trainable.data.audio import read_waveform
from trainable.data.dataset import Clip, Dataset
from trainable.data.split import Split
from trainable.data.stretches import Stretch
from trainable.files import cache_folder, write_atomically
from trainable.progress import Progress

# Measured on 100 clips of GTZAN and on the demo set: copies that were made softer, equalised, sent through MP3 or
# Vorbis, or hissed on at 20 dB correlate by 0.90 to 1.00 with their originals (at half the rate, with 8 bits or cut to
# 3.5 s a few by 0.82 only), two different clips by at most 0.3. Short sounds are another matter: one speaker's repeats
# of a word (FSDD) reach 0.97, and events that are padded with silence share the step into it.
NEAR = 0.9
SHORTEST = 2.0  # s
SOUND = 1.6  # s in which both clips must sound: most of the shortest ones, and more than one event lasts
_QUIET = 1e-2  # of a clip's mean power: frames below (pauses, padding, hiss that somebody added) are left out
_LOOKED_AT = 5.0  # s from a clip's beginning: enough, and copies cut at their end are found
_STEP = 0.02  # s between frames, each twice as long
_BANDS = 24
_LOW, _HIGH = 100.0, 3800.0  # Hz: what telephone-rate and lossy copies keep
_VERSION = 1  # of the rules below, for what is remembered
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


@dataclass(frozen=True)
class Prints:
    """What is compared of clips: n clips, t frames, 24 bands."""

    clips: list[int]  # [n] indices into `Dataset.clips`
    levels: NDArray[np.float32]  # [n, t, 24] what `fingerprint` says, 0 beyond the clip's end
    sounding: NDArray[np.float32]  # [n, t] 1 in frames that are compared, else 0


def fingerprints(dataset: Dataset, progress: Progress | None = None) -> Prints:
    """The prints of all clips that sound long enough to tell, one of each exact copy; of none where there are too many.

    Raises:
        InputError: a clip can no longer be read.
    """
    first = {clip.content: index for index, clip in reversed(list(enumerate(dataset.clips)))}
    chosen = sorted(index for index in first.values() if dataset.clips[index].seconds >= SHORTEST)
    if len(chosen) > MOST:
        chosen = []
    frames = round(_LOOKED_AT / _STEP)
    levels = np.zeros((len(chosen), frames, _BANDS), dtype=np.float32)
    sounding = np.zeros((len(chosen), frames), dtype=np.float32)
    with ThreadPoolExecutor(allowed_cores()) as pool:
        prints = pool.map(lambda index: fingerprint(dataset.clips[index]), chosen)
        for row, (level, sounds) in enumerate(prints):
            levels[row, : len(level)], sounding[row, : len(sounds)] = level, sounds
            if progress:
                progress("Comparing clips", row + 1, len(chosen))
    enough = sounding.sum(axis=1) * _STEP >= SOUND
    return Prints([index for index, long in zip(chosen, enough, strict=True) if long], levels[enough], sounding[enough])


def near_copies(prints: Prints) -> list[Copies]:
    """Sets of clips that sound alike from their first sample on, exact copies left out; found whatever the gain.

    Two clips are alike where the courses of their levels in 24 bands correlate by `NEAR` or more while both sound. A
    copy that begins elsewhere in the recording is not found, nor one of a sound shorter than 1.6 s.
    """
    pairs = []
    for start in range(0, len(prints.clips), 512):
        alike = _correlations(prints, start, start + 512)
        for i, j in zip(*np.nonzero(np.triu(alike, k=1) >= NEAR), strict=True):
            pairs.append((prints.clips[start + i], prints.clips[start + j], min(1.0, float(alike[i, j]))))
    return _joined(pairs)


def known_near_copies(dataset: Dataset, progress: Progress | None = None) -> tuple[list[Copies], int]:
    """`near_copies` of the data set and how many clips were compared; found once for the same sounds, then read.

    Raises:
        InputError: a clip can no longer be read.
    """
    contents = [clip.content for clip in dataset.clips]
    key = hashlib.sha256(json.dumps([_VERSION, NEAR, contents]).encode()).hexdigest()[:24]
    store = cache_folder() / "copies" / f"{key}.json"
    try:
        known = json.loads(store.read_text())
        return [Copies(tuple(clips), similarity) for clips, similarity in known["copies"]], known["compared"]
    except (OSError, ValueError):  # not there yet, or damaged: it is found again
        prints = fingerprints(dataset, progress)
    found, compared = near_copies(prints), len(prints.clips)
    store.parent.mkdir(exist_ok=True)
    copies = [[item.clips, item.similarity] for item in found]
    write_atomically(store, json.dumps({"copies": copies, "compared": compared}))
    return found, compared


def near_copies_across(dataset: Dataset, split: Split, progress: Progress | None = None) -> tuple[str, ...]:
    """A sentence where clips of different parts sound nearly the same."""
    parts = {int(index): part for part in ("train", "val", "test") for index in getattr(split, part)}
    across = [
        item
        for item in known_near_copies(dataset, progress)[0]
        if len({parts[clip] for clip in item.clips if clip in parts}) > 1
    ]
    if not across:
        return ()
    names = " ~ ".join(dataset.clips[clip].name for clip in across[0].clips[:2])
    return (
        f"WARNING: {len(across)} sets of clips that sound nearly the same are in several parts ({names}): scores "
        "flatter. data check lists them",
    )


def _correlations(prints: Prints, start: int, stop: int) -> NDArray[np.float32]:
    """The correlations of clips `start` to `stop` with all from `start` on, over the frames in which both sound.

    0 where those are too few. A frame in which a clip does not sound adds nothing to a product, so all are products of
    matrices.
    """
    ours, theirs = prints.levels[start:stop], prints.levels[start:]
    we, they = prints.sounding[start:stop], prints.sounding[start:]
    our_power = np.square(ours).sum(axis=2) @ they.T
    their_power = we @ np.square(theirs).sum(axis=2).T
    product = ours.reshape(len(ours), -1) @ theirs.reshape(len(theirs), -1).T
    scale = np.sqrt(np.maximum(our_power, 1e-6) * np.maximum(their_power, 1e-6))
    return np.where((we @ they.T) * _STEP >= SOUND, product / scale, np.float32(0))


def fingerprint(clip: Clip) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The course of a clip's level in 24 bands, [t, 24], and in which frames [t] it sounds; free of gain and equaliser.

    Levels are 0 where it does not sound. Each band's mean and its steady rise or fall are taken away, so unrelated
    clips correlate by about 0, also those of sounds that die away.
    """
    begin = clip.stretch.start if clip.stretch else 0.0
    waveform, rate = read_waveform(clip.path, stretch=Stretch(begin, begin + min(_LOOKED_AT, clip.seconds)))
    wave = waveform.numpy()
    hop = max(1, round(_STEP * rate))
    frames = np.lib.stride_tricks.sliding_window_view(wave, 2 * hop)[::hop][: round(_LOOKED_AT / _STEP)]
    power = np.abs(np.fft.rfft(frames * np.hanning(2 * hop).astype(np.float32))) ** 2
    edges = np.geomspace(_LOW, _HIGH, _BANDS + 1)
    band = np.searchsorted(edges, np.fft.rfftfreq(2 * hop, 1 / rate), side="right") - 1
    membership = (band[:, None] == np.arange(_BANDS)).astype(np.float32)  # [frequencies, 24]
    levels = power.astype(np.float32) @ membership
    loudness = levels.sum(axis=1)
    sounds = loudness > _QUIET * loudness.mean()
    levels = np.log(levels + 1e-4 * levels.mean() + 1e-20)  # 40 dB below the mean, what was silence stays silence
    line = np.stack([np.ones(len(levels)), np.linspace(-1, 1, len(levels))], axis=1)
    levels -= line @ np.linalg.lstsq(line[sounds], levels[sounds], rcond=None)[0]
    return (levels * sounds[:, None]).astype(np.float32), sounds


def _joined(pairs: Iterable[tuple[int, int, float]]) -> list[Copies]:
    """Pairs that share a clip, put together."""
    sets: list[tuple[set[int], float]] = []
    for i, j, similarity in pairs:
        touching = [item for item in sets if item[0] & {i, j}]
        sets = [item for item in sets if item not in touching]
        members = {i, j}.union(*(item[0] for item in touching))
        sets.append((members, min([similarity, *(item[1] for item in touching)])))
    return [Copies(tuple(sorted(members)), similarity) for members, similarity in sorted(sets, key=lambda s: min(s[0]))]
