from __future__ import annotations

import errno
import itertools
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.tune import actor as actor_module
from search.tune.actor import STOP_FILE, TrialActor
from tests.support.simulated import train
from trainable.config import TrialConfig
from trainable.errors import OutOfMemory, Unavailable
from trainable.training.trial_folder import EpochResult, TrialFolder


class Actor(TrialActor):
    """The trainable without Ray around it."""

    def __init__(self, values: dict[str, Any], train: Any) -> None:
        self.setup(values, train)


def trial(folder: Path, **values: Any) -> dict[str, Any]:
    config = TrialConfig.parse({"weights": "none", "epochs": 3, "backbone": "resnet18", **values})
    return {"number": 0, "folder": str(folder), "config": config.to_json()}


def steps(actor: TrialActor) -> list[tuple[int, str]]:
    """The epoch and status of every report until the trial has ended."""
    seen = []
    while not seen or seen[-1][1] == "running":
        result = actor.step()
        seen.append((result["epoch"], result["status"]))
    return seen


def test_every_epoch_is_reported_and_the_last_one_is_the_end(tmp_path: Path) -> None:
    assert steps(Actor(trial(tmp_path / "one"), train)) == [(1, "running"), (2, "running"), (3, "finished")]


def test_a_restarted_trial_repeats_what_its_folder_holds_and_goes_on(tmp_path: Path) -> None:
    first = Actor(trial(tmp_path / "one"), train)
    first.step()
    first.step()
    first.cleanup()
    assert steps(Actor(trial(tmp_path / "one"), train)) == [(1, "running"), (2, "running"), (3, "finished")]
    assert [epoch.epoch for epoch in TrialFolder(tmp_path / "one").epochs()] == [1, 2, 3]


def test_the_last_epoch_is_reported_although_a_kill_kept_it_out_of_epochs_jsonl(tmp_path: Path) -> None:
    """A checkpoint is written before its line; `train` adds the line when it is resumed, and has nothing more to do."""
    (tmp_path / "one").mkdir()
    list(train(TrialConfig.parse(trial(tmp_path)["config"]), folder=tmp_path / "one"))
    lines = (tmp_path / "one" / "epochs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "one" / "epochs.jsonl").write_text("".join(lines[:2]))

    def recover(config: TrialConfig, folder: Path, resume: bool, progress: Any) -> Iterator[EpochResult]:
        (folder / "epochs.jsonl").write_text("".join(lines))
        yield from ()

    assert steps(Actor(trial(tmp_path / "one"), recover)) == [(1, "running"), (2, "running"), (3, "finished")]


def test_a_trial_that_stops_early_has_finished(tmp_path: Path) -> None:
    def two(config: TrialConfig, folder: Path, resume: bool, progress: Any) -> Iterator[EpochResult]:
        epochs = train(config, folder=folder)
        yield next(epochs)
        yield next(epochs)

    assert steps(Actor(trial(tmp_path / "one"), two)) == [(1, "running"), (2, "running"), (2, "finished")]


@pytest.mark.parametrize(
    ("lr", "status", "message"),
    [
        (0.45, "failed", "RuntimeError: a bug that only this configuration meets"),
        (0.6, "diverged", "the loss became nan in epoch 1"),
    ],
)
def test_what_a_configuration_does_wrong_is_a_report_and_not_an_exception(
    tmp_path: Path, lr: float, status: str, message: str
) -> None:
    actor = Actor(trial(tmp_path / "one", lr=lr), train)
    result = actor.step()
    assert (result["status"], result["message"], result["val_acc"]) == (status, message, 0.0)
    assert (tmp_path / "one" / "error.txt").exists() == (status == "failed")


def test_a_failure_is_reported_although_its_traceback_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "one" / "error.txt").mkdir(parents=True)  # a folder where the file should be
    result = Actor(trial(tmp_path / "one", lr=0.45), train).step()
    assert (result["status"], result["val_acc"]) == ("failed", 0.0)
    assert result["message"].startswith("RuntimeError: a bug that only this configuration meets")
    assert result["message"].endswith(" (its traceback could not be written to error.txt: Is a directory)")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/runs/last.pt"), "/runs/last.pt: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (ConnectionResetError("by peer"), "by peer"),
        (Unavailable("/mnt/data: no such folder"), "/mnt/data: no such folder"),
        (
            ModuleNotFoundError("No module named 'timm'"),
            f"No module named 'timm': must be installed where trials run, in {sys.prefix} on {socket.gethostname()}",
        ),
    ],
)
def test_what_lies_outside_of_a_configuration_is_not_its_failure(
    tmp_path: Path, error: Exception, message: str
) -> None:
    def lacking(config: TrialConfig, folder: Path, resume: bool, progress: Any) -> Iterator[EpochResult]:
        yield from itertools.islice(train(config, folder=folder), 1)
        raise error

    actor = Actor(trial(tmp_path / "one"), lacking)
    assert actor.step()["status"] == "running"
    result = actor.step()
    assert (result["status"], result["message"]) == ("unavailable", message)
    assert not (tmp_path / "one" / "error.txt").exists()


def test_a_trial_that_is_tried_again_keeps_no_traceback_of_its_failure(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "error.txt").write_text("Traceback ...")
    assert Actor(trial(tmp_path / "one"), train).step()["status"] == "running"
    assert not (tmp_path / "one" / "error.txt").exists()


def test_two_workers_never_train_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_module, "LEAVING_S", 0.1)
    first, second = Actor(trial(tmp_path / "one"), train), Actor(trial(tmp_path / "one"), train)
    first.step()
    result = second.step()
    assert result["status"] == "unavailable"
    assert "must be one process's, got another one that trains there" in result["message"]
    first.reset_config(trial(tmp_path / "two"))
    second.reset_config(trial(tmp_path / "one"))
    assert steps(second)[-1] == (3, "finished")


class AcceleratorError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (AcceleratorError("device-side assert triggered"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (OutOfMemory("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA error: said by something else"), False),
    ],
)
def test_a_worker_that_has_lost_its_gpu_reports_the_trial_and_ends_its_process_at_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, ends: bool
) -> None:
    def breaks(config: TrialConfig, folder: Path, resume: bool, progress: Any) -> Iterator[EpochResult]:
        if folder.name == "one":
            raise error
        yield from train(config, folder=folder)

    def exits(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr("search.tune.actor.os._exit", exits)
    actor = Actor(trial(tmp_path / "one"), breaks)
    assert steps(actor)[-1][1] in ("failed", "out_of_memory")
    assert actor.reset_config(trial(tmp_path / "two"))
    if ends:
        with pytest.raises(SystemExit):
            actor.step()
        assert not (tmp_path / "two").exists()
    else:
        assert steps(actor)[-1] == (3, "finished")


def test_a_reused_worker_ends_the_old_trial_and_begins_the_new_one(tmp_path: Path) -> None:
    closed = []

    def watched(config: TrialConfig, folder: Path, resume: bool, progress: Any) -> Iterator[EpochResult]:
        try:
            yield from train(config, folder=folder)
        finally:
            closed.append(folder.name)

    actor = Actor(trial(tmp_path / "one"), watched)
    actor.step()
    assert actor.reset_config(trial(tmp_path / "two"))
    assert closed == ["one"]
    assert steps(actor) == [(1, "running"), (2, "running"), (3, "finished")]
    assert (tmp_path / "two" / "config.json").exists()
    actor.cleanup()
    assert closed == ["one", "two"]


def test_a_trial_stops_between_batches_when_the_driver_asks_for_it(tmp_path: Path) -> None:
    def patient(config: TrialConfig, folder: Path, resume: bool, progress: Any) -> Iterator[EpochResult]:
        yield from train(config, folder=folder, progress=progress, seconds=0.2)

    actor = Actor(trial(tmp_path / "one"), patient)
    (tmp_path / STOP_FILE).touch()
    assert actor.step()["status"] == "interrupted"
