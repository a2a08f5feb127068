"""What a data set holds and what is wrong with it, before anything is trained: the work of `data check`."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainable.commands import typed
from trainable.config import TrialConfig
from trainable.data.audio import LOUD
from trainable.data.dataset import Dataset, Rejected, load_dataset
from trainable.data.duplicates import MOST, SHORTEST, SOUND, Copies, exact_copies, known_near_copies
from trainable.data.split import Split, groups_of, split_dataset
from trainable.errors import InputError, visible
from trainable.progress import Progress

_SHOWN = 10  # lines of a long list
_LABEL = 60  # letters of a label that are shown


@dataclass(frozen=True)
class ClassFacts:
    """One class: its clips, and their lengths in s."""

    label: str
    clips: int
    shortest: float
    median: float
    longest: float


@dataclass(frozen=True)
class CopyFacts:
    """Clips with the same content. `parts` says in which part of the split each of them is, "" for none."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    parts: tuple[str, ...]
    similarity: float  # 1: equal samples

    @property
    def straddles(self) -> bool:
        """Whether what is learned from is also scored on."""
        return len(set(self.parts) - {""}) > 1

    @property
    def contradicts(self) -> bool:
        """Whether the same sound has two labels."""
        return len(set(self.labels)) > 1


@dataclass(frozen=True)
class SplitFacts:
    """The split that a search with the default settings would use, or why there is none."""

    name: str
    clips: dict[str, int]  # by part
    notes: tuple[str, ...]
    hash: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataReport:
    """Everything that `data check` says."""

    data: str
    name: str
    root: str
    hash: str
    seconds: float  # of all clips, s
    classes: tuple[ClassFacts, ...]
    sample_rates: dict[int, int]  # clips by Hz
    channels: dict[int, int]  # clips by number of channels
    rejected: tuple[Rejected, ...]
    exact: tuple[CopyFacts, ...]
    near: tuple[CopyFacts, ...]
    compared: int  # clips among which near copies were looked for
    groups: dict[str, int]  # clips by group
    straddling_groups: tuple[str, ...]
    split: SplitFacts
    warnings: tuple[str, ...]
    command: str  # a search of this data set

    @property
    def clips(self) -> int:
        """How many clips can be used."""
        return sum(item.clips for item in self.classes)

    def to_json(self) -> dict[str, Any]:
        """Plain values, the derived ones included."""
        values = dataclasses.asdict(self)
        for kind in ("exact", "near"):
            for item, facts in zip(values[kind], getattr(self, kind), strict=True):
                item |= {"straddles": facts.straddles, "contradicts": facts.contradicts}
        return {**values, "clips": self.clips}


def render(report: DataReport, console: Console) -> None:
    """Prints the record for people."""
    console.print(f"[bold]{_safe(report.name)}[/]  {_safe(report.root)}  (hash {report.hash})", soft_wrap=True)
    console.print(f"{report.clips} clips, {_length(report.seconds)}, {len(report.classes)} classes")
    table = Table("class", box=None, pad_edge=False)
    for title in ("clips", "shortest s", "median s", "longest s"):
        table.add_column(title, justify="right")
    for item in report.classes:
        lengths = (f"{value:.2f}" for value in (item.shortest, item.median, item.longest))
        table.add_row(_safe(item.label[:_LABEL]), str(item.clips), *lengths)
    console.print(table)
    _say(console, "sample rates", ", ".join(f"{rate} Hz: {clips}" for rate, clips in report.sample_rates.items()))
    _say(console, "channels", ", ".join(f"{channels}: {clips}" for channels, clips in report.channels.items()))
    if report.groups:
        straddling = f", {len(report.straddling_groups)} of them straddle the split" if report.straddling_groups else ""
        _say(console, "groups", f"{len(report.groups)}{straddling}")
    _say(console, "split", f"{report.split.name or 'none'}  {_counts(report.split)}".rstrip())
    for note in report.split.notes:
        console.print(f"  {_safe(note)}", soft_wrap=True)
    _list(console, "left out", [f"{item.name}: {item.reason}" for item in report.rejected])
    _list(console, "exact copies", map(_copies, report.exact))
    if report.clips > MOST and not report.compared:
        _say(console, "near copies", f"not looked for among more than {MOST} clips")
    else:
        fitting = "" if report.compared == report.clips else f" of {SHORTEST:g} s or more, with {SOUND:g} s of sound,"
        _list(console, f"near copies, of {report.compared} clips{fitting} compared", map(_copies, report.near))
    for warning in report.warnings:
        console.print(f"[bold yellow]![/] {_safe(warning)}", soft_wrap=True)
    if not report.warnings:
        console.print("[green]no problems found[/]")
    if not report.split.problems:
        _say(console, "search", report.command)


def _safe(text: str) -> str:
    """`text` with nothing in it that a terminal or rich would obey."""
    return escape(visible(text))


def _say(console: Console, title: str, text: str) -> None:
    console.print(f"[bold]{title}[/]: {_safe(text)}", soft_wrap=True)


def _list(console: Console, title: str, lines: Iterable[str]) -> None:
    shown = list(lines)
    _say(console, title, str(len(shown)) if shown else "none")
    for line in shown[:_SHOWN]:
        console.print(f"  {_safe(line)}", soft_wrap=True)
    if len(shown) > _SHOWN:
        console.print(f"  and {len(shown) - _SHOWN} more: --json lists them all")


def _copies(item: CopyFacts) -> str:
    """`a.wav (rock, train) = b.wav (pop, val)`, with what is bad about it."""
    clips = (
        f"{name} ({', '.join(filter(None, (label, part)))})"
        for name, label, part in zip(item.names, item.labels, item.parts, strict=True)
    )
    sign = " = " if item.similarity == 1 else f" ~ {item.similarity:.2f} ~ "
    bad = ["two labels"] * item.contradicts + ["straddles the split"] * item.straddles
    return sign.join(clips) + (f": {', '.join(bad)}" if bad else "")


def _counts(split: SplitFacts) -> str:
    return ", ".join(f"{clips} {part}" for part, clips in split.clips.items())


def _length(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def check_data(data: str, progress: Progress | None = None, config: TrialConfig | None = None) -> DataReport:
    """What the data set at `data` holds, how `config` would split it, and what should be repaired.

    Without `config` it is split as the shipped space files do, with a test share.

    Raises:
        InputError: nothing can be learned from it; see `load_dataset`.
    """
    config = config or TrialConfig(data=data, test_share=0.2)
    dataset = load_dataset(data, progress, config.group_column)
    split, facts = _split_facts(dataset, config)
    parts = np.full(len(dataset.clips), "", dtype="<U5")
    if split is not None:
        for part in ("train", "val", "test"):
            parts[getattr(split, part)] = part

    def copies(found: Iterable[Copies]) -> tuple[CopyFacts, ...]:
        return tuple(
            CopyFacts(
                tuple(dataset.clips[index].name for index in item.clips),
                tuple(dataset.labels[dataset.clips[index].label] for index in item.clips),
                tuple(str(parts[index]) for index in item.clips),
                round(item.similarity, 3),
            )
            for item in found
        )

    alike, compared = known_near_copies(dataset, progress)
    exact, near = copies(exact_copies(dataset)), copies(alike)
    groups = groups_of(dataset)
    by_group: dict[str, set[str]] = {}
    for group, part in zip([] if groups is None else groups.tolist(), parts.tolist(), strict=False):
        if group and part:
            by_group.setdefault(group, set()).add(part)
    straddling = tuple(sorted(group for group, where in by_group.items() if len(where) > 1))
    space = [] if data == "demo" else ["--space", "spaces/small-data.yaml"]  # the default space is for the demo set
    return DataReport(
        data=data,
        name=dataset.name,
        root=dataset.root,
        hash=dataset.hash,
        seconds=dataset.seconds,
        classes=tuple(_class_facts(dataset, label) for label in range(len(dataset.labels))),
        sample_rates=dict(Counter(clip.sample_rate for clip in dataset.clips).most_common()),
        channels=dict(Counter(clip.channels for clip in dataset.clips).most_common()),
        rejected=dataset.rejected,
        exact=exact,
        near=near,
        compared=compared,
        groups=dict(sorted(Counter(clip.group for clip in dataset.clips if clip.group is not None).items())),
        straddling_groups=straddling,
        split=facts,
        warnings=(*_warnings(dataset, exact, near, straddling, facts), *dataset.warnings),
        command=typed(*space, "--data", data),
    )


def _class_facts(dataset: Dataset, label: int) -> ClassFacts:
    seconds = [clip.seconds for clip in dataset.clips if clip.label == label]
    return ClassFacts(dataset.labels[label], len(seconds), min(seconds), float(np.median(seconds)), max(seconds))


def _split_facts(dataset: Dataset, config: TrialConfig) -> tuple[Split | None, SplitFacts]:
    try:
        split = split_dataset(dataset, config)
    except InputError as error:
        return None, SplitFacts("", {}, (), "", error.problems)
    counts = {part: len(getattr(split, part)) for part in ("train", "val", "test")}
    return split, SplitFacts(split.name, counts, split.notes, split.hash)


def _warnings(
    dataset: Dataset,
    exact: tuple[CopyFacts, ...],
    near: tuple[CopyFacts, ...],
    straddling: tuple[str, ...],
    split: SplitFacts,
) -> list[str]:
    """What should be mended or known, the worst first."""
    found = list(split.problems)
    copies = [*exact, *near]
    for kind, text in (
        ("contradicts", "two labels for the same sound, of which one must be wrong"),
        ("straddles", "clips in several parts of the split: what is learned is also scored, and the score flatters"),
    ):
        number = sum(getattr(item, kind) for item in copies)
        if number:
            found.append(f"sets of copies with {text}: {number}")
    extra = sum(len(item.names) - 1 for item in exact)
    if extra:
        found.append(f"exact copies of other clips: {extra}; take them away, or they count twice")
    if straddling:
        found.append(f"groups that straddle the split: {len(straddling)}; use split: grouped or folds, or mean it")
    if dataset.rejected:
        found.append(f"files that are left out: {len(dataset.rejected)}")
    counts = Counter(clip.label for clip in dataset.clips)
    most, least = max(counts.values()), min(counts.values())
    if most > 3 * least:
        found.append(f"classes are uneven ({least} to {most} clips): consider class_balanced: true")
    if len({clip.sample_rate for clip in dataset.clips}) > 1:
        found.append(f"sample rates differ: all clips are resampled to {dataset.sample_rate} Hz, the most common one")
    loud = [clip for clip in dataset.clips if clip.peak > LOUD]
    if loud:
        found.append(
            f"clips far above full scale (1): {len(loud)}, {loud[0].name} peaks at {loud[0].peak:.0f}. Whole numbers "
            "that were written as floats? Divide them by 32768 (16 bits), or their levels are learned as a mark of "
            "their class"
        )
    return found
