"""A folder of class folders, a CSV, or the demo set, as an index of clips that are known to be readable."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from trainable.data.audio import Probe, probe_files
from trainable.data.listing import Entry, Listing, find_table, list_folder, list_table
from trainable.errors import InputError, Unavailable
from trainable.progress import Progress


@dataclass(frozen=True)
class Clip:
    """One readable clip."""

    path: str  # absolute
    name: str  # relative to the data set's root, with "/": what people read in reports
    label: int  # index into Dataset.labels
    seconds: float  # s
    sample_rate: int  # Hz
    channels: int
    bytes: int  # size of the file
    mtime_ns: int  # when the file was changed, ns since 1970
    group: str | None = None  # artist, speaker, ...: a group should not straddle a split
    split: Literal["train", "val", "test"] | None = None  # as the CSV gives it
    fold: int | None = None  # as the CSV gives it
    content: str = ""  # hash of the decoded samples, whatever the name and the container


@dataclass(frozen=True)
class Rejected:
    """One file that is left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """The clips of a data set, by class and then by name."""

    name: str
    root: str  # the folder that names are relative to, absolute
    labels: tuple[str, ...]
    clips: tuple[Clip, ...]
    rejected: tuple[Rejected, ...] = ()

    @cached_property
    def sample_rate(self) -> int:
        """The most common sample rate, Hz; the higher one of two that are equally common."""
        counts = Counter(clip.sample_rate for clip in self.clips)
        return max(counts, key=lambda rate: (counts[rate], rate))

    @cached_property
    def seconds(self) -> float:
        """How long all clips are together, s."""
        return sum(clip.seconds for clip in self.clips)

    @cached_property
    def hash(self) -> str:
        """What changes when the data set does: names, sizes, labels, groups, splits and folds of all clips."""
        rows = [
            (clip.name, clip.bytes, self.labels[clip.label], clip.group, clip.split, clip.fold) for clip in self.clips
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def load_dataset(data: str, progress: Progress | None = None) -> Dataset:
    """The data set at `data`: "demo", a folder of class folders, or a CSV with the columns path and label.

    Every file is decoded once, in parallel; the answers are cached by path, size and time of change.

    Raises:
        InputError: there is nothing to learn from: no such path, no clips, one class, a class without clips, or a CSV
            that cannot be understood, with all of its problems.
    """
    listing = _listing(data, progress)
    probes = probe_files([entry.path for entry in listing.entries], listing.source, progress)
    _check_classes(listing, probes)
    labels = {label: number for number, label in enumerate(listing.labels)}
    clips = []
    rejected = [Rejected(name, reason) for name, reason in listing.left_out]
    for entry, probe in zip(listing.entries, probes, strict=True):
        if probe.reason:
            rejected.append(Rejected(entry.name, probe.reason))
        else:
            clips.append(_clip(entry, probe, labels[entry.label]))
    clips.sort(key=lambda clip: (clip.label, clip.name))
    rejected.sort(key=lambda item: item.name)
    return Dataset(listing.name, str(listing.root), tuple(labels), tuple(clips), tuple(rejected))


def absolute(data: str) -> str:
    """`data` as it can be found from any folder, links as they are: a CSV's paths start where its link lies.

    "demo" stays a name, because each node makes its own.
    """
    return data if data == "demo" else os.path.abspath(Path(data).expanduser())  # noqa: PTH100 (resolve() follows links)


def _listing(data: str, progress: Progress | None) -> Listing:
    if data == "demo":
        from trainable.data.demo import demo_folder

        return list_folder(demo_folder(progress), name="demo")
    path = Path(absolute(data))
    if path.is_dir():
        return list_folder(path)
    if not path.exists():
        raise Unavailable(_no_such_path(data, path))
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise InputError(f"data: must be demo, a folder of class folders or a CSV, got {data!r}. Name one of them.")
    return list_table(path)


def _no_such_path(data: str, path: Path) -> str:
    """The message for a path that is not there, with the nearest name that is."""
    parent = next(folder for folder in path.parents if folder.is_dir())
    wanted = path.relative_to(parent).parts[0]
    near = difflib.get_close_matches(wanted, [item.name for item in parent.iterdir()], n=1, cutoff=0.6)
    hint = f"Did you mean {parent / near[0]}?" if near else f"Check the path: {parent} is there, {wanted} in it is not."
    return f"data: no such file or folder, got {data!r}. {hint}"


def _clip(entry: Entry, probe: Probe, label: int) -> Clip:
    return Clip(
        entry.path, entry.name, label, probe.frames / probe.sample_rate, probe.sample_rate, probe.channels,
        probe.bytes, probe.mtime_ns, entry.group, entry.split, entry.fold, probe.content,
    )  # fmt: skip


def _check_classes(listing: Listing, probes: Sequence[Probe]) -> None:
    """Refuses what nothing can be learned from: no clips at all, a class without clips, a single class."""
    source = listing.source
    bad: dict[str, list[str]] = {label: [] for label in listing.labels}
    alive = set()
    for entry, probe in zip(listing.entries, probes, strict=True):
        if probe.reason:
            bad[entry.label].append(f"{entry.name}: {probe.reason}")
        else:
            alive.add(entry.label)
    if not alive:
        lost = [reason for reasons in bad.values() for reason in reasons]
        raise Unavailable(f"{source}: must hold readable clips, got none: {_some(lost)}. Check the path and the files.")
    problems = [
        f"{source}: {label}: a class must keep at least one clip, got none: {_some(bad[label])}. "
        "Mend the files or take the class away."
        for label in listing.labels
        if label not in alive
    ]
    if len(listing.labels) == 1:
        table = find_table(listing.root) if Path(source).is_dir() else None
        hint = f"Did you mean {table}?" if table else "Add clips of another class."
        problems.append(f"{source}: must hold at least two classes, got only {listing.labels[0]!r}. {hint}")
    if problems:
        raise InputError(problems)


def _some(reasons: list[str]) -> str:
    """The first few of many reasons."""
    if not reasons:
        return "it has no audio files"
    return "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
