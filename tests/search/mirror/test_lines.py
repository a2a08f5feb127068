from __future__ import annotations

from pathlib import Path

from search.mirror.experiment import Ending, trial_ending, trial_experiment
from search.mirror.lines import ending_lines, epoch_line, starting_lines
from search.runs.run import RunFolder
from tests.support.mirrored import folder, make_run, train
from trainable.training.trial_folder import EpochResult

EPOCH = EpochResult(3, 0.5, 0.75, 0.25, 0.5, 1e-4, 12.4)


def ended(run: RunFolder, number: int) -> tuple[list[str], Ending]:
    trial = run.trials[number]
    ending = trial_ending(run, trial)
    return ending_lines(trial_experiment(run, trial), ending), ending


def test_a_trial_begins_with_its_name_and_what_the_search_has_set(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=1)
    lines = starting_lines(trial_experiment(run, run.trials[0]))
    assert lines == [
        "000 resnet18 224px lr 1.3e-4",
        "search run · search · data demo · resnet18 · weights None",
        "lr 1.3e-4",
    ]


def test_an_epoch_without_validation_clips_claims_none() -> None:
    assert epoch_line(EPOCH, with_validation=True) == (
        "epoch 3: val acc 50.0%, val loss 0.250, train acc 75.0%, train loss 0.500, lr 1e-4, 12 s"
    )
    assert epoch_line(EPOCH, with_validation=False) == ("epoch 3: train acc 75.0%, train loss 0.500, lr 1e-4, 12 s")


def test_the_end_says_what_happened_and_the_best_epoch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=1)
    train(run, 0, upto=5, decision="stop")
    run.journal.ended(0, "cut")
    best = run.folder(run.trials[0]).epochs()[-1]
    assert ended(run, 0)[0] == ["cut by ASHA at epoch 5", f"best epoch 5: val acc {100 * best.val_acc:.1f}%"]


def test_a_failure_brings_its_reason_and_its_traceback_and_a_success_no_old_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=2)
    for number in (0, 1):
        (folder(run, number).path / "error.txt").write_text("Traceback (most recent call last):\n  ...\n")
    run.journal.ended(0, "failed", "ValueError: two\nlines")
    train(run, 1, upto=3)
    run.journal.ended(1, "finished")
    lines, _ = ended(run, 0)
    assert lines[0] == "failed: ValueError: two\nlines"
    assert lines[-1].startswith("Traceback")
    assert "Traceback" not in "".join(ended(run, 1)[0])
