"""The mirror with the real SwanLab in local mode: everything is there once, whatever is killed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from search.mirror import pool as mirror_pool
from search.mirror.mirror import Mirror, replay
from search.mirror.mode import ResolvedMode
from search.runs.run import RunFolder
from tests.support.mirrored import (
    METRICS,
    children,
    curve,
    epoch_result,
    kill,
    make_run,
    opened,
    reopen,
    shown,
    suggest,
    train,
    until,
)
from trainable.errors import InputError

pytestmark = [pytest.mark.process, pytest.mark.slow]

LOCAL = ResolvedMode("local", "")
RUNNING, FINISHED, CRASHED = 0, 1, -1  # as SwanLab's database has them


@pytest.fixture(autouse=True)
def nobody_is_left_behind() -> Iterator[None]:
    yield
    until(lambda: not children())


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run")


@pytest.fixture
def mirroring(nobody_is_left_behind: None) -> Iterator[Callable[..., Mirror]]:
    """A function that starts a mirror listening to a run; it is closed after the test in any case."""
    mirrors: list[Mirror] = []

    def start(run: RunFolder, mode: ResolvedMode = LOCAL, concurrency: int = 1, hung_s: float | None = None) -> Mirror:
        mirrors.append(Mirror(run, mode, concurrency, hung_s=hung_s))
        run.journal.listen(mirrors[-1].on_event)
        return mirrors[-1]

    yield start
    for mirror in mirrors:
        mirror.close(timeout=0)


def started(run: RunFolder, trials: int, metrics: int = 0) -> bool:
    """Whether so many experiments are open in SwanLab."""
    return opened(run.path / "swanlog", metrics) >= trials


def assert_all_is_shown(run: RunFolder, **expected: int) -> None:
    """Every trial exactly once, with its whole curve and the expected number per status."""
    found = shown(run.path / "swanlog")
    assert [experiment["key"] for experiment in found.values()] == [f"trial_{t.number:04d}" for t in run.trials]
    for trial, experiment in zip(run.trials, found.values(), strict=True):
        assert experiment["curves"].get("val/acc", {}) == curve(run, trial.number)
    statuses = [experiment["status"] for experiment in found.values()]
    counted = {"running": statuses.count(RUNNING), "finished": statuses.count(FINISHED),
               "crashed": statuses.count(CRASHED)}  # fmt: skip
    assert counted == {"running": 0, "finished": 0, "crashed": 0, **expected}


def test_four_trials_that_start_at_one_moment_all_appear_with_all_they_have(
    run: RunFolder, mirroring: Callable[..., Mirror]
) -> None:
    mirror = mirroring(run, concurrency=4)
    numbers = [suggest(run, kind="baseline", name="tutorial-simple"), *(suggest(run) for _ in range(3))]
    for epoch in range(1, 4):
        for number in numbers:
            train(run, number, upto=epoch)
    until(lambda: started(run, 4, metrics=7))
    assert [e["status"] for e in shown(run.path / "swanlog").values()] == [RUNNING] * 4  # live, not at the end
    for number, status in zip(numbers, ["finished", "cut", "failed", "out_of_memory"], strict=True):
        run.journal.ended(number, status, "the reason")  # type: ignore[arg-type]
    mirror.close()
    assert (mirror.warnings, mirror.last_warning, mirror.summary) == (0, "", "")
    assert_all_is_shown(run, finished=2, crashed=2)
    first, *_, last = shown(run.path / "swanlog").items()
    assert first[0] == "000 tutorial-simple resnet18 224px lr 1.3e-4"
    assert list(first[1]["curves"]) == list(METRICS)  # a chart with a single dot says nothing that the table does not
    config = (run.path / "swanlog" / last[1]["key"] / "files" / "config.yaml").read_text()
    assert "out of memory: the reason" in config


def test_a_killed_child_is_replaced_and_its_trial_appears_once_with_its_whole_curve(
    run: RunFolder, mirroring: Callable[..., Mirror]
) -> None:
    mirror = mirroring(run)
    suggest(run)
    train(run, 0, upto=2)
    until(lambda: started(run, 1))
    (child,) = children()
    kill(child)
    until(lambda: children() not in ([], [child]))
    train(run, 0, upto=4)
    run.journal.ended(0, "finished")
    mirror.close()
    assert_all_is_shown(run, finished=1)
    assert mirror.warnings == 1
    assert "its process died" in mirror.last_warning
    assert mirror.summary == f"SwanLab: {mirror.last_warning}"


def test_a_child_that_hangs_is_ended_and_replaced_and_holds_up_nobody(
    run: RunFolder, mirroring: Callable[..., Mirror]
) -> None:
    mirror = mirroring(run, hung_s=6.0)
    suggest(run)
    until(lambda: started(run, 1))
    (child,) = children()
    os.kill(child, signal.SIGSTOP)
    for number in (0, suggest(run), suggest(run)):
        train(run, number, upto=1)
    for trial in run.trials:
        run.journal.ended(trial.number, "finished")
    mirror.close(timeout=60)
    assert_all_is_shown(run, finished=3)
    assert "said nothing for 6 s" in mirror.last_warning


DRIVER = """
import sys, time
from pathlib import Path
from search.mirror import pool
from search.mirror.mirror import Mirror
from search.mirror.mode import ResolvedMode
pool.EXTRA_AFTER_S = 0.0
from tests.support.mirrored import make_run, suggest, train
run = make_run(Path(sys.argv[1]))
mirror = Mirror(run, ResolvedMode("local", ""), 2)
run.journal.listen(mirror.on_event)
for _ in range(3):
    suggest(run)
train(run, 0, upto=3)
run.journal.ended(0, "finished")
train(run, 1, upto=2)
while True:
    time.sleep(1)
"""


def test_a_killed_driver_leaves_nothing_running_and_a_resume_shows_every_trial_once(
    tmp_path: Path, mirroring: Callable[..., Mirror]
) -> None:
    path = tmp_path / "run"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(path)], cwd=Path(__file__).parents[3])
    try:
        until(lambda: (path / "swanlog" / "trial_0000" / "mirrored").exists())
        until(lambda: opened(path / "swanlog") == 3)
        orphans = children(driver.pid)
        assert len(orphans) == 3
    finally:
        driver.kill()
        driver.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
    assert RUNNING not in [experiment["status"] for experiment in shown(path / "swanlog").values()]

    run = make_run(path)  # the resume
    mirror = mirroring(run, concurrency=2)
    train(run, 1, upto=4)
    train(run, 2, upto=2)
    run.journal.ended(1, "cut")
    run.journal.ended(2, "diverged", "the loss became NaN")
    mirror.close()
    assert_all_is_shown(run, finished=2, crashed=1)
    assert mirror.warnings == 0


def test_a_trial_whose_worker_was_killed_while_it_wrote_goes_on_in_its_curve(
    run: RunFolder, mirroring: Callable[..., Mirror]
) -> None:
    mirror = mirroring(run)
    suggest(run)
    train(run, 0, upto=2)
    until(lambda: started(run, 1, metrics=7))
    history = run.epochs(run.trials[0])
    with run.folder(run.trials[0]).epochs_file.open("a") as file:
        file.write('{"epoch": 3, "train_l')
    run.folder(run.trials[0]).recover(history)  # as the restarted worker does: another file of the same name
    train(run, 0, upto=4)
    run.journal.ended(0, "finished")
    mirror.close()
    assert_all_is_shown(run, finished=1)
    assert mirror.warnings == 0


def test_an_interrupted_search_closes_what_runs_and_takes_it_up_again(
    run: RunFolder, mirroring: Callable[..., Mirror]
) -> None:
    mirror = mirroring(run)
    suggest(run)
    train(run, 0, upto=1)
    until(lambda: started(run, 1))
    suggest(run)  # may or may not have begun when the search is interrupted
    mirror.close()
    assert {e["status"] for e in shown(run.path / "swanlog").values()} == {CRASHED}
    again = reopen(run)
    mirror = mirroring(again, concurrency=2)
    for number in (0, 1):
        train(again, number, upto=3)
        again.journal.ended(number, "finished")
    mirror.close()
    assert_all_is_shown(again, finished=2)


def test_a_full_disk_costs_a_warning_and_the_trial_is_mirrored_when_there_is_room_again(
    run: RunFolder, mirroring: Callable[..., Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_pool, "PAUSE_S", 0.1)
    mirror = mirroring(run)
    suggest(run)
    until(lambda: started(run, 1))
    (child,) = children()
    resource.prlimit(child, resource.RLIMIT_FSIZE, (100, 100))  # no file may grow beyond 100 bytes in this child
    train(run, 0, upto=3)
    run.journal.ended(0, "finished")
    mirror.close()
    assert mirror.warnings >= 1
    assert_all_is_shown(run, finished=1)


def test_without_a_place_to_write_the_search_goes_on_and_a_replay_makes_up_for_it(
    run: RunFolder, mirroring: Callable[..., Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_pool, "PAUSE_S", 0.1)
    (run.path / "swanlog").write_text("in the way")
    mirror = mirroring(run, concurrency=2)
    for number in (suggest(run), suggest(run)):
        train(run, number, upto=3)
        run.journal.ended(number, "finished")
    mirror.close()
    assert mirror.warnings >= 2
    assert f"2 trials are not mirrored in full: python run_search.py mirror {run.path}" in mirror.last_warning
    assert mirror.summary == f"SwanLab: {mirror.warnings} warnings, the last: {mirror.last_warning}"

    (run.path / "swanlog").unlink()
    done = replay(run.path, LOCAL)
    assert (done.mirrored, done.before, done.failed) == (2, 0, 0)
    assert_all_is_shown(run, finished=2)
    again = replay(run.path, LOCAL)
    assert (again.mirrored, again.before, again.failed) == (0, 2, 0)
    assert_all_is_shown(run, finished=2)


def test_a_replay_shows_the_retraining_too_even_where_nothing_was_validated(run: RunFolder) -> None:
    suggest(run)
    run.journal.ended(0, "finished")
    retrained = make_run(run.path / "retrained")
    suggest(retrained, kind="retrain", name="trial 0, seed 1", train_on="all")
    for epoch in (1, 2):
        result = replace(epoch_result(0, epoch), val_acc=0.0, val_loss=0.0)  # as training writes them
        retrained.folder(retrained.trials[0]).append(result)
    retrained.journal.ended(0, "finished")
    done = replay(run.path, LOCAL)
    assert (done.mirrored, done.failed, done.problem) == (2, 0, "")
    name, experiment = shown(run.path / "swanlog").popitem()
    assert name == "retrain 000 trial 0, seed 1 resnet18 224px lr 1.3e-4"
    assert "val/acc" not in experiment["curves"]
    assert len(experiment["curves"]["train/loss"]) == 2


def test_a_replay_beside_a_running_search_leaves_its_trials_to_it(
    run: RunFolder, mirroring: Callable[..., Mirror]
) -> None:
    mirror = mirroring(run)
    suggest(run)
    train(run, 0, upto=1)
    until(lambda: started(run, 1))
    done = replay(run.path, LOCAL)
    assert (done.mirrored, done.failed) == (0, 0)
    train(run, 0, upto=3)
    run.journal.ended(0, "finished")
    mirror.close()
    assert_all_is_shown(run, finished=1)


def test_a_trial_without_an_epoch_appears_too(run: RunFolder, mirroring: Callable[..., Mirror]) -> None:
    mirror = mirroring(run)
    suggest(run)
    run.journal.ended(0, "failed", "no such backbone")
    mirror.close()
    assert_all_is_shown(run, crashed=1)
    assert mirror.warnings == 0


def test_off_starts_nothing_and_a_replay_needs_a_place(run: RunFolder, mirroring: Callable[..., Mirror]) -> None:
    mirror = mirroring(run, ResolvedMode("off", ""))
    suggest(run)
    mirror.close()
    assert not (run.path / "swanlog").exists()
    assert mirror.warnings == 0
    with pytest.raises(InputError, match="--swanlab"):
        replay(run.path, ResolvedMode("off", ""))


def test_an_event_that_makes_no_sense_is_a_warning_and_not_the_end_of_the_search(
    run: RunFolder, mirroring: Callable[..., Mirror]
) -> None:
    mirror = mirroring(run)
    mirror.on_event({"event": "ended", "trial": 99})
    mirror.close()
    assert mirror.warnings == 1
    assert "trial 99" in mirror.last_warning
