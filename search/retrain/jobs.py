"""Trained jobs and what they say of clips: each model is scored on each part once, and the scores are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.retrain.plan import Job
from search.runs.journal import Journal, Trial
from search.runs.run import best_epoch, trial_folder
from trainable.config import TrialConfig
from trainable.inference.scores import Part, Scores, load_scores, save_scores, score_trial
from trainable.progress import Progress
from trainable.training.trial_folder import TrialFolder

# Trains what is `missing` in the journal of a folder and takes up what is unfinished, each job as a trial of kind
# "retrain" under the job's name; returns when nothing is left to do or the user has interrupted.
Runner = Callable[[Path, Sequence[Job]], Journal]


class TrainingFailed(Exception):
    """Nothing could be trained; the message says why."""


class Interrupted(Exception):
    """The user has stopped the retraining; every finished epoch is kept, and the same command goes on from there."""


@dataclass(frozen=True)
class Trained:
    """A job that has become a model."""

    job: Job
    epoch: int  # whose weights count: the best on validation, or the last where nothing was validated
    folder: TrialFolder


@dataclass(frozen=True)
class Failure:
    """A job that has not, and why."""

    job: Job
    trial: Trial


def trial_of(journal: Journal, job: Job) -> Trial | None:
    """The last trial of a job, whatever its name: the configuration says what was trained.

    A field that is younger than the training has its default.
    """
    config, defaults = job.config.to_json(), TrialConfig().to_json()
    return next((trial for trial in reversed(journal.trials.values()) if {**defaults, **trial.config} == config), None)


def missing(journal: Journal, jobs: Sequence[Job], session: int) -> list[Job]:
    """The jobs that are to be trained, in their order; a configuration that two jobs share is trained once.

    They have no trial yet, or one that failed before the driver's `session`, counted from 1: what failed is tried once
    a session, because its reason may be gone. A training that diverged or ran out of memory would do so again.
    """
    new: list[Job] = []
    for job in jobs:
        trial = trial_of(journal, job)
        wanted = trial is None or (trial.status == "failed" and trial.session < session)
        if wanted and all(job.config != other.config for other in new):
            new.append(job)
    return new


def train_all(folder: Path, jobs: Sequence[Job], runner: Runner) -> tuple[list[Trained], list[Failure]]:
    """The models of all jobs, and the jobs that did not end well.

    Raises:
        Interrupted: the user has stopped it.
        TrainingFailed: it has stopped for a reason of its own, such as every training failing alike.
    """
    journal = runner(folder, jobs)
    trained, failures = [], []
    for job in jobs:
        trial = trial_of(journal, job)
        if trial is None or not trial.over:
            if journal.stop_reason not in (None, "interrupted"):
                raise TrainingFailed(f"{folder}: the retraining stopped before its end: {journal.stop_reason}.")
            raise Interrupted
        if trial.status == "finished":
            trained.append(Trained(job, _epoch(trial, job), trial_folder(folder, trial.number)))
        else:
            failures.append(Failure(job, trial))
    return trained, failures


def _epoch(trial: Trial, job: Job) -> int:
    best = best_epoch(trial, grace_epochs=1)
    return best.epoch if best else len(trial.reports)


def trained_by(journal: Journal, models: Container[Path]) -> list[dict[str, Any]]:
    """Which programs have trained those of a retraining's models, with how many each, in the order of their sessions.

    A training that is used again keeps the commit and the versions that it was made with; None where nobody noted them.
    """
    found: dict[str, dict[str, Any]] = {}
    for trial in journal.trials.values():
        if trial_folder(journal.path.parent, trial.number).path not in models:
            continue
        session = journal.sessions[trial.session - 1] if trial.session else {}
        by = {name: session.get(name) for name in ("git_commit", "versions")}
        found.setdefault(json.dumps(by, sort_keys=True), {**by, "trainings": 0})["trainings"] += 1
    return list(found.values())


@dataclass(frozen=True)
class ScoreBook:
    """The scores of a run's models in `retrained/scores`, one file per model and part.

    A model whose test scores exist is never scored on them again: what is on file is what counts.
    """

    run: Path
    data: str  # where the clips lie by now
    progress: Progress | None = None
    scored: set[Path] = field(default_factory=set)  # folders of the models that have been asked for

    def of(self, model: TrialFolder, part: Part) -> Scores:
        """The scores of a model on a part of its clips, made now if this is the first time."""
        self.scored.add(model.path)
        # By the place inside the run: a run may have any name, also that of the folder of its own retraining.
        place = model.path.relative_to(self.run)
        path = self.run / "retrained" / "scores" / f"{'-'.join(place.parts)}.{part}.npz"
        scores = load_scores(path)
        if scores is None:
            scores = score_trial(model, part, self.progress, self.data)
            save_scores(path, scores)
        return scores
