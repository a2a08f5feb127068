"""The commands `predict` and `export`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console as Terminal
from rich.text import Text

from search.console.steps import Steps
from search.console.table import GAP, Column, fit, one_line, printable
from trainable.data.stretches import Stretch, plain
from trainable.errors import InputError, visible
from trainable.files import safe_cell
from trainable.inference.predict import Prediction

Style = Literal["table", "csv", "json"]


def predict(
    model_path: Path, files: Sequence[Path], style: Style, top: int, window: float | None = None,
    hop: float | None = None, labels: Path | None = None,
) -> int:  # fmt: skip
    """Labels files and folders; 1 where a file could not be read, 2 is for input that makes no sense at all.

    With `window` and `hop` in s every window of every file is labelled; `labels` is a folder for Audacity's files.
    """
    from trainable.inference.model import load_model
    from trainable.inference.predict import LabelFiles, Unreadable, csv_header, predict_files

    _must_exist(files)
    if labels is not None and window is None:
        raise InputError(f"--labels: needs --window, got {labels} alone. Give the length of a window in s.")
    label_files = LabelFiles(labels, files) if labels is not None else None
    model = load_model(model_path)
    labelled: list[Prediction] = []
    unreadable: list[Unreadable] = []
    if style == "csv":
        _write_row(csv_header(model, window is not None))
    with Steps(sys.stderr) as progress:
        for found in predict_files(model, files, top, progress, window, hop):
            if isinstance(found, Unreadable):
                unreadable.append(found)
                continue
            if label_files:
                label_files.add(found)
            if style == "json":
                print(json.dumps(found.to_json(), allow_nan=False), flush=True)
            elif style == "csv":
                _write_row(found.to_row())
            else:
                labelled.append(found)
    terminal = Terminal()
    for line in view(labelled, terminal.width if terminal.is_terminal else None):
        terminal.print(line, soft_wrap=True)
    for file in unreadable:
        print(f"{visible(file.path)}: {visible(file.reason)}", file=sys.stderr)
    return 1 if any(not file.skipped for file in unreadable) else 0


def export(model_path: Path, target: Path, clips: Sequence[Path], seconds: float | None) -> int:
    """Writes an ONNX file and says how far it is from torch."""
    from trainable.inference.onnx import export_onnx

    done = export_onnx(model_path, target, clips, seconds)
    print(
        f"{done.path}: takes clips of any length up to {done.samples} samples at {done.sample_rate} Hz "
        f"({done.samples / done.sample_rate:.2f} s), as they are; differs from predict by at most "
        f"{done.difference:.1e} over {done.clips} clips"
    )
    return 0


def _must_exist(paths: Sequence[Path]) -> None:
    missing = [f"{path}: no such file or folder, got nothing to label. Check the path." for path in paths
               if not os.path.lexists(path)]  # fmt: skip
    if missing:
        raise InputError(missing)


def _write_row(cells: Sequence[str]) -> None:
    import csv

    csv.writer(sys.stdout, lineterminator="\n").writerow(map(safe_cell, cells))
    sys.stdout.flush()


_INDENT = "  "  # of files below their folder
_NARROWEST = 8  # characters of a file's name, however narrow the terminal


def view(found: Sequence[Prediction], width: int | None) -> list[Text]:
    """Lines of `width` characters (None: no terminal): each folder once, and its files below it by name.

    Names matter more than the runners-up, which go first where there is little room; a name that is still too long
    loses its middle, because the ends are what files of one folder differ in.
    """
    if not found:
        return []
    paths = [Path(each.path) for each in found]
    labels = [each.label for each in found]
    shares = [f"{each.probability:.0%}" for each in found]
    then = [", ".join(f"{label} {share:.0%}" for label, share in each.top[1:3]) for each in found]
    inner = width - len(_INDENT) if width else None
    taken = sum(GAP + max(map(cell_len, cells)) for cells in (["label", *labels], ["probability", *shares]))
    shown = [path.name + _times(each.stretch) for path, each in zip(paths, found, strict=True)]
    names = [_shortened(printable(name), max(inner - taken, _NARROWEST) if inner else None) for name in shown]
    columns = [
        Column("file", names, right=False, widest=None),
        Column("label", labels, right=False, widest=None),
        Column("probability", shares),
        Column("then", then, right=False, widest=None),
    ]
    fitted = fit(columns[: None if any(then) else 3], inner)
    lines = [Text(_INDENT).append_text(line) for line in fitted.header]
    folder = None
    for path, row in zip(paths, fitted.rows, strict=True):
        if path.parent != folder:
            folder = path.parent
            lines.append(one_line(str(folder), None, "dim"))
        lines.append(Text(_INDENT).append_text(row))
    return lines


def _times(stretch: Stretch | None) -> str:
    """The times of a window as they stand behind its file's name."""
    return "" if stretch is None else f" {plain(stretch.start)} to {plain(stretch.end or 0.0)} s"


def _shortened(name: str, room: int | None) -> str:
    """`name` with an ellipsis in its middle where it is longer than `room` characters."""
    if room is None or cell_len(name) <= room:
        return name
    end = name[len(name) - room // 2 :]
    while cell_len(end) > room // 2:  # letters of two columns
        end = end[1:]
    return set_cell_size(name, room - 1 - cell_len(end)).rstrip() + "…" + end
