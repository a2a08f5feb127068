from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.runs.journal import Journal
from search.runs.run import best_of, trial_folder
from search.space.load import load_space
from search.space.space import Space
from search.tune import tuner
from search.tune.scheduler import JournalASHA
from search.tune.searcher import StudySearch
from search.tune.stop import Stop
from search.tune.tuner import ROUNDS_PER_TRIAL, Running, run_trials
from tests.support.driver import SPACE
from tests.support.driving import start_driver, wait_for_events
from tests.support.simulated import slow
from tests.support.troubled import breaks_the_gpu, deadly, tells_of_gpus

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def space_of(folder: Path, text: str = SPACE) -> Space:
    (folder / "space.yaml").write_text(text)
    return load_space(folder / "space.yaml")


def run_here(
    run: Path, space: Space, seconds: float = 0.0, concurrency: int = 2, stop: Stop | None = None,
    journal: Journal | None = None, said: list[str] | None = None,
) -> Journal:  # fmt: skip
    journal = journal or Journal(run / "events.jsonl")
    stop = stop or Stop(journal, space.budget.grace_epochs)
    warn: Callable[[str], None] = said.append if said is not None else print
    run_trials(
        run, journal, lambda: StudySearch(space, journal), lambda: JournalASHA(space, journal), stop,
        Running(slow(seconds), 1, 0, concurrency, warn),
    )  # fmt: skip
    return journal


def story(run: Path) -> list[dict[str, Any]]:
    """All that a search decided, without the times."""
    journal = Journal(run / "events.jsonl")
    return [
        {
            "trial": trial.number, "params": trial.params, "status": trial.status, "message": trial.message,
            "reports": [(report.epoch, report.value, report.decision) for report in trial.reports],
            "on_disk": [epoch.epoch for epoch in trial_folder(run, trial.number).epochs()],
        }
        for trial in journal.trials.values()
    ]  # fmt: skip


def test_a_budget_of_twelve_is_twelve_with_baselines_first_and_every_trial_accounted_for(
    tmp_path: Path, ray_here: None
) -> None:
    journal = run_here(tmp_path, space_of(tmp_path))

    assert len(journal.trials) == 12
    assert journal.unfinished == []
    assert [trial.kind for trial in journal.trials.values()] == ["baseline"] + ["search"] * 11
    assert {trial.status for trial in journal.trials.values()} == {"finished", "cut"}
    folders = sorted(path.name for path in tmp_path.glob("trial_*"))
    assert folders == [f"trial_{number:04d}" for number in range(12)]
    assert not (tmp_path / ".ray").exists()


def test_two_kills_of_the_driver_leave_no_trace_in_what_the_search_decides(tmp_path: Path, ray_here: None) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    run_here(whole, space_of(whole), concurrency=1)
    events = (whole / "events.jsonl").read_bytes().count(b"\n")

    # Epochs so long that the worker outlives its first driver: it must not write beside the next one's.
    for share, seconds in ((0.15, "0.4"), (0.7, "0.05")):
        driver = start_driver(killed, "--seconds", seconds)
        wait_for_events(killed, int(share * events), driver)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    driver = start_driver(killed)
    assert driver.wait(timeout=180) == 0, driver.communicate()[0]

    assert story(killed) == story(whole)
    for trial in story(killed):
        assert trial["on_disk"] == [epoch for epoch, _, _ in trial["reports"]] == [*range(1, len(trial["on_disk"]) + 1)]
    assert any(trial["status"] == "cut" for trial in story(whole))
    assert sorted(p.name for p in killed.glob("trial_*")) == sorted(p.name for p in whole.glob("trial_*"))
    # No finished epoch was trained again: each stands once in the journal.
    lines = [json.loads(line) for line in (killed / "events.jsonl").read_text().splitlines()]
    reported = [(line["trial"], line["epoch"]) for line in lines if line["event"] == "reported"]
    assert len(reported) == len(set(reported))
    assert sum(line["event"] == "session" for line in lines) == 3


def test_either_signal_ends_the_search_with_130_and_a_resume_finishes_it(tmp_path: Path, ray_here: None) -> None:
    told: dict[int, int] = {}
    for kind, events in ((signal.SIGINT, 8), (signal.SIGTERM, 20)):
        driver = start_driver(tmp_path, "--seconds", "0.3", "--concurrency", "2")
        wait_for_events(tmp_path, events, driver)
        driver.send_signal(kind)
        assert driver.wait(timeout=60) == 130, driver.communicate()[0]
        journal = Journal(tmp_path / "events.jsonl")
        assert journal.unfinished
        assert all(len(journal.trials[number].reports) >= count for number, count in told.items())
        told = {number: len(trial.reports) for number, trial in journal.trials.items()}

    journal = run_here(tmp_path, space_of(tmp_path), concurrency=1)

    assert journal.unfinished == []
    assert len(journal.trials) == 12
    assert all(len(journal.trials[number].reports) >= count for number, count in told.items())


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    driver = start_driver(tmp_path, "--seconds", "60")
    wait_for_events(tmp_path, 2, driver)
    driver.send_signal(signal.SIGINT)
    time.sleep(0.2)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(timeout=5) == 130


def test_a_killed_worker_costs_nothing_but_its_unfinished_epoch(tmp_path: Path, ray_here: None) -> None:
    space, said = space_of(tmp_path), []
    journal = Journal(tmp_path / "events.jsonl")
    killed: list[int] = []

    def kill_once(event: dict[str, Any]) -> None:
        if event["event"] == "reported" and event["trial"] == 0 and event["epoch"] == 3 and not killed:
            killed.append(_pid_of_worker())
            os.kill(killed[0], signal.SIGKILL)

    journal.listen(kill_once)
    run_here(tmp_path, space, seconds=0.05, concurrency=1, journal=journal, said=said)

    assert killed
    assert [text for text in said if "lost its worker and starts again" in text]
    baseline = journal.trials[0]
    assert baseline.status == "finished"
    assert [report.epoch for report in baseline.reports] == list(range(1, 10))
    assert [epoch.epoch for epoch in trial_folder(tmp_path, 0).epochs()] == list(range(1, 10))


def _pid_of_worker() -> int:
    """The process of the one trial that runs here."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_text()
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if "TrialActor" in command and _descends(parent, os.getpid()):
                return int(entry.name)
    raise AssertionError("no worker found")


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return False


def test_one_bad_trial_does_not_stop_the_search_and_is_not_tried_again(tmp_path: Path, ray_here: None) -> None:
    space = space_of(tmp_path, SPACE.replace("lr: 1.0e-4", "lr: 0.45").replace("1.0e-1", "0.6"))

    journal = run_here(tmp_path, space)

    bad = journal.trials[0]
    assert (bad.status, bad.message) == ("failed", "RuntimeError: a bug that only this configuration meets")
    assert "a bug that only" in (tmp_path / "trial_0000" / "error.txt").read_text()
    assert len(journal.trials) == 12
    assert journal.unfinished == []


def test_a_trial_that_kills_every_worker_is_given_up_and_the_others_go_on(
    tmp_path: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner, "WORKER_RETRIES", 1)  # each costs seconds
    space, said, journal = space_of(tmp_path), [], Journal(tmp_path / "events.jsonl")
    run_trials(
        tmp_path, journal, lambda: StudySearch(space, journal), lambda: JournalASHA(space, journal), Stop(journal, 1),
        Running(deadly, 1, 0, 2, said.append),
    )  # fmt: skip
    assert journal.trials[0].status == "failed"
    assert [text for text in said if text.startswith("trial 0 lost its worker for good")]
    again = [text for text in said if text.startswith("trial 0 lost its worker and starts again")]
    # A machine too busy for Ray itself ends a round early, which is not held against the trial.
    interrupted = any("A new round begins" in text for text in said)
    assert len(again) == ROUNDS_PER_TRIAL * tuner.WORKER_RETRIES or (interrupted and len(again) > 1)
    assert len(journal.trials) == 12
    assert {trial.status for trial in list(journal.trials.values())[1:]} <= {"finished", "cut"}


def test_a_worker_whose_gpu_a_trial_has_broken_is_replaced_before_the_next_trial(
    tmp_path: Path, ray_here: None
) -> None:
    space, said, journal = space_of(tmp_path).with_budget(trials=4), [], Journal(tmp_path / "events.jsonl")
    run_trials(
        tmp_path, journal, lambda: StudySearch(space, journal), lambda: JournalASHA(space, journal), Stop(journal, 1),
        Running(breaks_the_gpu, 1, 0, 1, said.append),
    )  # fmt: skip
    assert [trial.status for trial in journal.trials.values() if trial.status == "failed"] == ["failed"]
    assert journal.trials[0].message == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert said == ["trial 1 lost its worker and starts again from its last epoch"]


def test_a_trial_that_gets_no_gpu_sees_none(tmp_path: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    space, journal = space_of(tmp_path).with_budget(trials=1), Journal(tmp_path / "events.jsonl")
    run_trials(
        tmp_path, journal, lambda: StudySearch(space, journal), lambda: JournalASHA(space, journal), Stop(journal, 1),
        Running(tells_of_gpus, 1, 0, 1),
    )  # fmt: skip
    assert journal.trials[0].message == "RuntimeError: CUDA_VISIBLE_DEVICES=''"


def test_a_diverged_trial_ends_with_its_reason(tmp_path: Path, ray_here: None) -> None:
    space = space_of(tmp_path, SPACE.replace("lr: 1.0e-4", "lr: 0.55").replace("1.0e-1", "0.6"))

    journal = run_here(tmp_path, space)

    assert (journal.trials[0].status, journal.trials[0].message) == ("diverged", "the loss became nan in epoch 1")
    assert journal.unfinished == []


def test_five_first_failures_for_one_reason_stop_the_search_with_that_reason(tmp_path: Path, ray_here: None) -> None:
    space = space_of(tmp_path, SPACE.replace("loguniform: [1.0e-5, 1.0e-1]", "uniform: [0.41, 0.49]")
                     .replace("lr: 1.0e-4", "lr: 0.45"))  # fmt: skip
    journal = Journal(tmp_path / "events.jsonl")
    stop = Stop(journal, 1)

    run_here(tmp_path, space, concurrency=1, journal=journal, stop=stop)

    reason = "5 trials in a row failed alike: RuntimeError: a bug that only this configuration meets"
    assert stop.reason == reason
    assert len(journal.trials) <= 6


def test_a_time_budget_ends_the_search_and_leaves_it_resumable(tmp_path: Path, ray_here: None) -> None:
    space, journal = space_of(tmp_path), Journal(tmp_path / "events.jsonl")
    stop = Stop(journal, 1, seconds=4)

    run_here(tmp_path, space, seconds=0.5, journal=journal, stop=stop)

    assert stop.reason == "time budget"
    assert journal.unfinished
    before = len(journal.trials)
    run_here(tmp_path, space, journal=journal)
    assert journal.unfinished == []
    assert before < len(journal.trials) == 12


def test_a_target_accuracy_ends_the_search_at_the_epoch_that_reaches_it(tmp_path: Path, ray_here: None) -> None:
    space, journal = space_of(tmp_path), Journal(tmp_path / "events.jsonl")
    stop = Stop(journal, 1, target_accuracy=0.6)

    run_here(tmp_path, space, concurrency=1, journal=journal, stop=stop)

    assert stop.reason == "target accuracy"
    values = [report.value for trial in journal.trials.values() for report in trial.reports]
    assert values[-1] >= 0.6
    assert all(value < 0.6 for value in values[:-1])


def test_an_extended_search_goes_on_where_it_ended(tmp_path: Path, ray_here: None) -> None:
    space = space_of(tmp_path)
    first = story_of(run_here(tmp_path, space.with_budget(trials=6), concurrency=1))

    longer = run_here(tmp_path, space.with_budget(trials=9), concurrency=1)

    assert len(longer.trials) == 9
    assert story_of(longer)[:6] == first
    other = tmp_path / "other"
    other.mkdir()
    at_once = run_here(other, space.with_budget(trials=9), concurrency=1)
    assert story_of(longer) == story_of(at_once)


def story_of(journal: Journal) -> list[Any]:
    return [(t.params, t.status, [(r.epoch, r.value, r.decision) for r in t.reports]) for t in journal.trials.values()]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_with_folds_the_leaders_are_repeated_on_workers_until_the_best_has_had_all(
    tmp_path: Path, ray_here: None, concurrency: int
) -> None:
    space = space_of(tmp_path, SPACE.replace("trials: 12", "trials: 8, folds: 3"))
    journal = run_here(tmp_path, space, concurrency=concurrency)
    repeats = [trial for trial in journal.trials.values() if trial.repeats is not None]
    assert journal.configurations == 8
    assert journal.unfinished == []
    assert {trial.status for trial in repeats} == {"finished"}
    best = best_of(journal.trials.values(), space.budget.grace_epochs)
    assert best is not None
    assert len(best.folds) == 3
    for trial in repeats:
        written = json.loads(trial_folder(tmp_path, trial.number).config_file.read_text())
        assert written["val_fold"] == trial.fold > 1
