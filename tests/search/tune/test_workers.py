"""How Tune's workers serve the trials of a search, with real workers of a local Ray."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler

from search.runs.journal import Journal
from search.tune.cluster import connected
from search.tune.scheduler import JournalASHA
from search.tune.searcher import StudySearch
from search.tune.stop import Stop
from search.tune.tuner import Running, run_trials
from tests.support.simulated import train
from tests.support.spaces import space_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]

WORKERS = 4
SPACE = """
    fixed: {epochs: 2, weights: none}
    search: {lr: {loguniform: [1e-4, 1e-2]}}
    budget: {trials: TRIALS}
"""


class Watched(JournalASHA):
    """Notes which processes report, and stops the search when all workers have."""

    def __init__(self, stop: Stop, *args: Any) -> None:
        super().__init__(*args)
        self.processes: set[int] = set()
        self._stop = stop

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self.processes.add(result["pid"])
        if len(self.processes) == WORKERS:
            self._stop.request("all are there")
        return super().on_trial_result(tune_controller, trial, result)


class AsRayHasIt(Watched):
    """Names the trial that waits longest, as Ray's schedulers do."""

    choose_trial_to_run = FIFOScheduler.choose_trial_to_run


def processes_of_a_search(folder: Path, scheduler: type[Watched], trials: int) -> int:
    """How many processes report in a search whose trials end much faster than workers start."""
    folder.mkdir()
    space, journal = space_of(folder, SPACE.replace("TRIALS", str(trials))), Journal(folder / "events.jsonl")
    stop = Stop(journal, grace_epochs=1)
    watched = scheduler(stop, space, journal)
    journal.session()
    running = Running(partial(train, seconds=0.01), 2 / WORKERS, 0, WORKERS)
    run_trials(folder, journal, lambda: StudySearch(space, journal), lambda: watched, stop, running)
    return len(watched.processes)


def test_all_workers_come_up_where_trials_end_faster_than_workers_start(tmp_path: Path) -> None:
    with connected(None):
        assert processes_of_a_search(tmp_path / "run", Watched, 1000) == WORKERS


def test_with_rays_own_choice_some_workers_never_come_up(tmp_path: Path) -> None:
    with connected(None):
        assert processes_of_a_search(tmp_path / "run", AsRayHasIt, 40) < WORKERS
