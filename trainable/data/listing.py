"""What a folder of class folders, or a CSV, says about its clips, before any of them is opened."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainable.data.decode import FOREIGN
from trainable.errors import InputError, did_you_mean

Part = Literal["train", "val", "test"]
AUDIO = FOREIGN | {
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".au", ".snd", ".aif", ".aiff", ".aifc", ".caf",
    ".w64", ".rf64", ".sph", ".nist", ".voc", ".sf", ".ircam", ".avr", ".paf", ".pvf", ".svx", ".8svx",
}  # fmt: skip
_DEPTH = 4  # folders below the named one that are searched for what the user may have meant


@dataclass(frozen=True)
class Entry:
    """One file that should be a clip."""

    path: str  # absolute
    name: str  # relative to the data set's root, with "/"
    label: str
    group: str | None = None
    split: Part | None = None
    fold: int | None = None


@dataclass(frozen=True)
class Listing:
    """All files of a data set; `left_out` are names and reasons."""

    source: str  # the folder or CSV, as the user named it
    name: str
    root: Path
    labels: tuple[str, ...]  # with those that have no entry
    entries: tuple[Entry, ...]
    left_out: tuple[tuple[str, str], ...] = ()


def natural(text: str) -> list[str | int]:
    """A sort key by which "fold 10" comes after "fold 9"."""
    return [int(piece) if number % 2 else piece for number, piece in enumerate(re.split(r"(\d+)", text))]


def list_folder(root: Path, name: str = "") -> Listing:
    """The files in the class folders of `root`, sorted.

    Raises:
        InputError: no audio where it is expected; says where class folders were found instead.
    """
    entries: list[Entry] = []
    left_out: list[tuple[str, str]] = []
    labels = []
    for item in _scan(root):
        if item.name.startswith(".") or item.name == "__MACOSX":
            left_out.append((item.name + "/" * item.is_dir(), "hidden"))
        elif item.is_dir():
            labels.append(item.name)
            for path, reason in _class_files(Path(item.path)):
                relative = path.relative_to(root).as_posix()
                if reason:
                    left_out.append((relative, reason))
                else:
                    entries.append(Entry(str(path), relative, item.name))
        elif is_audio(item.name):
            left_out.append((item.name, "lies outside the class folders"))
    if not entries:
        raise InputError(_no_class_folders(root))
    labels.sort(key=natural)
    return Listing(str(root), name or _name(root), root, tuple(labels), tuple(entries), tuple(left_out))


def _class_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """All files of a class folder with the reason to leave them out, "" where there is none."""
    for item in _scan(folder):
        path = Path(item.path)
        if item.name.startswith("."):
            yield path, "hidden (left behind by macOS)" if item.name.startswith("._") else "hidden"
        elif item.is_dir():
            deeper = (Path(base) / file for base, _, files in os.walk(path) for file in files if is_audio(file))
            yield from ((file, "lies deeper than its class folder") for file in sorted(deeper))
        elif is_audio(item.name):
            yield path, ""
        else:
            yield path, "not an audio file by its name"


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return sorted(items, key=lambda item: item.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be opened ({error.strerror}). Check its permissions.") from None


def is_audio(name: str) -> bool:
    """Whether a file is audio by its name, and not hidden."""
    return Path(name).suffix.lower() in AUDIO and not name.startswith(".")


def _name(root: Path) -> str:
    """The folder's name; for GTZAN's generic one with that of the folder above."""
    return root.parent.name if root.name == "genres_original" and root.parent.name else root.name


def _no_class_folders(root: Path) -> str:
    """Why `root` is no data set, and which folder nearby is one."""
    holders = [folder for folder in _walk(root) if any(is_audio(path.name) for path in folder.iterdir())]
    homes = sorted({folder.parent for folder in holders if folder != root})
    table = find_table(root)
    if table is not None:
        return f"{root}: must hold class folders with audio files, got none. Did you mean {table}?"
    if len(homes) == 1:
        return f"{root}: must hold class folders with audio files, got them elsewhere. Did you mean {homes[0]}?"
    if homes:
        places = ", ".join(str(home) for home in homes[:3]) + (", ..." if len(homes) > 3 else "")
        return (
            f"{root}: must hold class folders with audio files, got them in {len(homes)} places ({places}). "
            f"Name one of them, or write a CSV with the columns path, label and split."
        )
    if holders:
        return (
            f"{root}: must hold class folders with audio files, got audio files without class folders. "
            f"Did you mean {find_table(root.parent) or root.parent}? "
            "Otherwise write a CSV with the columns path and label."
        )
    kinds = ".wav, .flac, .mp3, .ogg, ..."
    return f"{root}: must hold class folders with audio files ({kinds}), got no audio file. Check the path."


def _walk(root: Path) -> Iterator[Path]:
    """`root` and the visible folders below it, so deep as a user may have meant one of them."""
    for base, folders, _ in os.walk(root):
        folder = Path(base)
        deep = len(folder.relative_to(root).parts) >= _DEPTH
        folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
        yield folder


def find_table(root: Path) -> Path | None:
    """A CSV in `root` that lists clips, if there is one."""
    for path in sorted(root.glob("*.csv")):
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            header = file.readline().lower()
        if "path" in header and "label" in header:
            return path
    return None


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
