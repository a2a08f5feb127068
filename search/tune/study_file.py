"""`study.db`: the run as an Optuna study for `optuna-dashboard sqlite:///...`, in step with the journal.

It is for people to look at, and goes one way: nothing is ever read from it. A dashboard may have it open all the time,
so it is written to in place, trial by trial. Its trials have the run's own numbers, baselines included.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError

from search.runs.format import ABSENT, conditions_of, folds_in_words, value_of
from search.runs.journal import Journal, Trial
from search.runs.run import best_epoch, best_of, trial_folder
from search.space.space import Space

METRIC = "validation accuracy"
_MADE_BY = "in step with"  # the study's attribute that tells a file of this kind from what older versions left
_PATIENCE_S = 2.0  # so long a write waits for a reader; what could not be written comes with the next one


class StudyFile:
    """The study of a run in its `study.db`."""

    def __init__(self, space: Space, journal: Journal, path: Path) -> None:
        """Opens the file, or makes it, without the trials; `write` brings it up to date.

        Raises:
            Exception: what SQLite and Optuna raise where the file cannot be made or written.
        """
        self._space, self._journal, self._path = space, journal, path
        self._conditions = conditions_of(space.to_json()["search"])
        self._distributions = _distributions(space)
        try:
            self._storage = _open(path)
        except DatabaseError:  # no database, or a broken one; all that is in it is in the journal
            path.unlink(missing_ok=True)
            self._storage = _open(path)
        self._study_id = self._our_study(path.resolve().parent.name)
        self._ids: list[int] = []  # Optuna's, by trial number
        self._written: list[int] = []  # reports in the file, by trial number
        self._over: set[int] = set()
        self._said = ""
        for known in self._storage.get_all_trials(self._study_id, deepcopy=False):
            self._ids.append(known._trial_id)
            self._written.append(len(known.intermediate_values))
            if known.state.is_finished():
                self._over.add(known.number)

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Writes what the journal has noted: `journal.listen(file.on_event)`."""
        if event["event"] == "retried":
            self._reopen(event["trial"])
        elif event["event"] in ("suggested", "reported", "ended"):
            self._bring_up_to_date(range(len(self._ids), len(self._journal.trials)))
            self._bring_up_to_date([event["trial"]])
            if event["event"] == "ended":
                self._name_the_best()

    def write(self) -> None:
        """Brings all trials up to date."""
        for number in sorted(self._over):
            if number in self._journal.trials and not self._journal.trials[number].over:
                self._reopen(number)
        self._bring_up_to_date(self._journal.trials)
        self._name_the_best()

    def close(self) -> None:
        """Lets go of the file."""
        self._storage.engine.dispose()

    def _our_study(self, name: str) -> int:
        """The id of the study, made where there is none that is in step with this journal."""
        known = {study.study_name: study._study_id for study in self._storage.get_all_studies()}
        if name in known:
            trials = self._storage.get_all_trials(known[name], deepcopy=False)
            ours = self._storage.get_study_user_attrs(known[name]).get(_MADE_BY) == self._began()
            if ours and all(trial.user_attrs.get("kind") is not None for trial in trials) and len(trials) <= len(
                self._journal.trials
            ):  # fmt: skip
                return known[name]
            self._storage.delete_study(known[name])
        study_id = self._storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.load_study(study_name=name, storage=self._storage).set_metric_names([METRIC])
        self._storage.set_study_user_attr(study_id, _MADE_BY, self._began())
        return study_id

    def _began(self) -> str:
        sessions, first = self._journal.sessions, self._journal.trials.get(0)
        began = sessions[0]["time"] if sessions else first.started if first else 0.0
        return f"events.jsonl of {began:.3f}"

    def _bring_up_to_date(self, numbers: Any) -> None:
        for number in numbers:
            trial = self._journal.trials[number]
            if number == len(self._ids):
                self._ids.append(self._storage.create_new_trial(self._study_id, self._shown(trial)))
                self._written.append(len(trial.reports))
                if trial.over:
                    self._over.add(number)
            elif number not in self._over:
                self._go_on(trial)

    def _name_the_best(self) -> None:
        best = best_of(self._journal.trials.values(), self._space.budget.grace_epochs)
        where = (folds_in_words(best.folds) or f"at epoch {best.epoch}") if best else ""
        said = f"trial {best.trial.number}, {best.accuracy:.4f} {where}" if best else ""
        if said != self._said:
            self._storage.set_study_user_attr(self._study_id, "best", said)
            self._said = said

    def _go_on(self, trial: Trial) -> None:
        trial_id = self._ids[trial.number]
        for report in trial.reports[self._written[trial.number] :]:
            self._storage.set_trial_intermediate_value(trial_id, report.epoch, report.value)
            self._written[trial.number] += 1
        if trial.over:
            for name, value in self._attributes(trial).items():
                self._storage.set_trial_user_attr(trial_id, name, value)
            state, value = self._end(trial)
            self._storage.set_trial_state_values(trial_id, state, None if value is None else [value])
            self._over.add(trial.number)

    def _reopen(self, number: int) -> None:
        """Makes a trial that has ended a running one again, for which Optuna has no words."""
        if number not in self._over:
            return
        with self._storage.engine.begin() as connection:
            the_trial = {"id": self._ids[number]}
            connection.execute(text("DELETE FROM trial_values WHERE trial_id = :id"), the_trial)
            connection.execute(
                text("UPDATE trials SET state = 'RUNNING', datetime_complete = NULL WHERE trial_id = :id"), the_trial
            )
        self._over.discard(number)

    def _shown(self, trial: Trial) -> FrozenTrial:
        """A trial as the file has it."""
        state, value = self._end(trial) if trial.over else (TrialState.RUNNING, None)
        params = dict(self._settings(trial))
        shown = create_trial(
            state=state,
            value=value,
            params=params,
            distributions={name: self._distributions[name] for name in params},
            intermediate_values={report.epoch: report.value for report in trial.reports},
            user_attrs=self._attributes(trial),
        )
        shown.datetime_start = datetime.fromtimestamp(trial.started)
        shown.datetime_complete = datetime.fromtimestamp(trial.ended) if trial.ended is not None else None
        return shown

    def _end(self, trial: Trial) -> tuple[TrialState, float | None]:
        """How a trial has ended, by the one rule for the best: what has a best epoch is as good as that.

        A trial that was cut is called so, unless it leads: Optuna's best is one that is complete. A repeat is called so
        too, because its value is of other clips; the file's best says the mean.
        """
        if trial.status == "finished" and trial.repeats is not None:
            return TrialState.PRUNED, trial.reports[-1].value if trial.reports else None
        grace = self._space.budget.grace_epochs
        best, leader = best_epoch(trial, grace), best_of(self._journal.trials.values(), grace)
        if best and (trial.status != "cut" or (leader and leader.trial.number == trial.number)):
            return TrialState.COMPLETE, best.accuracy
        if trial.status == "cut":
            return TrialState.PRUNED, trial.reports[-1].value if trial.reports else None
        return TrialState.FAIL, None

    def _settings(self, trial: Trial) -> Iterator[tuple[str, Any]]:
        """A trial's values of the dimensions, as far as the file can hold them."""
        for name, distribution in self._distributions.items():
            value = value_of(trial, name, self._conditions)
            if value is not ABSENT and _holds(distribution, value):
                yield name, value

    def _attributes(self, trial: Trial) -> dict[str, Any]:
        """What is said of a trial beside its values: what it is, how it stands, and what it costs to use."""
        best = best_epoch(trial, self._space.budget.grace_epochs)
        cost = trial_folder(self._path.parent, trial.number).cost()
        outside = {}
        if trial.kind == "baseline":
            values = ((name, value_of(trial, name, self._conditions)) for name in self._space.dimensions)
            inside = dict(self._settings(trial))
            outside = {f"{name} (outside)": v for name, v in values if v is not ABSENT and name not in inside}
        return {
            "kind": trial.kind,
            "status": trial.status,
            **({"name": trial.name} if trial.name else {}),
            **({"repeats": trial.repeats, "fold": trial.fold} if trial.repeats is not None else {}),
            **({"message": trial.message[:500]} if trial.message else {}),
            **({"best epoch": best.epoch, "validation loss": best.loss} if best else {}),
            **outside,
            **{name: value for name, value in (dataclasses.asdict(cost) if cost else {}).items() if value is not None},
        }


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    """The distributions over the values themselves, each wide enough for the baselines too.

    Optuna says what matters only of parameters that all complete trials have, from the same distribution.
    """
    return {
        name: _widened(dimension.shown_distribution, [baseline.values.get(name) for baseline in space.baselines])
        for name, dimension in space.dimensions.items()
    }


def _widened(distribution: BaseDistribution, values: Sequence[Any]) -> BaseDistribution:
    outside = [value for value in values if not _holds(distribution, value)]
    if not outside:
        return distribution
    if isinstance(distribution, CategoricalDistribution):
        return CategoricalDistribution(tuple(dict.fromkeys([*distribution.choices, *outside])))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    numbers = [
        value for value in outside
        if isinstance(value, int | float) and not isinstance(value, bool) and (value > 0 or not distribution.log)
    ]  # fmt: skip
    low, high = min([distribution.low, *numbers]), max([distribution.high, *numbers])
    whole = isinstance(distribution, IntDistribution) and all(isinstance(number, int) for number in numbers)
    if whole:
        return IntDistribution(int(low), int(high), log=distribution.log)
    return FloatDistribution(float(low), float(high), log=distribution.log)


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a trial may have this value by its distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return any(value == choice and type(value) is type(choice) for choice in distribution.choices)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log and value <= 0:
        return False  # as the 0 of a baseline that does without; Optuna would raise
    return distribution._contains(distribution.to_internal_repr(value))


def _open(path: Path) -> RDBStorage:
    # Not as an f-string: in a URL, `?` ends the path and `%20` is a space.
    url = URL.create("sqlite", database=str(path.resolve()))
    storage = RDBStorage(url.render_as_string(), engine_kwargs={"connect_args": {"timeout": _PATIENCE_S}})

    def lightly(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")  # what a power cut takes is made again from the journal

    sqlalchemy_event.listen(storage.engine, "connect", lightly)
    return storage


def write_study(space: Space, journal: Journal, path: Path) -> None:
    """Brings `study.db` up to date with all of the journal."""
    file = StudyFile(space, journal, path)
    try:
        file.write()
    finally:
        file.close()
