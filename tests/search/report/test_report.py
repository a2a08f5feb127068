"""The whole report, for every kind of run that there is; how it looks is tested in test_report_browser.py."""

from __future__ import annotations

import json
import re
import subprocess
import time
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from search.report import report
from search.report.report import write_report
from search.retrain.trust import Trust
from search.runs.cost import front_of
from search.runs.journal import Journal
from search.runs.run import RunFolder, load_run
from search.space.load import load_space
from tests.support.synthetic import (
    SPACE,
    add_result,
    add_scores,
    data_record,
    make_run,
    make_space,
    write_clips,
    write_record,
)
from trainable.data.dataset import load_dataset
from trainable.training.trial_folder import Cost, EpochResult


def html_of(*runs: RunFolder) -> str:
    return write_report(list(runs)).read_text(encoding="utf-8")


def text_of(html: str) -> str:
    """What a reader reads: the body without scripts and tags."""
    body = html.split("<body>")[1]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)))


def block_of(html: str, heading: str) -> str:
    """What a reader copies from the block under a heading."""
    (block,) = re.findall(rf"<h3>{heading}</h3>\s*<pre[^>]*><code>(.*?)</code></pre>", html, flags=re.DOTALL)
    return unescape(block)


def figures_of(html: str) -> list[str]:
    return re.findall(r'data-plot="([^"]+)"', html)


@pytest.mark.slow
def test_the_headline_of_a_search_says_that_it_is_optimistic(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    best = run.best()
    assert best
    text = text_of(html_of(run))
    assert f"{100 * best.accuracy:.1f}%" in text
    assert "validation, chosen by the search: optimistic" in text
    assert "on 40 validation clips" in text
    assert "95% interval" in text


@pytest.mark.slow
def test_the_headline_of_a_retrained_run_is_its_test_accuracy(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=5)
    add_result(run)
    text = text_of(html_of(run))
    assert "81.2%" in text
    assert "95% interval 66.0% to 91.0%" in text
    assert "retrained on 2 seeds (mean), on 40 test clips, on which nothing was trained or chosen" in text
    assert "optimistic" not in text


@pytest.mark.slow
def test_a_retrained_run_without_test_clips_is_still_called_optimistic(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=5)
    add_result(run, measured_on="validation")
    assert "validation, chosen by the search: optimistic" in text_of(html_of(run))


@pytest.mark.slow
def test_everything_that_retraining_found_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=5)
    row = {
        "name": "trial 3", "searched": 0.85, "validation": {"mean": 0.83, "deviation": 0.01},
        "measured": {"mean": 0.8125, "deviation": 0.0177}, "interval_95": [0.66, 0.91],
        "per_seed": [{"seed": 1, "accuracy": 0.8}, {"seed": 2, "accuracy": 0.825}],
    }  # fmt: skip
    base = {**row, "name": "tutorial-simple", "measured": {"mean": 0.7, "deviation": 0.0}}
    add_result(
        run, chosen="trial 3", candidates=[row], baseline=base,
        difference={"mean": 0.1125, "interval_95": [0.02, 0.2], "p_value": 0.031},
        ensembles={
            "seeds": {"accuracy": 0.85, "interval_95": [0.7, 0.93]},
            "greedy": {"accuracy": 0.875, "interval_95": [0.73, 0.95]},
        },
        winners_curse={"name": "trial 3", "searched": 0.85, "points_validation": -2.0, "points_measured": 3.75},
        calibration={"temperature": 1.4, "ece_before": 0.08, "ece_after": 0.03},
        failed=[{"name": "trial 3, seed 9", "message": "no room"}], notes=["<i>a note</i>"], earlier=[{}],
    )  # fmt: skip
    html = html_of(run)
    text = text_of(html)
    for ensemble in ("ensemble of its seeds", "greedy ensemble"):
        assert ensemble in html  # a mark in the figure
    for said in ("+11.2 points", "p = 0.031", "Trial 3 scored 85.0% in the search; fresh seeds of it "
                 "score 2.0 points more on the same validation clips and 3.8 points less on the test clips.",
                 "81.2% ± 1.8", "no room",
                 "&lt;i&gt;a note", "scored 1 time before"):  # fmt: skip
        assert said in text


@pytest.mark.slow
def test_an_ensemble_of_one_is_no_row_beside_its_only_member(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    alone = {"accuracy": 0.85, "interval_95": [0.7, 0.93], "members": ["seed 1"]}
    add_result(run, chosen="trial 3", ensembles={"seeds": alone, "greedy": {**alone, "members": ["seed 1", "seed 2"]}})
    html = html_of(run)
    assert "greedy ensemble" in html
    assert "ensemble of its seeds" not in html


@pytest.mark.slow
def test_intervals_are_spoken_of_where_they_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    drawn = "validation clips, with 95% intervals; that of the best trial allows for the choice among"
    assert drawn in text_of(html_of(run))
    monkeypatch.setattr(report, "trust", lambda *more: Trust(None, 1, why_none="all clips are of one group"))
    assert re.search(r"Best epoch on \d+ validation clips\. ", text_of(html_of(run)))


def test_a_run_before_its_first_trial_has_a_report(tmp_path: Path) -> None:
    write_record(tmp_path / "run", make_space(tmp_path), ["a", "b"])
    html = html_of(load_run(tmp_path / "run"))
    assert "there is no best" in text_of(html)
    assert figures_of(html) == []


def test_a_run_with_one_trial_and_no_finished_epoch_has_a_report(tmp_path: Path) -> None:
    write_record(tmp_path / "run", make_space(tmp_path), ["a", "b"])
    Journal(tmp_path / "run" / "events.jsonl").suggested("search", "", {"lr": 1e-3}, {"epochs": 9})
    assert "1 (1 not finished)" in text_of(html_of(load_run(tmp_path / "run")))


def test_a_run_whose_trials_all_failed_lists_their_messages(tmp_path: Path) -> None:
    write_record(tmp_path / "run", make_space(tmp_path), ["a", "b"])
    journal = Journal(tmp_path / "run" / "events.jsonl")
    for number in range(3):
        journal.suggested("search", "", {"lr": 1e-3}, {"epochs": 9})
        journal.ended(number, "failed", f"ValueError: <{number}>")
    text = text_of(html_of(load_run(tmp_path / "run")))
    assert "3 (3 failed)" in text
    assert all(f"ValueError: &lt;{number}&gt;" in text for number in range(3))


def test_a_run_of_baselines_only_has_a_report(tmp_path: Path) -> None:
    text = "baselines: [tutorial-simple, tutorial-simple-log]\nfixed: {weights: none}\nbudget: {trials: 2}\n"
    run = make_run(tmp_path / "run", trials=2, text=text)
    html = html_of(run)
    assert "No trial of the search is above the baseline" in text_of(html)
    assert not any("parallel" in name for name in figures_of(html))


@pytest.mark.slow
def test_an_interrupted_run_says_so_and_draws_what_there_is(tmp_path: Path) -> None:
    html = html_of(make_run(tmp_path / "run", stop=40))
    assert "search not finished" in text_of(html)
    assert {"progress-seconds", "settings-parallel", "time-timeline"} <= set(figures_of(html))


@pytest.mark.slow
def test_dimensions_that_no_trial_has_used_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=2, text=SPACE.replace("[adam, adamw, sgd]", "[adam]").replace(
        ", when: {optimizer: sgd}", "").replace(", when: {optimizer: [adamw, sgd]}", ""))  # fmt: skip
    assert "optimizer" not in re.findall(r"<h3>([^<]+)</h3>", html_of(run))


@pytest.mark.slow
def test_a_report_of_200_trials_stays_below_15_mb_with_its_players(tmp_path: Path) -> None:
    dataset = write_clips(tmp_path / "clips", ["a", "b"], clips=10, seconds=9, rate=22_050)
    run = make_run(tmp_path / "run", trials=200, workers=8, data=data_record(dataset))
    add_scores(run, dataset, range(20), wrong=10)
    path = write_report([run])
    assert path == run.path / "report.html"
    assert path.stat().st_size < 8_000_000


@pytest.mark.slow
def test_the_record_lets_somebody_repeat_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=3)
    text = text_of(html_of(run))
    command = "python run_search.py --space &#39;spaces/my space.yaml&#39; --data demo"
    for fact in (command, "d47a", "5b17", "0123abcd", "torch 2.11", "loguniform: [1.0e-05, 0.1]",
                 "baselines: [tutorial-simple]", "run folder"):  # fmt: skip
        assert fact in text


@pytest.mark.slow
def test_a_recorded_command_can_be_pasted_whatever_its_words(tmp_path: Path) -> None:
    words = ["run_search.py", "--name", "it's", "--set", "backbone=[resnet18]", "--data", "~/clips", "--set", "lr=(1)"]
    shown = block_of(html_of(make_run(tmp_path / "run", trials=3, command=words)), "Command")
    typed = ["bash", "-c", f"printf '%s\\n' {shown}"]
    assert subprocess.run(typed, capture_output=True, text=True, check=True).stdout.splitlines() == ["python", *words]


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "grace"), [(None, 3), (4, 1), (6, 2), (9, 3), (13, 4), (25, 8)])
def test_the_recorded_space_makes_the_same_search_again(tmp_path: Path, epochs: int | None, grace: int) -> None:
    own = "{name: mine, image_size: 96, lr: 1.0e-3}"
    text = SPACE.replace("[tutorial-simple]", f"[tutorial-simple, {own}]").replace("grace_epochs: 1", "grace_epochs: 3")
    run = make_run(tmp_path / "run", trials=3)
    (tmp_path / "space.yaml").write_text(text)
    space = load_space(tmp_path / "space.yaml", epochs=epochs, time_budget="2h")
    assert space.budget.grace_epochs == grace
    write_record(run.path, space, ["a", "b"])
    shown = block_of(html_of(load_run(run.path)), "Space")
    assert [line for line in shown.splitlines() if "#" in line] == ([f"# run with --epochs {epochs}"] if epochs else [])
    (tmp_path / "copy.yaml").write_text(shown)
    copy = load_space(tmp_path / "copy.yaml", epochs=epochs).to_json()
    for baseline, copied in zip(space.baselines, copy["baselines"], strict=True):
        copied["note"] = baseline.note  # which says what was left open
    assert {**copy, "source": space.source} == space.to_json()


@pytest.mark.slow
def test_the_record_lets_somebody_repeat_the_retraining_too(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=3, hardware={"cpus": 2.0, "gpu_names": []})
    command = ["run_search.py", "retrain", "runs/run", "--seeds", "2"]
    add_result(run, chosen="trial 2", seeds=[1, 3], git_commit="4567cdef", command=command)
    text = text_of(html_of(run))
    for fact in ("python run_search.py retrain runs/run --seeds 2", "1, 3", "4567cdef", "the configuration of trial 2",
                 "python run_search.py --space", "cpus: 2"):  # fmt: skip
        assert fact in text
    assert "gpu names" not in text


@pytest.mark.slow
def test_the_record_of_a_baseline_of_ones_own_says_what_it_is(tmp_path: Path) -> None:
    own = "{name: mine, recipe: tutorial-simple, image_size: 96, batch_size: 8}"
    run = make_run(tmp_path / "run", trials=2, text=SPACE.replace("[tutorial-simple]", f"[{own}]"))
    assert "name: mine, image_size: 96, epochs: 20, batch_size: 8" in text_of(html_of(run))


@pytest.mark.slow
def test_hostile_names_of_files_and_labels_stay_text(tmp_path: Path) -> None:
    evil = "<img src=x onerror=window.hacked=1>\"'&音"
    dataset = write_clips(tmp_path / "clips", [evil, "b"])
    run = make_run(tmp_path / "run", trials=6, labels=dataset.labels, data=data_record(dataset))
    add_scores(run, dataset, range(12), wrong=6)
    html = html_of(run)
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=window.hacked=1&gt;&#34;&#39;&amp;音" in html


@pytest.mark.slow
def test_a_report_without_its_data_says_what_it_cannot_show(tmp_path: Path) -> None:
    dataset = write_clips(tmp_path / "clips", ["a", "b"])
    run = make_run(tmp_path / "run", trials=6, data={**data_record(dataset), "path": str(tmp_path / "moved")})
    add_scores(run, dataset, range(12))
    assert "The clips themselves are not shown" in text_of(html_of(run))


@pytest.mark.slow
def test_several_runs_are_compared_and_keep_their_figures_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, trials=8, seed=seed) for seed, name in enumerate(("one", "two"))]
    path = write_report(runs, tmp_path / "out" / "both.html")
    html = path.read_text(encoding="utf-8")
    names = figures_of(html)
    assert len(names) == len(set(names))
    assert {"compared-history", "compared-best", "run0-progress-seconds", "run1-progress-seconds"} <= set(names)
    assert "different clips" not in text_of(html)
    assert html.count("plotly.js v") == 1


@pytest.mark.slow
def test_the_head_says_when_the_search_began_and_when_it_ended(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    events = [report.time for trial in run.trials for report in trial.reports]
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(min(trial.started for trial in run.trials)))
    ended = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(events)))
    assert began != ended
    assert f"Started {began}, ended {ended} (every trial is done)" in text_of(html_of(run))


@pytest.mark.slow
def test_trials_that_may_be_called_best_come_first_and_the_others_by_their_accuracy(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (table,) = re.findall(r'<section id="trials">(.*?)</section>', html_of(run), flags=re.DOTALL)
    rows = re.findall(
        r'<tr data-trial="(\d+)"( class="soft")?>.*?<td.*?<td.*?<td[^>]*>([\d.]*)', table, flags=re.DOTALL
    )
    order = [best.trial.number for best in run.ranked()]
    assert [int(number) for number, soft, _ in rows if not soft] == order
    assert [bool(soft) for _, soft, _ in rows] == sorted(bool(soft) for _, soft, _ in rows)
    others = [float(value or -1) for _, soft, value in rows if soft]
    assert others == sorted(others, reverse=True)
    assert len(set(others)) > 2


@pytest.mark.slow
def test_names_of_backbones_stay_as_they_are_typed(tmp_path: Path) -> None:
    assert "regnet_x_400mf: none" in text_of(
        html_of(make_run(tmp_path / "run", trials=3, weights={"regnet_x_400mf": "none"}))
    )


@pytest.mark.slow
def test_runs_on_different_clips_are_compared_with_a_warning(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"split": {"name": "folds", "hash": "other", "val": 20}}
    runs = [make_run(tmp_path / "one", trials=4), make_run(tmp_path / "two", trials=4, **changes)]
    assert "These runs were scored on different clips" in text_of(html_of(*runs))


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["hardware", "split", "data", "versions", "git_commit", "mirror", "created"])
def test_a_record_that_lacks_a_field_has_a_report_all_the_same(tmp_path: Path, missing: str) -> None:
    run = make_run(tmp_path / "run", trials=3)
    record = json.loads((run.path / "run.json").read_text())
    del record[missing]
    (run.path / "run.json").write_text(json.dumps(record))
    assert "Record" in text_of(html_of(load_run(run.path)))


@pytest.mark.slow
def test_a_retrained_run_shows_its_seeds_and_how_sure_it_may_be(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=5)
    row = {
        "name": "trial 3", "searched": 0.85, "validation": None, "measured": {"mean": 0.81, "deviation": 0.02},
        "interval_95": [0.66, 0.91], "per_seed": [{"seed": 1, "accuracy": 0.8}, {"seed": 2, "accuracy": 0.825}],
    }  # fmt: skip
    bins = [{"low": 0.8, "high": 0.9, "clips": 40, "confidence": 0.86, "accuracy": 0.7}]
    after = [{**bins[0], "confidence": 0.72}]
    calibration = {"temperature": 1.6, "ece_before": 0.16, "ece_after": 0.02, "bins_before": bins, "bins_after": after}
    add_result(run, chosen="trial 3", candidates=[row], calibration=calibration)
    write_record(run.path / "retrained", make_space(tmp_path), ["a", "b"])
    nested = load_run(run.path / "retrained")
    for seed in (1, 2):
        trial = nested.journal.suggested("retrain", f"trial 3, seed {seed}", {}, run.trials[3].config)
        nested.folder(trial).write_config(trial.config)
        nested.folder(trial).append(EpochResult(1, 1.0, 0.6, 1.1, 0.5, 1e-3, 1.0))
    html = html_of(run)
    assert {"retrained-seeds", "retrained-spread", "retrained-calibration"} <= set(figures_of(html))
    assert "after the temperature of 1.60: 2.0%" in text_of(html)
    assert "after temperature scaling" in html
    add_result(run, chosen="trial 3", calibration={**calibration, "temperature": 1.0})
    html = html_of(run)
    assert "would not help on clips that it is not fitted on" in text_of(html)
    assert "after temperature scaling" not in html


@pytest.mark.slow
def test_costs_are_shown_with_the_front_and_the_command_that_retrains_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert not any(name.startswith("cost") for name in figures_of(html_of(run)))
    for trial in run.trials:
        if trial.reports:
            run.folder(trial).write_cost(Cost(1_000_000 * (1 + trial.number % 4), 10_000_000, None, 300.0))
    html = html_of(run)
    assert [name for name in figures_of(html) if name.startswith("cost")] == [
        "cost-parameters", "cost-operations", "cost-memory_mb",
    ]  # fmt: skip
    (section,) = re.findall(r'<section id="cost">(.*?)</section>', html, flags=re.DOTALL)
    shown = {int(number) for number in re.findall(r'<tr data-trial="(\d+)"', section)}
    assert shown == {best.trial.number for name in ("parameters", "operations", "memory_mb")
                     for best, _ in front_of(run, name)}  # fmt: skip
    assert f"retrain {run.path} --pareto" in text_of(html)
    data = json.loads(re.findall(r'data-plot="cost-parameters">(.*?)</script>', html)[0])
    drawn = next(trace for trace in data["data"] if trace["name"] == "best trade-offs")
    assert drawn["x"] == [cost for _, cost in front_of(run, "parameters")]


@pytest.mark.slow
def test_groups_stand_in_a_table_with_the_hardest_first(tmp_path: Path) -> None:
    dataset = write_clips(tmp_path / "clips", ["a", "b"])
    rows = [f"{clip.name},{dataset.labels[clip.label]},speaker{index % 3}" for index, clip in enumerate(dataset.clips)]
    (tmp_path / "clips" / "list.csv").write_text("\n".join(["path,label,group", *rows]))
    listed = load_dataset(str(tmp_path / "clips" / "list.csv"))
    record = {**data_record(listed), "path": str(tmp_path / "clips" / "list.csv")}
    run = make_run(tmp_path / "run", trials=6, labels=listed.labels, data=record)
    add_scores(run, listed, range(12), wrong=4)
    html = html_of(run)
    (table,) = re.findall(r"<h3>By group</h3>.*?<tbody>(.*?)</tbody>", html, flags=re.DOTALL)
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in table.split("<tr>")[1:]]
    assert [name for name, *_ in cells] == ["speaker0", "speaker1", "speaker2"]
    assert [share for *_, share, _ in cells] == ["50.0%", "75.0%", "75.0%"]
    assert all(" to " in interval for *_, interval in cells)
