"""The protocol of retraining: what is chosen on what, what is scored when, and what is said of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from search.report.mistakes import models_of
from search.retrain import jobs as retrain_models
from search.retrain import retrain as retrain_module
from search.retrain.card import model_card
from search.retrain.jobs import Interrupted, TrainingFailed
from search.retrain.plan import Job, RetrainOptions, changed, make_plan
from search.retrain.result import (
    Groups,
    Models,
    calibration,
    choose,
    difference,
    greedy_members,
    temperature_of,
    winners_curse,
)
from search.retrain.retrain import retrain
from search.retrain.text import view
from search.runs.journal import Journal, Status
from search.runs.run import RunFolder, load_run
from tests.support.retrained import Judge, Trainer, make_run, train_here
from trainable.backbones import weights
from trainable.data.split import split_dataset
from trainable.errors import InputError
from trainable.inference.metrics import wilson_interval
from trainable.inference.model import load_model
from trainable.inference.predict import predict_files
from trainable.inference.scores import Scores, joined, mean_of
from trainable.training.trial_folder import Cost


@pytest.fixture
def data(make_clips: Callable[..., Path]) -> Path:
    return make_clips(classes=3, clips=20, seconds=0.1)


@pytest.fixture
def run(tmp_path: Path, data: Path) -> RunFolder:
    return make_run(tmp_path / "run", data)


@pytest.fixture
def judge(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Scores without networks, and saved models without weights."""
    judge = Judge(run.path)
    monkeypatch.setattr(retrain_models, "score_trial", judge)
    saved: list[Any] = []
    monkeypatch.setattr(retrain_module, "save_trial", lambda *args: saved.append(args))
    return judge


@pytest.mark.slow
def test_the_result_is_chosen_on_validation_although_the_test_would_choose_otherwise(
    run: RunFolder, judge: Judge
) -> None:
    result = retrain(run, RetrainOptions(top=2, seeds=3), Trainer())
    assert result["chosen"] == "trial 1"  # resnet34: 90% on validation, 70% on test; resnet50: 80% and 95%
    assert result["measured_on"] == "test"
    assert result["config"]["backbone"] == "resnet34"
    assert result["accuracy"] == pytest.approx(0.72, abs=0.03)
    assert result["candidates"][1]["measured"]["mean"] > 0.9
    assert len(result["per_seed"]) == 3


@pytest.mark.slow
def test_no_test_clip_is_scored_before_the_choice_is_written_down(run: RunFolder, judge: Judge) -> None:
    retrain(run, RetrainOptions(top=2, seeds=2), Trainer())
    assert {chosen for _, _, part, chosen in judge.asked if part == "test"} == {True}
    assert {chosen for _, _, part, chosen in judge.asked if part == "val"} == {False}
    choice = json.loads((run.path / "retrained" / "choice.json").read_text())
    assert choice["candidate"] == "trial 1"


@pytest.mark.slow
def test_a_model_is_scored_once_however_often_retraining_is_repeated(run: RunFolder, judge: Judge) -> None:
    first = retrain(run, RetrainOptions(top=1, seeds=2), Trainer())
    asked = [entry[:3] for entry in judge.asked]
    assert len(asked) == len(set(asked))
    again = retrain(run, RetrainOptions(top=1, seeds=2), Trainer())
    assert len(judge.asked) == len(asked)
    assert again["accuracy"] == first["accuracy"]
    assert [earlier["accuracy"] for earlier in again["earlier"]] == [first["accuracy"]]


@pytest.mark.slow
def test_more_seeds_train_only_the_new_ones(run: RunFolder, judge: Judge) -> None:
    trainer = Trainer()
    retrain(run, RetrainOptions(top=1, seeds=2), trainer)
    assert len(trainer.trained) == 4  # a candidate and the baseline
    retrain(run, RetrainOptions(top=1, seeds=3), trainer)
    assert [config.seed for config in trainer.trained[4:]] == [3, 3]


def test_the_searchs_own_seed_is_never_drawn_again(run: RunFolder, judge: Judge) -> None:
    used = run.trials[0].config["seed"]
    plan = make_plan(run, RetrainOptions(seeds=used + 5))
    assert used not in plan.seeds
    assert len(set(plan.seeds)) == used + 5


def test_an_interrupted_retraining_goes_on_where_it_was(run: RunFolder, judge: Judge) -> None:
    trainer = Trainer(stop_after=3)
    with pytest.raises(Interrupted):
        retrain(run, RetrainOptions(top=1, seeds=2), trainer)
    assert not (run.path / "retrained" / "result.json").exists()
    trainer.stop_after = None
    assert retrain(run, RetrainOptions(top=1, seeds=2), trainer)["accuracy"] > 0
    assert len(trainer.trained) == 4


def test_train_and_validation_together_are_learned_after_the_choice_and_for_a_fixed_count(
    run: RunFolder, judge: Judge
) -> None:
    trainer = Trainer()
    result = retrain(run, RetrainOptions(top=2, seeds=2, train_on="train+val"), trainer)
    assert [len(names) for names in trainer.asked] == [6, 4]  # three configurations, then the chosen and the baseline
    final = [config for config in trainer.trained if config.train_on == "train+val"]
    assert {config.backbone for config in final} == {"resnet34", "resnet18"}
    assert {config.epochs for config in final} == {4}
    assert result["chosen"] == "trial 1"
    assert result["model"]["seed"] == 1  # nothing validates, so it is the first
    assert result["difference"]["how"].endswith("McNemar exact, the first seeds, as nothing validated")
    other = next(row for row in result["candidates"] if row["name"] == "trial 2")
    assert other["measured"] is None
    tested = {folder for _, folder, part, _ in judge.asked if part == "test"}
    assert {f"retrained/trial_{number:04d}" for number in (6, 7, 8, 9)} <= tested


def test_without_a_test_share_the_result_says_that_it_is_optimistic(
    tmp_path: Path, data: Path, judge: Judge, run: RunFolder
) -> None:
    searched = make_run(tmp_path / "tutorial", data, test_share=0.0, val_share=0.2)
    result = retrain(searched, RetrainOptions(top=1, seeds=1), Trainer())
    assert "the tutorial's: 80/20 per class, seed 42" in result["protocol"]
    assert result["measured_on"] == "validation"
    assert "validation, chosen by the search: optimistic" in result["sentence"]
    assert "validation, chosen by the search: optimistic" in _shown(result)
    assert {part for _, folder, part, _ in judge.asked} == {"val"}
    with pytest.raises(InputError, match="no clips to measure on"):
        retrain(searched, RetrainOptions(train_on="train+val"), Trainer())


@pytest.mark.slow
def test_folds_score_every_clip_once_by_models_that_did_not_learn_it(run: RunFolder, judge: Judge) -> None:
    trainer = Trainer()
    result = retrain(run, RetrainOptions(protocol="folds", seeds=2), trainer)
    assert result["measured_on"] == "folds"
    assert result["clips"] == 60
    low, high = result["interval_95"]
    assert low < result["accuracy"] < high
    folds = [config for config in trainer.trained if config.train_on == "other-folds"]
    assert len(folds) == 2 * 2 * 5  # configurations, seeds, folds
    assert [config.train_on for config in trainer.trained].count("all") == 1  # the model that is handed over
    assert result["model"]["accuracy"] is None
    assert result["ensembles"]["greedy"] is None
    assert result["difference"]["how"].endswith("McNemar exact, the first seeds, as nothing validated")
    table = list(csv.DictReader(io.StringIO((run.path / "retrained" / "predictions.csv").read_text())))
    assert len({row["path"] for row in table}) == 60


def with_groups(data: Path, groups: int) -> Path:
    """A table of the clips of a folder, dealt to so many speakers."""
    table = data.parent / f"{groups} speakers.csv"
    clips = sorted(data.glob("*/*.wav"))
    rows = [f"{clip},{clip.parent.name},speaker {number % groups}" for number, clip in enumerate(clips)]
    table.write_text("path,label,group\n" + "\n".join(rows) + "\n")
    return table


@pytest.mark.slow
def test_where_clips_have_groups_intervals_and_tests_are_over_groups(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "speakers", with_groups(data, 6))
    monkeypatch.setattr(retrain_models, "score_trial", Judge(run.path))
    monkeypatch.setattr(retrain_module, "save_trial", lambda *args: None)
    result = retrain(run, RetrainOptions(top=1, seeds=2, protocol="folds"), Trainer())
    assert result["interval_groups"] == 6
    assert [each["clips"] for each in result["groups"]] == [10] * 6
    shares = [each["accuracy"] for each in result["groups"]]
    assert shares == sorted(shares)
    assert np.mean(shares) == pytest.approx(result["accuracy"])
    low, high = result["interval_95"]
    assert (low, high) != pytest.approx(wilson_interval(60 * result["accuracy"], 60), abs=1e-3)
    assert low < result["accuracy"] < high
    assert result["difference"]["smallest_p"] == pytest.approx(2 / 2**6)
    assert result["difference"]["how"].startswith("mean over seeds, t-interval over 6 groups; p: signs of 6 groups")
    assert result["ensembles"]["seeds"]["p_value"] >= 2 / 2**6
    shown = _shown(result)
    assert f"{100 * high:.1f}%, over 6 groups)" in shown
    assert "(signs of 6 groups flipped)" in shown
    assert f"groups  {result['groups'][0]['group']} {100 * shares[0]:.1f}%, " in shown
    assert "95% interval" in model_card(result, None)
    assert "over 6 groups" in model_card(result, None)


@pytest.mark.parametrize(
    ("groups", "parts", "note"),
    [
        (3, ["train", "val", "test"], "All 20 clips are of one group: the number holds for that group"),
        (
            6,
            ["train", "val", "test"] * 2,
            "2 groups are few: the interval over them is wide, and p can be no",
        ),
    ],
)
def test_what_few_groups_cannot_show_is_said(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, groups: int, parts: list[str], note: str
) -> None:
    table = with_groups(data, groups)
    lines = table.read_text().splitlines()
    given = [f"{line},{parts[int(line[-1])]}" for line in lines[1:]]
    table.write_text("\n".join([f"{lines[0]},split", *given]) + "\n")
    run = make_run(tmp_path / "few", table)
    monkeypatch.setattr(retrain_models, "score_trial", Judge(run.path))
    monkeypatch.setattr(retrain_module, "save_trial", lambda *args: None)
    result = retrain(run, RetrainOptions(top=1, seeds=2), Trainer())
    assert any(each.startswith(note) for each in result["notes"])
    assert (result["interval_95"] is None) == (groups == 3)
    assert (result["difference"]["interval_95"] is None) == (groups == 3)
    shown = _shown(result)
    assert ("(no interval from one group)" in shown) == (groups == 3)
    assert "95% interval" in model_card(result, None)


@pytest.mark.parametrize(("train_on", "learned"), [("train", 24), ("train+val", 42), ("other-folds", 48), ("all", 60)])
def test_no_clip_is_learned_and_tested_whatever_is_learned_from(run: RunFolder, train_on: str, learned: int) -> None:
    plan = make_plan(run, RetrainOptions(top=1, protocol="folds"))
    for fold in (1, 3):
        config = changed(plan.candidates[0], train_on=train_on, fold=fold)
        split = split_dataset(plan.dataset, config)
        assert len(split.train) == learned
        assert not set(split.train) & {*split.val, *split.test}
        assert bool(len(split.val)) == (train_on == "train")
        assert bool(len(split.test)) == (train_on != "all")


@pytest.mark.slow
def test_a_seed_without_all_folds_does_not_count(run: RunFolder, judge: Judge) -> None:
    trainer = Trainer(broken={"trial 1, seed 2, fold 3": "out_of_memory"})
    result = retrain(run, RetrainOptions(protocol="folds", seeds=2), trainer)
    assert [row["seed"] for row in result["per_seed"]] == [1]
    assert result["failed"] == [{"name": "trial 1, seed 2, fold 3", "status": "out_of_memory", "message": "as told"}]
    assert "trial 1, seed 2, fold 3: out_of_memory: as told" in _shown(result)


def test_a_broken_baseline_leaves_a_result_without_comparison(run: RunFolder, judge: Judge) -> None:
    result = retrain(run, RetrainOptions(top=1, seeds=2), Trainer(broken={"simple": "diverged"}))
    assert result["baseline_accuracy"] is None
    assert result["difference"] is None
    assert len(result["failed"]) == 2
    _shown(result)


def test_nothing_trained_is_an_error_that_says_why(run: RunFolder, judge: Judge) -> None:
    with pytest.raises(TrainingFailed, match="trial 1, seed 1: out_of_memory: as told"):
        retrain(run, RetrainOptions(top=1, seeds=1), Trainer(broken={"trial": "out_of_memory"}))


def test_a_retraining_that_stops_for_a_reason_of_its_own_says_it(run: RunFolder, judge: Judge) -> None:
    def hopeless(folder: Path, jobs: Sequence[Job]) -> Journal:
        journal = Trainer(stop_after=1)(folder, jobs)
        journal.stopped("the first 5 trials all failed: no GPU")
        return journal

    with pytest.raises(TrainingFailed, match="stopped before its end: the first 5 trials all failed: no GPU"):
        retrain(run, RetrainOptions(top=1, seeds=2), hopeless)


@pytest.mark.slow
def test_result_and_tables_say_what_the_report_reads(run: RunFolder, judge: Judge) -> None:
    result = retrain(run, RetrainOptions(top=2, seeds=2), Trainer())
    assert result == json.loads((run.path / "retrained" / "result.json").read_text())
    for key in ("measured_on", "accuracy", "clips", "interval_95", "per_seed", "baseline_accuracy",
                "ensemble_accuracy", "config"):  # fmt: skip
        assert result[key] is not None
    assert np.sum(result["confusion"]) == result["clips"] == 18
    assert [row["label"] for row in result["classes"]] == ["class0", "class1", "class2"]
    assert 0 <= result["calibration"]["ece_after"] <= 1
    table = list(csv.DictReader(io.StringIO((run.path / "retrained" / "predictions.csv").read_text())))
    assert len(table) == 18
    right = np.mean([row["label"] == row["predicted"] for row in table])
    assert right == pytest.approx(result["model"]["accuracy"])
    assert result["command"]
    assert result["difference"]["how"].endswith("McNemar exact, the models with the best validation")
    shown = _shown(result)
    assert "18 test clips" in shown
    assert "simple (baseline)" in shown
    assert "McNemar" in shown


def test_the_winners_curse_is_the_searchs_best_score_minus_what_fresh_seeds_reach(run: RunFolder, judge: Judge) -> None:
    curse = retrain(run, RetrainOptions(top=1, seeds=2), Trainer())["winners_curse"]
    assert curse["searched"] == 0.95
    assert curse["points_validation"] == pytest.approx(100 * (0.95 - 16 / 18))
    assert curse["points_measured"] == pytest.approx(100 * (0.95 - 13 / 18))


@pytest.mark.slow
def test_a_trial_that_was_asked_for_is_compared_with_its_own_score_and_not_called_the_best(
    run: RunFolder, judge: Judge
) -> None:
    result = retrain(run, RetrainOptions(trial=2, seeds=2), Trainer())
    curse = result["winners_curse"]
    assert (curse["name"], curse["searched"], curse["highest_of"]) == ("trial 2", 0.90, None)
    assert curse["points_validation"] == pytest.approx(100 * (0.90 - 14 / 18))
    assert curse["points_measured"] == pytest.approx(100 * (0.90 - 17 / 18))
    shown = _shown(result)
    assert (
        "trial 2 scored 90.0% in the search; fresh seeds of it score 12.2 points less on the same validation" in shown
    )
    assert "4.4 points more on the test clips" in shown
    best = retrain(run, RetrainOptions(trial=1, seeds=2), Trainer())["winners_curse"]
    assert (best["searched"], best["highest_of"]) == (0.95, 3)


@pytest.mark.slow
def test_a_candidate_that_diverged_on_most_seeds_is_not_chosen_for_its_lucky_one(run: RunFolder, judge: Judge) -> None:
    broken: dict[str, Status] = {f"trial 1, seed {seed}": "diverged" for seed in (2, 3, 4, 5)}
    trainer = Trainer(broken=broken)
    result = retrain(run, RetrainOptions(top=2, seeds=5), trainer)
    assert result["chosen"] == "trial 2"  # 80% on every seed; trial 1 has 90% on the only one that is left
    lucky = next(row for row in result["candidates"] if row["name"] == "trial 1")
    guessed = 1 / 3
    assert lucky["validation"]["mean"] == pytest.approx((16 / 18 + 4 * guessed) / 5)
    assert lucky["measured"]["deviation"] == pytest.approx(np.std([13 / 18, *[guessed] * 4], ddof=1))
    assert [seed["diverged"] for seed in lucky["per_seed"]] == [False, True, True, True, True]
    note = "trial 1: 4 of 5 seeds diverged and count as guessing"
    assert any(each.startswith(note) for each in result["notes"])
    assert note in _shown(result)

    alone = retrain(run, RetrainOptions(trial=1, seeds=5), trainer)
    assert alone["chosen"] == "trial 1"
    assert alone["deviation"] > 0.1
    assert alone["accuracy"] == pytest.approx((13 / 18 + 4 * guessed) / 5)
    assert alone["model"]["seed"] == 1
    assert alone["model"]["accuracy"] == pytest.approx(13 / 18)
    assert alone["ensembles"]["seeds"]["members"] == ["trial 1, seed 1"]


def test_the_model_that_is_handed_over_is_the_one_that_did_not_diverge(run: RunFolder, judge: Judge) -> None:
    saved: list[Any] = []
    retrain_module.save_trial = lambda *args: saved.append(args)  # type: ignore[assignment, attr-defined]
    trainer = Trainer(broken={"trial 1, seed 1": "diverged"})
    result = retrain(run, RetrainOptions(top=1, seeds=2), trainer)
    assert result["model"]["seed"] == 2
    assert saved[0][0].path.name == result["model"]["trial"] == "trial_0001"
    table = list(csv.DictReader(io.StringIO((run.path / "retrained" / "predictions.csv").read_text())))
    assert {row["seeds"] for row in table} == {"1"}


@pytest.mark.slow
def test_what_a_machine_broke_is_not_held_against_a_configuration(run: RunFolder, judge: Judge) -> None:
    trainer = Trainer(broken={"trial 1, seed 2": "failed", "trial 1, seed 3": "out_of_memory"})
    result = retrain(run, RetrainOptions(top=2, seeds=3), trainer)
    assert result["chosen"] == "trial 1"
    assert [row["seed"] for row in result["per_seed"]] == [1]
    assert len(result["failed"]) == 2


@pytest.mark.slow
def test_a_fold_that_diverged_is_guessed_and_the_others_are_scored(run: RunFolder, judge: Judge) -> None:
    trainer = Trainer(broken={"trial 1, seed 2, fold 3": "diverged"})
    result = retrain(run, RetrainOptions(protocol="folds", seeds=2), trainer)
    first, second = result["per_seed"]
    assert (first["seed"], second["seed"], second["diverged"]) == (1, 2, False)
    assert second["accuracy"] == pytest.approx((4 * round(0.7 * 12) + 12 / 3) / 60)
    assert result["accuracy"] == pytest.approx((first["accuracy"] + second["accuracy"]) / 2)
    assert any("fold 3: diverged" in line for line in _shown(result).splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retrained", "wide"])
def test_a_run_of_any_name_keeps_its_scores_apart_from_those_of_its_retraining(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = make_run(tmp_path / name, data)
    judge = Judge(run.path)
    monkeypatch.setattr(retrain_models, "score_trial", judge)
    monkeypatch.setattr(retrain_module, "save_trial", lambda *args: None)
    for trial in run.trials:  # the search's own best may join the greedy ensemble
        run.folder(trial).path.mkdir()
        run.folder(trial).checkpoint("best").touch()
    retrain(run, RetrainOptions(top=1, seeds=2), Trainer())
    validated = [(backbone, folder) for backbone, folder, part, _ in judge.asked if part == "val"]
    assert len(validated) == 4 + 3  # two configurations on two seeds, and the search's three trials
    moved = run.path.rename(tmp_path / "moved")
    before = len(judge.asked)
    again = Judge(moved)
    monkeypatch.setattr(retrain_models, "score_trial", again)
    retrain(load_run(moved), RetrainOptions(top=1, seeds=2), Trainer())
    assert before
    assert not again.asked  # what is on file is what counts, whatever the run is called now


@pytest.mark.slow
def test_a_trial_or_a_file_can_be_retrained_in_the_place_of_the_best(
    run: RunFolder, judge: Judge, tmp_path: Path
) -> None:
    assert retrain(run, RetrainOptions(trial=2, seeds=1), Trainer())["config"]["backbone"] == "resnet50"
    file = tmp_path / "mine.yaml"
    file.write_text("backbone: resnet50\nepochs: 3\nimage_size: 32\nlr: 1e-3\nweights: none\n")
    result = retrain(run, RetrainOptions(config=file, seeds=1), Trainer())
    assert result["chosen"] == "mine.yaml"
    assert result["winners_curse"] is None
    file.write_text("backbone: resnet50\nval_share: 0.1\ndata: demo\n")
    with pytest.raises(InputError, match=r"mine.yaml: val_share: must be 0.3 as in the search") as error:
        retrain(run, RetrainOptions(config=file), Trainer())
    assert "data: must be" in str(error.value)


def test_a_file_may_name_the_searchs_data_in_other_words(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = tmp_path / "linked"
    linked.symlink_to(data)
    searched = make_run(tmp_path / "by_link", linked)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("data: ~/linked\nbackbone: resnet50\nweights: none\nimage_size: 32\n")
    plan = make_plan(searched, RetrainOptions(config=tmp_path / "mine.yaml"))
    assert plan.candidates[0].config.data == str(linked)


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and none of ImageNet's weights in torch's cache."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)


@pytest.fixture
def without_baselines(run: RunFolder) -> RunFolder:
    """The same search with nothing to compare with but the tutorial's recipe."""
    events = run.path / "events.jsonl"
    events.write_text(events.read_text().replace('"kind": "baseline"', '"kind": "search"'))
    return load_run(run.path)


@pytest.mark.slow
@pytest.mark.usefixtures("no_weights")
def test_a_baseline_that_has_no_imagenet_weights_says_so_before_and_after(
    without_baselines: RunFolder, judge: Judge
) -> None:
    trainer = Trainer()
    result = retrain(without_baselines, RetrainOptions(top=1, seeds=1), trainer)
    assert [(each.backbone, each.weights) for each in trainer.trained] == [("resnet34", "none"), ("resnet18", "none")]
    note = "no ImageNet weights for resnet18: tutorial-simple starts from random weights and is worse for it"
    assert note in result["notes"]
    assert load_run(without_baselines.path / "retrained").record["notes"] == [note]


@pytest.mark.usefixtures("no_weights")
def test_weights_are_fetched_before_a_retraining_for_all_who_want_them(
    without_baselines: RunFolder, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def download(wanted: weights.Weights, name: str, progress: object) -> None:
        fetched.append(name)
        wanted.file.parent.mkdir(parents=True, exist_ok=True)
        wanted.file.write_bytes(b"weights")

    monkeypatch.setattr(weights, "_download", download)
    file = tmp_path / "mine.yaml"
    file.write_text("backbone: resnet50\nimage_size: 32\n")
    trainer = Trainer()
    retrain(without_baselines, RetrainOptions(config=file, seeds=1), trainer)
    assert fetched == ["resnet50", "resnet18"]
    assert {each.weights for each in trainer.trained} == {"imagenet"}
    record = load_run(without_baselines.path / "retrained").record
    assert record["weights"] == {"resnet50": "imagenet", "resnet18": "imagenet"}
    assert record["notes"] == []


@pytest.mark.usefixtures("no_weights")
def test_imagenet_weights_that_cannot_be_had_end_a_retraining_before_it_begins(
    run: RunFolder, judge: Judge, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("backbone: resnet50\nimage_size: 32\n")
    with pytest.raises(InputError, match=r"weights: imagenet for resnet50 needs .*resnet50-.*pth, which is missing"):
        retrain(run, RetrainOptions(config=file, seeds=1), Trainer())
    assert not (run.path / "retrained").exists()


@pytest.mark.slow
def test_epochs_replace_the_searchs_horizon(run: RunFolder, judge: Judge) -> None:
    trainer = Trainer()
    result = retrain(run, RetrainOptions(top=1, seeds=1, epochs=7), trainer)
    assert {config.epochs for config in trainer.trained} == {7}
    assert result["winners_curse"] is None  # the search's score is of another training
    assert result["notes"][-1].startswith("Trained for 7 epochs where the search trained for ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RetrainOptions(top=2, trial=1), "--trial: cannot be used together with --top"),
        (RetrainOptions(seeds=0), "--seeds: must be at least 1, got 0"),
        (RetrainOptions(trial=9), "--trial: must be one of 0 to 2, got 9"),
    ],
)
def test_wrong_flags_are_refused(run: RunFolder, options: RetrainOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        retrain(run, options, Trainer())


def test_changed_data_is_refused_because_other_clips_would_be_tested(run: RunFolder, data: Path) -> None:
    (data / "class0" / "000.wav").unlink()
    with pytest.raises(InputError, match="must be the data that the search ran on"):
        retrain(run, RetrainOptions(), Trainer())


def test_the_best_baseline_is_the_one_to_beat_and_is_not_trained_twice(tmp_path: Path, data: Path) -> None:
    searched = make_run(tmp_path / "weak", data, searched=(0.5, 0.4))
    plan = make_plan(searched, RetrainOptions(top=1))
    assert plan.candidates[0] == plan.baseline
    assert len(plan.all_candidates) == 1


def test_any_baseline_of_the_run_can_be_the_one_to_compare_with(run: RunFolder) -> None:
    config = run.trials[0].config
    other = run.journal.suggested("baseline", "strong", {}, {**config, "lr": 1e-3})
    run.journal.reported(other.number, 1, 0.8, 1.0, "continue")
    run.journal.ended(other.number, "finished")
    run = load_run(run.path)
    assert make_plan(run, RetrainOptions(top=1)).baseline.name == "strong"
    plan = make_plan(run, RetrainOptions(top=1, baseline="simple"))
    assert (plan.baseline.name, plan.baseline.config.backbone) == ("simple", "resnet18")
    with pytest.raises(InputError, match=r"--baseline: must be one of .*'simpel'. Did you mean simple\?"):
        make_plan(run, RetrainOptions(top=1, baseline="simpel"))


@pytest.mark.slow
def test_trained_models_say_of_files_what_the_result_says_of_them(
    tmp_path: Path, make_clips: Callable[..., Path]
) -> None:
    small = ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "squeezenet1_1")
    searched = make_run(tmp_path / "run", make_clips(clips=20, seconds=0.4), backbones=small)
    options = RetrainOptions(trial=0, seeds=2, epochs=3, save_ensemble=True)
    result = retrain(searched, options, train_here)
    folder = searched.path / "retrained"
    table = list(csv.DictReader(io.StringIO((folder / "predictions.csv").read_text())))
    for name, label, probability in (
        ("model", "predicted", "probability"), ("ensemble", "ensemble", "ensemble_probability"),
    ):  # fmt: skip
        model = load_model(folder / name)
        found = list(predict_files(model, [row["path"] for row in table]))
        assert [record.label for record in found] == [row[label] for row in table]
        assert [record.probability for record in found] == pytest.approx(
            [float(row[probability]) for row in table], abs=1e-4
        )
    assert model.record["accuracy"] == result["accuracy"]
    # The folds train on more, validate nothing, and use the last epoch's weights.
    folds = retrain(searched, RetrainOptions(trial=0, seeds=1, epochs=2, protocol="folds"), train_here)
    assert {row["epoch"] for row in folds["per_seed"]} == {2}
    assert folds["clips"] == 60
    assert load_model(folder / "model").record["measured_on"] == "folds"
    assert not (folder / "ensemble").exists()  # the earlier one does not belong to this result
    model_for = models_of(load_run(searched.path))  # each clip's own: the one that had not learned from it
    for row in csv.DictReader(io.StringIO((folder / "predictions.csv").read_text())):
        model = model_for(Path(row["path"]))
        assert model is not None
        [said] = predict_files(model, [row["path"]])
        assert (said.label, said.probability) == (row["predicted"], pytest.approx(float(row["probability"]), abs=1e-4))


def test_greedy_ensemble_takes_models_that_mend_each_other_and_stops() -> None:
    true = np.array([0, 0, 1, 1])
    one = np.array([[0.9, 0.1], [0.4, 0.6], [0.1, 0.9], [0.2, 0.8]])  # wrong on the second
    other = np.array([[0.4, 0.6], [0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])  # wrong where the first is sure
    useless = np.array([[0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.9, 0.1]])
    members = greedy_members(np.stack([useless, one, other]), true)
    assert set(members) == {1, 2}
    assert members[0] == 1
    assert len(greedy_members(np.stack([useless]), true)) == 1


def _models(name: str, validation: list[Scores], measured: list[Scores]) -> Models:
    from search.retrain.plan import Candidate
    from trainable.config import TrialConfig

    candidate = Candidate(name, TrialConfig(), searched=0.9)
    return Models(candidate, tuple(range(len(measured))), (1,) * len(measured), tuple(validation), tuple(measured))


def _scores(right: list[bool], sure: float = 0.9) -> Scores:
    true = np.zeros(len(right), dtype=np.int64)
    probabilities = np.array([[sure, 1 - sure] if yes else [1 - sure, sure] for yes in right])
    return Scores(("a", "b"), np.arange(len(right)), true, probabilities)


def test_equal_validation_accuracy_is_decided_by_the_lower_loss() -> None:
    shy, sure = _scores([True, True, True, False], 0.6), _scores([True, True, True, False], 0.95)
    assert choose([_models("sure", [sure], []), _models("shy", [shy], [])]).candidate.name == "shy"
    assert _models("", [shy, _scores([True] * 4)], [shy, shy]).handed_over == 1


def test_difference_compares_clip_by_clip() -> None:
    better, worse = _scores([True] * 15 + [False] * 5), _scores([True] * 5 + [False] * 15)
    alone = Groups(np.arange(20), ("",) * 20)
    gap = difference(_models("ours", [better], [better]), _models("base", [worse], [worse]), alone)
    assert gap["mean"] == pytest.approx(0.5)
    assert (gap["only_ours_right"], gap["only_baseline_right"]) == (10, 0)
    assert gap["p_value"] == pytest.approx(2 / 2**10)
    assert winners_curse(_models("ours", [better], [worse]), 32) == {
        "name": "ours", "searched": 0.9, "highest_of": 32,
        "points_validation": pytest.approx(15), "points_measured": pytest.approx(65),
    }  # fmt: skip


def test_scores_are_joined_by_clip_and_averaged_on_equal_clips_only() -> None:
    first, second = _scores([True, False]), _scores([True])
    moved = Scores(second.labels, np.array([7]), second.true, second.probabilities)
    assert joined([moved, first]).clips.tolist() == [0, 1, 7]
    with pytest.raises(ValueError, match="scored twice"):
        joined([first, second])
    with pytest.raises(ValueError, match="same clips"):
        mean_of([first, moved])


def _shown(result: dict[str, Any]) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(*view(result, "runs/x/retrained", None), sep="\n")
    return console.export_text()


@pytest.mark.slow
def test_the_front_of_accuracy_and_cost_is_retrained_with_the_best_first(run: RunFolder, judge: Judge) -> None:
    for trial, parameters in zip(run.trials, (1_000, 3_000, 2_000), strict=True):  # 60%, 95% and 90% on validation
        run.folder(trial).path.mkdir(exist_ok=True)
        run.folder(trial).write_cost(Cost(parameters, 100 * parameters, None, None))
    plan = make_plan(run, RetrainOptions(pareto="parameters", seeds=1))
    assert [each.name for each in plan.candidates] == ["trial 1", "trial 2", "simple"]
    run.folder(run.trials[2]).write_cost(Cost(4_000, 400_000, None, None))
    plan = make_plan(run, RetrainOptions(pareto="operations", seeds=1))
    assert [each.name for each in plan.candidates] == ["trial 1", "simple"]
    result = retrain(run, RetrainOptions(pareto="operations", seeds=1), Trainer())
    assert result["chosen"] == "trial 1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RetrainOptions(pareto="latency_ms"), "--pareto: needs trials whose latency_ms is known, got none"),
        (RetrainOptions(pareto="parametres"), "--cost: .* got 'parametres'. Did you mean parameters?"),
        (RetrainOptions(pareto="parameters", top=2), "--pareto: cannot be used together with --top"),
    ],
)
def test_a_front_that_cannot_be_had_is_refused(run: RunFolder, options: RetrainOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(run, options)


def scores_of(sure: float, right: float, clips: int = 60, classes: int = 3, seed: int = 0) -> Scores:
    """Scores of a model that gives its answer the probability `sure` and is right on a share `right` of the clips."""
    rng = np.random.default_rng(seed)
    true = np.arange(clips) % classes
    hits = np.zeros(clips, dtype=bool)
    hits[rng.permutation(clips)[: round(right * clips)]] = True
    said = np.where(hits, true, (true + 1) % classes)
    probabilities = np.full((clips, classes), (1 - sure) / (classes - 1))
    probabilities[np.arange(clips), said] = sure
    return Scores(tuple("abc"), np.arange(clips), true, probabilities)


@pytest.mark.parametrize(("sure", "right", "kept"), [(0.99, 0.7, True), (0.5, 0.95, True), (0.8, 0.8, False)])
def test_a_temperature_is_kept_only_where_it_helps_on_clips_that_it_was_not_fitted_on(
    sure: float, right: float, kept: bool
) -> None:
    scores = scores_of(sure, right)
    temperature = temperature_of([scores])
    assert (temperature != 1.0) == kept
    found = calibration(temperature, scores)
    assert sum(each["clips"] for each in found["bins_before"]) == 60
    assert [each["accuracy"] for each in found["bins_before"]] == [pytest.approx(right, abs=0.01)]
    if kept:
        assert found["ece_after"] < found["ece_before"]
    else:
        assert found["bins_after"] == found["bins_before"]


def test_a_single_clip_fits_no_temperature() -> None:
    assert temperature_of([scores_of(0.9, 1.0, clips=1)]) == temperature_of([]) == 1.0


@pytest.mark.slow
def test_a_training_that_is_used_again_keeps_the_program_that_it_was_made_with(run: RunFolder, judge: Judge) -> None:
    def by(commit: str, torch: str) -> Callable[[Path, Sequence[Job]], Journal]:
        def runner(folder: Path, jobs: Sequence[Job]) -> Journal:
            Journal(folder / "events.jsonl").session(git_commit=commit, versions={"python": "3.11", "torch": torch})
            return Trainer()(folder, jobs)

        return runner

    first = retrain(run, RetrainOptions(top=1, seeds=2), by("one", "2.11"))
    assert (first["git_commit"], first["versions"]["torch"]) == ("one", "2.11")
    again = retrain(run, RetrainOptions(top=1, seeds=2), by("other", "2.12"))
    assert (again["git_commit"], [each["trainings"] for each in again["trained_by"]]) == ("one", [4])
    assert not [note for note in again["notes"] if "same program" in note]
    more = retrain(run, RetrainOptions(top=1, seeds=3), by("other", "2.12"))
    assert [(each["git_commit"], each["trainings"]) for each in more["trained_by"]] == [("one", 4), ("other", 2)]
    said = (
        "Not all trainings were made with the same program: 4 by commit one torch 2.11, 2 by commit other torch 2.12."
    )
    assert any(note.endswith(said) for note in more["notes"])
