"""Optuna's samplers, as a search uses them: one for each trial, told what is known by now."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager

import numpy as np
import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from search.space import Space
from trainable.errors import InputError

# After so many draws of trials that have been there, chance takes over from a sampler that insists.
_LEARNED_ATTEMPTS = 10


def make_sampler(space: Space, number: int, attempt: int = 0) -> BaseSampler:
    """The sampler for trial `number`: new for each, so that no random state needs saving.

    Raises:
        InputError: the space asks for CMA-ES, which cannot work with it or is not installed.
    """
    seed = int(np.random.SeedSequence([space.searcher.seed, number, attempt]).generate_state(1)[0])
    startup = space.searcher.startup_trials
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match space.searcher.kind if attempt < _LEARNED_ATTEMPTS else "random":
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
    """A study's storage that can show TPE every trial that has proven something as what it is worth so far.

    TPE itself ranks finished trials before cut ones whatever their values, and cut ones by how far they came. It counts
    every running trial among the bad ones, so that parallel workers keep apart: in a search with cuts that turns it
    away from the best trial there is, for as long as that trains, longest of all. Here cut trials, and running ones
    past the grace period, compare with finished ones by their best accuracy. Running trials before that stay what they
    are.
    """

    def __init__(self, space: Space) -> None:
        super().__init__()
        self._proven = space.budget.grace_epochs  # epochs
        self._applies = space.searcher.kind == "tpe" and space.scheduler == "asha"
        self._asked = False
        self.unchallenged: set[int] = set()  # trials that nobody cuts, by Optuna's numbers: getting far proves nothing

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
        trials = [self._shown(trial) for trial in super().get_all_trials(study_id, deepcopy)]
        return [trial for trial in trials if states is None or trial.state in states]

    def _shown(self, trial: FrozenTrial) -> FrozenTrial:
        proven = max(trial.intermediate_values, default=0) >= self._proven and trial.number not in self.unchallenged
        if trial.state != TrialState.PRUNED and not (trial.state == TrialState.RUNNING and proven):
            return trial
        shown = copy.copy(trial)
        shown.state, shown.value = TrialState.COMPLETE, max(trial.intermediate_values.values())
        return shown


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
    """Nothing, if the space leaves CMA-ES out, or it can search what there is to search.

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
