from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from search.commands import search as searching
from search.commands.search import close_run
from search.space.space import Space
from tests.support.retrained import make_run


@pytest.mark.slow
def test_a_study_that_cannot_be_written_is_a_warning_and_the_rest_is_there(
    tmp_path: Path, make_clips: Callable[..., Path]
) -> None:
    run = make_run(tmp_path / "run", make_clips())
    (run.path / "study.db").mkdir()  # SQLite's file cannot take a folder's place
    warnings: list[str] = []
    close_run(run, Space.from_json(run.record["space"]), warnings.append)
    assert [warning.split(" (")[0] for warning in warnings] == [f"{run.path}: study.db could not be written"]
    assert all((run.path / name).is_file() for name in ("trials.csv", "best.yaml", "report.html"))


def test_a_full_disk_is_one_line_at_the_end(
    tmp_path: Path, make_clips: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/a")

    def full_database(*_: object) -> None:
        raise OperationalError("CREATE TABLE studies (study_id INTEGER NOT NULL)", {}, Exception("disk is full"))

    run = make_run(tmp_path / "run", make_clips())
    for name in ("write_trials_csv", "write_best", "write_report"):
        monkeypatch.setattr(searching, name, full)
    monkeypatch.setattr(searching, "write_study", full_database)
    warnings: list[str] = []
    close_run(run, Space.from_json(run.record["space"]), warnings.append)
    assert warnings == [
        f"{run.path}: trials.csv, best.yaml, study.db, report.html could not be written (/runs/a: No space left on "
        f"device; OperationalError: disk is full). To try again: python run_search.py resume {run.path}"
    ]
