"""Which trainings a retraining still has to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.retrain import jobs
from search.retrain.jobs import ScoreBook, missing, train_all
from search.retrain.plan import Job
from search.runs.journal import Journal, Status
from tests.support.retrained import Trainer
from trainable.config import TrialConfig
from trainable.inference.scores import Scores
from trainable.training.trial_folder import TrialFolder

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


@pytest.mark.parametrize("younger", ["val_fold", "tempo", "head_start"])
def test_what_was_trained_before_a_field_existed_is_used_again_where_that_has_its_default(
    tmp_path: Path, younger: str
) -> None:
    config = JOBS[0].config.to_json()
    default = config.pop(younger)
    journal = Journal(tmp_path / "events.jsonl")
    journal.ended(journal.suggested("retrain", "of an older version", {}, config).number, "finished", "")
    assert missing(journal, JOBS[:1], session=1) == []
    other = Job("trial 1", 1, TrialConfig.parse({**config, younger: {1: 2, 0.0: 0.2, "random": "probe"}[default]}))
    assert missing(journal, [other], session=1) == [other]


@pytest.mark.parametrize("name", ["run", "retrained"])
def test_a_models_scores_are_its_own_whatever_the_run_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def scored(model: TrialFolder, part: str, progress: object, data: str) -> Scores:
        share = 0.9 if model.path.parent.parent == run else 0.6  # the retraining's, and the search's own
        return Scores(("a", "b"), np.arange(2), np.array([0, 1]), np.array([[share, 1 - share], [1 - share, share]]))

    monkeypatch.setattr(jobs, "score_trial", scored)
    run = tmp_path / name
    book = ScoreBook(run, "clips")
    for _ in range(2):  # scored, and then read
        for place, share in ((run / "retrained" / "trial_0000", 0.9), (run / "trial_0000", 0.6)):
            assert book.of(TrialFolder(place), "test").probabilities[0, 0] == share
    assert len(list((run / "retrained" / "scores").iterdir())) == 2
