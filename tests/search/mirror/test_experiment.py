from __future__ import annotations

from pathlib import Path

import pytest

from search.mirror.experiment import INTERRUPTED, experiment_name, trial_ending, trial_experiment
from search.mirror.mirror import log_dir
from tests.support.mirrored import make_run, reopen, suggest, train
from trainable.training.trial_folder import Cost


def test_names_say_number_backbone_size_and_rate(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    suggest(run, kind="baseline", name="tutorial-simple", lr=1e-4)
    for _ in range(16):
        suggest(run)
    suggest(run, lr=0.00013246, backbone="efficientnet_b0")
    names = [experiment_name(run, trial) for trial in run.trials]
    assert names[0] == "000 tutorial-simple resnet18 224px lr 1e-4"
    assert names[17] == "017 efficientnet_b0 224px lr 1.3e-4"
    assert names == sorted(names)


def test_names_sort_by_number_where_more_than_a_thousand_trials_are_planned(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=2)
    run.record["space"]["budget"]["trials"] = 1001
    assert experiment_name(run, run.trials[1]).startswith("0001 ")


def test_retrained_trials_are_recognisable_and_stay_with_their_search(tmp_path: Path) -> None:
    search = make_run(tmp_path / "quick-1", trials=1)
    retrained = make_run(tmp_path / "quick-1" / "retrained")
    retrained.record["created"] = "later"  # each call of `retrain` writes a new one
    suggest(retrained, kind="retrain", name="trial 0, seed 3")
    first, again = trial_experiment(search, search.trials[0]), trial_experiment(retrained, retrained.trials[0])
    assert again.name.startswith("retrain 000 trial 0, seed 3 resnet18")
    assert (first.key, again.key) == ("trial_0000", "retrain_0000")
    assert (again.group, again.job_type) == (first.group, "retrain") == ("quick-1", "retrain")
    assert again.id.rsplit("-", 1)[1] == first.id.rsplit("-", 1)[1]
    assert log_dir(retrained.path, "local") == log_dir(search.path, "local") == search.path.resolve() / "swanlog"


def test_what_people_compare_by_stands_in_the_configuration_and_first_in_its_order(tmp_path: Path) -> None:
    run = make_run(tmp_path / "quick-1")
    suggest(run, lr=3e-4)
    experiment = trial_experiment(run, run.trials[0])
    assert experiment.config["Search"] == experiment.group == "quick-1"
    assert experiment.config["Kind"] == experiment.job_type == "search"
    assert sorted(experiment.config)[:2] == ["1 lr", "2 mixup"]  # in the order of the space, before all else
    assert (experiment.config["1 lr"], experiment.config["2 mixup"]) == (3e-4, "-")  # a number sorts as one
    suggest(run, kind="baseline", name="simple", lr=1e-4)
    assert list(trial_experiment(run, run.trials[1]).config) == list(experiment.config)
    assert set(experiment.tags) == {"resnet18", "demo", "search"}
    assert all(tag in experiment.description for tag in [*experiment.tags, "quick-1"])
    assert sorted(experiment.config)[2][0].isupper()
    assert experiment.config["f_max"] == "unset"
    assert None not in experiment.config.values()


def test_an_id_stays_when_a_run_is_read_again_and_differs_between_runs_of_one_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a" / "run", trials=1)
    other = make_run(tmp_path / "b" / "run", trials=1)
    other.record["created"] = "2026-01-02"
    again = reopen(run)
    assert trial_experiment(run, run.trials[0]).id == trial_experiment(again, again.trials[0]).id
    assert trial_experiment(run, run.trials[0]).id != trial_experiment(other, other.trials[0]).id


@pytest.mark.parametrize(
    ("status", "message", "outcome", "state"),
    [
        ("finished", "", "finished", "success"),
        ("cut", "", "cut by ASHA at epoch 3", "success"),
        ("diverged", "the loss became NaN", "diverged: the loss became NaN", "crashed"),
        ("out_of_memory", "", "out of memory", "crashed"),
        ("failed", "KeyError: 'x'\nmore", "failed: KeyError: 'x'\nmore", "crashed"),
    ],
)
def test_an_ending_says_what_happened(tmp_path: Path, status, message, outcome, state) -> None:  # type: ignore[no-untyped-def]
    run = make_run(tmp_path / "run", trials=1)
    train(run, 0, upto=3)
    run.journal.ended(0, status, message)
    ending = trial_ending(run, run.trials[0])
    assert (ending.outcome, ending.state, ending.final) == (outcome, state, True)
    assert (ending.error is None) == (state == "success")
    assert ending.config["Outcome"] == outcome.splitlines()[0]
    assert ending.config["Best epoch"] == 3


def test_a_trial_that_never_passed_the_grace_period_has_no_best_epoch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=1)
    train(run, 0, upto=2, decision="cut")
    run.journal.ended(0, "cut")
    ending = trial_ending(run, run.trials[0])
    assert ending.best == {}
    assert "Best epoch" not in ending.config


def test_a_trial_that_goes_on_another_day_is_interrupted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=1)
    assert trial_ending(run, run.trials[0]) is INTERRUPTED
    assert not INTERRUPTED.final


def test_what_a_trial_costs_stands_in_its_configuration_in_the_end(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=1)
    run.folder(run.trials[0]).write_cost(Cost(11_181_642, 1_800_000_000, 20.32, None))
    run.journal.ended(0, "finished")
    closing = trial_ending(run, run.trials[0]).config
    assert (closing["Parameters"], closing["Time per clip"]) == ("11.2M", "20.3 ms")
    assert set(closing) <= set(trial_experiment(run, run.trials[0]).config)  # columns that are there from the start
