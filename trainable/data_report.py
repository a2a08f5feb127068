"""The record of `data check`, and how it looks on a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainable.dataset import Rejected
from trainable.duplicates import MOST, SHORTEST, SOUND

_SHOWN = 10  # lines of a long list


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
    console.print(f"[bold]{escape(report.name)}[/]  {escape(report.root)}  (hash {report.hash})", soft_wrap=True)
    console.print(f"{report.clips} clips, {_length(report.seconds)}, {len(report.classes)} classes")
    table = Table("class", box=None, pad_edge=False)
    for title in ("clips", "shortest s", "median s", "longest s"):
        table.add_column(title, justify="right")
    for item in report.classes:
        lengths = (f"{value:.2f}" for value in (item.shortest, item.median, item.longest))
        table.add_row(escape(item.label), str(item.clips), *lengths)
    console.print(table)
    _say(console, "sample rates", ", ".join(f"{rate} Hz: {clips}" for rate, clips in report.sample_rates.items()))
    _say(console, "channels", ", ".join(f"{channels}: {clips}" for channels, clips in report.channels.items()))
    if report.groups:
        straddling = f", {len(report.straddling_groups)} of them straddle the split" if report.straddling_groups else ""
        _say(console, "groups", f"{len(report.groups)}{straddling}")
    _say(console, "split", f"{report.split.name or 'none'}  {_counts(report.split)}".rstrip())
    for note in report.split.notes:
        console.print(f"  {escape(note)}", soft_wrap=True)
    _list(console, "left out", [f"{item.name}: {item.reason}" for item in report.rejected])
    _list(console, "exact copies", map(_copies, report.exact))
    if report.clips > MOST and not report.compared:
        _say(console, "near copies", f"not looked for among more than {MOST} clips")
    else:
        fitting = "" if report.compared == report.clips else f" of {SHORTEST:g} s or more, with {SOUND:g} s of sound,"
        _list(console, f"near copies, of {report.compared} clips{fitting} compared", map(_copies, report.near))
    for warning in report.warnings:
        console.print(f"[bold yellow]![/] {escape(warning)}", soft_wrap=True)
    if not report.warnings:
        console.print("[green]nothing to mend[/]")
    if not report.split.problems:
        _say(console, "search", report.command)


def _say(console: Console, title: str, text: str) -> None:
    console.print(f"[bold]{title}[/]: {escape(text)}", soft_wrap=True)


def _list(console: Console, title: str, lines: Iterable[str]) -> None:
    shown = list(lines)
    _say(console, title, str(len(shown)) if shown else "none")
    for line in shown[:_SHOWN]:
        console.print(f"  {escape(line)}", soft_wrap=True)
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
