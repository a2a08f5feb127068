"""Which trainings a retraining still has to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.retrain.jobs import missing, train_all
from search.retrain.plan import Job
from search.runs.journal import Journal, Status
from tests.support.retrained import Trainer
from trainable.config import TrialConfig

JOBS = [Job("trial 1", seed, TrialConfig(seed=seed)) for seed in (1, 2)]


@pytest.mark.parametrize(("status", "again"), [("failed", 1), ("diverged", 0), ("out_of_memory", 0)])
def test_what_failed_is_trained_again_by_the_next_sitting_and_then_counts(
    tmp_path: Path, status: Status, again: int
) -> None:
    trained, failures = train_all(tmp_path, JOBS, Trainer(broken={"seed 2": status}))
    assert [each.job.seed for each in trained] == [1]
    assert [each.trial.status for each in failures] == [status]
    trainer = Trainer()
    trained, failures = train_all(tmp_path, JOBS, trainer)
    assert [config.seed for config in trainer.trained] == [2] * again
    assert [each.folder.path.name for each in trained] == ["trial_0000", "trial_0002"][: 1 + again]
    assert len(failures) == 1 - again


def test_what_failed_is_not_trained_again_in_the_same_sitting(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    trial = journal.suggested("retrain", JOBS[0].name, {}, JOBS[0].config.to_json())
    journal.ended(trial.number, "failed", "its worker was lost again and again")
    assert missing(journal, JOBS[:1], session=0) == []
    assert missing(journal, JOBS[:1], session=2) == JOBS[:1]
