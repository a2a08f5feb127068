"""A search that never ran and trainings that take no time: what retraining makes of given scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from search.retrain.jobs import missing
from search.retrain.plan import Job
from search.runs.journal import Journal, Status
from search.runs.run import RunFolder, load_run, trial_folder
from search.space.load import load_space
from trainable.config import TrialConfig
from trainable.data.dataset import load_dataset
from trainable.data.split import split_dataset
from trainable.inference.scores import Part, Scores
from trainable.progress import Progress
from trainable.training.loop import train
from trainable.training.trial_folder import TrialFolder

# Accuracy on (validation, test) of each backbone that the simulated search has tried.
SKILL = {"resnet18": (0.70, 0.65), "resnet34": (0.90, 0.70), "resnet50": (0.80, 0.95)}


def make_run(
    path: Path, data: Path, test_share: float = 0.3, searched: Sequence[float] = (0.95, 0.90),
    backbones: Sequence[str] = ("resnet18", "resnet34", "resnet50"), val_share: float = 0.3,
) -> RunFolder:  # fmt: skip
    """A finished search of resnet34 and resnet50, with resnet18 as its baseline at 0.6."""
    space_file = path.with_suffix(".yaml")
    space_file.write_text(f"""
fixed: {{data: "{data}", test_share: {test_share}, val_share: {val_share}, epochs: 4, image_size: 32, weights: none}}
search: {{backbone: {{choice: {list(backbones[1:])}}}}}
baselines: [{{name: simple, recipe: tutorial-simple}}]
budget: {{trials: 3, grace_epochs: 1}}
""")
    space = load_space(space_file)
    dataset = load_dataset(str(data))
    path.mkdir()
    split = split_dataset(dataset, space.default_config())
    record = {
        "space_file": str(space_file),
        "space": space.to_json(),
        "data": {
            "path": str(data), "name": dataset.name, "hash": dataset.hash, "clips": len(dataset.clips),
            "labels": list(dataset.labels), "rejected": len(dataset.rejected),
        },
        "split": {
            "name": split.name, "hash": split.hash, "train": len(split.train), "val": len(split.val),
            "test": len(split.test), "notes": list(split.notes),
        },
        "seed": 42,
        "weights": {},
        "mirror": {"requested": "off", "mode": "off", "how": "SwanLab is off", "project": "audio-search"},
        "warm_start": [],
        "notes": [],
    }  # fmt: skip
    (path / "run.json").write_text(json.dumps(record))
    journal = Journal(path / "events.jsonl")
    base = space.default_config()
    for kind, name, backbone, value in (
        ("baseline", "simple", backbones[0], 0.6),
        ("search", "", backbones[1], searched[0]),
        ("search", "", backbones[2], searched[1]),
    ):
        config = base.model_copy(update={"backbone": backbone}).to_json()
        trial = journal.suggested(kind, name, {}, config)  # type: ignore[arg-type]
        journal.reported(trial.number, 1, value, 1.0, "continue")
        journal.ended(trial.number, "finished")
    return load_run(path)


@dataclass
class Trainer:
    """A runner that ends every job at once; `broken` says how jobs end whose name holds the text."""

    broken: dict[str, Status] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)
    trained: list[TrialConfig] = field(default_factory=list)
    stop_after: int | None = None  # interrupts when so many are trained

    def __call__(self, folder: Path, jobs: Sequence[Job]) -> Journal:
        self.asked.append([job.name for job in jobs])
        journal = Journal(folder / "events.jsonl")
        for job in missing(journal, jobs, len(journal.sessions) + 1):
            if self.stop_after is not None and len(self.trained) >= self.stop_after:
                break
            trial = journal.suggested("retrain", job.name, {}, job.config.to_json())
            trial_folder(folder, trial.number).write_config(job.config.to_json())
            self.trained.append(job.config)
            for epoch in (1, 2):
                journal.reported(trial.number, epoch, 0.5 * epoch, 1.0, "continue")
            status = next((status for text, status in self.broken.items() if text in job.name), "finished")
            journal.ended(trial.number, status, "" if status == "finished" else "as told")
        return journal


def train_here(folder: Path, jobs: Sequence[Job]) -> Journal:
    """A runner that trains one job after the other in this process."""
    journal = Journal(folder / "events.jsonl")
    for job in missing(journal, jobs, len(journal.sessions) + 1):
        trial = journal.suggested("retrain", job.name, {}, job.config.to_json())
        for epoch in train(job.config, folder=trial_folder(folder, trial.number).path):
            journal.reported(trial.number, epoch.epoch, epoch.val_acc, epoch.val_loss, "continue")
        journal.ended(trial.number, "finished")
    return journal


@dataclass
class Judge:
    """Scores whose accuracy is `SKILL`, with errors that depend on the seed; keeps the order of what it was asked."""

    folder: Path
    asked: list[tuple[str, str, Part, bool]] = field(default_factory=list)  # backbone, folder, part, choice made

    def __call__(
        self, model: TrialFolder, part: Part, progress: Progress | None = None, data: str | None = None
    ) -> Scores:
        values = self._values(model)
        config = TrialConfig.parse(values)
        chosen = (self.folder / "retrained" / "choice.json").exists()
        self.asked.append((config.backbone, f"{model.path.parent.name}/{model.path.name}", part, chosen))
        dataset = load_dataset(config.data)
        clips = getattr(split_dataset(dataset, config), part)
        true = np.array([dataset.clips[clip].label for clip in clips])
        rng = np.random.default_rng([config.seed, config.fold, len(config.backbone), part == "test"])
        right = np.zeros(len(clips), dtype=bool)
        skill = SKILL[config.backbone][part == "test"]
        right[rng.permutation(len(clips))[: round(skill * len(clips))]] = True
        predicted = np.where(right, true, (true + 1) % len(dataset.labels))
        probabilities = np.full((len(clips), len(dataset.labels)), 0.1)
        probabilities[np.arange(len(clips)), predicted] = 0.8
        return Scores(dataset.labels, clips, true, probabilities / probabilities.sum(1, keepdims=True))

    def _values(self, model: TrialFolder) -> dict[str, object]:
        if model.config_file.exists():
            return json.loads(model.config_file.read_text())  # type: ignore[no-any-return]
        journal = Journal(model.path.parent / "events.jsonl")
        return journal.trials[int(model.path.name.split("_")[1])].config
