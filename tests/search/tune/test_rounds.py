"""What lies outside of all configurations costs a search time and nothing else."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.tune.search import Searcher

from search.runs.journal import Journal
from search.tune import tuner
from search.tune.scheduler import JournalASHA
from search.tune.searcher import StudySearch
from search.tune.stop import Stop
from search.tune.tuner import PAUSES, Running, run_trials
from tests.search.tune.test_tuner import run_here, space_of, story
from tests.support.driving import start_driver, wait_for_events
from tests.support.simulated import train
from tests.support.troubled import lacks_its_data
from trainable.cores import allowed_cores


class Still:
    """The pulse of a Ray that is there."""

    lost = ""

    def __init__(self, give_up: Callable[[str], None]) -> None:
        pass

    def __enter__(self) -> Still:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def beats(self) -> bool:
        return True


Round = Callable[[Searcher, Any, Any], None]


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[Round]:
    """What happens in each round instead of Tune; the last one again and again."""
    planned: list[Round] = []

    def fit(scratch: Path, searcher: Any, scheduler: Any, stop: Stop, running: Running, watch: Any) -> None:
        (planned.pop(0) if len(planned) > 1 else planned[0])(searcher, scheduler, watch)

    monkeypatch.setattr(tuner, "_fit", fit)
    monkeypatch.setattr(tuner, "Pulse", Still)
    monkeypatch.setattr(tuner, "PAUSES", (0.0, 0.0, 0.0))
    return planned


def search_on(folder: Path, said: list[str], trials: int = 3, journal: Journal | None = None) -> tuple[Journal, Stop]:
    space = space_of(folder).with_budget(trials=trials)
    journal = journal or Journal(folder / "events.jsonl")
    stop = Stop(journal, 1)
    run_trials(
        folder, journal, lambda: StudySearch(space, journal), lambda: JournalASHA(space, journal), stop,
        Running(train, 1, 0, 1, said.append),
    )  # fmt: skip
    return journal, stop


class Asked:
    """A trial as Tune hands it around."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config


def all_of_it(searcher: Any, scheduler: Any, watch: Any, lacking: Callable[[int], bool] = lambda number: False) -> None:
    """Each trial in turn, to its end after one epoch, as far as the searcher goes."""
    while isinstance(config := searcher.suggest("x"), dict):
        trial = Asked(config)
        result = {"epoch": 1, "val_acc": 0.5, "val_loss": 1.0, "status": "finished", "message": ""}
        if lacking(config["number"]):
            result |= {"status": "unavailable", "message": "/data: No such file or directory"}
        scheduler.on_trial_result(None, trial, result)
        watch.on_trial_result(0, [], trial, result)


def test_what_ray_raises_is_one_line_and_a_new_round(tmp_path: Path, rounds: list[Round]) -> None:
    def killed(searcher: Any, scheduler: Any, watch: Any) -> None:
        searcher.suggest("x")
        raise RuntimeError(
            "Traceback:\n...\nCaught unexpected exception: 1 worker(s) were killed due to "
            "the node running low on memory."
        )

    said: list[str] = []
    rounds += [killed, all_of_it]
    journal, stop = search_on(tmp_path, said)
    assert said == ["Ray: a worker was killed because this machine ran low on memory. A new round begins in 0 s"]
    assert [trial.status for trial in journal.trials.values()] == ["finished"] * 3
    assert stop.reason is None


def test_rounds_that_bring_nothing_end_the_search_and_count_for_no_trial(tmp_path: Path, rounds: list[Round]) -> None:
    said: list[str] = []
    rounds += [lambda *all: all_of_it(*all, lacking=lambda number: number > 0)]
    journal, stop = search_on(tmp_path, said)
    assert stop.reason == "/data: No such file or directory (trial 1 has to wait for it)"
    assert stop.trouble
    assert [trial.status for trial in journal.trials.values()] == ["finished", "running"]  # none after it is begun
    assert len(said) == len(PAUSES)  # the first round brought a trial, and three more brought nothing

    rounds[:] = [all_of_it]  # the data is there again
    journal, stop = search_on(tmp_path, said, journal=Journal(journal.path))
    assert [trial.status for trial in journal.trials.values()] == ["finished"] * 3
    assert stop.reason is None


def test_a_trial_that_lacks_something_again_and_again_is_set_aside_and_the_others_go_on(
    tmp_path: Path, rounds: list[Round]
) -> None:
    def one_more(searcher: Any, scheduler: Any, watch: Any) -> None:
        """Trial 0 lacks something, while in each round another trial comes to its end."""
        all_of_it(searcher, scheduler, watch, lacking=lambda number: number == 0)
        number = journal.suggested("search", "", {}, journal.trials[0].config).number
        journal.ended(number, "finished")

    said: list[str] = []
    journal = Journal(tmp_path / "events.jsonl")
    rounds += [one_more]
    _, stop = search_on(tmp_path, said, trials=6, journal=journal)
    assert [trial.number for trial in journal.unfinished] == [0]
    assert stop.reason == "what these trials need could not be had, while others went on: 0"
    assert Journal(journal.path).waiting == Journal(journal.path).unfinished  # the next driver tries it again


@pytest.mark.parametrize("refusals", [1, 99])
def test_a_disk_that_is_too_full_for_the_journal_is_waited_for(
    tmp_path: Path, rounds: list[Round], monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    opened = Path.open

    def full(self: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        nonlocal refusals
        if self == journal.path and mode == "ab" and journal.trials and refusals > 0:
            refusals -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(self, mode, *more, **named)

    monkeypatch.setattr(Path, "open", full)
    said: list[str] = []
    rounds += [all_of_it]
    mended = refusals == 1
    _, stop = search_on(tmp_path, said, journal=journal)
    where = f"{journal.path}: No space left on device"
    assert said[0] == f"{where}. A new round begins in 0 s"
    assert stop.reason == (None if mended else where)
    assert len(journal.unfinished) == (0 if mended else 1)


def test_a_fault_of_the_search_itself_is_not_tried_again(tmp_path: Path, rounds: list[Round]) -> None:
    def faulty(searcher: Any, scheduler: Any, watch: Any) -> None:
        try:
            scheduler.on_trial_result(None, Asked({"number": 77}), {"status": "running"})
        except KeyError:
            raise RuntimeError("Traceback (most recent call last): ...") from None

    rounds += [faulty]
    with pytest.raises(KeyError):
        search_on(tmp_path, [])


def test_memory_is_held_against_a_trial_only_where_its_own_worker_had_most_of_it() -> None:
    words = (
        "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.1, ID: 62) was "
        "22.40GB used / 23.54GB limit (0.951572)\n... pid=25364, actual memory used={own}GB, worker ID=48b1]"
    )
    assert tuner._took_the_memory(words.format(own="11.30"))
    assert not tuner._took_the_memory(words.format(own="1.10"))
    assert not tuner._took_the_memory("killed due to the node running low on memory")


@pytest.mark.ray
@pytest.mark.slow
def test_data_that_goes_away_for_a_while_costs_no_trial(
    tmp_path: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner, "PAUSES", (0.0, 0.0, 0.0))
    space, said, journal = space_of(tmp_path).with_budget(trials=4), [], Journal(tmp_path / "events.jsonl")
    run_trials(
        tmp_path, journal, lambda: StudySearch(space, journal), lambda: JournalASHA(space, journal), Stop(journal, 1),
        Running(lacks_its_data, 1, 0, 2, said.append),
    )  # fmt: skip
    assert {trial.status for trial in journal.trials.values()} <= {"finished", "cut"}
    assert len(journal.trials) == 4
    assert "/mnt/data: no such folder" in said[0] or "/mnt/data/a.wav: Stale file handle" in said[0]
    assert said[0].endswith("A new round begins in 0 s")


def part_of_ray(driver: subprocess.Popen[str], named: str) -> psutil.Process:
    """The process of a driver's Ray whose command holds `named`."""
    for process in psutil.Process(driver.pid).children(recursive=True):
        if named in " ".join(process.cmdline()):
            return process
    raise AssertionError(f"no {named}")


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_that_loses_ray_goes_on_or_ends_at_once_and_decides_as_if_nothing_had_been(
    tmp_path: Path, ray_here: None
) -> None:
    whole, lost = tmp_path / "whole", tmp_path / "lost"
    whole.mkdir()
    run_here(whole, space_of(whole), concurrency=1)

    driver, said = start_driver(lost, "--seconds", "0.1"), ""
    for part, events in (("raylet/raylet", 12), ("gcs_server", 30)):
        wait_for_events(lost, events, driver)
        part_of_ray(driver, part).kill()
        assert driver.stdout is not None
        while "was lost" not in (line := driver.stdout.readline()):
            assert line, said
            said += line
        said += line
        if line.startswith("gave up"):  # lost in the moment in which Tune asks the control service, and waits for it
            assert driver.wait(timeout=60) == 1
            assert line == "gave up: Ray's control service (GCS) was lost\n"
            driver = start_driver(lost, "--seconds", "0.1")
        else:
            assert line.endswith("was lost. A new round begins in 2 s\n")
    assert driver.stdout is not None
    said += driver.stdout.read()
    assert driver.wait(timeout=60) == 0, said
    assert "Raylet is terminated" not in said

    assert story(lost) == story(whole)


@pytest.mark.ray
@pytest.mark.slow
def test_sigterm_to_the_whole_process_group_ends_the_search_with_130_within_seconds(tmp_path: Path) -> None:
    if os.getloadavg()[0] > 2 * allowed_cores():
        pytest.skip("this machine is too busy: there Ray may end the driver before the driver has ended the search")
    driver = start_driver(tmp_path, "--seconds", "0.3", "--concurrency", "2", alone=True)
    wait_for_events(tmp_path, 8, driver)
    began = time.monotonic()
    os.killpg(driver.pid, signal.SIGTERM)
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130, said
    assert time.monotonic() - began < 30
    assert "lost its worker" not in said
    assert Journal(tmp_path / "events.jsonl").unfinished
