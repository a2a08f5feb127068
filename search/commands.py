"""The small commands of the command line: what each prints, and its exit code."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console as Terminal
from rich.table import Table

from search.console_steps import Steps
from search.mirror import replay, resolve_mode
from search.report import write_report
from search.results import load_run
from trainable.errors import InputError

Style = Literal["table", "csv", "json"]


def report(paths: Sequence[Path]) -> int:
    """Writes the report of one run, or of several compared, into the first one's folder."""
    print(write_report([load_run(path) for path in paths]))
    return 0


def mirror(path: Path, swanlab: str, project: str | None) -> int:
    """Mirrors what SwanLab does not have of a run; 1 where some of it could not be."""
    run = load_run(path)
    mode = resolve_mode(swanlab, run.path, project or run.record["mirror"]["project"])
    with Steps(sys.stderr) as progress:
        done = replay(run.path, mode, progress=progress)
    print(f"{done.mirrored} trials mirrored now, {done.before} before, {done.failed} failed. {mode.how}")
    if done.problem:
        print(done.problem, file=sys.stderr)
    return 1 if done.failed else 0


def predict(model_path: Path, files: Sequence[Path], style: Style, top: int) -> int:
    """Labels files and folders; 1 where a file could not be read, 2 is for input that makes no sense at all."""
    from search.predict_view import view
    from trainable.predict import Prediction, Unreadable, csv_header, load, predict_files

    _must_exist(files)
    model = load(model_path)
    labelled: list[Prediction] = []
    unreadable: list[Unreadable] = []
    if style == "csv":
        _write_row(csv_header(model))
    with Steps(sys.stderr) as progress:
        for found in predict_files(model, files, top, progress):
            if isinstance(found, Unreadable):
                unreadable.append(found)
            elif style == "json":
                print(json.dumps(found.to_json()), flush=True)
            elif style == "csv":
                _write_row(found.to_row())
            else:
                labelled.append(found)
    terminal = Terminal()
    for line in view(labelled, terminal.width if terminal.is_terminal else None):
        terminal.print(line, soft_wrap=True)
    for file in unreadable:
        print(f"{file.path}: {file.reason}", file=sys.stderr)
    return 1 if unreadable else 0


def export(model_path: Path, target: Path, clips: Sequence[Path], seconds: float | None) -> int:
    """Writes an ONNX file and says how far it is from torch."""
    from trainable.export import export_onnx

    done = export_onnx(model_path, target, clips, seconds)
    print(
        f"{done.path}: takes {done.samples} samples at {done.sample_rate} Hz; differs from torch by at most "
        f"{done.difference:.1e} over {done.clips} clips"
    )
    return 0


def check(path: str, as_json: bool) -> int:
    """Prints what a data set holds and what is wrong with it."""
    from trainable.datacheck import check_data, render

    with Steps(sys.stderr) as progress:
        found = check_data(path, progress)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        render(found, Terminal())
    return 0


def demo(target: Path) -> int:
    """Writes the demo set."""
    from trainable.demo import make_demo

    with Steps(sys.stderr) as progress:
        print(make_demo(target, progress=progress))
    return 0


def gtzan(target: Path, mirrors: Sequence[str]) -> int:
    """Downloads and unpacks GTZAN."""
    from trainable.gtzan import fetch_gtzan

    with Steps(sys.stderr) as progress:
        print(fetch_gtzan(target, mirrors=mirrors or None, progress=progress))
    return 0


def cache(clear: bool) -> int:
    """Prints what the cache of mels holds, or empties it."""
    from trainable.cache import cache_entries, cache_folder, cache_limit, clear_cache

    if clear:
        removed, size = clear_cache()
        print(f"{removed} entr{'y' if removed == 1 else 'ies'} removed, {size / 1e6:.0f} MB, from {cache_folder()}")
        return 0
    table = Table("data set", "clips", "MB", "last used", "front end", box=None, pad_edge=False)
    entries = cache_entries()
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        front_end = ", ".join(f"{key} {value}" for key, value in entry.about.items() if key not in ("dataset", "clips"))
        megabytes = f"{entry.bytes / 1e6:.1f}"
        table.add_row(entry.about["dataset"], str(entry.about["clips"]), megabytes, used, front_end)
    Terminal().print(table)
    total = sum(entry.bytes for entry in entries)
    print(f"{total / 1e6:.0f} MB of at most {cache_limit() / 1e6:.0f} MB in {cache_folder()}")
    return 0


def _must_exist(paths: Sequence[Path]) -> None:
    missing = [f"{path}: no such file or folder, got nothing to label. Check the path." for path in paths
               if not path.exists()]  # fmt: skip
    if missing:
        raise InputError(missing)


def _write_row(cells: Sequence[str]) -> None:
    import csv

    csv.writer(sys.stdout, lineterminator="\n").writerow(cells)
    sys.stdout.flush()
