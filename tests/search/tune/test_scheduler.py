from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import numpy as np
import pytest
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from search.runs.journal import Journal
from search.space.space import Space
from search.tune.scheduler import JournalASHA
from tests.support.spaces import space_of
from tests.support.stepping import events, new_journal, step_through

SPACE = """
    fixed: {epochs: 9, weights: none}
    search: {lr: {loguniform: [1e-4, 1e-2]}}
    baselines: [tutorial-simple]
    budget: {trials: 30, grace_epochs: 1, reduction_factor: 3}
"""


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return space_of(tmp_path, SPACE)


class Driver:
    """A scheduler over a journal, with trials that report by hand."""

    def __init__(self, space: Space, journal: Journal) -> None:
        self.journal = journal
        self.scheduler = JournalASHA(space, journal)

    def trial(self, kind: str = "search") -> int:
        return self.journal.suggested(kind, "", {"lr": 1e-3}, {}).number  # type: ignore[arg-type]

    def report(
        self, number: int, epoch: int, value: float, status: str = "running", message: str = "",
        loss: float | None = None,
    ) -> str:  # fmt: skip
        trial = SimpleNamespace(trial_id="ray", config={"number": number})
        loss = 1 - value if loss is None else loss
        result = {"epoch": epoch, "val_acc": value, "val_loss": loss, "status": status, "message": message}
        return self.scheduler.on_trial_result(None, trial, result)


@pytest.fixture
def driver(space: Space, tmp_path: Path) -> Driver:
    return Driver(space, new_journal(tmp_path / "run"))


def test_a_trial_below_the_best_third_at_a_rung_is_cut_and_the_journal_says_so(driver: Driver) -> None:
    for value in (0.5, 0.6, 0.7):
        assert driver.report(driver.trial(), 1, value) == TrialScheduler.CONTINUE
    worse = driver.trial()
    assert driver.report(worse, 1, 0.55) == TrialScheduler.STOP
    trial = driver.journal.trials[worse]
    assert (trial.status, trial.reports[0].decision) == ("cut", "cut")
    assert trial.message == "below the best at epoch 1"


def test_decisions_are_those_of_rays_own_asha_where_accuracy_only_rises(space: Space, tmp_path: Path) -> None:
    driver = Driver(space, new_journal(tmp_path / "run"))
    theirs = ASHAScheduler("epoch", "val_acc", "max", max_t=9, grace_period=1, reduction_factor=3)
    rng = np.random.default_rng(0)
    cuts = 0
    for _ in range(60):
        number = driver.trial()
        trial = SimpleNamespace(trial_id=str(number))
        theirs.on_trial_add(None, trial)
        for epoch, value in enumerate(np.sort(rng.random(9)), start=1):
            status = "finished" if epoch == 9 else "running"
            answer = driver.report(number, epoch, float(value), status)
            assert answer == theirs.on_trial_result(None, trial, {"epoch": epoch, "val_acc": value})
            if answer == TrialScheduler.STOP:
                cuts += epoch < 9
                break
    assert cuts > 20


def test_one_unlucky_epoch_at_a_rung_does_not_cut(driver: Driver) -> None:
    for value in (0.5, 0.6):
        number = driver.trial()
        for epoch in (1, 2, 3):
            driver.report(number, epoch, value)
    lucky = driver.trial()
    assert driver.report(lucky, 1, 0.7) == TrialScheduler.CONTINUE
    driver.report(lucky, 2, 0.9)
    assert driver.report(lucky, 3, 0.1) == TrialScheduler.CONTINUE


def test_of_equal_accuracies_at_a_rung_the_higher_loss_is_cut(driver: Driver) -> None:
    for loss in (0.5, 0.6, 0.7):
        driver.report(driver.trial(), 1, 0.5, loss=loss)
    assert driver.report(driver.trial(), 1, 0.5, loss=0.65) == TrialScheduler.STOP
    assert driver.report(driver.trial(), 1, 0.5, loss=0.45) == TrialScheduler.CONTINUE
    assert driver.report(driver.trial(), 1, 0.55, loss=9.0) == TrialScheduler.CONTINUE  # a clip more outweighs any loss


def test_a_trial_that_came_to_its_rung_early_is_cut_when_it_has_been_overtaken(driver: Driver) -> None:
    early = driver.trial()
    assert driver.report(early, 1, 0.3) == TrialScheduler.CONTINUE  # the first at its rung
    driver.report(driver.trial(), 1, 0.6)
    assert driver.report(early, 2, 0.35) == TrialScheduler.CONTINUE  # of two, nobody is in the best third
    driver.report(driver.trial(), 1, 0.7)
    best = driver.trial()
    driver.report(best, 1, 0.8)
    assert driver.report(best, 2, 0.8) == TrialScheduler.CONTINUE
    assert driver.report(early, 3, 0.9) == TrialScheduler.CONTINUE  # a rung further, and the only one there
    late = driver.trial()
    driver.report(late, 1, 0.9)
    driver.report(late, 3, 0.95)
    driver.report(best, 3, 0.96)
    assert driver.report(early, 4, 0.9) == TrialScheduler.STOP
    assert driver.journal.trials[early].message == "below the best at epoch 3"


def test_the_trial_that_leads_is_not_cut_for_what_it_was_at_its_rung(driver: Driver) -> None:
    slow = driver.trial()
    driver.report(slow, 1, 0.3)
    for value in (0.6, 0.7, 0.8):
        driver.report(driver.trial(), 1, value)
    assert driver.report(slow, 2, 0.85) == TrialScheduler.CONTINUE
    driver.report(driver.trial(), 1, 0.9)
    assert driver.report(slow, 2, 0.85) == TrialScheduler.CONTINUE  # a repeated report gets its recorded decision
    assert driver.report(slow, 3, 0.86) == TrialScheduler.CONTINUE  # the first at its next rung


def overtaken(driver: Driver, **at_first: Any) -> int:
    """A trial that was the first at its rung and is far from the best third there by now; it has reported once."""
    slow = driver.trial()
    driver.report(slow, 1, 0.3, **at_first)
    for value in (0.6, 0.7, 0.8):
        driver.report(driver.trial(), 1, value)
    return slow


def test_a_rival_that_broke_before_the_grace_period_leads_nothing(tmp_path: Path) -> None:
    text = SPACE.replace("grace_epochs: 1", "grace_epochs: 2").replace("epochs: 9", "epochs: 18")
    driver = Driver(space_of(tmp_path, text), new_journal(tmp_path / "run"))
    slow = driver.trial()
    for epoch in (1, 2):
        driver.report(slow, epoch, 0.3)
    for value in (0.6, 0.7, 0.8):
        number = driver.trial()
        for epoch in (1, 2):
            driver.report(number, epoch, value)
    broken = driver.trial()
    driver.report(broken, 1, 0.99)
    driver.report(broken, 2, 0.0, "diverged", "nan")
    assert driver.report(slow, 3, 0.85) == TrialScheduler.CONTINUE  # the best by the rule, which 0.99 is not
    late = driver.trial()
    for epoch, value in ((1, 0.9), (2, 0.95)):
        driver.report(late, epoch, value)
    driver.report(late, 3, 0.0, "diverged", "nan")
    assert driver.report(slow, 4, 0.86) == TrialScheduler.STOP  # 0.95 is


@pytest.mark.parametrize(("loss", "answer"), [(0.1, TrialScheduler.CONTINUE), (0.3, TrialScheduler.STOP)])
def test_of_two_that_lead_with_equal_accuracy_the_rule_for_the_best_decides(
    driver: Driver, loss: float, answer: str
) -> None:
    slow = overtaken(driver)
    driver.report(driver.trial(), 1, 0.9, loss=0.2)
    assert driver.report(slow, 2, 0.9, loss=loss) == answer


@pytest.mark.parametrize(("first", "answer"), [(True, TrialScheduler.CONTINUE), (False, TrialScheduler.STOP)])
def test_of_two_that_lead_with_all_equal_the_older_one_leads(driver: Driver, first: bool, answer: str) -> None:
    rival = None if first else driver.trial()
    slow = overtaken(driver)
    rival = driver.trial() if rival is None else rival
    driver.report(rival, 1, 0.9, loss=0.2)
    assert driver.report(slow, 2, 0.9, loss=0.2) == answer


def test_who_is_level_with_the_best_third_at_a_rung_is_not_overtaken(driver: Driver) -> None:
    level = driver.trial()
    assert driver.report(level, 1, 0.7, loss=0.5) == TrialScheduler.CONTINUE
    for _ in range(4):
        assert driver.report(driver.trial(), 1, 0.7, loss=0.5) == TrialScheduler.CONTINUE
    leader = driver.trial()
    driver.report(leader, 1, 0.9)
    assert driver.report(level, 2, 0.1) == TrialScheduler.CONTINUE  # two thirds of the others are where it is


def test_a_baseline_is_nobodys_rival(driver: Driver) -> None:
    slow = overtaken(driver)
    baseline = driver.trial("baseline")
    for epoch in (1, 2, 3):
        driver.report(baseline, epoch, 0.99)
    assert driver.report(slow, 2, 0.85) == TrialScheduler.CONTINUE  # it leads those that compete


def test_rays_own_scheduler_lets_the_first_at_a_rung_train_to_the_end() -> None:
    theirs = ASHAScheduler("epoch", "val_acc", "max", max_t=9, grace_period=1, reduction_factor=3)
    trials = [SimpleNamespace(trial_id=str(number)) for number in range(9)]
    for trial in trials:
        theirs.on_trial_add(None, trial)
    for value, trial in enumerate(trials):
        theirs.on_trial_result(None, trial, {"epoch": 1, "val_acc": 0.1 * value})
    answers = [theirs.on_trial_result(None, trials[0], {"epoch": epoch, "val_acc": 0.0}) for epoch in range(2, 9)]
    assert set(answers) == {TrialScheduler.CONTINUE}  # the worst of nine


def test_baselines_are_neither_cut_nor_counted(driver: Driver) -> None:
    baseline = driver.trial("baseline")
    driver.report(baseline, 1, 0.9)
    assert driver.report(driver.trial(), 1, 0.5) == TrialScheduler.CONTINUE  # the first at its rung
    worst = driver.trial("baseline")
    for epoch in range(1, 20):
        assert driver.report(worst, epoch, 0.01) == TrialScheduler.CONTINUE
    assert driver.report(worst, 20, 0.01, "finished") == TrialScheduler.STOP
    assert driver.journal.trials[worst].status == "finished"


def test_baselines_are_cut_where_the_space_asks_for_it(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE + "    scheduler: {kind: asha, cut_baselines: true}")
    driver = Driver(space, new_journal(tmp_path / "run"))
    driver.report(driver.trial(), 1, 0.5)
    assert driver.report(driver.trial("baseline"), 1, 0.4) == TrialScheduler.STOP


def test_a_trial_may_train_longer_than_the_longest_rung(driver: Driver) -> None:
    number = driver.trial()
    for epoch in range(1, 30):
        assert driver.report(number, epoch, 0.5) == TrialScheduler.CONTINUE


def test_the_last_epoch_is_finished_and_not_cut(driver: Driver) -> None:
    driver.report(driver.trial(), 1, 0.9)
    short = driver.trial()
    assert driver.report(short, 1, 0.1, "finished") == TrialScheduler.STOP
    assert driver.journal.trials[short].status == "finished"


@pytest.mark.parametrize("status", ["diverged", "out_of_memory", "failed"])
def test_a_trial_that_broke_ends_with_its_message_and_leaves_no_value_at_a_rung(driver: Driver, status: str) -> None:
    for _ in range(5):
        broken = driver.trial()
        assert driver.report(broken, 1, 0.0, status, "why") == TrialScheduler.STOP
        trial = driver.journal.trials[broken]
        assert (trial.status, trial.message, trial.reports) == (status, "why", [])
    assert driver.report(driver.trial(), 1, 0.5) == TrialScheduler.CONTINUE
    assert driver.report(driver.trial(), 1, 0.4) == TrialScheduler.STOP  # compared with 0.5, not with five zeros


def test_an_interrupted_trial_stays_unfinished(driver: Driver) -> None:
    number = driver.trial()
    driver.report(number, 1, 0.5)
    before = events(driver.journal)
    assert driver.report(number, 1, 0.0, "interrupted") == TrialScheduler.STOP
    assert events(driver.journal) == before
    assert [trial.number for trial in driver.journal.unfinished] == [number]


def test_the_decision_is_written_before_tune_hears_of_it(driver: Driver) -> None:
    seen: list[Any] = []
    driver.journal.listen(lambda event: seen.append(event["event"]))
    driver.report(driver.trial(), 1, 0.9)
    driver.report(driver.trial(), 1, 0.1)
    assert seen == ["suggested", "reported", "suggested", "reported", "ended"]


def test_a_restarted_trial_gets_the_recorded_decisions_and_adds_nothing(driver: Driver, space: Space) -> None:
    first = driver.trial()
    for epoch in (1, 2, 3):
        driver.report(first, epoch, 0.5)
    for value in (0.8, 0.9, 0.95):
        driver.report(driver.trial(), 1, value)
    before = events(driver.journal)
    again = Driver(space, Journal(driver.journal.path))
    for epoch in (1, 2, 3):
        assert again.report(first, epoch, 0.0) == TrialScheduler.CONTINUE
    assert events(again.journal) == before


def test_rungs_are_empty_after_a_restart_with_ray_alone_and_full_with_the_journal(space: Space, driver: Driver) -> None:
    for value in (0.5, 0.6, 0.7):
        driver.report(driver.trial(), 1, value)
    rebuilt = JournalASHA(space, Journal(driver.journal.path))
    assert rebuilt._brackets[0].debug_str() == driver.scheduler._brackets[0].debug_str()
    fresh = ASHAScheduler("epoch", "val_acc", "max", max_t=9, grace_period=1, reduction_factor=3)
    assert rebuilt._brackets[0].debug_str() != fresh._brackets[0].debug_str()


def test_a_cut_whose_end_was_not_written_any_more_is_ended_at_the_next_start(driver: Driver, space: Space) -> None:
    driver.report(driver.trial(), 1, 0.9)
    cut = driver.trial()
    driver.report(cut, 1, 0.1)
    whole = events(driver.journal)
    lines = driver.journal.path.read_text().splitlines(keepends=True)
    driver.journal.path.write_text("".join(lines[:-1]))
    again = Journal(driver.journal.path)
    JournalASHA(space, again)
    assert again.trials[cut].status == "cut"
    assert events(again) == whole


@pytest.mark.slow
def test_a_scheduler_rebuilt_at_any_moment_decides_as_the_one_that_went_on(tmp_path: Path) -> None:
    text = SPACE.replace("epochs: 9", "epochs: 20").replace("grace_epochs: 1", "grace_epochs: 3")
    space = space_of(tmp_path, text + "    searcher: random")
    whole = new_journal(tmp_path / "whole")
    step_through(space, whole, workers=6)
    lines = whole.path.read_text().splitlines(keepends=True)
    overtaken = 0
    for count, event in enumerate(map(json.loads, lines)):
        if event["event"] != "reported":
            continue
        path = tmp_path / f"{count}.jsonl"
        path.write_text("".join(lines[:count]))
        rebuilt = Driver(space, Journal(path))
        last = event["epoch"] == whole.trials[event["trial"]].config["epochs"]
        answer = rebuilt.report(event["trial"], event["epoch"], event["value"], "finished" if last else "running")
        assert (answer == TrialScheduler.CONTINUE) == (event["decision"] == "continue" and not last)
        assert rebuilt.journal.trials[event["trial"]].reports[-1].decision == event["decision"]
        overtaken += event["decision"] == "cut" and event["epoch"] not in space.rungs
    assert overtaken


def test_without_a_scheduler_every_trial_runs_to_its_end(tmp_path: Path) -> None:
    journal = new_journal(tmp_path / "run")
    step_through(space_of(tmp_path, SPACE + "    scheduler: none"), journal, workers=2)
    assert {trial.status for trial in journal.trials.values()} == {"finished"}
    assert {len(trial.reports) for trial in journal.trials.values()} == {9, 20}


def test_what_tune_tells_a_scheduler_at_the_end_changes_no_rung(driver: Driver) -> None:
    number = driver.trial()
    driver.report(number, 1, 0.5)
    before = driver.scheduler.debug_string()
    trial = SimpleNamespace(trial_id="ray", config={"number": number})
    driver.scheduler.on_trial_add(None, trial)
    driver.scheduler.on_trial_complete(None, trial, {"epoch": 9, "val_acc": 0.9})
    driver.scheduler.on_trial_remove(None, trial)
    driver.scheduler.on_trial_error(None, trial)
    assert driver.scheduler.debug_string() == before


def test_rays_own_scheduler_puts_a_last_value_into_a_rung_that_was_not_reached() -> None:
    theirs = ASHAScheduler("epoch", "val_acc", "max", max_t=9, grace_period=1, reduction_factor=3)
    trial = SimpleNamespace(trial_id="a")
    theirs.on_trial_add(None, trial)
    theirs.on_trial_complete(None, trial, {"epoch": 9, "val_acc": 0.0})  # a floor value, of a trial that diverged
    assert any(recorded for _, recorded in theirs._brackets[0]._rungs)


def test_tune_can_pickle_it(driver: Driver) -> None:
    driver.journal.listen(lambda event: None)
    cloudpickle.dumps(driver.scheduler)
