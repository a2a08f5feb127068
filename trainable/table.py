"""What a CSV says about its clips, before any of them is opened."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path

from trainable.config import did_you_mean
from trainable.errors import InputError
from trainable.listing import Entry, Listing, Part, natural

_COLUMNS = ("path", "label", "split", "fold", "group")
_PARTS: dict[str, Part] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# What others call the same, the likeliest first: names of classes before their numbers.
_OTHER_NAMES = {
    "path": ("filename", "file_name", "filepath", "file_path", "file", "slice_file_name", "audio", "wav", "clip"),
    "label": ("category", "class", "class_name", "species", "genre", "emotion", "target", "class_id"),
    "group": ("speaker", "artist", "subject", "singer", "speaker_id", "artist_id", "subject_id", "singer_id"),
}
_FOLD = re.compile(r"(?:fold[ _-]?)?(-?\d+)(?:\.0)?", re.IGNORECASE)  # pandas writes 3.0 where another row has no fold
_SHOWN = 20  # problems of one CSV that are printed; a shifted column makes thousands of the same


def list_table(path: Path) -> Listing:
    """The clips that the CSV at `path` names, sorted; its paths are absolute or relative to its own folder.

    Raises:
        InputError: with every problem of the CSV: columns, empty cells, paths that stand twice, unknown splits.
    """
    rows = _rows(path)
    problems: list[str] = []
    lines: dict[str, int] = {}  # the line on which a path stood first
    entries = []
    for line, row in rows:
        entry, wrong = _entry(path.parent, row)
        problems += [f"{path}: line {line}: {text}" for text in wrong]
        if entry is None:
            continue
        if entry.path in lines:
            problems.append(
                f"{path}: line {line}: path: must stand once, got {row['path']!r} as on line {lines[entry.path]}. "
                "Remove one of the lines."
            )
        lines.setdefault(entry.path, line)
        entries.append(entry)
    _refuse(path, problems)
    if not any(os.path.exists(entry.path) for entry in entries):  # noqa: PTH110 (Path's own raises where it may not look)
        raise InputError(
            f"{path}: path: must name files, relative to the CSV's own folder or absolute, got {rows[0][1]['path']!r} "
            f"and none that is there. Move the CSV, or mend the paths: {entries[0].path} is no file."
        )
    labels = sorted({entry.label for entry in entries}, key=natural)
    return Listing(str(path), path.stem, path.parent, tuple(labels), tuple(sorted(entries, key=lambda e: e.name)))


def unused_group(path: Path) -> str:
    """The column of the CSV at `path` that looks like one of groups and is not used as such; "" where there is none."""
    rows = [row for _, row in _rows(path)]
    if any(row["group"] for row in rows):
        return ""
    return next((name for name in _OTHER_NAMES["group"] if any(row.get(name) for row in rows)), "")


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells by column, spaces around them removed; a column that is not there is all empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be a CSV in UTF-8, got {error.reason}. Save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}). Check its permissions.") from None
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)  # spreadsheets write ";" where the comma is the decimal sign
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        numbered = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(f"{path}: must be a CSV, got something else ({error}). Mend it.") from None
    if not numbered:
        raise InputError(f"{path}: must hold a header and a line per clip, got nothing. Add them.")
    header = [cell.strip().lower() for cell in numbered[0][1]]
    _check_header(path, header, len(numbered) - 1)
    rows, problems = [], []
    for line, cells in numbered[1:]:
        if any(cell.strip() for cell in cells[len(header) :]):
            problems.append(
                f"{path}: line {line}: must have {len(header)} cells as the header, got {len(cells)}. "
                "Put cells with a comma between quotes."
            )
        row = dict.fromkeys(_COLUMNS, "")
        row.update(zip(header, (cell.strip() for cell in cells), strict=False))
        rows.append((line, row))
    _refuse(path, problems)
    return rows


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        more = [f"{path}: and {len(problems) - _SHOWN} more problems of this kind."] if len(problems) > _SHOWN else []
        raise InputError(problems[:_SHOWN] + more)


def _check_header(path: Path, header: list[str], clips: int) -> None:
    problems = []
    for column in ("path", "label"):
        if header.count(column) > 1:
            problems.append(f"{path}: {column}: must be one column, got {header.count(column)}. Rename the others.")
        if column not in header:
            near = [name for name in header if name and did_you_mean(name, [column]).startswith("Did")]
            near += [name for name in _OTHER_NAMES[column] if name in header]
            hint = f"Rename the column {near[0]!r} to {column}." if near else "Add it, or mend the first line."
            problems.append(f"{path}: {column}: must be a column, got {', '.join(header)}. {hint}")
    if problems:
        raise InputError(problems)
    if not clips:
        raise InputError(f"{path}: must hold a line per clip, got only the header. Add clips.")


def _entry(root: Path, row: dict[str, str]) -> tuple[Entry | None, list[str]]:
    """The clip of one row, and what is wrong with the row; no clip where path or label is missing."""
    wrong = [f"{column}: must not be empty. Fill it in." for column in ("path", "label") if not row[column]]
    part = _PARTS.get(row["split"].lower())
    if row["split"] and part is None:
        wrong.append(
            f"split: must be train, val or test, got {row['split']!r}. {did_you_mean(row['split'], list(_PARTS))}"
        )
    fold = None
    if row["fold"]:
        number = _FOLD.fullmatch(row["fold"])
        if number:
            fold = int(number[1])
        else:
            wrong.append(f"fold: must be a whole number, got {row['fold']!r}. Change it.")
    if not row["path"] or not row["label"]:
        return None, wrong
    path = os.path.normpath(root / Path(row["path"]).expanduser())
    inside = path.startswith(os.path.join(root, ""))  # noqa: PTH118 (with the separator at its end)
    name = Path(path).relative_to(root).as_posix() if inside else Path(path).as_posix()
    return Entry(path, name, row["label"], row["group"] or None, part, fold), wrong
