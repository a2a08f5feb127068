"""What the report adds up from the journal."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from search.report.facts import lead, progress, rungs, search_clock, settings_of, space_of, spans
from search.report.report import write_report
from search.runs.journal import Journal
from search.runs.run import RunFolder, load_run
from tests.support.synthetic import START, at, make_run, make_space, write_record


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("facts") / "run")


def test_the_staircase_ends_at_the_best_of_the_run(run: RunFolder) -> None:
    steps, best = progress(run), run.best()
    assert best
    assert (steps[-1].accuracy, steps[-1].trial.number) == (best.accuracy, best.trial.number)
    assert steps[-1].epochs <= sum(len(trial.reports) for trial in run.trials)
    assert [step.accuracy for step in steps] == sorted(step.accuracy for step in steps)
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)


def test_a_trial_counts_in_the_staircase_only_once_it_is_past_the_grace_period(tmp_path: Path) -> None:
    space = make_space(tmp_path, "fixed: {epochs: 4}\nsearch: {mixup: {uniform: [0, 1]}}\nbudget: {grace_epochs: 2}\n")
    write_record(tmp_path / "run", space, ["a", "b"])
    clock = [START]
    with at(clock):
        journal = Journal(tmp_path / "run" / "events.jsonl")
        for _ in range(2):
            journal.suggested("search", "", {"mixup": 0.5}, {"epochs": 4})
        for moment, number, epoch, value, decision in [
            (1, 0, 1, 0.9, "continue"), (2, 1, 1, 0.5, "continue"), (3, 0, 2, 0.6, "cut"), (4, 1, 2, 0.4, "continue"),
        ]:  # fmt: skip
            clock[0] = START + moment
            journal.reported(number, epoch, value, 1.0, decision)
    steps = progress(load_run(tmp_path / "run"))
    assert [(step.seconds, step.epochs, step.accuracy, step.trial.number) for step in steps] == [(4.0, 4, 0.5, 1)]


def test_of_equal_accuracies_the_staircase_credits_the_trial_that_the_rule_does(tmp_path: Path) -> None:
    space = make_space(tmp_path, "fixed: {epochs: 4}\nsearch: {mixup: {uniform: [0, 1]}}\nbudget: {grace_epochs: 1}\n")
    write_record(tmp_path / "run", space, ["a", "b"])
    clock = [START]
    with at(clock):
        journal = Journal(tmp_path / "run" / "events.jsonl")
        for number, loss in enumerate((0.9, 0.5, 0.7)):
            journal.suggested("search", "", {"mixup": 0.5}, {"epochs": 4})
            clock[0] += 1
            journal.reported(number, 1, 0.8, loss, "continue")
    run = load_run(tmp_path / "run")
    steps = progress(run)
    assert [step.trial.number for step in steps] == [0, 1]
    assert run.best().trial.number == 1  # type: ignore[union-attr]


def test_a_baseline_that_may_not_be_called_best_is_no_measure_of_the_lead(tmp_path: Path) -> None:
    text = "baselines: [tutorial-simple]\nfixed: {epochs: 4, weights: none}\nsearch: {lr: {uniform: [1e-4, 1e-2]}}\n"
    space = make_space(tmp_path, text + "budget: {grace_epochs: 3}\n")
    write_record(tmp_path / "run", space, ["a", "b"])
    journal = Journal(tmp_path / "run" / "events.jsonl")
    journal.suggested("baseline", "tutorial-simple", {}, space.baselines[0].values)
    journal.reported(0, 1, 0.95, 0.2, "continue")  # and then it diverges before it is past the grace period
    journal.ended(0, "diverged", "the loss became nan")
    journal.suggested("search", "", {"lr": 1e-3}, space.config({"lr": 1e-3}).to_json())
    for epoch in (1, 2, 3, 4):
        journal.reported(1, epoch, 0.6, 0.5, "continue")
    journal.ended(1, "finished")
    run = load_run(tmp_path / "run")
    assert lead(run) is None
    page = write_report([run]).read_text(encoding="utf-8")
    assert "points above" not in page
    assert "tutorial-simple (diverged, not ranked)" in page


def test_the_time_between_an_interruption_and_the_resumption_is_no_time_of_the_search(tmp_path: Path) -> None:
    write_record(tmp_path, make_space(tmp_path), ["a", "b"])
    clock = [START]
    with at(clock):
        journal = Journal(tmp_path / "events.jsonl")
        journal.session()
        trial = journal.suggested("search", "", {}, {})
        clock[0] += 10
        journal.reported(trial.number, 1, 0.5, 1.0, "continue")
        clock[0] += 3600
        journal.session()
        clock[0] += 5
        journal.reported(trial.number, 2, 0.6, 1.0, "continue")
    run = load_run(tmp_path)
    assert search_clock(run)(START + 3615) == pytest.approx(15)
    assert spans(run)[0].seconds == pytest.approx(15)


def test_rungs_hold_every_cut_and_nobody_goes_on_after_one(run: RunFolder) -> None:
    found = rungs(run)
    assert [rung.epoch for rung in found] == [1, 3]
    assert sum(len(rung.cut) for rung in found) == sum(trial.status == "cut" for trial in run.trials)
    for rung in found:
        assert all(len(trial.reports) == rung.epoch for trial, _ in rung.cut)
        assert rung.passed
    assert all(trial.kind == "search" for rung in found for trial, _ in rung.passed)


def test_a_trial_that_was_overtaken_is_cut_at_the_rung_that_it_had_passed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    passed = next(trial for rung in rungs(run)[:1] for trial, _ in rung.passed)
    while len(passed.reports) > 2:
        passed.reports.pop()
    passed.reports[-1].decision = "cut"
    first, second = rungs(run)[:2]
    assert passed.number in {trial.number for trial, _ in first.cut}
    assert passed.number not in {trial.number for trial, _ in (*second.passed, *second.cut)}


def test_trials_that_run_at_the_same_time_have_slots_of_their_own(run: RunFolder) -> None:
    found = spans(run)
    assert {span.slot for span in found} == {0, 1, 2}
    for slot in range(3):
        mine = sorted((span for span in found if span.slot == slot), key=lambda span: span.start)
        assert all(before.end <= after.start + 1e-6 for before, after in itertools.pairwise(mine))


def test_a_baseline_outside_the_space_has_its_configurations_settings(run: RunFolder) -> None:
    baseline = run.trials[0]
    assert not baseline.params
    assert settings_of(baseline, space_of(run)) == {
        "backbone": "resnet18", "image_size": 224, "optimizer": "adam", "lr": 1e-4, "schedule": "constant",
        "mixup": 0.0,
    }  # fmt: skip
