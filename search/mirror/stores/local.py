"""SwanLab's local store, where its public interface has no answer: taking a run away, and looking what it kept.

Written against swanlab 0.10.3 and the swanboard that belongs to it; `tests/search/mirror/stores/test_local.py` notices
a version that differs.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

DATABASE = "runs.swanlab"
RUNNING = 0  # as the column `status` of the table `experiment` has it
BUSY_S = 30.0  # for the pages, which may be reading
ALWAYS_LOGGED = "train/epoch"  # the one metric that is never NaN


def load() -> None:
    """Imports SwanLab's local store, and mends two things in it."""
    from swanboard.db.models import Tag
    from swanlab.deprecated import local

    if hasattr(local.LocalCallbacker, "numbered_from_zero"):
        return

    # The page's table looks for a metric's last value in a folder named by the metric's rank, counted from 0, but
    # SwanLab numbers the folders from 1: `train/loss` would show the last `val/acc`.
    class NumberedFromZero(local.LocalCallbacker):  # type: ignore[misc]
        numbered_from_zero = True

        def __init__(self) -> None:
            super().__init__()
            self._next_kid = 0

    local.LocalCallbacker = NumberedFromZero

    # To see whether a column exists, swanboard reads the whole table and three more rows for each of its rows, once
    # per experiment: at 1,000 trials that would be half a minute each.
    def field_exists(cls: Any, field: str) -> bool:
        return any(column.name == field for column in cls._meta.database.get_columns(cls._meta.table_name))

    Tag.field_exists = classmethod(field_exists)


def remove_run(log_dir: Path, key: str) -> None:
    """Takes an experiment out of the local pages, with its files, as the page's own delete button would.

    The project's counter of experiments stays as it is: it gives each one its place, and a place given twice would
    rename the second experiment.
    """
    if (log_dir / DATABASE).exists():
        with _database(log_dir) as database:
            database.execute("PRAGMA foreign_keys = ON")  # its metrics and charts go with it
            database.execute("DELETE FROM experiment WHERE run_id = ?", (key,))
            database.execute(  # comparison charts in which nobody draws any more
                "DELETE FROM chart WHERE project_id IS NOT NULL AND id NOT IN (SELECT chart_id FROM source)"
            )
    if (log_dir / key).exists():
        shutil.rmtree(log_dir / key)


def what_is_missing(log_dir: Path, key: str, epochs: int) -> str | None:
    """A sentence about what the local store lacks of a finished experiment; None where it has everything.

    SwanLab hides its own write errors, so a full disk shows only here.
    """
    with _database(log_dir) as database:
        experiment = database.execute("SELECT id, status FROM experiment WHERE run_id = ?", (key,)).fetchone()
        if experiment is None:
            return "the experiment is not in SwanLab's database"
        ident, status = experiment
        if status == RUNNING:
            return "the experiment still counts as running"
        folder = database.execute(
            "SELECT folder FROM tag WHERE experiment_id = ? AND name = ?", (ident, ALWAYS_LOGGED)
        ).fetchone()
    files = (log_dir / key / "logs" / folder[0]).glob("*.log") if folder else ()
    kept = sum(file.read_bytes().count(b"\n") for file in files)
    return None if kept == epochs else f"SwanLab kept {kept} of {epochs} epochs"


@contextmanager
def _database(log_dir: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(log_dir / DATABASE, timeout=BUSY_S)) as database, database:
        yield database
