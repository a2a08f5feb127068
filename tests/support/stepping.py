"""A search without Ray: the real searcher and scheduler, fed step by step with accuracy curves that take no time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from search.runs.journal import Journal
from search.space.space import Space
from search.tune.scheduler import JournalASHA
from search.tune.searcher import StudySearch
from tests.support import simulated
from trainable.config import TrialConfig
from trainable.errors import TrialEnded

FINISHED = "FINISHED"


def curve(config: TrialConfig) -> list[float | TrialEnded]:
    """Accuracy after each epoch; an exception in the place of an epoch ends the trial there."""
    return [float(value) for value in simulated.curve(config)]


def reports(config: TrialConfig, values: list[float | TrialEnded]) -> Iterator[dict[str, Any]]:
    """What a trial reports, epoch by epoch, as `search.tune.actor` does."""
    for epoch, value in enumerate(values, start=1):
        if isinstance(value, TrialEnded):
            yield {"epoch": epoch, "val_acc": 0.0, "val_loss": 1e9, "status": value.status, "message": str(value)}
            return
        status = "finished" if epoch == config.epochs else "running"
        yield {"epoch": epoch, "val_acc": value, "val_loss": 1 - value, "status": status, "message": ""}


def step_through(
    space: Space,
    journal: Journal,
    workers: int = 1,
    train: Callable[[TrialConfig], list[float | TrialEnded]] = curve,
) -> None:
    """Runs trials on `workers` in turns until the searcher has no more."""
    searcher, scheduler = StudySearch(space, journal), JournalASHA(space, journal)
    running: list[tuple[SimpleNamespace, Iterator[dict[str, Any]]]] = []
    asked = 0
    while True:
        while len(running) < workers:
            trial_id = f"ray-{asked}"
            asked += 1
            suggestion = searcher.suggest(trial_id)
            if suggestion is None and running:  # what runs may be worth a repeat
                break
            if suggestion == FINISHED:
                break
            assert isinstance(suggestion, dict)
            config = TrialConfig.parse(suggestion["config"])
            running.append((SimpleNamespace(trial_id=trial_id, config=suggestion), reports(config, train(config))))
        if not running:
            return
        trial, epochs = running.pop(0)
        result = next(epochs)
        answer = scheduler.on_trial_result(None, trial, result)
        assert (answer == "STOP") == journal.trials[trial.config["number"]].over
        if answer == "CONTINUE":
            running.append((trial, epochs))
        else:
            searcher.on_trial_complete(trial.trial_id)


def new_journal(folder: Path) -> Journal:
    """The journal of a run folder, made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return Journal(folder / "events.jsonl")


def events(journal: Journal) -> list[dict[str, Any]]:
    """The events of a journal without their times."""
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]
