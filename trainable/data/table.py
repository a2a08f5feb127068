"""What a table says about its clips: a CSV, the metadata of a known set, a Raven selection table, Audacity labels."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainable.data.listing import Entry, Listing, Part, is_audio, natural
from trainable.data.stretches import Stretch
from trainable.errors import InputError, did_you_mean, visible
from trainable.files import checked_path, plain_cell

_PARTS: dict[str, Part] = {
    "train": "train", "training": "train", "trn": "train", "val": "val", "valid": "val", "validation": "val",
    "validate": "val", "dev": "val", "test": "test", "testing": "test", "tst": "test", "holdout": "test",
}  # fmt: skip
_EVALUATION = ("eval", "evaluation", "evaluate")  # test clips to some, validation clips to those who have a test too
# What others call the same, the likeliest first: names of classes before their numbers.
_OTHER_NAMES = {
    "path": ("filename", "file_name", "filepath", "file_path", "file", "slice_file_name", "audio", "wav", "clip"),
    "label": ("category", "class", "class_name", "species", "genre", "emotion", "target", "class_id"),
}
_GROUPS = (  # words of a column's name that speak of what clips have in common
    "recording", "patient", "subject", "participant", "speaker", "singer", "artist", "actor", "player", "album",
    "site", "location", "place", "station", "device", "recorder", "machine", "session", "date", "day", "night", "file",
    "source", "src", "fsid", "clip_id", "freesound_id", "youtube_id", "video",
)  # fmt: skip
# Columns of stretches. `offset` is a beginning beside a duration and an end beside an onset.
_BEGINS = ("start", "begin", "onset", "start_time", "begin_time", "start_seconds", "start_s", "tmin", "offset")
_ENDS = ("end", "stop", "end_time", "stop_time", "end_seconds", "end_s", "tmax")
_LASTS = ("duration", "length", "delta_time", "duration_s", "duration_seconds")
_RAVEN = ("selection", "begin_time", "end_time")  # columns that every selection table has
_RAVEN_LABELS = ("label", "annotation", "annotations", "species", "type", "call_type", "class", "common_name", "code")
_FOLD = re.compile(r"(?:fold[ _-]?)?(-?\d{1,9})(?:\.0)?", re.IGNORECASE)  # pandas writes 3.0 where some have no fold
_SHOWN = 20  # problems of one CSV that are printed; a shifted column makes thousands of the same


@dataclass(frozen=True)
class _Known:
    """A published set whose metadata is taken as it comes."""

    name: str
    columns: frozenset[str]  # by which it is known
    path: str  # of a clip, from the folder of the table, with columns in braces
    label: str
    group: str
    fold: str = "fold"


_KNOWN = (
    _Known(
        "ESC-50", frozenset(("filename", "fold", "target", "category")), path="../audio/{filename}", label="category",
        group="src_file",
    ),
    _Known(
        "UrbanSound8K", frozenset(("slice_file_name", "fsid", "fold", "class")),
        path="../audio/fold{fold}/{slice_file_name}", label="class", group="fsid",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """One clip of a table: its cells by column, and the line that it stands on."""

    line: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


def list_table(path: Path, group_column: str | None = None) -> Listing:
    """The clips that the table at `path` names, sorted; its paths are absolute or relative to its own folder.

    Args:
        path: a CSV with the columns path and label, the metadata of ESC-50 or UrbanSound8K, a selection table of Raven,
            or a label file of Audacity.
        group_column: the column whose values keep clips together; None: group, or the recording of stretches.

    Raises:
        InputError: with every problem of the table: columns, empty cells, clips that stand twice, unknown splits, rows
            that quotes have swallowed.
    """
    text = _text(path)
    if _is_audacity(text):
        return _listing(path, path.parent, _audacity(path, text), group_column)
    header, rows = _rows(path, text)
    known = next((item for item in _KNOWN if item.columns <= set(header)), None)
    notes: list[str] = []
    if known and "path" not in header:
        rows, notes = _as_published(path, rows, known)
        header = [*header, "path", "label", "group"]
    elif set(_RAVEN) <= set(header):
        header, rows = _raven(path, header, rows)
    _check_header(path, header, len(rows))
    return _listing(path, path.parent, rows, group_column, header, known, notes)


def list_annotations(root: Path, tables: Sequence[Path], group_column: str | None = None) -> Listing:
    """The stretches that Raven's or Audacity's files in the folder `root` mark in the recordings beside them."""
    rows = []
    for table in tables:
        text = _text(table)
        rows += _audacity(table, text) if _is_audacity(text) else _raven(table, *_rows(table, text))[1]
    if not rows:
        raise InputError(f"{root}: must mark stretches of recordings, got none in {len(tables)} files. Mark some.")
    return _listing(root, root, rows, group_column)


def label_files(root: Path) -> list[Path]:
    """The files in `root` that mark stretches of a recording beside them, by name and by content, sorted."""
    beside = _recordings(root)
    candidates = sorted(path for path in root.iterdir() if path.suffix.lower() in (".txt", ".tsv"))
    return [path for path in candidates if _recording_of(path, beside) and _marks(path)]


def _marks(table: Path) -> bool:
    try:
        with table.open(encoding="utf-8-sig") as file:
            first = file.readline(10_000)
    except (OSError, UnicodeDecodeError):
        return False
    return _is_audacity(first) or set(_RAVEN) <= {_column(cell) for cell in first.split("\t")}


def _listing(
    source: Path, root: Path, rows: Sequence[_Row], group_column: str | None, header: Sequence[str] = (),
    known: _Known | None = None, notes: Iterable[str] = (),
) -> Listing:  # fmt: skip
    """The clips of the rows; `source` is what the user named."""
    problems: list[str] = []
    notes = list(notes)
    group = _group_column(source, header, group_column)
    times = _times(header) if not known else ()
    parts = _parts(rows, notes)
    lines: dict[tuple[str, Stretch | None], int] = {}  # the line on which a clip stood first
    entries = []
    for row in rows:
        entry, wrong = _entry(root, row, group, times, parts)
        problems += [f"{source}: line {row.line}: {text}" for text in wrong]
        if entry is None:
            continue
        place = (entry.path, entry.stretch)
        if place in lines:
            what = f"{row['path']!r}" if entry.stretch is None else f"{entry.name!r}"
            problems.append(
                f"{source}: line {row.line}: path: must stand once, got {what} as on line {lines[place]}. "
                "Remove one of the lines."
            )
        lines.setdefault(place, row.line)
        entries.append(entry)
    _refuse(source, problems)
    if not any(os.path.exists(entry.path) for entry in entries):  # noqa: PTH110 (Path's own raises where it may not look)
        raise InputError(
            f"{source}: path: must name files, relative to the CSV's own folder or absolute, got {rows[0]['path']!r} "
            f"and none that is there. Move the CSV, or mend the paths: {entries[0].path} is no file."
        )
    entries, more = _by_recording(entries)
    labels = sorted({entry.label for entry in entries}, key=natural)
    notes += more
    warnings = tuple(_unused_groups(rows, header, group))
    ordered = tuple(sorted(entries, key=lambda entry: (entry.path, entry.stretch or Stretch(0, None), entry.name)))
    return Listing(str(source), source.stem, root, tuple(labels), ordered, (), tuple(notes), warnings)


def _by_recording(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """The entries, those without a group in that of their recording where any is a stretch, and a note of it."""
    stretches = sum(entry.stretch is not None for entry in entries)
    if not stretches:
        return entries, []
    own = sum(entry.group is not None for entry in entries)
    grouped = [replace(entry, group=entry.group or _recording(entry)) for entry in entries]
    recordings = len({entry.path for entry in entries})
    how = "clips without a group are" if own else "each recording is"
    text = f"{stretches} clips are stretches of {recordings} recordings"
    if own < len(entries):
        text += f"; {how} kept in one part" if not own else "; those without a group are kept with their recording"
    return grouped, [text]


def _recording(entry: Entry) -> str:
    """The name of the recording that an entry is taken from."""
    return entry.name.partition("#t=")[0] if entry.stretch else entry.name


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be a CSV in UTF-8, got {error.reason}. Save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}). Check its permissions.") from None


def _rows(path: Path, text: str) -> tuple[list[str], list[_Row]]:
    """The names of the columns, in small letters, and the rows; spaces around cells are removed."""
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)  # spreadsheets write ";" where the comma is the decimal sign
    numbered, problems = _quoted(path, text, delimiter)
    if problems and delimiter == "\t":  # by its own rule a TSV has no quotes: they are letters as others are
        plain = _unquoted(text)
        if len({len(cells) for _, cells in plain}) == 1:
            numbered, problems = plain, []
    _refuse(path, problems)
    if not numbered:
        raise InputError(f"{path}: must hold a header and a line per clip, got nothing. Add them.")
    header = [_column(cell) for cell in numbered[0][1]]
    rows = [
        _Row(line, dict(zip(header, (plain_cell(cell.strip()) for cell in cells), strict=False)))
        for line, cells in numbered[1:]
    ]
    long = [(line, cells) for line, cells in numbered[1:] if any(cell.strip() for cell in cells[len(header) :])]
    _refuse(path, [
        f"{path}: line {line}: must have {len(header)} cells as the header, got {len(cells)}. "
        "Put cells with a comma between quotes." for line, cells in long
    ])  # fmt: skip
    return header, rows


def _column(cell: str) -> str:
    """A column's name in small letters; the unit that Raven and others write behind it is left out."""
    name = cell.strip().lower()
    unit = re.fullmatch(r"(.+?) ?[(\[](?:s|sec|seconds)[)\]]", name)
    name = unit[1] if unit else name
    return name.replace(" ", "_") if name.startswith(("begin ", "end ", "start ", "delta ", "file ")) else name


def _quoted(path: Path, text: str, delimiter: str) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """The rows with the lines that they begin on, and the lines that quotes have made one row of.

    A cell may hold a line break between quotes. But a quote that nobody closes runs on to the next one, so lines inside
    a row that look like rows of their own are no text of a cell: they are lost.
    """
    lines = text.splitlines()
    numbered: list[tuple[int, list[str]]] = []
    problems = []
    before, width = 0, 0
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            begin, before = before + 1, reader.line_num
            width = width or len(cells)
            inner = lines[begin:before]  # the lines behind the first one of this row
            swallowed = any(line.count(delimiter) >= max(1, width - 1) for line in inner)
            torn = len(cells) < width and '"' in "".join(lines[begin - 1 : before]) and any(map(str.strip, cells))
            if (swallowed and width > 1) or torn:
                upto = f" to {before}" if before > begin else ""
                problems.append(
                    f"{path}: line {begin}: quotes must come in pairs, got a row of {len(cells)} cells from line "
                    f"{begin}{upto}. Close the quote, or remove it."
                )
            if any(cell.strip() for cell in cells):
                numbered.append((begin, cells))
    except csv.Error as error:
        problems.append(f"{path}: line {before + 1}: must be a CSV, got something else ({error}). Mend it.")
    return numbered, problems


def _unquoted(text: str) -> list[tuple[int, list[str]]]:
    return [(number, line.split("\t")) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        more = [f"{path}: and {len(problems) - _SHOWN} more problems of this kind."] if len(problems) > _SHOWN else []
        raise InputError(problems[:_SHOWN] + more)


def _check_header(path: Path, header: Sequence[str], clips: int) -> None:
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


def _as_published(path: Path, rows: list[_Row], known: _Known) -> tuple[list[_Row], list[str]]:
    """The rows of a known set's metadata with the columns path, label and group."""
    made = []
    for row in rows:
        own = {"path": known.path.format(**row.cells), "label": row[known.label]}
        made.append(_Row(row.line, {**row.cells, **own, "group": row[known.group]}))
    if not (path.parent / made[0]["path"]).exists():  # the clips beside their table, as copies of the set have them
        made = [_Row(row.line, {**row.cells, "path": Path(row["path"]).name}) for row in made]
    kept = f", clips of one {known.group} kept together" if any(row["group"] for row in made) else ""
    return made, [f"read as the metadata of {known.name}: its folds{kept}"]


def _raven(path: Path, header: list[str], rows: list[_Row]) -> tuple[list[str], list[_Row]]:
    """A selection table's rows with the columns path, label, start and end, each selection once.

    A selection stands once for every view (waveform, spectrogram). `File Offset` counts from the beginning of the file,
    the other times from that of a series of files.
    """
    column = next((name for name in _RAVEN_LABELS if name in header), None)
    if column is None:
        raise InputError(
            f"{path}: label: must be a column of the selection table, got {', '.join(header)}. Add one with labels, "
            f"such as {', '.join(_RAVEN_LABELS[:3])}."
        )
    file = next((name for name in ("path", "begin_path", "begin_file") if name in header), None)
    beside = None if file else _recording_of(path, _recordings(path.parent))
    if file is None and beside is None:
        raise InputError(
            f"{path}: must lie beside its recording and begin with its name, got none of such a name. Add a column "
            "Begin File."
        )
    seen, made = set(), []
    for row in rows:
        if row["selection"] in seen:
            continue
        seen.add(row["selection"])
        begin, end = row["begin_time"], row["end_time"]
        if row["file_offset"]:
            begin, end = row["file_offset"], _later(row["file_offset"], begin, end)
        where = row[file].replace("\\", "/") if file else str(beside)
        if file and not (path.parent / where).exists():
            where = where.rpartition("/")[2]  # as it was called on the annotator's computer
        made.append(_Row(row.line, {"path": where, "label": row[column], "start": begin, "end": end}))
    return ["path", "label", "start", "end"], made


def _later(offset: str, begin: str, end: str) -> str:
    """The end of a selection counted from the beginning of its file; as it stands where a time is none."""
    try:
        return repr(float(offset) + float(end) - float(begin))
    except ValueError:
        return end


_AUDACITY = re.compile(r"\s*-?\d+(?:[.,]\d+)?\t-?\d+(?:[.,]\d+)?(?:\t.*)?")


def _is_audacity(text: str) -> bool:
    """Whether a text is a label file of Audacity: times, no header."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return bool(_AUDACITY.fullmatch(first))


def _audacity(path: Path, text: str) -> list[_Row]:
    """The labels of a file as rows with the columns path, label, start and end; it lies beside its recording."""
    beside = _recording_of(path, _recordings(path.parent))
    if beside is None:
        raise InputError(
            f"{path}: must lie beside its recording and have its name, got no audio file that begins with "
            f"{path.stem!r}. Put them together."
        )
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("\\"):  # the frequencies of the label above
            continue
        start, end, label = ([*line.split("\t", 2), "", ""])[:3]
        rows.append(_Row(number, {"path": beside, "label": label.strip(), "start": start.strip(), "end": end.strip()}))
    return rows


def _recordings(folder: Path) -> dict[str, str]:
    """The audio files in a folder by the beginning of their name."""
    return {path.stem: path.name for path in sorted(folder.iterdir()) if is_audio(path.name)}


def _recording_of(table: Path, beside: dict[str, str]) -> str | None:
    """The audio file beside `table` whose name it begins with, the longest one: `rec.Table.1.selections.txt`."""
    pieces = table.name.split(".")
    beginnings = (".".join(pieces[:count]) for count in range(len(pieces) - 1, 0, -1))
    return next((beside[name] for name in beginnings if name in beside), None)


def _group_column(source: Path, header: Sequence[str], asked: str | None) -> str:
    """The column whose values are groups."""
    if asked is None:
        return "group"
    column = _column(asked)
    if column not in header:
        known = [name for name in header if name]
        if not known:
            raise InputError(f"{source}: group_column: needs a table with columns, got {asked!r}. Leave it out.")
        raise InputError(
            f"{source}: group_column: must be a column, got {asked!r}. {did_you_mean(column, known)}".rstrip()
        )
    return column


def _times(header: Sequence[str]) -> tuple[str, str, str]:
    """The columns of a stretch's beginning, end and duration, "" for none; a beginning alone says nothing.

    Without an end or a duration a column `start` may be anything, such as a year.
    """
    if not header:
        return "start", "end", ""
    begin = next((name for name in _BEGINS if name in header), "")
    end = next((name for name in _ENDS if name in header), "")
    if begin == "onset" and not end and "offset" in header:
        end = "offset"
    last = next((name for name in _LASTS if name in header), "")
    return (begin, end, last if not end else "") if begin and (end or last) else ("", "", "")


def _parts(rows: Sequence[_Row], notes: list[str]) -> dict[str, Part]:
    """What the words of the column split mean; eval means test, but val to those who have a test part too."""
    words = {row["split"].lower() for row in rows}
    found = [word for word in _EVALUATION if word in words]
    if not found:
        return _PARTS
    part: Part = "val" if any(_PARTS.get(word) == "test" for word in words) else "test"
    notes.append(f"clips whose split is {found[0]} are {part} clips")
    return _PARTS | dict.fromkeys(_EVALUATION, part)


def _entry(
    root: Path, row: _Row, group: str, times: tuple[str, ...], parts: dict[str, Part]
) -> tuple[Entry | None, list[str]]:
    """The clip of one row, and what is wrong with the row; no clip where path or label is missing."""
    wrong = [f"{column}: must not be empty. Fill it in." for column in ("path", "label") if not row[column]]
    part = parts.get(row["split"].lower())
    if row["split"] and part is None:
        words = [*_PARTS, *_EVALUATION]
        wrong.append(f"split: must be train, val or test, got {row['split']!r}. {did_you_mean(row['split'], words)}")
    fold = None
    if row["fold"]:
        number = _FOLD.fullmatch(row["fold"])
        if number:
            fold = int(number[1])
        else:
            wrong.append(f"fold: must be a whole number, got {row['fold']!r}. Change it.")
    stretch, more = _stretch(row, times)
    wrong += more
    if not row["path"] or not row["label"]:
        return None, wrong
    path = checked_path(root, row["path"])
    inside = path.startswith(os.path.join(root, ""))  # noqa: PTH118 (with the separator at its end)
    name = Path(path).relative_to(root).as_posix() if inside else Path(path).as_posix()
    return (
        Entry(
            path,
            visible(stretch.named(name) if stretch else name),
            visible(row["label"]),
            visible(row[group]) or None,
            part,
            fold,
            stretch,
        ),
        wrong,
    )


def _stretch(row: _Row, times: tuple[str, ...]) -> tuple[Stretch | None, list[str]]:
    """The stretch that a row marks, None where it means the whole file, and what is wrong with it."""
    cells = [(column, row[column]) for column in times if column and row[column]]
    if not cells:
        return None, []
    values: dict[str, float] = {}
    wrong = []
    for column, text in cells:
        value = _seconds(text)
        if value is None:
            wrong.append(f"{column}: must be a time in s, got {text!r}. Change it.")
        else:
            values[column] = value
    begin_column, end_column, last_column = times
    begin = values.get(begin_column, 0.0)
    end = values.get(end_column)
    if end is None and last_column in values:
        end = begin + values[last_column]
    if begin < 0:
        wrong.append(f"{begin_column}: must be 0 s or more, got {row[begin_column]!r}. Change it.")
    if end is not None and end <= begin:
        column = end_column or last_column
        wrong.append(f"{column}: must lie behind the beginning ({begin:g} s), got {row[column]!r}. Change it.")
    return (None, wrong) if wrong else (Stretch(begin, end), [])


def _seconds(text: str) -> float | None:
    """A time in s as people and programs write it, "1,5" too; None where it is none."""
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _unused_groups(rows: Sequence[_Row], header: Sequence[str], group: str) -> list[str]:
    """Sentences about columns whose values repeat as a recording, a speaker or a place does.

    None where clips have groups already.
    """
    if any(row[group] for row in rows):
        return []
    read = {"path", "label", "split", "fold", "group", *_BEGINS, *_ENDS, *_LASTS, *(item.label for item in _KNOWN)}
    found = [name for name in dict.fromkeys(header) if name and name not in read and _looks_like_groups(rows, name)]
    return [f"looks like a group: {name}; --group {name} keeps it together" for name in found]


def _looks_like_groups(rows: Sequence[_Row], column: str) -> bool:
    """Whether clips share values of `column` as clips of one speaker do.

    What follows from the label alone (its number), what is unique, and what has but a few values that are no names of
    groups (a sex, a quality) does not; nor do measurements and sentences.
    """
    filled = [row for row in rows if row[column]]
    values = Counter(row[column] for row in filled)
    by_label: dict[str, set[str]] = defaultdict(set)
    for row in filled:
        by_label[row["label"]].add(row[column])
    if len(filled) < 0.9 * len(rows) or len(values) < 2 or max(map(len, by_label.values())) < 2:
        return False
    if sum(count for count in values.values() if count > 1) < 0.3 * len(filled):
        return False
    if any(word in column for word in _GROUPS):
        return True
    text = all(" " not in value and not re.fullmatch(r"-?\d*[.,]\d+", value) for value in values)
    return text and len(values) >= max(5, len(by_label) // 2)
