"""The trials of one or several runs as one table: for the terminal, and for other programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from search.console.table import Column, fact, fit
from search.runs.cost import COSTS
from search.runs.format import ABSENT, conditions_of, percent, quantity, short, value_of
from search.runs.journal import Trial
from search.runs.run import RunFolder, load_run
from search.runs.tables import FOLDS, MEASURED, measured
from trainable.errors import InputError, did_you_mean
from trainable.files import safe_cell

WHOLE = ("trial", "best_epoch", "epochs_run", "parameters", "operations", "repeats", "val_fold", "folds")
SHOWN_FIRST = ("run", "trial", "name", "status", "mean_acc", "folds", "val_fold", "best_acc", "best_epoch")
SHOWN_LAST = ("last_acc", "epochs_run", "seconds", *COSTS)
HIGHEST_FIRST = ("best_acc", "last_acc", "mean_acc")


def compare(runs: Sequence[RunFolder], where: str | None = None, sort: str | None = None) -> pd.DataFrame:
    """One row per trial, best first: what was measured, then the settings in which the rows differ.

    `best_acc` follows the one rule for best, so it is missing for trials that did not get past the grace period;
    `last_acc` is there for all that finished an epoch. A conditional dimension is missing where it did not apply.
    `where`: as `DataFrame.query` takes it, over all settings. `sort`: a column, with "-" in front the other way round.

    Raises:
        InputError: `where` or `sort` make no sense for these columns.
    """
    unique = len({run.name for run in runs}) == len(runs)
    rows = [
        {**_row(run, trial), "run": run.name if unique else str(run.path)} for run in runs for trial in _best_first(run)
    ]
    frame = pd.DataFrame(rows)
    known = [*MEASURED, *(FOLDS if "repeats" in frame.columns else ())]
    frame = frame.reindex(columns=[*known, *(column for column in frame.columns if column not in known)])
    frame = frame.astype(dict.fromkeys([*(name for name in WHOLE if name in known), *_whole(rows)], "Int64"))
    if where:
        frame = frame[_chosen(frame, where)]
    if sort or len(runs) > 1:  # those of one run are in the order of the rule
        frame = _sorted(frame, sort)
    kept = _settings(runs, frame)
    if sort and sort.removeprefix("-") not in (*known, *kept):
        kept.append(sort.removeprefix("-"))
    return frame[[*known, *kept]].reset_index(drop=True)


def _whole(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that are whole numbers wherever there is one; with gaps, pandas would make floats of them."""
    settings = dict.fromkeys(name for row in rows for name in row if name not in (*MEASURED, *FOLDS))
    return [name for name in settings if {type(row[name]) for row in rows if row.get(name) is not None} == {int}]


def print_comparison(
    paths: Sequence[str | Path],
    where: str | None = None,
    sort: str | None = None,
    style: str = "table",
    stream: TextIO | None = None,
) -> None:
    """Prints the trials of the runs in `paths`; `style`: "table", "csv" or "json" (a list of objects).

    Raises:
        InputError: a path is no run folder, or `where` or `sort` make no sense.
    """
    runs: list[RunFolder] = []
    problems: list[str] = []
    for path in dict.fromkeys(paths):
        try:
            runs.append(load_run(path))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    frame = compare(runs, where, sort)
    stream = stream if stream is not None else sys.stdout
    if style == "csv":
        frame.map(safe_cell).to_csv(stream, index=False)
    elif style == "json":
        stream.write(
            ("[]" if frame.empty else str(frame.to_json(orient="records", indent=2, double_precision=15))) + "\n"
        )
    else:
        for line in table_lines(frame, _width(stream)):
            stream.write(line + "\n")


def table_lines(frame: pd.DataFrame, width: int | None) -> list[str]:
    """The comparison as text of at most `width` characters (None: as wide as it is)."""
    if frame.empty:
        return ["No trials to compare."]
    settings = [name for name in frame.columns if name not in (*MEASURED, *FOLDS)]
    # Where there is little room, the settings are worth more than how long a trial took.
    names = [name for name in (*SHOWN_FIRST, *settings, *SHOWN_LAST) if _worth_showing(frame, name)]
    columns = [Column(name, [_cell(name, value) for value in frame[name]], _is_number(frame[name])) for name in names]
    table = fit(columns, width)
    lines = [line.plain.rstrip() for line in (*table.header, *table.rows)]
    if table.left_out:
        hint = f"no room for {', '.join(table.left_out)}: widen the terminal, or use --csv or --json"
        lines += [line.plain.rstrip() for line in fact("", hint, width)]
    return lines


def _best_first(run: RunFolder) -> list[Trial]:
    """All trials of a run: those that may be called best by the one rule, then the others by number."""
    ranked = {best.trial.number: best.trial for best in run.ranked()}
    return [*ranked.values(), *(trial for trial in run.trials if trial.number not in ranked)]


def _row(run: RunFolder, trial: Trial) -> dict[str, Any]:
    """All that is known of a trial: what was measured, and its whole configuration."""
    dimensions = run.record["space"].get("search") or {}
    conditions = conditions_of(dimensions)
    values = {
        key: value_of(trial, key, conditions) if key in dimensions else value for key, value in trial.config.items()
    }
    return {**measured(run, trial), **{key: None if value is ABSENT else value for key, value in values.items()}}


def _settings(runs: Sequence[RunFolder], frame: pd.DataFrame) -> list[str]:
    """The settings in which the rows differ: those searched in any run, and those in which whole runs differ.

    Baselines differ from the rest in much that nobody searched; what only sets them apart is left to their names.
    """
    searched = dict.fromkeys(key for run in runs for trial in run.trials for key in trial.params)
    settings = [column for column in frame.columns if column not in (*MEASURED, *FOLDS)]
    suggested = frame[frame["kind"] == "search"]
    differ = [key for key in settings if _differs(suggested[key]) or (key in searched and _differs(frame[key]))]
    return [*(key for key in searched if key in differ), *(key for key in differ if key not in searched)]


def _differs(column: pd.Series[Any]) -> bool:
    return len({json.dumps(None if pd.isna(value) else value, default=str) for value in column}) > 1


def _chosen(frame: pd.DataFrame, where: str) -> pd.Series[bool]:
    """Which rows `where` holds for."""
    try:
        mask = frame.eval(where, engine="python")
    except Exception as error:  # pandas passes on whatever its parser and the expression run into
        unknown = re.search(r"name '(\w+)' is not defined", str(error))
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        word = not unknown or unknown[1] in _words(frame)
        hint = "Put words in quotes, as here." if word or not unknown else _which_column(unknown[1], frame)
        raise InputError(
            f"--where: must be a condition on columns such as \"lr > 1e-4 and status == 'finished'\", got {where!r} "
            f"({reason}). {hint}"
        ) from None
    if not isinstance(mask, pd.Series) or not pd.api.types.is_bool_dtype(mask):
        raise InputError(
            f"--where: must be true or false for each trial, got {where!r}. "
            'Compare a column with a value, such as "best_acc > 0.8".'
        )
    return mask.fillna(False).astype(bool)


def _which_column(name: str, frame: pd.DataFrame) -> str:
    """What to do about a column that is not there."""
    near = did_you_mean(name, tuple(frame.columns))
    return near if near.startswith("Did") else f"Use {', '.join(MEASURED)}, or a setting's name."


def _words(frame: pd.DataFrame) -> set[str]:
    """The words that stand in the table, such as a status or a backbone."""
    return {value for name in frame.columns for value in frame[name] if isinstance(value, str)}


def _sorted(frame: pd.DataFrame, sort: str | None) -> pd.DataFrame:
    """The rows in order; best first where `sort` is None. Trials without a value come last."""
    column = (sort or ("mean_acc" if "mean_acc" in frame.columns else "best_acc")).removeprefix("-")
    if column not in frame.columns:
        raise InputError(f"--sort: unknown column, got {column}. {_which_column(column, frame)}")
    ascending = column not in HIGHEST_FIRST
    if sort and sort.startswith("-"):
        ascending = not ascending
    return frame.sort_values(column, ascending=ascending, kind="stable", na_position="last", key=_sortable)


def _sortable(column: pd.Series[Any]) -> pd.Series[Any]:
    """Mixed columns, such as numbers with words among them, sort by their text."""
    if column.dtype == object and len({type(value) for value in column.dropna()} - {int, float}) > 0:
        return column.map(lambda value: value if pd.isna(value) else str(value))
    return column


def _worth_showing(frame: pd.DataFrame, name: str) -> bool:
    """Whether a measured column says something in a table for people."""
    if name not in frame.columns:
        return False
    if name == "run":
        return frame["run"].nunique() > 1
    if name in COSTS:
        return bool(frame[name].notna().any())
    return name != "name" or bool((frame["name"] != "").any())


def _cell(name: str, value: Any) -> str:
    if pd.isna(value):
        return "-"
    if name in HIGHEST_FIRST:
        return percent(float(value))
    if name in COSTS:
        return quantity(value) if name in WHOLE else f"{value:.3g}"
    return f"{value:.0f}" if name == "seconds" else short(value)


def _is_number(column: pd.Series[Any]) -> bool:
    return not any(isinstance(value, str) for value in column)


def _width(stream: TextIO) -> int | None:
    """The width of the terminal, None where there is none."""
    from rich.console import Console as Terminal

    return Terminal(file=stream).width if stream.isatty() else None
