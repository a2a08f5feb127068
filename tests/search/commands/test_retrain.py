"""What a sitting of `retrain` says and returns when it does not come to its end."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from search.commands import retrain as retraining
from search.commands import session
from search.mirror import mode as mirror_mode
from search.mirror.mirror import Mirror
from search.retrain import plan as retrain_plan
from search.retrain.jobs import Interrupted, TrainingFailed
from search.retrain.plan import RetrainOptions
from search.runs.journal import Journal
from search.runs.run import RunFolder, load_run
from search.tune.cluster import Machines
from search.tune.stop import Stop
from search.tune.tuner import Running
from tests.support.retrained import make_run
from trainable.errors import InputError

pytestmark = [pytest.mark.training, pytest.mark.slow]


@pytest.fixture
def run(tmp_path: Path, make_clips: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A search that can be retrained, on a machine that needs no Ray."""

    @contextmanager
    def connected(address: str | None) -> Iterator[Machines]:
        yield Machines(1, 2.0, 0.0)

    monkeypatch.setattr(retraining, "connected", connected)
    monkeypatch.setattr(retraining, "hide_gpus", lambda: None)  # this process has other tests to run
    return make_run(tmp_path / "run", make_clips(classes=3, clips=20, seconds=0.1))


def test_a_resumed_retraining_counts_every_training_once(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sitting(folder: Path, journal: Journal, make_search: Callable[[], retraining.JobSearch], *rest: Any) -> None:
        """The first begins a training and is killed, the second ends it."""
        if not journal.trials:
            make_search().suggest("first")
        else:
            journal.ended(0, "finished")

    monkeypatch.setattr(session, "run_trials", sitting)
    for _ in range(2):
        retraining.retrain_run(run.path, RetrainOptions(top=1, seeds=2), None, None)
    assert "finished after epoch 0 [1 of 4, " in capsys.readouterr().out  # two seeds of the best and of the baseline


def test_what_a_person_must_know_of_the_weights_is_in_the_header(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any) -> None:
        next(arg for arg in args if isinstance(arg, Stop)).request("interrupted")

    monkeypatch.setattr(session, "run_trials", interrupted)
    monkeypatch.setattr(
        retrain_plan, "resolve_weights", lambda *args: ({"resnet18": "none"}, (("resnet18", "imagenet"),))
    )
    events = run.path / "events.jsonl"
    lines = events.read_text().splitlines(keepends=True)
    lines[0] = lines[0].replace('"weights": "none"', '"weights": "auto"')  # the baseline's
    events.write_text("".join(lines))
    retraining.retrain_run(run.path, RetrainOptions(top=1, seeds=1), None, None)
    assert "no ImageNet weights for resnet18: simple starts from random weights" in capsys.readouterr().out


VIEW = "0 of 2: none yet"  # what only the live view says


@pytest.mark.parametrize("terminal", [False, True])
def test_warnings_stay_when_a_retraining_is_over(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    def interrupted(folder: Path, journal: Journal, search: Any, asha: Any, stop: Stop, running: Running) -> None:
        running.warn("trial 1 lost its worker for good")
        patience = time.monotonic() + 10
        while terminal and VIEW not in stream.getvalue() and time.monotonic() < patience:
            time.sleep(0.05)
        stop.request("interrupted")

    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("CI", "")
    monkeypatch.setattr(session, "run_trials", interrupted)
    monkeypatch.setattr(Mirror, "summary", "SwanLab: the disk is full")
    assert retraining.retrain_run(run.path, RetrainOptions(top=1, seeds=1), None, None) == 130
    text = stream.getvalue()
    assert (VIEW in text) is terminal
    stays = text[text.rindex(VIEW) :] if terminal else text  # the view's own warnings are above its counts
    assert "trial 1 lost its worker for good" in stays
    assert "SwanLab: the disk is full" in stays


def ends_with(error: Exception) -> Callable[..., Any]:
    def instead(*args: Any) -> Any:
        raise error

    return instead


def test_a_stopped_retraining_ends_with_130_and_the_command_that_goes_on(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retraining, "retrain", ends_with(Interrupted()))
    monkeypatch.setattr(sys, "argv", ["/somewhere/run_search.py", "retrain", "runs/my run", "--seeds", "2"])
    assert retraining.retrain_run(run.path, RetrainOptions(), None, None) == 130
    said = capsys.readouterr().out
    assert said == "Stopped. To go on from here: python run_search.py retrain 'runs/my run' --seeds 2\n"


def test_a_retraining_goes_on_where_the_cloud_that_auto_had_found_is_away(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = {"requested": "auto", "mode": "cloud", "project": "music"}
    (run.path / "run.json").write_text(json.dumps({**run.record, "mirror": mirror}))
    monkeypatch.setattr(mirror_mode, "check_login", lambda timeout: {"ok": False, "key": False, "problem": "away"})
    monkeypatch.setattr(retraining, "retrain", ends_with(Interrupted()))
    assert retraining.retrain_run(run.path, RetrainOptions(), None, None) == 130


def test_a_retraining_without_a_model_ends_with_1_and_its_reason(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retraining, "retrain", ends_with(TrainingFailed("no model came out: no GPU")))
    monkeypatch.setattr(sys, "argv", ["/somewhere/run_search.py", "retrain", "runs/my run"])
    assert retraining.retrain_run(run.path, RetrainOptions(), None, None) == 1
    said = capsys.readouterr().err
    assert said == "no model came out: no GPU\nTo try again: python run_search.py retrain 'runs/my run'\n"


def test_each_sitting_tries_what_failed_once(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_fail(folder: Path, journal: Journal, make_search: Callable[[], retraining.JobSearch], *rest: Any) -> None:
        for _ in range(2):  # rounds, as after lost workers
            search = make_search()
            while isinstance(trial := search.suggest("some"), dict):
                journal.ended(trial["number"], "failed", "no weights")

    monkeypatch.setattr(session, "run_trials", all_fail)
    for sitting in (1, 2):
        assert retraining.retrain_run(run.path, RetrainOptions(top=1, seeds=1), None, None) == 1
        assert len(load_run(run.path / "retrained").trials) == 2 * sitting


def test_a_retraining_without_the_gpu_that_its_search_had_says_so_before_it_trains(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = run.path / "events.jsonl"
    events.write_text(events.read_text().replace('"device": "auto"', '"device": "cuda"'))
    monkeypatch.setattr(session, "run_trials", ends_with(AssertionError("trained")))
    with pytest.raises(InputError, match=r"run: trial 1: device: must be there, got 'cuda' and no GPU. Use auto or"):
        retraining.retrain_run(run.path, RetrainOptions(top=1, seeds=1), None, None)


def test_every_machine_is_asked_for_the_weights_that_the_retraining_wants(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"resnet34": "imagenet", "resnet18": "none"}
    asked: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(retrain_plan, "resolve_weights", lambda *args: (wanted, ()))
    monkeypatch.setattr(
        retraining, "check_every_node", lambda run, machines: asked.append((run.name, run.record["weights"]))
    )
    monkeypatch.setattr(retraining, "_run_jobs", ends_with(Interrupted()))
    retraining.retrain_run(run.path, RetrainOptions(top=1, seeds=1), None, None)
    assert asked == [("retrained", wanted)]


@pytest.mark.parametrize(("gpu", "hidden"), [(0.0, 1), (1.0, 0)])
def test_a_retraining_without_gpus_scores_without_one_too(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, gpu: float, hidden: int
) -> None:
    @contextmanager
    def connected(address: str | None) -> Iterator[Machines]:
        yield Machines(1, 2.0, 1.0)

    space = {**run.record["space"], "resources": {"gpu": gpu, "cpu": 1.0}}
    (run.path / "run.json").write_text(json.dumps({**run.record, "space": space}))
    calls: list[int] = []
    monkeypatch.setattr(retraining, "connected", connected)
    monkeypatch.setattr(retraining, "hide_gpus", lambda: calls.append(1))
    monkeypatch.setattr(retraining, "retrain", ends_with(Interrupted()))
    retraining.retrain_run(run.path, RetrainOptions(), None, None)
    assert len(calls) == hidden
