"""Searches without Ray's workers: who proposes, who cuts, and how many epochs that takes to get to the best.

Every contestant is the real classes, driven in the order in which Tune's controller calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from search.runs.journal import Journal
from search.space.dimension import Dimension
from search.space.space import Space
from search.tune.scheduler import JournalASHA
from search.tune.searcher import StudySearch


@dataclass(frozen=True)
class Landscape:
    """What can be searched, and what each configuration turns out to be worth."""

    space: Space
    target: float  # an accuracy, a fraction: within one point of the best known configuration
    # A configuration's validation accuracies as the driver sees them, and what they are really worth, `[epochs]` each.
    curves: Callable[[Mapping[str, Any]], tuple[np.ndarray, np.ndarray]]


@dataclass
class Begun:
    """A trial that a contestant has proposed."""

    trial: SimpleNamespace  # what the scheduler sees of Ray's trial
    values: Mapping[str, Any]  # its configuration


class Contestant(Protocol):
    """A searcher and a scheduler that work together."""

    def begin(self) -> Begun | None:
        """The next trial, or None where there is no more."""

    def report(self, begun: Begun, epoch: int, accuracy: float, last: bool) -> bool:
        """Tells of an epoch; returns whether the trial goes on."""


class Ours:
    """This project's searcher and scheduler over a journal."""

    def __init__(self, space: Space, folder: Path) -> None:
        folder.mkdir(parents=True)
        journal = Journal(folder / "events.jsonl")
        self._searcher, self._scheduler = StudySearch(space, journal), JournalASHA(space, journal)

    def begin(self) -> Begun | None:
        suggested = self._searcher.suggest("")
        if not isinstance(suggested, dict):
            return None
        return Begun(SimpleNamespace(trial_id="", config=suggested), suggested["config"])

    def report(self, begun: Begun, epoch: int, accuracy: float, last: bool) -> bool:
        result = {"epoch": epoch, "val_acc": accuracy, "val_loss": 1 - accuracy, "message": "",
                  "status": "finished" if last else "running"}  # fmt: skip
        return str(self._scheduler.on_trial_result(None, begun.trial, result)) == TrialScheduler.CONTINUE


def random_search(space: Space, folder: Path) -> Ours:
    """Random search without cuts; like all of ours it never repeats a configuration, which is to its advantage."""
    searcher = space.searcher.model_copy(update={"kind": "random"})
    return Ours(
        replace(space, searcher=searcher, scheduling=space.scheduling.model_copy(update={"kind": "none"})), folder
    )


class Stock:
    """Ray's OptunaSearch and ASHAScheduler, called as `TuneController._process_trial_result` calls them."""

    def __init__(self, space: Space) -> None:
        self._trials = 0
        self._budget = space.budget.trials
        self._fixed = space.fixed
        self._searcher = OptunaSearch(
            {name: _domain(dimension) for name, dimension in space.dimensions.items()},
            metric="val_acc", mode="max", seed=space.searcher.seed,
        )  # fmt: skip
        self._scheduler = ASHAScheduler(
            metric="val_acc", mode="max", max_t=space.max_epochs, grace_period=space.budget.grace_epochs,
            reduction_factor=space.budget.reduction_factor,
        )  # fmt: skip

    def begin(self) -> Begun | None:
        if self._trials == self._budget:
            return None
        trial_id = str(self._trials)
        self._trials += 1
        sample = self._searcher.suggest(trial_id)
        trial = SimpleNamespace(trial_id=trial_id, config=sample)
        self._scheduler.on_trial_add(None, trial)
        return Begun(trial, {**self._fixed, **sample})

    def report(self, begun: Begun, epoch: int, accuracy: float, last: bool) -> bool:
        result = {"training_iteration": epoch, "val_acc": accuracy}
        decision = self._scheduler.on_trial_result(None, begun.trial, result)
        if decision == TrialScheduler.STOP:
            self._searcher.on_trial_complete(begun.trial.trial_id, result)
            return False
        self._searcher.on_trial_result(begun.trial.trial_id, result)
        return True


def _domain(dimension: Dimension) -> Any:
    """The dimension as a person who uses Ray alone would write it."""
    if dimension.kind == "choice":
        return tune.choice(list(dimension.args))
    return getattr(tune, dimension.kind)(*dimension.args)


def epochs_to_target(contestant: Contestant, landscape: Landscape, workers: int) -> float:
    """Epochs trained, over all workers, until one trial has reached the target; infinity where none ever does.

    Simulated time: every epoch of every trial takes equally long, so the workers take turns.
    """
    running: list[tuple[Begun, int, np.ndarray, np.ndarray]] = []
    spent, more = 0, True
    while True:
        while more and len(running) < workers:
            begun = contestant.begin()
            more = begun is not None
            if begun is not None:
                running.append((begun, 0, *landscape.curves(begun.values)))
        if not running:
            return float("inf")
        begun, done, seen, worth = running.pop(0)
        spent += 1
        if worth[done] >= landscape.target:
            return spent
        if contestant.report(begun, done + 1, float(seen[done]), last=done + 1 == len(seen)):
            running.append((begun, done + 1, seen, worth))
