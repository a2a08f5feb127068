"""What a search leaves behind: tables, the Optuna study, the best configuration and the report."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import yaml
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from search.report import write_report
from search.results import Run
from search.searcher import export_study
from search.space import Space
from search.trials_csv import write_trials_csv
from trainable.folder import write_atomically


def close_run(run: Run, space: Space, warn: Callable[[str], None]) -> None:
    """Writes everything in the run folder that is made from the journal and the trial folders."""
    write_trials_csv(run)
    write_best(run)
    try:
        export_study(space, run.journal, run.path / "study.db")
    except (OSError, SQLAlchemyError, StorageInternalError) as error:  # a full disk, a folder without SQLite's locks
        # Only people with optuna-dashboard read it, and the search could not be had again for it.
        warn(f"{run.path / 'study.db'} could not be written ({error}): resume --trials tries again")
    try:
        write_report([run])
    except Exception as error:  # hours of training must not end in a traceback over a page that can be made again
        again = f"python run_search.py report {shlex.quote(str(run.path))}"
        warn(f"the report failed ({type(error).__name__}: {error}): {again}")


def write_best(run: Run) -> None:
    """Writes best.yaml: the best trial's whole configuration, ready for `python -m trainable --config`."""
    best = run.best()
    if best is None:
        return
    head = (
        f"# Trial {best.trial.number} of {run.name}: validation accuracy {best.accuracy:.4f} at epoch {best.epoch}, "
        "chosen by the search: optimistic.\n"
        f"# python -m trainable --config {shlex.quote(str(run.path / 'best.yaml'))}\n"
    )
    write_atomically(run.path / "best.yaml", head + yaml.safe_dump(best.trial.config, sort_keys=False))
