"""Tables for the terminal that fit its width: what does not fit is left out by name, never squeezed."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console as Terminal
from rich.text import Text

ENDLESS = 1000  # characters: in a pipe no line is broken
WIDEST = 20  # characters of one column; the longest name of a torchvision backbone has 19
GAP = 2
FACT = 8  # where the text of a fact begins


@dataclass(frozen=True)
class Column:
    """One column: its full name and a cell per row."""

    name: str
    cells: Sequence[str | Text]
    right: bool = True  # numbers stand on the right
    widest: int | None = WIDEST  # longer cells end in an ellipsis; None: the column takes what is left


@dataclass(frozen=True)
class Fitted:
    """A table as lines that fit, and the names of the columns for which there was no room."""

    header: list[Text]
    rows: list[Text]
    left_out: list[str]


def terminal() -> Terminal:
    """Standard output: as wide as a person's window, and without an end where there is none."""
    return Terminal(width=None if sys.stdout.isatty() else ENDLESS, highlight=False)


def fit(columns: Sequence[Column], width: int | None, styles: Sequence[str] = ()) -> Fitted:
    """Those of `columns`, in order, for which `width` characters have room (None: all, whole); `styles`: one a row."""
    chosen: list[tuple[Column, list[str], int]] = []
    left_out: list[str] = []
    used = 0
    for column in columns:
        widest = max((cell_len(_plain(cell)) for cell in column.cells), default=0)
        cells = min(widest, column.widest or max(width - used, 8)) if width else widest
        name = _broken(column.name, cells) if width else [column.name]
        needs = max(cells, *(cell_len(line) for line in name), 1)
        if width and used + needs > width:
            left_out.append(column.name)
            continue
        chosen.append((column, name, needs))
        used += needs + GAP
    tallest = max((len(name) for _, name, _ in chosen), default=0)
    header = []
    for line in range(tallest):
        # Names stand on their values: short ones have empty lines above.
        cells_of_line = [([""] * (tallest - len(name)) + name)[line] for _, name, _ in chosen]
        header.append(_row(cells_of_line, chosen, "bold"))
    rows = []
    for index in range(max((len(column.cells) for column in columns), default=0)):
        style = styles[index] if index < len(styles) else ""
        rows.append(_row([column.cells[index] for column, _, _ in chosen], chosen, style))
    return Fitted(header, rows, left_out)


def fact(name: str, text: str, width: int | None, style: str = "") -> list[Text]:
    """`name` and `text` beside it, on as many lines of `width` characters as that takes (None: on one)."""
    text = printable(text)
    room = max((width or 0) - FACT, 20)
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) if width else [text]
    return [Text(f"{name if index == 0 else '':<{FACT}}{line}", style) for index, line in enumerate(lines or [""])]


def one_line(text: str, width: int | None, style: str = "") -> Text:
    """`text` on one line of `width` characters at most (None: whole)."""
    text = printable(text)
    return Text(_cropped(text, width) if width else text, style=style)


def printable(text: str) -> str:
    """`text` without colours, line breaks and whatever else a terminal would obey."""
    text = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _row(cells: Sequence[str | Text], chosen: Sequence[tuple[Column, list[str], int]], style: str) -> Text:
    row = Text(style=style)
    for index, (cell, (column, _, needs)) in enumerate(zip(cells, chosen, strict=True)):
        text = cell if isinstance(cell, Text) else one_line(cell, needs)
        space = " " * (needs - cell_len(text.plain))
        row.append(space if column.right else "").append_text(text)
        if index < len(chosen) - 1:
            row.append(("" if column.right else space) + " " * GAP)
    return row


def _plain(cell: str | Text) -> str:
    return cell.plain if isinstance(cell, Text) else cell


def _cropped(text: str, width: int) -> str:
    """The text, with an ellipsis where it is longer than `width` characters."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 1 else text[:width]


def _broken(name: str, room: int) -> list[str]:
    """A column's name on as many lines as its values are narrow, broken after underscores only."""
    parts = [part + "_" for part in name.split("_")]
    parts[-1] = parts[-1].removesuffix("_")
    room = max(room, *(len(part) for part in parts))
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) <= room:
            lines[-1] += part
        else:
            lines.append(part)
    return lines
