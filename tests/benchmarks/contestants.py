"""Searches without Ray's workers: who proposes, who cuts, and how many epochs that takes to get to the best.

Every contestant is the real classes, driven in the order in which Tune's controller calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from search.runs.journal import Journal
from search.runs.run import RunFolder
from search.space.dimension import Dimension
from search.space.space import Space
from search.tune.scheduler import JournalASHA
from search.tune.searcher import StudySearch
from search.tune.standing import merit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Training:
    """What a configuration turns out to be worth, `[epochs]` each; shorter than its max epochs where it diverges."""

    accuracies: Floats  # as the driver sees them, fractions
    losses: Floats  # nats, likewise
    worth: Floats  # what the accuracies really are worth: without noise, or on more clips


@dataclass(frozen=True)
class Landscape:
    """What can be searched, and what each configuration turns out to be worth."""

    space: Space
    target: float  # a worth, a fraction: within one point of the best known configuration
    training: Callable[[Mapping[str, Any]], Training]


@dataclass
class Begun:
    """A trial that a contestant has proposed."""

    trial: SimpleNamespace  # what the scheduler sees of Ray's trial
    values: Mapping[str, Any]  # its configuration
    done: int = 0  # epochs


class Contestant(Protocol):
    """A searcher and a scheduler that work together."""

    def begin(self) -> Begun | None:
        """The next trial, or one to go on with, or None where there is no more."""

    def report(self, begun: Begun, epoch: int, accuracy: float, loss: float, last: bool) -> bool:
        """Tells of an epoch; returns whether the trial goes on."""

    def diverged(self, begun: Begun, epoch: int) -> None:
        """Tells of a trial that has ended in an epoch because its loss was no number any more."""


class Ours:
    """This project's searcher and scheduler over a journal."""

    def __init__(self, space: Space, folder: Path, earlier: Sequence[RunFolder] = ()) -> None:
        """`earlier`: runs on other data to learn from."""
        folder.mkdir(parents=True)
        self.space, self.folder = space, folder
        self.journal = Journal(folder / "events.jsonl")
        self.searcher = StudySearch(space, self.journal)
        for run in earlier:
            self.searcher.add_lessons(run)
        self._scheduler = JournalASHA(space, self.journal)

    @property
    def run(self) -> RunFolder:
        """What has become of the search, as a run folder's record."""
        return RunFolder(self.folder, {"space": self.space.to_json()}, self.journal)

    def begin(self) -> Begun | None:
        suggested = self.searcher.suggest("")
        if not isinstance(suggested, dict):
            return None
        return Begun(SimpleNamespace(trial_id="", config=suggested), suggested["config"])

    def report(self, begun: Begun, epoch: int, accuracy: float, loss: float, last: bool) -> bool:
        result = {"epoch": epoch, "val_acc": accuracy, "val_loss": loss, "message": "",
                  "status": "finished" if last else "running"}  # fmt: skip
        return str(self._scheduler.on_trial_result(None, begun.trial, result)) == TrialScheduler.CONTINUE

    def diverged(self, begun: Begun, epoch: int) -> None:
        result = {"epoch": epoch, "val_acc": 0.0, "val_loss": 1e9, "message": "", "status": "diverged"}
        self._scheduler.on_trial_result(None, begun.trial, result)


class Pausing(Ours):
    """Ours, which takes up a cut trial again once it would not be cut any more, by all who have been at its rung since.

    That is ASHA as it promotes, where ours and Ray's stop; the next rung's trials come first.
    """

    def __init__(self, space: Space, folder: Path) -> None:
        super().__init__(space, folder)
        self._paused: dict[int, Begun] = {}
        study, ended = self.searcher._journal_study, set[int]()
        report, tell = study._report, study._tell

        def report_again(number: int, epoch: int, value: float, loss: float) -> None:
            if number in ended:  # Optuna takes nothing more of it; the duels by which it stands go on
                study.storage.merits[number].append(merit(value, loss))
            else:
                report(number, epoch, value, loss)

        def tell_once(number: int, status: str, value: float) -> None:
            if number not in ended:
                ended.add(number)
                tell(number, status, value)

        study._report, study._tell = report_again, tell_once  # type: ignore[method-assign]

    def begin(self) -> Begun | None:
        for number in sorted(self._paused, key=lambda number: -self._paused[number].done):
            trial = self.journal.trials[number]
            if self._scheduler._judges(number) and not self._scheduler._overtaken(trial):
                trial.status, trial.reports[-1].decision = "running", "continue"
                return self._paused.pop(number)
        return super().begin()

    def report(self, begun: Begun, epoch: int, accuracy: float, loss: float, last: bool) -> bool:
        goes_on = super().report(begun, epoch, accuracy, loss, last)
        if not goes_on and not last:
            self._paused[int(begun.trial.config["number"])] = begun
        return goes_on


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

    def report(self, begun: Begun, epoch: int, accuracy: float, loss: float, last: bool) -> bool:
        result = {"training_iteration": epoch, "val_acc": accuracy}
        decision = self._scheduler.on_trial_result(None, begun.trial, result)
        if decision == TrialScheduler.STOP:
            self._searcher.on_trial_complete(begun.trial.trial_id, result)
            return False
        self._searcher.on_trial_result(begun.trial.trial_id, result)
        return True

    def diverged(self, begun: Begun, epoch: int) -> None:
        result = {"training_iteration": epoch, "val_acc": 0.0}  # what a careful person reports, as NaN hangs Optuna
        self._scheduler.on_trial_complete(None, begun.trial, result)
        self._searcher.on_trial_complete(begun.trial.trial_id, result)


def _domain(dimension: Dimension) -> Any:
    """The dimension as a person who uses Ray alone would write it."""
    if dimension.kind == "choice":
        return tune.choice(list(dimension.args))
    return getattr(tune, dimension.kind)(*dimension.args)


def epochs_to_target(contestant: Contestant, landscape: Landscape, workers: int, most: float = float("inf")) -> float:
    """Epochs trained, over all workers, until one trial has reached the target; infinity where none ever does.

    Simulated time: every epoch of every trial takes equally long, so the workers take turns. With `most` the search
    ends, like one that never arrives, after so many epochs.
    """
    running: list[tuple[Begun, Training]] = []
    spent, more = 0, True
    while spent < most:
        while more and len(running) < workers:
            begun = contestant.begin()
            more = begun is not None
            if begun is not None:
                running.append((begun, landscape.training(begun.values)))
        if not running:
            return float("inf")
        begun, training = running.pop(0)
        epoch = begun.done
        spent += 1
        if epoch == len(training.accuracies):
            contestant.diverged(begun, epoch + 1)
            continue
        if training.worth[epoch] >= landscape.target:
            return spent
        begun.done += 1
        accuracy, loss = float(training.accuracies[epoch]), float(training.losses[epoch])
        last = begun.done == landscape.space.max_epochs
        if contestant.report(begun, begun.done, accuracy, loss, last) and not last:
            running.append((begun, training))
    return float("inf")
