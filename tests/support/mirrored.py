"""Runs to be mirrored, and what SwanLab's local store says of them, read without any of the code under test."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from search.runs.journal import Journal
from search.runs.run import RunFolder, trial_folder
from trainable.features.picture import png
from trainable.files import write_atomically
from trainable.training.trial_folder import Answers, EpochResult, TrialFolder

METRICS = ["val/acc", "val/loss", "train/acc", "train/loss", "train/lr", "train/epoch", "epoch/seconds"]
CONFIG = {"data": "demo", "backbone": "resnet18", "image_size": 224, "lr": 1.3e-4, "epochs": 20, "f_max": None}


def make_run(path: Path, trials: int = 0, grace_epochs: int = 2) -> RunFolder:
    """A run folder with so many trials begun and nothing trained yet."""
    path.mkdir(parents=True, exist_ok=True)
    record = {
        "space": {
            "budget": {"grace_epochs": grace_epochs, "trials": 16},
            "search": {"lr": {"loguniform": [1e-5, 1e-2]}, "mixup": {"choice": [0.0], "when": {"lr": [7.0]}}},
        },
        "data": {"name": "demo"}, "created": "2026-01-01T00:00:00",
    }  # fmt: skip
    (path / "run.json").write_text(json.dumps(record))
    run = RunFolder(path, record, Journal(path / "events.jsonl"))
    for _ in range(trials):
        suggest(run)
    return run


def reopen(run: RunFolder) -> RunFolder:
    """The run as another process sees it."""
    return RunFolder(run.path, run.record, Journal(run.path / "events.jsonl"))


def suggest(run: RunFolder, kind: Any = "search", name: str = "", **config: Any) -> int:
    """Begins a trial and returns its number."""
    params = {"lr": config.get("lr", CONFIG["lr"])} if kind == "search" else {}
    trial = run.journal.suggested(kind, name, params, {**CONFIG, **config})
    folder(run, trial.number).write_config(trial.config)
    return trial.number


def train(run: RunFolder, number: int, upto: int, decision: str = "continue") -> None:
    """Finishes epochs of a trial until it has `upto` of them."""
    for epoch in range(len(folder(run, number).epochs()) + 1, upto + 1):
        result = epoch_result(number, epoch)
        folder(run, number).append(result)
        run.journal.reported(number, epoch, result.val_acc, result.val_loss, decision if epoch == upto else "continue")


def picture(run: RunFolder, number: int, epoch: int = 1) -> None:
    """Leaves in a trial's folder what is shown of it besides its curve."""
    gray = np.arange(60, dtype=np.uint8).reshape(6, 10) + number
    write_atomically(folder(run, number).mel_file, png(gray))
    folder(run, number).write_answers(Answers(epoch, ["blues", "rock"], [0, 0, 1], [0, 1, 1]))


def epoch_result(number: int, epoch: int) -> EpochResult:
    """An epoch that no other trial has like it."""
    rise = 1 - math.exp(-epoch / (2 + number % 5))
    return EpochResult(epoch, 2 - rise, 0.9 * rise, 2.1 - rise, 0.5 * rise + number / 100, 1e-4, 0.5)


def folder(run: RunFolder, number: int) -> TrialFolder:
    """Where a trial keeps its files."""
    return trial_folder(run.path, number)


def shown(log_dir: Path) -> dict[str, dict[str, Any]]:
    """What the local pages have, by experiment name: status, and the values of each metric by step."""
    database = sqlite3.connect(f"file:{log_dir / 'runs.swanlab'}?mode=ro", uri=True)
    found: dict[str, dict[str, Any]] = {}
    for ident, name, run_id, status, description in database.execute(
        "SELECT id, name, run_id, status, description FROM experiment ORDER BY name"
    ):
        assert name not in found
        curves: dict[str, dict[int, float]] = {}
        for metric, place, sort in database.execute(
            "SELECT name, folder, sort FROM tag WHERE experiment_id = ? ORDER BY sort", (ident,)
        ):
            assert place == str(sort)  # or the table of the local page shows one metric under another's name
            lines = [json.loads(line) for file in sorted((log_dir / run_id / "logs" / place).glob("*.log"))
                     for line in file.read_text().splitlines()]  # fmt: skip
            assert len({line["index"] for line in lines}) == len(lines)
            curves[metric] = {line["index"]: line["data"] for line in lines}
        found[name] = {"status": status, "curves": curves, "key": run_id, "description": description}
    charts = [name for (name,) in database.execute("SELECT name FROM chart WHERE project_id IS NOT NULL")]
    assert len(charts) == len(set(charts))  # or one metric's trials are spread over several charts
    database.close()
    return found


def console(log_dir: Path, key: str) -> list[str]:
    """What the local pages show as the log of an experiment, without SwanLab's own lines."""
    lines = [
        line for file in sorted((log_dir / key / "console").glob("2*.log")) for line in file.read_text().splitlines()
    ]
    return [line for line in lines if not line.startswith(("swanlab:", "Experiment Dashboard"))]


def opened(log_dir: Path, metrics: int = 0) -> int:
    """How many experiments the local pages have with at least so many metrics each, at any moment of their making."""
    if not (log_dir / "runs.swanlab").exists():
        return 0
    database = sqlite3.connect(f"file:{log_dir / 'runs.swanlab'}?mode=ro", uri=True)
    try:
        return len(
            database.execute(
                "SELECT id FROM experiment WHERE (SELECT COUNT(*) FROM tag WHERE experiment_id = experiment.id) >= ?",
                (metrics,),
            ).fetchall()
        )
    except sqlite3.OperationalError:  # its tables are being made
        return 0
    finally:
        database.close()


def curve(run: RunFolder, number: int) -> dict[int, float]:
    """The validation accuracies of a trial by epoch, as its folder has them."""
    return {epoch.epoch: epoch.val_acc for epoch in folder(run, number).epochs()}


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Waits for something to become true; says so where it does not."""
    patience = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < patience, "it did not happen in time"
        time.sleep(0.05)


def children(pid: int | None = None) -> list[int]:
    """The ids of the mirror's child processes of a driver, this process if none is named."""
    parent, found = str(pid or os.getpid()), []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(") ", 1)[1].split()
            command = (stat.parent / "cmdline").read_text()
        except OSError:  # it has ended meanwhile
            continue
        if fields[1] == parent and "search.mirror.worker" in command and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)
