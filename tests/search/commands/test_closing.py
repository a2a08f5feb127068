from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from search.commands.search import close_run
from search.space.space import Space
from tests.support.retrained import make_run


def test_a_study_that_cannot_be_written_is_a_warning_and_the_rest_is_there(
    tmp_path: Path, make_clips: Callable[..., Path]
) -> None:
    run = make_run(tmp_path / "run", make_clips())
    (run.path / "study.db").mkdir()  # SQLite's file cannot take a folder's place
    warnings: list[str] = []
    close_run(run, Space.from_json(run.record["space"]), warnings.append)
    assert [warning.split(" (")[0] for warning in warnings] == [f"{run.path / 'study.db'} could not be written"]
    assert all((run.path / name).is_file() for name in ("trials.csv", "best.yaml", "report.html"))
