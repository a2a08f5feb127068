"""A run's Optuna study and samplers: made from its journal and kept in step with it.

The study holds nothing of its own. Every trial in it comes from an event of the journal, by one path for a running
search and for a resumed one, so both have the same study down to the last bit and the sampler proposes the same.
"""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.runs.journal import UNTRAINABLE, Journal, Trial
from search.runs.run import best_epoch
from search.space.space import Space
from search.tune.lessons import DRAWN_BY_SAMPLER, Lessons, Seen, worth_it
from search.tune.standing import merit, standings
from trainable.errors import InputError

optuna.logging.set_verbosity(optuna.logging.WARNING)  # the console tells of trials
# The value of a trial that diverged or ran out of memory: worse than any guess, and something TPE learns from.
BAD_VALUE = 0.0
# What Optuna is told of each end. It learns from complete and cut trials; a crash says nothing of the values.
OUTCOMES = {
    "finished": TrialState.COMPLETE, "cut": TrialState.PRUNED, "diverged": TrialState.COMPLETE,
    "out_of_memory": TrialState.COMPLETE, "failed": TrialState.FAIL,
}  # fmt: skip
# Optuna's TPE fills its "good" set with complete trials before cut ones, whatever their value. A violated constraint
# puts a broken trial behind all of them.
_BROKEN = {"trains": 1.0}


class JournalStudy:
    """The study of a run, in step with its journal. Optuna numbers trials its own way, hence the map."""

    def __init__(self, space: Space, journal: Journal) -> None:
        """Rebuilds the study; from then on it follows the journal's events."""
        self.storage = AsOfNow(space)
        self.study = optuna.create_study(storage=self.storage, direction="maximize", sampler=RandomSampler(0))
        self._study_id = self.storage.get_study_id_from_name(self.study.study_name)
        self._space = space
        self._journal = journal
        self._lessons = Lessons(space)
        self._numbered = 0  # trials of the runs that were warm starts
        self._noted = 0  # trials of the study that the journal accounts for
        self._numbers: dict[int, int] = {}  # the run's number to Optuna's, for the trials that the study has
        for event in journal.lessons:
            self._learn(event)
        warm = list(journal.warm)
        for trial in journal.trials.values():
            while warm and warm[0]["before"] <= trial.number:
                self._add_warm(warm.pop(0))
            self._add(trial)
        for event in warm:
            self._add_warm(event)
        journal.listen(self._on_event, role="study")  # the one before it need not go on

    def propose(self, number: int, attempt: int) -> tuple[optuna.Trial, dict[str, Any]]:
        """A new trial of the study, to be `accepted` or `rejected`, and its sample."""
        self.study.sampler = make_sampler(self._space, number + self._numbered, attempt)
        with self.storage.as_of_now():
            asked = self.study.ask()
            return asked, self._space.suggest(asked)

    def learned(self, number: int, tried: Container[str]) -> tuple[optuna.Trial, dict[str, Any]] | None:
        """A new trial that earlier runs speak for, and its sample; None where it is not theirs to choose."""
        if number % 2 or not self._lessons:
            return None
        own = self.own()
        beliefs = self._lessons.beliefs(own)
        guided, others = ([seen.standing for seen in own if seen.chosen is chosen] for chosen in (True, False))
        if not any(beliefs.values()) or not worth_it(guided, others):
            return None
        seed = int(np.random.SeedSequence([self._space.searcher.seed, number + self._numbered]).generate_state(1)[0])
        draws = 1 + round(DRAWN_BY_SAMPLER * max(beliefs.values()))
        sample = self._lessons.vote(beliefs, self._offers(number, draws), tried, seed)
        if sample is None:
            return None
        return self.chosen(sample)

    def chosen(self, sample: Mapping[str, Any]) -> tuple[optuna.Trial, dict[str, Any]]:
        """A new trial with the values of a sample that others than the sampler have chosen, and the sample."""
        dimensions = self._space.dimensions
        self.study.enqueue_trial({name: dimensions[name].to_optuna(value) for name, value in sample.items()})
        asked = self.study.ask()
        return asked, self._space.suggest(asked)

    def _offers(self, number: int, draws: int) -> list[dict[str, Any]]:
        """What the sampler would try as trial `number`, in so many draws; nothing while it draws at random.

        It draws for a trial that is then rejected: what is tried in the end is asked for by its values.
        """
        dimensions = self._space.dimensions
        asked, _ = self.propose(number, 0)
        trial = self.storage.get_trial(self._id(asked.number))
        offers = []
        with self.storage.as_of_now():
            for attempt in range(draws):
                sampler = make_sampler(self._space, number + self._numbered, attempt, insists=True)
                drawn = sampler.sample_relative(
                    self.study, trial, sampler.infer_relative_search_space(self.study, trial)
                )
                offers.append({name: dimensions[name].from_optuna(value) for name, value in drawn.items()})
        self.reject(asked)
        return [offer for offer in offers if offer]

    @property
    def beliefs(self) -> dict[str, float]:
        """How much each run on other data is believed by now, 0 (let go) to 1."""
        return self._lessons.beliefs(self.own())

    def own(self) -> list[Seen]:
        """The trials so far, in their order, as they stand against each other."""
        trials = self.study.get_trials(deepcopy=False)
        dimensions = self._space.dimensions
        found = []
        for number, standing in sorted(self.storage.standings(trials).items()):
            trial = trials[number]
            values = {name: dimensions[name].from_optuna(value) for name, value in trial.params.items()}
            found.append(Seen(values, standing, chosen=_CHOSEN in trial.system_attrs))
        return found

    def accept(self, asked: optuna.Trial, number: int) -> dict[str, Any]:
        """What the journal must know to rebuild a trial of the study, which from now on is the run's trial `number`.

        attrs: what the sampler has noted with it; rejected: so many trials before it have been left unused.
        """
        self._numbers[number] = asked.number
        rejected, self._noted = asked.number - self._noted, asked.number + 1
        return {"attrs": dict(self.storage.get_trial_system_attrs(self._id(asked.number))), "rejected": rejected}

    def reject(self, asked: optuna.Trial) -> None:
        """Leaves a trial unused: no sampler learns from one that failed."""
        self.study.tell(asked, state=TrialState.FAIL)

    def refuse(self, asked: optuna.Trial) -> int:
        """Tells the sampler that a trial would cost too much: as bad as one that cannot be trained.

        Returns its place among those left unused since the last one that was accepted.
        """
        self._tell(asked.number, UNTRAINABLE[0], BAD_VALUE)
        return asked.number - self._noted

    def _on_event(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "warm":
                self._add_warm(event)
            case "learned":
                self._learn(event)
            case "suggested" if event["trial"] not in self._numbers:  # what was asked for is there already
                self._add(self._journal.trials[event["trial"]])
            case "reported" if event["trial"] in self._numbers:
                self._report(self._numbers[event["trial"]], event["epoch"], event["value"], event["loss"])
            case "ended" if event["trial"] in self._numbers:
                self._end(self._journal.trials[event["trial"]])

    def _add(self, trial: Trial) -> None:
        """Adds a trial of the journal; a baseline that is no point of the space has no sample and stays out.

        So does a repeat: the sampler goes by the fold that all trials have in common. A mean over others, which the
        leaders alone have, would compare with the rest as their folds are easy or hard.
        """
        if trial.repeats is not None:
            return
        refused = dict(trial.sampler.get("refused", ()))
        for place in range(trial.sampler.get("rejected", 0)):
            if place in refused:
                self._tell(self._add_running(refused[place], {}), UNTRAINABLE[0], BAD_VALUE)
            else:
                self.study.add_trial(create_trial(state=TrialState.FAIL))
        if not trial.params:
            return
        self._numbers[trial.number] = self._add_running(trial.params, trial.sampler.get("attrs", {}))
        if trial.kind == "baseline" and not self._space.scheduling.cut_baselines:
            self.storage.unchallenged.add(self._numbers[trial.number])
        for report in trial.reports:
            self._report(self._numbers[trial.number], report.epoch, report.value, report.loss)
        if trial.over:
            self._end(trial)

    def _add_warm(self, event: Mapping[str, Any]) -> None:
        self._numbered += event.get("numbered", 0)  # or with the same seed the same proposals would come again
        for record in event["trials"]:
            number = self._add_running(record["params"], {})
            losses = record.get("losses", [0.0] * len(record["values"]))  # runs of before noted none
            for epoch, (value, loss) in enumerate(zip(record["values"], losses, strict=True), start=1):
                self._report(number, epoch, value, loss)
            self._tell(number, record["status"], record["value"])

    def _learn(self, event: Mapping[str, Any]) -> None:
        self._lessons.add(event["run"], [Seen(trial["values"], trial["standing"]) for trial in event["trials"]])

    def _add_running(self, params: Mapping[str, Any], attrs: Mapping[str, Any]) -> int:
        dimensions = self._space.dimensions
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params={name: dimensions[name].to_optuna(value) for name, value in params.items()},
                distributions={name: dimensions[name].distribution for name in params},
                system_attrs=dict(attrs),
            )
        )
        self._noted = self.storage.get_n_trials(self._study_id)
        return self._noted - 1

    def _report(self, number: int, epoch: int, value: float, loss: float) -> None:
        self.storage.set_trial_intermediate_value(self._id(number), epoch, value)
        self.storage.merits.setdefault(number, []).append(merit(value, loss))

    def _end(self, trial: Trial) -> None:
        best = best_epoch(trial, self._space.budget.grace_epochs)
        self._tell(self._numbers[trial.number], trial.status, best.accuracy if best else BAD_VALUE)

    def _tell(self, number: int, status: str, value: float) -> None:
        """Tells Optuna the end of a trial."""
        state, value_told = OUTCOMES[status], value
        if status in UNTRAINABLE:
            value_told = BAD_VALUE
            if self._space.searcher.kind == "tpe":  # the only one that looks at constraints
                for key, constraint in create_trial(value=BAD_VALUE, constraints=_BROKEN).system_attrs.items():
                    self.storage.set_trial_system_attr(self._id(number), key, constraint)
        self.study.tell(number, value_told if state == TrialState.COMPLETE else None, state=state)

    def _id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


def beliefs_of(space: Space, journal: Journal) -> dict[str, float]:
    """How much each run on other data, by its folder, is believed at the end of a search: 0 (let go) to 1."""
    if not journal.lessons:
        return {}
    return JournalStudy(space, Journal(journal.path)).beliefs  # a journal of its own: nobody needs to go on listening


# What Optuna notes with a trial whose values it was given.
_CHOSEN = "fixed_params"
# After so many draws of trials that have been there, chance takes over from a sampler that insists.
_LEARNED_ATTEMPTS = 10


def make_sampler(space: Space, number: int, attempt: int = 0, insists: bool = False) -> BaseSampler:
    """The sampler for trial `number`: new for each, so that no random state needs saving.

    `insists`: chance does not take over, however many attempts there have been.

    Raises:
        InputError: the space asks for CMA-ES, which cannot work with it or is not installed.
    """
    seed = int(np.random.SeedSequence([space.searcher.seed, number, attempt]).generate_state(1)[0])
    startup = space.searcher.startup_trials
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match space.searcher.kind if insists or attempt < _LEARNED_ATTEMPTS else "random":
            case "random":
                return RandomSampler(seed)
            case "cmaes":
                check_cmaes(space)
                return _NumbersOnly(space, seed, startup)
            case _:
                return TPESampler(
                    seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
                )


class AsOfNow(InMemoryStorage):
    """A study's storage that can show TPE every trial by how it stands against the others.

    TPE itself ranks finished trials before cut ones whatever their values, and cut ones by how far they came. It counts
    every running trial among the bad ones, so that parallel workers keep apart: in a search with cuts that turns it
    away from the best trial there is, for as long as that trains, longest of all. Here every trial that has trained an
    epoch has as its value the share of duels that it wins (`standings`). One that broke has lost all of them, and one
    that is never cut is not shown until it ends: how far it got says nothing about its quality.
    """

    def __init__(self, space: Space) -> None:
        super().__init__()
        self._applies = space.searcher.kind == "tpe" and space.scheduler == "asha"
        self._asked = False
        self.unchallenged: set[int] = set()  # trials that are never cut, by Optuna's numbers
        self.merits: dict[int, list[float]] = {}  # of each trial, one per epoch, by Optuna's numbers

    @contextmanager
    def as_of_now(self) -> Iterator[None]:
        """Shows trials so for the time of the context: while a sampler looks at them."""
        self._asked = self._applies
        try:
            yield
        finally:
            self._asked = False

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials in one of `states`."""
        if not self._asked:
            return super().get_all_trials(study_id, deepcopy, states)
        trials = super().get_all_trials(study_id, deepcopy)
        values = self.standings(trials)
        shown = [_valued(trial, values[trial.number]) if trial.number in values else trial for trial in trials]
        return [trial for trial in shown if states is None or trial.state in states]

    def standings(self, trials: Sequence[FrozenTrial]) -> dict[int, float]:
        """How the trials that can be compared stand, by Optuna's numbers; those that broke have lost every duel."""
        compared = [trial.number for trial in trials if self._compares(trial)]
        shares = standings([self.merits[number] for number in compared]).tolist()
        return {
            **{trial.number: BAD_VALUE for trial in trials if _broke(trial)},
            **dict(zip(compared, shares, strict=True)),
        }

    def _compares(self, trial: FrozenTrial) -> bool:
        if trial.number not in self.merits or trial.state == TrialState.FAIL or _broke(trial):
            return False
        return trial.state != TrialState.RUNNING or trial.number not in self.unchallenged


def _valued(trial: FrozenTrial, value: float) -> FrozenTrial:
    """A copy of a trial that is complete and has this value."""
    shown = copy.copy(trial)
    shown.state, shown.value = TrialState.COMPLETE, value
    return shown


def _broke(trial: FrozenTrial) -> bool:
    """Whether a trial diverged or ran out of memory: it was told to Optuna as complete with the bad value."""
    return trial.state == TrialState.COMPLETE and trial.value == BAD_VALUE


class _NumbersOnly(CmaEsSampler):
    """CMA-ES over the numeric dimensions that every sample has.

    Left to itself it takes what the finished trials so far have in common, and stops for good once a conditional
    dimension drops out of that.
    """

    def __init__(self, space: Space, seed: int, startup: int) -> None:
        super().__init__(
            n_startup_trials=startup,
            seed=seed,
            warn_independent_sampling=False,
            consider_pruned_trials=space.scheduler != "none",  # or it would hear of one trial in nine
        )
        self._numeric = _numeric(space)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, optuna.distributions.BaseDistribution]:
        return dict(self._numeric)


def _numeric(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    dimensions = [d for d in space.dimensions.values() if d.kind != "choice" and not d.when]
    return {d.name: d.distribution for d in dimensions if not d.distribution.single()}


def check_cmaes(space: Space) -> None:
    """Checks that CMA-ES can search the space, where it is asked to.

    Raises:
        InputError: the package is missing, or there are fewer than two numbers to search.
    """
    if space.searcher.kind != "cmaes" or not space.dimensions:
        return
    try:
        importlib.import_module("cmaes")
    except ImportError:
        raise InputError(
            f"{space.source}: searcher.kind: needs the package cmaes, got 'cmaes' without it. "
            "Run pip install cmaes, or use tpe."
        ) from None
    numeric = _numeric(space)
    if len(numeric) < 2:
        raise InputError(
            f"{space.source}: searcher.kind: cmaes needs two numeric dimensions without conditions, "
            f"got {', '.join(numeric) or 'none'}. Use tpe."
        )
