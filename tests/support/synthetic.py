"""Run folders that no search has written: through the same journal and trial folders, at a clock of their own."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import optuna
import soundfile
import torch

from search.runs.journal import Journal, Trial
from search.runs.run import RunFolder, load_run, trial_folder
from search.space.load import load_space
from search.space.space import Space
from trainable.data.dataset import Dataset, load_dataset
from trainable.data.split import split_dataset
from trainable.training.trial_folder import EpochResult

SPACE = """
fixed: {epochs: 9, weights: none}
search:
  backbone: {choice: [resnet18, mobilenet_v3_small, densenet121]}
  image_size: {choice: [64, 96, 128]}
  optimizer: {choice: [adam, adamw, sgd]}
  lr: {loguniform: [1.0e-5, 1.0e-1]}
  momentum: {uniform: [0.5, 0.99], when: {optimizer: sgd}}
  weight_decay: {loguniform: [1.0e-6, 1.0e-2], when: {optimizer: [adamw, sgd]}}
  schedule: {choice: [constant, step, cosine]}
  step_size: {randint: [2, 8], when: {schedule: step}}
  mixup: {quniform: [0.0, 0.8, 0.1]}
baselines: [tutorial-simple]
budget: {trials: 40, grace_epochs: 1, reduction_factor: 3}
"""
START = 1_700_000_000.0
CEILING = {"resnet18": 0.86, "mobilenet_v3_small": 0.80, "densenet121": 0.89}


@contextmanager
def at(clock: list[float]) -> Iterator[None]:
    """Within it the journal believes that it is `clock[0]`."""
    with mock.patch("search.runs.journal.time.time", side_effect=lambda: clock[0]):
        yield


def make_space(folder: Path, text: str = SPACE) -> Space:
    """The space in `text`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    return load_space(folder / "space.yaml")


def write_record(path: Path, space: Space, labels: Sequence[str], **changes: Any) -> None:
    """The run folder at `path`, with nothing but its run.json."""
    path.mkdir(parents=True, exist_ok=True)
    record = {
        "command": ["run_search.py", "--space", "spaces/my space.yaml", "--data", "demo"],
        "created": "2026-01-02T03:04:05+0000",
        "space": space.to_json(),
        "data": {"path": "demo", "name": "demo", "hash": "d47a", "clips": 200, "labels": list(labels), "rejected": 1},
        "split": {"name": "stratified", "hash": "5b17", "train": 120, "val": 40, "test": 40, "notes": []},
        "seed": 42,
        "versions": {"python": "3.11", "torch": "2.11", "optuna": "5.0"},
        "git_commit": "0123abcd",
        "hardware": {"nodes": 1, "cpus": 8, "gpus": 1},
        "weights": {"resnet18": "none"},
        "mirror": {"mode": "off"},
        **changes,
    }
    data = Path(str(record["data"]["path"]))  # type: ignore[index]
    if "split" not in changes and data.exists():
        split = split_dataset(load_dataset(str(data)), space.default_config())
        record["split"]["hash"] = split.hash  # type: ignore[index]
    (path / "run.json").write_text(json.dumps(record), encoding="utf-8")


def make_run(
    path: Path, trials: int = 40, workers: int = 3, text: str = SPACE, stop: int | None = None,
    labels: Sequence[str] = ("blues", "jazz", "rock"), seed: int = 0, **changes: Any,
) -> RunFolder:  # fmt: skip
    """A run with conditional settings, cuts, failures and a baseline; after `stop` epochs it is killed."""
    space = make_space(path.parent / f"{path.name}-space", text)
    write_record(path, space, labels, **changes)
    clock = [START]
    with at(clock):
        _Simulation(path, space, clock, seed).play(trials, workers, stop)
    return load_run(path)


class _Simulation:
    """Trials on workers at a made-up pace, cut at rungs as ASHA cuts them."""

    def __init__(self, path: Path, space: Space, clock: list[float], seed: int) -> None:
        self.path, self.space, self.clock = path, space, clock
        self.journal = Journal(path / "events.jsonl")
        self.rng = np.random.default_rng(seed)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        self.seen: dict[int, list[float]] = {}

    def play(self, trials: int, workers: int, stop: int | None) -> None:
        self.journal.session(command=["run_search.py"])
        queue: list[tuple[float, int]] = []
        epochs = 0
        while True:
            while len(queue) < workers and len(self.journal.trials) < trials:
                heapq.heappush(queue, (self.clock[0] + self._seconds(self._suggest()), len(self.journal.trials) - 1))
            if not queue:
                break
            self.clock[0], number = heapq.heappop(queue)
            trial = self.journal.trials[number]
            self._epoch(trial)
            epochs += 1
            if stop is not None and epochs >= stop:
                return
            if not trial.over:
                heapq.heappush(queue, (self.clock[0] + self._seconds(trial), number))
        self.journal.stopped("budget")

    def _suggest(self) -> Trial:
        number = len(self.journal.trials)
        if number < len(self.space.baselines):
            baseline = self.space.baselines[number]
            return self.journal.suggested("baseline", baseline.name, baseline.params or {}, baseline.values)
        params = self.space.suggest(self.study.ask())
        return self.journal.suggested("search", "", params, self.space.config(params).to_json())

    def _seconds(self, trial: Trial) -> float:
        size = float(trial.config["image_size"])
        return (2 + (size / 64) ** 2 * CEILING.get(trial.config["backbone"], 1.0)) * self.rng.uniform(0.8, 1.2)

    def _epoch(self, trial: Trial) -> None:
        epoch, config = len(trial.reports) + 1, trial.config
        if config["lr"] > 0.04:
            message = "the loss became nan in epoch 1" if config["optimizer"] != "adam" else "RuntimeError: <b>bug</b>"
            return self.journal.ended(trial.number, "diverged" if "nan" in message else "failed", message)
        if config["image_size"] == 128 and config["backbone"] == "densenet121":
            return self.journal.ended(trial.number, "out_of_memory", "no room for batch 16 at 128 px")
        ceiling = CEILING.get(config["backbone"], 0.8) - 0.08 * math.log10(config["lr"] / 1e-3) ** 2
        value = 0.3 + (max(ceiling, 0.32) - 0.3) * (1 - math.exp(-epoch / 2.5)) + self.rng.normal(0, 0.01)
        value = round(min(max(value, 0.0), 1.0) * 40) / 40
        result = EpochResult(
            epoch,
            2 * (1 - value),
            min(1.0, value + 0.05),
            2 * (1.02 - value),
            value,
            config["lr"],
            self._seconds(trial),
        )
        folder = trial_folder(self.path, trial.number)
        if epoch == 1:
            folder.write_config(config)
        folder.append(result)
        cut = trial.kind == "search" and self._cuts(epoch, value)
        self.journal.reported(trial.number, epoch, value, result.val_loss, "cut" if cut else "continue")
        if cut or epoch == config["epochs"]:
            self.journal.ended(trial.number, "cut" if cut else "finished")

    def _cuts(self, epoch: int, value: float) -> bool:
        if epoch not in (1, 3):
            return False
        before = self.seen.setdefault(epoch, [])
        before.append(value)
        return value < np.quantile(before, 2 / 3)


def write_clips(folder: Path, labels: Sequence[str], clips: int = 6, seconds: float = 0.6, rate: int = 8000) -> Dataset:
    """A data set of `clips` tones per label."""
    time = np.arange(int(seconds * rate)) / rate
    for number, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for index in range(clips):
            wave = 0.3 * np.sin(2 * np.pi * 300 * 1.4**number * (1 + index / 50) * time)
            soundfile.write(folder / label / f"clip {index}.wav", wave, rate, subtype="PCM_16")
    return load_dataset(str(folder))


def data_record(dataset: Dataset) -> dict[str, Any]:
    """What run.json says of a data set."""
    return {
        "path": dataset.root, "name": dataset.name, "hash": dataset.hash, "clips": len(dataset.clips),
        "labels": list(dataset.labels), "rejected": 0,
    }  # fmt: skip


def add_result(run: RunFolder, **changes: Any) -> None:
    """Gives `run` the least that `retrained/result.json` may hold, and `changes`."""
    result = {
        "measured_on": "test", "accuracy": 0.8125, "clips": 40, "interval_95": [0.66, 0.91],
        "per_seed": [{"seed": 1, "accuracy": 0.8}, {"seed": 2, "accuracy": 0.825}], "baseline_accuracy": 0.7,
        "ensemble_accuracy": 0.85, "config": run.trials[-1].config, **changes,
    }  # fmt: skip
    (run.path / "retrained").mkdir(exist_ok=True)
    (run.path / "retrained" / "result.json").write_text(json.dumps(result), encoding="utf-8")


def add_scores(run: RunFolder, dataset: Dataset, clips: Sequence[int], wrong: int = 5, seed: int = 0) -> None:
    """Gives the best trial of `run` a best.pt with `wrong` mistakes among the validation `clips`."""
    best = run.best()
    assert best
    rng = np.random.default_rng(seed)
    truth = np.array([dataset.clips[clip].label for clip in clips])
    guess = truth.copy()
    guess[:wrong] = (guess[:wrong] + 1) % len(dataset.labels)
    probabilities = rng.dirichlet(np.ones(len(dataset.labels)), len(clips)) * 0.4
    probabilities[np.arange(len(clips)), guess] += 0.6
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    state = {
        "labels": list(dataset.labels), "val_clips": torch.tensor(list(clips)), "val_labels": torch.from_numpy(truth),
        "val_probabilities": torch.from_numpy(probabilities),
    }  # fmt: skip
    run.folder(best.trial).save("best", state)
