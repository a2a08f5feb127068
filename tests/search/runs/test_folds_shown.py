"""What people see of repeats on further folds: which fold a trial is of, and the mean that counts."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
import yaml

from search.commands.compare import compare, print_comparison
from search.commands.notebook import Run
from search.commands.search import close_run
from search.console.console import Console, Header, summary_lines
from search.console.state import Standings
from search.console.time_left import Plan
from search.mirror.experiment import trial_ending, trial_experiment
from search.report.facts import headline, progress
from search.retrain.plan import RetrainOptions, make_plan
from search.retrain.trust import margin_on_folds
from search.runs.journal import Journal
from search.runs.run import RunFolder, load_run
from search.space.space import Space
from tests.support.retrained import make_run
from trainable.data.dataset import load_dataset


@pytest.fixture
def run(tmp_path: Path, make_clips: Callable[..., Path]) -> RunFolder:
    """A search in which resnet34 (trial 1) has 95% on the first fold, and resnet50 (trial 2) the best mean."""
    run = make_run(tmp_path / "run", make_clips(classes=3, clips=20, seconds=0.1))
    for number, fold, value in ((1, 2, 0.55), (2, 2, 0.8), (2, 3, 0.82)):
        first, name = run.journal.trials[number], f"fold {fold} of trial {number}"
        config = {**first.config, "val_fold": fold}
        trial = run.journal.suggested("repeat", name, first.params, config, repeats=number)
        run.journal.reported(trial.number, 1, value, 1.0, "continue")
        run.journal.ended(trial.number, "finished")
    run.journal.stopped("budget")
    return load_run(run.path)


@pytest.mark.slow
def test_all_files_of_a_run_name_the_mean_and_the_folds_that_it_is_of(run: RunFolder) -> None:
    warnings: list[str] = []
    close_run(run, Space.from_json(run.record["space"]), warnings.append)
    assert warnings == []
    rows = list(csv.DictReader(io.StringIO((run.path / "trials.csv").read_text())))
    shown = [(row["trial"], row["repeats"], row["val_fold"], row["mean_acc"], row["folds"]) for row in rows]
    assert shown == [
        ("0", "", "1", "0.6", "1"), ("1", "", "1", "0.75", "2"), ("2", "", "1", "0.84", "3"), ("3", "1", "2", "", ""),
        ("4", "2", "2", "", ""), ("5", "2", "3", "", ""),
    ]  # fmt: skip
    best = (run.path / "best.yaml").read_text()
    assert "Trial 2 of run: validation accuracy 0.8400 in the mean of 3 folds (90.0%, 80.0%, 82.0%)" in best
    assert yaml.safe_load(best)["val_fold"] == 1
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{run.path / 'study.db'}")
    assert study.user_attrs["best"] == "trial 2, 0.8400 in the mean of 3 folds (90.0%, 80.0%, 82.0%)"
    repeats = [trial for trial in study.trials if trial.user_attrs["kind"] == "repeat"]
    assert [(trial.user_attrs["repeats"], trial.user_attrs["fold"]) for trial in repeats] == [(1, 2), (2, 2), (2, 3)]
    assert {trial.state.name for trial in repeats} == {"PRUNED"}  # no best of Optuna's
    page = (run.path / "report.html").read_text()
    assert "mean over folds" in page
    assert "in the mean of 3 folds (90.0%, 80.0%, 82.0%)" in page
    assert "fold 3 of trial 2" in page


def test_tables_have_the_best_mean_first_and_the_columns_of_folds_only_where_there_are_some(
    run: RunFolder, tmp_path: Path, make_clips: Callable[..., Path]
) -> None:
    frame = compare([run])
    assert list(frame["trial"])[:3] == [2, 1, 0]
    assert list(frame["mean_acc"])[:3] == [0.84, 0.75, 0.6]
    assert list(Run(run.path).best["trial"]) == [2]
    assert "best 84.0% (trial 2, epoch 1)" in repr(Run(run.path))
    text = io.StringIO()
    print_comparison([run.path], stream=text)
    assert text.getvalue().splitlines()[0].split()[:5] == ["trial", "name", "status", "mean_acc", "folds"]
    (tmp_path / "plain").mkdir()
    plain = make_run(tmp_path / "plain" / "run", Path(run.record["data"]["path"]))
    assert not {"repeats", "mean_acc", "folds"} & set(compare([plain]).columns)


def test_the_terminal_and_the_report_say_the_mean_and_its_folds(run: RunFolder) -> None:
    plan = Plan(trials=3, concurrency=1, epochs=1, grace_epochs=1, reduction_factor=None)
    lines = summary_lines(Standings(run.journal, plan), Header("run", "d", "s"), (), (), False, None)
    text = "\n".join(line.plain for line in lines)
    assert "84.0%, trial 2 in the mean of 3 folds (90.0%, 80.0%, 82.0%)" in text
    assert "6 of 6: 6 finished" in text
    assert "in the mean of 3 folds" in headline(run).sentence
    assert headline(run).accuracy == pytest.approx(0.84)
    assert [step.accuracy for step in progress(run)] == pytest.approx([0.6, 0.95, 0.75, 0.85, 0.84])


def answer(run: RunFolder, number: int, clips: range, right: int) -> None:
    """Gives a trial a checkpoint that has the first `right` of its validation clips right."""
    dataset = load_dataset(run.record["data"]["path"])
    true = np.array([dataset.clips[clip].label for clip in clips])
    said = np.where(np.arange(len(true)) < right, true, (true + 1) % len(dataset.labels))
    probabilities = np.eye(len(dataset.labels))[said]
    run.folder(run.journal.trials[number]).path.mkdir(exist_ok=True)
    run.folder(run.journal.trials[number]).save(
        "best",
        {"labels": list(dataset.labels), "val_clips": torch.tensor(list(clips)), "val_labels": torch.from_numpy(true),
         "val_probabilities": torch.from_numpy(probabilities)},
    )  # fmt: skip


def test_the_best_is_compared_with_the_next_clip_by_clip_on_the_folds_that_both_have(run: RunFolder) -> None:
    assert margin_on_folds(run) is None  # no checkpoint says which clips are right
    first, second, third = range(0, 18), range(18, 36), range(36, 54)
    for number, clips, right in ((2, first, 16), (4, second, 15), (5, third, 15), (1, first, 17), (3, second, 10)):
        answer(run, number, clips, right)
    margin = margin_on_folds(run)
    assert margin is not None
    assert (margin.other.number, margin.folds, margin.clips) == (1, 2, 36)  # trial 1 has not been given the third fold
    assert (margin.found.only_first, margin.found.only_second) == (5, 1)
    assert margin.gain == pytest.approx(4 / 36)
    said = "+11.1 points against trial 1, the next, on 36 clips of 2 folds, p = 0.22 (McNemar exact)"
    assert margin.in_words() == said
    assert said in headline(run).sentence
    journal, stream = run.journal, io.StringIO()
    plan = Plan(trials=3, concurrency=1, epochs=1, grace_epochs=1, reduction_factor=None)
    Console(journal, Header("run", "d", "s"), plan, stream).finish(18, margin=said)
    assert said in " ".join(stream.getvalue().split())


def test_without_repeats_there_is_nothing_to_compare(tmp_path: Path, make_clips: Callable[..., Path]) -> None:
    run = make_run(tmp_path / "run", make_clips(classes=3, clips=20, seconds=0.1))
    for number in range(3):
        answer(run, number, range(18), 10)
    assert margin_on_folds(run) is None


def test_a_terminal_that_hears_event_by_event_shows_what_one_shows_that_comes_later(run: RunFolder) -> None:
    plan = Plan(trials=3, concurrency=1, epochs=1, grace_epochs=1, reduction_factor=None)
    kept = Standings(Journal(run.path / "empty.jsonl"), plan)
    kept._journal = Journal(run.path / "other.jsonl")
    heard = kept._journal
    heard.listen(kept.update)
    for event in run.journal.trials.values():
        heard.suggested(event.kind, event.name, event.params, event.config, repeats=event.repeats)
        for report in event.reports:
            heard.reported(event.number, report.epoch, report.value, report.loss, report.decision)
        heard.ended(event.number, event.status)
    at_once = Standings(run.journal, plan)
    assert [(best.trial.number, best.accuracy) for best in kept.top] == [
        (best.trial.number, best.accuracy) for best in at_once.top
    ] == [(best.trial.number, best.accuracy) for best in run.ranked()]  # fmt: skip


def test_an_experiment_of_a_repeat_says_whose_it_is_and_the_mean(run: RunFolder) -> None:
    trial = run.journal.trials[5]
    experiment = trial_experiment(run, trial)
    assert experiment.name.startswith("005 fold 3 of trial 2")
    assert experiment.job_type == "repeat"
    assert trial_ending(run, trial).outcome == (
        "finished; trial 2 has 84.0% in the mean of 3 folds (90.0%, 80.0%, 82.0%)"
    )


def test_retraining_takes_configurations_by_their_mean_and_a_repeat_for_the_one_that_it_repeats(run: RunFolder) -> None:
    plan = make_plan(run, RetrainOptions(top=3))
    assert [(each.trial, each.searched) for each in plan.candidates] == [
        (2, pytest.approx(0.84)), (1, pytest.approx(0.75)), (0, 0.6),
    ]  # fmt: skip
    assert {each.config.val_fold for each in plan.candidates} == {1}
    (chosen,) = make_plan(run, RetrainOptions(trial=5)).candidates
    assert (chosen.trial, chosen.searched) == (2, pytest.approx(0.84))
