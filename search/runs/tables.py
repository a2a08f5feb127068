"""`trials.csv`: one row per trial of a run, and what is measured of a trial wherever trials stand in rows."""

from __future__ import annotations

import bisect
import csv
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.runs.cost import COSTS, costs_of
from search.runs.journal import Trial
from search.runs.run import RunFolder, best_epoch, best_of
from trainable.files import safe_cell, write_atomically

# What stands before the settings in each row; no name is that of a setting.
MEASURED = (
    "run", "trial", "name", "kind", "status", "best_acc", "best_epoch", "last_acc", "epochs_run", "seconds", *COSTS,
)  # fmt: skip
# What stands there too where trials were repeated on further folds.
FOLDS = ("repeats", "val_fold", "mean_acc", "folds")


class TrialsTable:
    """Keeps `trials.csv` of a run up to date: one row per trial, with its ending, its best epoch and its sample."""

    def __init__(self, run: RunFolder) -> None:
        """Writes nothing yet."""
        self._run = run
        self._columns: list[str] = []
        self._over: dict[int | None, str] = {}  # lines that do not change any more

    def on_event(self, event: dict[str, Any]) -> None:
        """Writes the file whenever a trial has ended: `journal.listen(table.on_event)`."""
        if event["event"] == "ended":
            self._over.pop(self._run.journal.trials[event["trial"]].repeats, None)  # whose mean is another now
            self.write()

    def write(self) -> Path:
        """The file, written anew in one go."""
        samples = dict.fromkeys(key for trial in self._run.trials for key in trial.params)
        columns = [*(name for name in MEASURED if name != "run"), *_folds(self._run), *samples, "message"]
        if columns != self._columns:  # a conditional dimension that nobody has used before
            self._columns, self._over = columns, {}
        path = self._run.path / "trials.csv"
        write_atomically(path, _csv(columns) + "".join(self._line(trial) for trial in self._run.trials))
        return path

    def _line(self, trial: Trial) -> str:
        if trial.number in self._over:
            return self._over[trial.number]
        row = {**measured(self._run, trial), **trial.params, "message": trial.message}
        line = _csv([row.get(column) for column in self._columns])
        if trial.over:
            self._over[trial.number] = line
        return line


def _folds(run: RunFolder) -> tuple[str, ...]:
    return FOLDS if run.journal.configurations < len(run.journal.trials) else ()


def write_trials_csv(run: RunFolder) -> Path:
    """The path of the run's `trials.csv`, written anew."""
    return TrialsTable(run).write()


def _csv(cells: Sequence[Any]) -> str:
    """One line of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(safe_cell, cells))
    return text.getvalue()


def measured(run: RunFolder, trial: Trial) -> dict[str, Any]:
    """What is known of a trial without its settings, by the names in MEASURED and, where there are any, FOLDS."""
    best = best_epoch(trial, run.grace_epochs)
    sessions = [session["time"] for session in run.journal.sessions]
    return {
        "run": run.name,
        "trial": trial.number,
        "name": trial.name,
        "kind": trial.kind,
        "status": trial.status,
        "best_acc": best.accuracy if best else None,
        "best_epoch": best.epoch if best else None,
        "last_acc": trial.reports[-1].value if trial.reports else None,
        "epochs_run": len(trial.reports),
        "seconds": round(sum(epoch_seconds(trial, sessions)), 3),
        **{name: value if value is None else round(value, 3) for name, value in costs_of(run, trial).items()},
        **(_of_folds(run, trial) if _folds(run) else {}),
    }


def _of_folds(run: RunFolder, trial: Trial) -> dict[str, Any]:
    """Which trial it repeats and on which fold; of one that was repeated, the mean and over how many folds."""
    mean = best_of(run.journal.family(trial.number), run.grace_epochs)  # None for a repeat, which has no family
    return {
        "repeats": trial.repeats,
        "val_fold": trial.fold,
        "mean_acc": mean.accuracy if mean else None,
        "folds": len(mean.folds) or 1 if mean else None,
    }


def epoch_seconds(trial: Trial, sessions: Sequence[float]) -> list[float]:
    """The wall time of each of a trial's epochs, s; the first holds the worker's start, no time without a driver does.

    `sessions`: when the driver was started and resumed, s since 1970, oldest first.
    """
    moments = [trial.started, *(report.time for report in trial.reports)]
    return [awake(start, end, sessions) for start, end in itertools.pairwise(moments)]


def awake(start: float, end: float, sessions: Sequence[float]) -> float:
    """Seconds from `start` to `end`, from the last start of the driver in between where there is one."""
    index = bisect.bisect_right(sessions, end) - 1
    return max(end - max(start, sessions[index] if index >= 0 else start), 0.0)
