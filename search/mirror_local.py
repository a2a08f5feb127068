"""SwanLab's local store, where its public interface has no answer: taking a run away, and looking what it kept.

Written against swanlab 0.10.3 and the swanboard that belongs to it; `tests/search/test_mirror_local.py` notices a
version that differs.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

DATABASE = "runs.swanlab"
RUNNING = 0  # swanboard's Experiment.RUNNING_STATUS


def load() -> None:
    """Imports SwanLab's local store, and makes the local page's table show each metric under its own name.

    The page looks for a metric's last value in a folder named by the metric's rank, counted from 0, but SwanLab
    numbers the folders from 1: without this, `train/loss` shows the last `val/acc`.
    """
    import swanboard.db  # noqa: F401
    from swanlab.deprecated import local

    if hasattr(local.LocalCallbacker, "numbered_from_zero"):
        return

    class NumberedFromZero(local.LocalCallbacker):  # type: ignore[misc]
        numbered_from_zero = True

        def __init__(self) -> None:
            super().__init__()
            self._next_kid = 0

    local.LocalCallbacker = NumberedFromZero


def remove_run(log_dir: Path, key: str) -> None:
    """Takes an experiment out of the local pages, with its files, as the page's own delete button would."""
    if (log_dir / DATABASE).exists():
        experiment = _experiment(log_dir, key)
        if experiment is not None:
            _delete(experiment)
    if (log_dir / key).exists():
        shutil.rmtree(log_dir / key)


def what_is_missing(log_dir: Path, key: str, epochs: int) -> str | None:
    """A sentence about what the local store lacks of a finished experiment; None where it has everything.

    SwanLab hides its own write errors, so a full disk shows only here.
    """
    experiment = _experiment(log_dir, key) if (log_dir / DATABASE).exists() else None
    if experiment is None:
        return "the experiment is not in SwanLab's database"
    if experiment.status == RUNNING:
        return "the experiment still counts as running"
    for tag in experiment.tags:
        if tag.name == "train/epoch":  # the one that is never NaN
            kept = sum(path.read_bytes().count(b"\n") for path in (log_dir / key / "logs" / tag.folder).glob("*.log"))
            return None if kept == epochs else f"SwanLab kept {kept} of {epochs} epochs"
    return None if epochs == 0 else f"SwanLab kept none of {epochs} epochs"


def _experiment(log_dir: Path, key: str) -> Any:
    from swanboard.db import NotExistedError, connect
    from swanboard.db.models import Experiment

    connect(path=str(log_dir), autocreate=True)
    try:
        return Experiment.get(run_id=key)
    except NotExistedError:
        return None


def _delete(experiment: Any) -> None:
    """Deletes the rows of an experiment, and the comparison charts that nobody draws in any more.

    The project's counter of experiments stays as it is: it gives each one its place, and a place given twice would
    rename the second experiment.
    """
    from swanboard.db import connect
    from swanboard.db.models import Chart

    names = [tag.name for tag in experiment.tags]
    charts = list(Chart.filter(Chart.project_id == experiment.project_id, Chart.name.in_(names)))
    with connect().atomic():
        experiment.delete_instance()
        for chart in charts:
            if chart.sources.count() == 0:
                chart.delete_instance()
