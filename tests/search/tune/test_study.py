from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from ray.tune.search.optuna import OptunaSearch

from search.runs.journal import Journal, Status
from search.space.space import Space
from search.tune.standing import merit
from search.tune.study import JournalStudy, check_cmaes, make_sampler
from tests.support.spaces import space_of
from tests.support.stepping import curve, new_journal, step_through
from trainable.config import TrialConfig
from trainable.errors import Diverged, InputError, OutOfMemory, TrialEnded

SPACE = """
    fixed: {epochs: 6, weights: none}
    search:
      lr: {loguniform: [1e-4, 1.0]}
      n_mels: {qrandint: [32, 128, 32]}
      mixup: {quniform: [0.0, 0.4, 0.1]}
    baselines: [tutorial-simple]
    budget: {trials: 40, grace_epochs: 2, reduction_factor: 2}
"""


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return space_of(tmp_path, SPACE)


def add(journal: Journal, values: list[float], status: Status | None, lr: float = 1e-3) -> int:
    """Adds a trial with these accuracies to the journal."""
    trial = journal.suggested("search", "", {"lr": lr, "n_mels": 32, "mixup": 0.1}, {"epochs": 6})
    for epoch, value in enumerate(values, start=1):
        last = status == "cut" and epoch == len(values)
        journal.reported(trial.number, epoch, value, 1.0, "cut" if last else "continue")
    if status is not None:
        journal.ended(trial.number, status)
    return trial.number


ENDS: list[tuple[Status | None, list[float], TrialState, float | None]] = [
    ("finished", [0.2, 0.6, 0.5, 0.5, 0.5, 0.4], TrialState.COMPLETE, 0.6),
    ("cut", [0.3, 0.2], TrialState.PRUNED, 0.2),
    ("diverged", [0.9, 0.8, 0.9], TrialState.COMPLETE, 0.0),
    ("out_of_memory", [], TrialState.COMPLETE, 0.0),
    ("failed", [0.5], TrialState.FAIL, None),
    (None, [0.4, 0.5], TrialState.RUNNING, None),
]


@pytest.mark.parametrize("rebuilt", [False, True], ids=["live", "rebuilt"])
@pytest.mark.parametrize(("status", "values", "state", "value"), ENDS)
def test_each_end_reaches_optuna_as_what_it_is(
    space: Space, tmp_path: Path, status: Status | None, values: list[float], state: TrialState, value: float | None,
    rebuilt: bool,
) -> None:  # fmt: skip
    journal = new_journal(tmp_path / "run")
    live = None if rebuilt else JournalStudy(space, journal)
    add(journal, values, status)
    (trial,) = (live or JournalStudy(space, Journal(journal.path))).study.get_trials()
    assert (trial.state, trial.value) == (state, value)
    assert trial.intermediate_values == dict(enumerate(values, start=1))


def test_cut_trials_reach_optuna_as_pruned_at_their_epoch(space: Space, tmp_path: Path) -> None:
    journal = new_journal(tmp_path / "run")
    study = JournalStudy(space, journal).study
    add(journal, [0.1, 0.4, 0.3], "cut")
    (trial,) = study.get_trials()
    assert trial.state == TrialState.PRUNED
    assert trial.last_step == 3
    assert trial.value == 0.3


def test_tpe_sees_each_trial_by_how_it_stands_against_the_others(space: Space, tmp_path: Path) -> None:
    journal = new_journal(tmp_path / "run")
    live = JournalStudy(space, journal)
    add(journal, [0.4, 0.1], "cut")
    add(journal, [0.3, 0.5, 0.6], None)
    add(journal, [0.35], None)
    add(journal, [0.9], "failed")
    add(journal, [0.9, 0.9], "diverged")
    add(journal, [], None)
    with live.storage.as_of_now():
        seen = live.study.get_trials()
    assert [(trial.state, trial.value) for trial in seen] == [
        (TrialState.COMPLETE, 0.5), (TrialState.COMPLETE, 0.5), (TrialState.COMPLETE, 0.5), (TrialState.FAIL, None),
        (TrialState.COMPLETE, 0.0), (TrialState.RUNNING, None),
    ]  # fmt: skip
    told = [trial.state for trial in live.study.get_trials()]
    assert told == [TrialState.PRUNED, TrialState.RUNNING, TrialState.RUNNING, TrialState.FAIL, TrialState.COMPLETE,
                    TrialState.RUNNING]  # fmt: skip


def test_of_equal_accuracies_tpe_sees_the_lower_loss_ahead(space: Space, tmp_path: Path) -> None:
    journal = new_journal(tmp_path / "run")
    for loss in (1.0, 0.5, 2.0):
        trial = journal.suggested("search", "", {"lr": 1e-3, "n_mels": 32, "mixup": 0.1}, {"epochs": 6})
        journal.reported(trial.number, 1, 0.5, loss, "continue")
    study = JournalStudy(space, journal)
    with study.storage.as_of_now():
        assert [trial.value for trial in study.study.get_trials()] == [0.5, 1.0, 0.0]


@pytest.mark.parametrize("other", ["searcher: random", "searcher: cmaes", "scheduler: none"])
def test_nobody_else_sees_anything_but_what_optuna_was_told(tmp_path: Path, other: str) -> None:
    journal = new_journal(tmp_path / "run")
    live = JournalStudy(space_of(tmp_path, SPACE + f"    {other}\n"), journal)
    add(journal, [0.4, 0.1], "cut")
    add(journal, [0.3, 0.2], None)
    with live.storage.as_of_now():
        assert [trial.state for trial in live.study.get_trials()] == [TrialState.PRUNED, TrialState.RUNNING]


@pytest.mark.slow
def test_tpe_prefers_what_was_cut_late_and_good_to_what_was_finished_and_bad(space: Space, tmp_path: Path) -> None:
    """Optuna alone takes finished trials for better than cut ones, whatever they are worth."""
    journal = new_journal(tmp_path / "run")
    live = JournalStudy(space, journal)
    for lr in np.geomspace(2e-1, 1.0, 5):
        add(journal, [0.1, 0.1, 0.2], "finished", float(lr))
    for lr in np.geomspace(1e-4, 1e-2, 15):
        add(journal, [0.1, 0.7], "cut", float(lr))

    def low(propose: Callable[[int], tuple[optuna.Trial, dict[str, Any]]]) -> int:
        return proposed_between(live, 0, 2e-2, propose)

    assert low(lambda number: live.propose(number, 0)) > 2 * low(lambda number: as_optuna_would(live, space, number))


def test_a_running_trial_that_nobody_cuts_proves_nothing_by_getting_far(tmp_path: Path) -> None:
    text = SPACE.replace("[tutorial-simple]", "[{name: mine, lr: 1e-3}]")
    journal = new_journal(tmp_path / "run")
    live = JournalStudy(space_of(tmp_path, text), journal)
    baseline = journal.suggested("baseline", "mine", {"lr": 1e-3, "n_mels": 32, "mixup": 0.1}, {"epochs": 6})
    for epoch in (1, 2, 3):
        journal.reported(baseline.number, epoch, 0.9, 1.0, "continue")
    with live.storage.as_of_now():
        assert [trial.state for trial in live.study.get_trials()] == [TrialState.RUNNING]


@pytest.mark.slow
def test_tpe_goes_where_a_running_trial_leads(space: Space, tmp_path: Path) -> None:
    """Optuna's constant liar alone calls the best trial bad for as long as it trains."""
    journal = new_journal(tmp_path / "run")
    live = JournalStudy(space, journal)
    for lr in np.geomspace(1e-4, 1.0, 20):
        add(journal, [0.1, 0.1], "cut", float(lr))
    for _ in range(2):
        add(journal, [0.7, 0.8, 0.9], None, 3e-3)

    def near(propose: Callable[[int], tuple[optuna.Trial, dict[str, Any]]]) -> int:
        return proposed_between(live, 1e-3, 1e-2, propose)

    assert near(lambda number: live.propose(number, 0)) > 2 * near(lambda number: as_optuna_would(live, space, number))


def as_optuna_would(live: JournalStudy, space: Space, number: int) -> tuple[optuna.Trial, dict[str, Any]]:
    """A proposal by the same sampler, shown the trials as Optuna keeps them."""
    live.study.sampler = make_sampler(space, number)
    asked = live.study.ask()
    return asked, space.suggest(asked)


def proposed_between(
    live: JournalStudy, low: float, high: float, propose: Callable[[int], tuple[optuna.Trial, dict[str, Any]]]
) -> int:
    """How many of 30 proposals have their lr between `low` and `high`; the study stays as it is."""
    close = 0
    for number in range(30):
        asked, sample = propose(number)
        close += low < sample["lr"] < high
        live.reject(asked)
    return close


def test_ray_alone_would_have_told_a_cut_trial_as_complete_with_its_early_value() -> None:
    stock = OptunaSearch({"lr": optuna.distributions.FloatDistribution(0, 1)}, metric="val_acc", mode="max")
    stock.suggest("a")
    stock.on_trial_complete("a", {"val_acc": 0.1, "training_iteration": 1, "done": True})
    assert stock._ot_study.get_trials()[0].state == TrialState.COMPLETE


def test_a_baseline_that_is_no_point_of_the_space_is_not_in_the_study(space: Space, tmp_path: Path) -> None:
    journal = new_journal(tmp_path / "run")
    live = JournalStudy(space, journal)
    journal.suggested("baseline", "tutorial-simple", {}, {})
    journal.reported(0, 1, 0.5, 1.0, "continue")
    journal.ended(0, "finished")
    assert live.study.get_trials() == JournalStudy(space, Journal(journal.path)).study.get_trials() == []


@pytest.mark.slow
def test_the_rebuilt_study_equals_the_live_one(space: Space, tmp_path: Path) -> None:
    def train(config: TrialConfig) -> list[float | TrialEnded]:
        end = Diverged("nan") if config.lr > 0.3 else OutOfMemory("full") if config.n_mels == 128 else None
        return curve(config) if end is None else [*curve(config)[:1], end]

    journal = new_journal(tmp_path / "run")
    live = JournalStudy(space, journal)
    journal.listen(live._on_event)  # the searcher that comes next has a study of its own
    step_through(space, journal, workers=3, train=train)
    rebuilt = JournalStudy(space, Journal(journal.path))
    shown = [
        [(t.number, t.state, t.value, t.params, t.distributions, t.intermediate_values, t.constraints) for t in trials]
        for trials in (live.study.get_trials(), rebuilt.study.get_trials())
    ]
    assert shown[0] == shown[1]
    assert {trial.status for trial in journal.trials.values()} == {"finished", "cut", "diverged", "out_of_memory"}


def test_optuna_alone_would_call_a_diverged_trial_better_than_every_cut_one() -> None:
    from optuna.samplers._tpe.sampler import _split_trials

    study = optuna.create_study(direction="maximize")
    distributions = {"x": optuna.distributions.FloatDistribution(0, 1)}
    study.add_trial(create_trial(value=0.0, params={"x": 0.9}, distributions=distributions))
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED, params={"x": 0.1}, distributions=distributions, intermediate_values={5: 0.8}
        )
    )
    good, _ = _split_trials(study, study.get_trials(), 1)
    assert [trial.params["x"] for trial in good] == [0.9]


def test_tpe_keeps_away_from_where_trials_diverge_even_where_no_trial_has_finished(
    space: Space, tmp_path: Path
) -> None:
    journal = new_journal(tmp_path / "run")
    for step in range(8):
        add(journal, [], "diverged", lr=0.3 * 1.1**step)
        add(journal, [0.5, 0.5 + 0.01 * step], "cut", lr=2e-4 * 1.1**step)
    study = JournalStudy(space, journal)
    proposed = []
    for attempt in range(9):
        asked, sample = study.propose(len(journal.trials), attempt)
        proposed.append(sample["lr"])
        study.reject(asked)
    assert sum(lr < 0.05 for lr in proposed) >= 8


def test_a_sampler_depends_on_the_seed_the_trial_and_the_attempt(space: Space) -> None:
    def first(number: int, attempt: int) -> float:
        study = optuna.create_study(sampler=make_sampler(space, number, attempt))
        return study.ask().suggest_float("x", 0, 1)

    assert first(3, 0) == first(3, 0)
    assert len({first(3, 0), first(4, 0), first(3, 1)}) == 3


@pytest.mark.parametrize(("event", "numbered"), [(None, 0), ({"numbered": 5}, 5), ({}, 0)])
def test_a_proposal_is_what_the_sampler_of_its_number_draws_counted_behind_a_warm_starts_trials(
    space: Space, tmp_path: Path, event: dict[str, int] | None, numbered: int
) -> None:
    journal = new_journal(tmp_path / "run")
    if event is not None:  # before version 0.2 nobody noted how many trials the other run had
        journal._write({"event": "warm", "run": "/old", "trials": [], "before": 0, **event})
    drawn = optuna.create_study(sampler=make_sampler(space, 3 + numbered, attempt=1)).ask()
    assert JournalStudy(space, journal).propose(3, 1)[1] == space.suggest(drawn)


def test_what_was_learned_at_different_times_is_rebuilt_in_that_order(space: Space, tmp_path: Path) -> None:
    def known(lr: float) -> dict[str, Any]:
        params = {"lr": lr, "n_mels": 32, "mixup": 0.1}
        return {"params": params, "status": "finished", "value": lr, "values": [lr], "losses": [1.0], "whole": True}

    journal = new_journal(tmp_path / "run")
    live = JournalStudy(space, journal)
    journal.warmed("/first", [known(0.1)])
    for value in (0.3, 0.4):
        add(journal, [value], "finished", lr=value)
    journal.warmed("/second", [known(0.2)])
    journal.warmed("/third", [known(0.25)])
    add(journal, [0.5], None, lr=0.5)
    rebuilt = JournalStudy(space, Journal(journal.path))
    order = [[trial.params["lr"] for trial in each.study.get_trials()] for each in (live, rebuilt)]
    assert order[0] == order[1] == [0.1, 0.3, 0.4, 0.2, 0.25, 0.5]


def test_cmaes_looks_at_the_numbers_that_every_sample_has(tmp_path: Path) -> None:
    text = SPACE.replace("mixup: {q", "roll: {uniform: [0, 0.5], when: {mixup: 0.0}}\n      mixup: {q")
    space = space_of(tmp_path, text + "    searcher: {kind: cmaes}\n")
    looked_at = make_sampler(space, 0).infer_relative_search_space(optuna.create_study(), create_trial(value=0.0))
    assert set(looked_at) == {"lr", "n_mels", "mixup"}


def test_chance_takes_over_from_a_sampler_that_insists_after_ten_draws_unless_it_is_to_insist(space: Space) -> None:
    kinds = [type(make_sampler(space, 0, attempt)).__name__ for attempt in (0, 9, 10)]
    assert kinds == ["TPESampler", "TPESampler", "RandomSampler"]
    assert isinstance(make_sampler(space, 0, 10, insists=True), optuna.samplers.TPESampler)


def test_two_numbers_are_enough_for_cmaes_and_one_is_not(tmp_path: Path) -> None:
    two = SPACE.replace("      mixup: {quniform: [0.0, 0.4, 0.1]}\n", "") + "    searcher: {kind: cmaes}\n"
    check_cmaes(space_of(tmp_path, two))
    one = two.replace("      n_mels: {qrandint: [32, 128, 32]}\n", "")
    with pytest.raises(InputError, match="needs two numeric dimensions without conditions, got lr"):
        check_cmaes(space_of(tmp_path, one))


def test_epochs_of_a_warm_start_are_counted_from_one_and_have_no_loss_where_nobody_noted_it(
    space: Space, tmp_path: Path
) -> None:
    params = {"lr": 0.1, "n_mels": 32, "mixup": 0.1}
    journal = new_journal(tmp_path / "run")
    journal.warmed("/old", [{"params": params, "status": "cut", "value": 0.3, "values": [0.2, 0.3], "whole": True}])
    study = JournalStudy(space, journal)
    [trial] = study.study.get_trials()
    assert trial.intermediate_values == {1: 0.2, 2: 0.3}
    assert study.storage.merits[trial.number] == [merit(0.2, 0.0), merit(0.3, 0.0)]
