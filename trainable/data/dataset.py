"""A folder of class folders, a CSV, or the demo set, as an index of clips that are known to be readable."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from trainable.data.audio import Probe, probe_files
from trainable.data.listing import Entry, Listing, find_table, holds_class_folders, list_folder
from trainable.data.stretches import Stretch
from trainable.data.table import label_files, list_annotations, list_table
from trainable.errors import InputError, Unavailable, visible
from trainable.files import checked_path
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
    peak: float = 0.0  # largest value of a sample, full scale 1
    stretch: Stretch | None = None  # which part of the file it is; None: all of it

    @property
    def place(self) -> str:
        """The path, with the stretch where it is one."""
        return self.stretch.named(self.path) if self.stretch else self.path


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
    notes: tuple[str, ...] = ()  # how it was understood
    warnings: tuple[str, ...] = ()  # what may be meant otherwise

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


_LONGEST = 255  # bytes of a name, on every common file system


def load_dataset(data: str, progress: Progress | None = None, group_column: str | None = None) -> Dataset:
    """The data set at `data`: "demo", a folder of class folders, or a table: see `trainable.data.table.list_table`.

    Every file is decoded once, in parallel; the answers are cached by path, size and time of change. `group_column`
    names the column of the table whose values keep clips together.

    Raises:
        InputError: there is nothing to learn from: no such path, no clips, one class, a class without clips, or a CSV
            that cannot be understood, with all of its problems.
    """
    listing = _listing(data, progress, group_column)
    paths, stretches = [entry.path for entry in listing.entries], [entry.stretch for entry in listing.entries]
    probes = probe_files(paths, listing.source, progress, stretches)
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
    warnings = (*listing.warnings, *_alike(listing.labels))
    return Dataset(
        listing.name, str(listing.root), tuple(labels), tuple(clips), tuple(rejected), listing.notes, warnings
    )  # fmt: skip


def _alike(labels: Sequence[str]) -> list[str]:
    """A sentence for labels that differ in ways that a person would not mean: capitals, spaces, zeros, accents."""
    same: dict[str, list[str]] = {}
    for label in labels:
        text = " ".join(re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", label).casefold()).split())
        number = _as_number(label)
        same.setdefault(number or text or label, []).append(label)
    pairs = [" and ".join(map(repr, found)) for found in same.values() if len(found) > 1]
    return [f"labels that look alike are classes of their own: {'; '.join(pairs)}"] if pairs else []


def _as_number(label: str) -> str:
    """A number in one spelling: 1, 01, 1.0 and +1 are the same; "" where the label is none."""
    found = re.fullmatch(r"\s*([-+]?)0*(\d+?)(?:\.(\d*?)0*)?\s*", unicodedata.normalize("NFKC", label))
    if not found:
        return ""
    sign, whole, part = found[1].replace("+", ""), found[2], found[3] or ""
    return f"{sign}{whole}" + (f".{part}" if part else "")


def absolute(data: str) -> str:
    """`data` as it can be found from any folder, links as they are: a CSV's paths start where its link lies.

    "demo" stays a name, because each node makes its own.
    """
    if data == "demo":
        return data
    return checked_path(Path.cwd(), data)


def _listing(data: str, progress: Progress | None, group_column: str | None) -> Listing:
    if group_column and (data == "demo" or (Path(absolute(data)).is_dir() and not label_files(Path(absolute(data))))):
        raise InputError(
            f"group_column: needs a CSV with such a column, got {group_column!r} and {data!r}, which has no columns. "
            "Leave it out, or name a CSV."
        )
    if data == "demo":
        from trainable.data.demo import demo_folder

        return list_folder(demo_folder(progress), name="demo")
    path = Path(absolute(data))
    if "\0" in data or any(len(os.fsencode(part)) > _LONGEST for part in path.parts):
        raise InputError(f"data: must be a path that there can be, got {visible(data, 60)!r}. Check the path.")
    if path.is_dir():
        tables = [] if holds_class_folders(path) else label_files(path)
        return list_annotations(path, tables, group_column) if tables else list_folder(path)
    if not path.exists():
        raise Unavailable(_no_such_path(data, path))
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise InputError(f"data: must be demo, a folder of class folders or a CSV, got {data!r}. Name one of them.")
    return list_table(path, group_column)


def _no_such_path(data: str, path: Path) -> str:
    """The message for a path that is not there, with the nearest name that is."""
    parent = next(folder for folder in path.parents if folder.is_dir())
    wanted = path.relative_to(parent).parts[0]
    try:
        names = [item.name for item in parent.iterdir()]
    except OSError:  # one that may be passed through and not listed
        names = []
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    hint = f"Did you mean {parent / near[0]}?" if near else f"Check the path: {parent} is there, {wanted} in it is not."
    return f"data: no such file or folder, got {data!r}. {hint}"


def _clip(entry: Entry, probe: Probe, label: int) -> Clip:
    return Clip(
        entry.path, entry.name, label, probe.frames / probe.sample_rate, probe.sample_rate, probe.channels,
        probe.bytes, probe.mtime_ns, entry.group, entry.split, entry.fold, probe.content, probe.peak, entry.stretch,
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
    table = find_table(listing.root) if Path(source).is_dir() else None
    way_out = "Mend the files or take the class away."
    problems = [
        f"{source}: {label}: a class must keep at least one clip, got none: {_some(bad[label])}. "
        + (f"Did you mean {table}?" if table and not bad[label] else way_out)
        for label in listing.labels
        if label not in alive
    ]
    if len(listing.labels) == 1:
        hint = f"Did you mean {table}?" if table else "Add clips of another class."
        problems.append(f"{source}: must hold at least two classes, got only {listing.labels[0]!r}. {hint}")
    if problems:
        raise InputError(problems)


def _some(reasons: list[str]) -> str:
    """The first few of many reasons."""
    if not reasons:
        return "it has no audio files"
    return "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
