from __future__ import annotations

import math
import re
import textwrap
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from search.runs.journal import Journal
from search.runs.run import trial_folder
from search.space.load import load_space
from tests.benchmarks import (
    benchmark_efficiency,
    benchmark_folds,
    benchmark_ties,
    benchmark_training,
    curves,
    portfolio,
)
from tests.benchmarks.benchmark_scale import Meter
from tests.benchmarks.benchmark_search import gaps
from tests.benchmarks.contestants import Landscape, Ours, Stock, Training, epochs_to_target, random_search
from tests.support.spaces import space_of
from trainable.training.trial_folder import EpochResult

pytestmark = [pytest.mark.slow]

SPACE = """
    fixed: {epochs: 9, weights: none}
    search: {lr: {loguniform: [1e-4, 1e-2]}}
    budget: {trials: 6, grace_epochs: 3}
"""


SMALL_DATA = Path("spaces/small-data.yaml")
RECORDED = [table for table in curves.TABLES.values() if table.file.exists()]


def landscape_of(folder: Path, accuracies: list[float], target: float) -> Landscape:
    def training(values: Mapping[str, Any]) -> Training:
        return Training(np.array(accuracies), 1 - np.array(accuracies), np.array(accuracies))

    return Landscape(space_of(folder, SPACE), target, training)


def test_the_efficiency_benchmark_lets_everybody_race_and_prints_both_ratios(
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_efficiency.main(["--quick", "--only", "simulated", "official"])
    said = capsys.readouterr().out
    contests = said.count("epochs to within one point of the best")
    real = said.count("FSDD, official split")
    assert (contests, real) == (3, 1)
    for name in benchmark_efficiency.EVERYWHERE:
        assert said.count(f"  {name:52}") == contests
    for name in benchmark_efficiency.LEAVING_ONE_OUT:
        assert said.count(f"  {name:52}") == real
    assert said.count("ours / OptunaSearch + ASHAScheduler: ") == contests


def test_the_efficiency_benchmark_races_on_all_sets_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[Any] = []
    monkeypatch.setattr(benchmark_efficiency, "contest", lambda each, seeds, workers: searched.append(each))
    benchmark_efficiency.main(["--quick"])
    assert searched[2:] == benchmark_efficiency.recorded_sets(20)
    assert [each.title for each in searched[:2]] == ["simulated curves, 30 epochs", "simulated curves, 50 epochs"]
    assert len(searched) > 5


def test_the_training_benchmark_fills_its_table_and_measures_the_memory_of_ours_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[weakref.ref[benchmark_training.Bare]] = []  # the models of (a) and (c)
    begin = benchmark_training.Bare.__init__
    there: list[int] = []

    def remember(self: benchmark_training.Bare, *args: Any) -> None:
        others.append(weakref.ref(self))
        begin(self, *args)

    def peak() -> float:
        there.append(sum(other() is not None for other in others))
        return 1.25

    monkeypatch.setattr(benchmark_training.Bare, "__init__", remember)
    monkeypatch.setattr(benchmark_training, "peak_memory", peak)
    benchmark_training.main(["--quick", "--device", "cpu"])
    said = capsys.readouterr().out
    tables = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if "|" in line]
    header, _, *rows = tables[:-3]
    assert [row[:2] for row in tables[-3:]] == [["network", "mel"], ["---"] * 2, ["mn01", "128 x 50"]]
    assert all(float(number) > 0 for number in tables[-1][2:])
    assert [row[:3] for row in rows] == [
        [backbone, "32", augmentation]
        for backbone in ("mobilenet_v3_small", "resnet18") for augmentation in ("none", "strong")
    ]  # fmt: skip
    assert all(float(number) >= 0 for row in rows for number in row[4:])
    assert (header[-1], [row[-1] for row in rows]) == ("peak GB", ["1.25"] * 4)
    assert len(others) == 9
    assert there == [0] * 5
    assert re.search(r"^cache: [\d.]+ s to build, [\d.]+ s for decoding and mels alone: [\d.]+$", said, re.M)
    assert re.search(r"emory.* after each of 2 trials, GB: [\d.]+, [\d.]+$", said, re.M)
    assert re.search(
        r"^probe: features of 10 clips of 1.5 s in [\d.]+ s, the network alone [\d.]+ s: [\d.]+$", said, re.M
    )


def test_the_epochs_of_all_workers_count_until_one_of_them_arrives(tmp_path: Path) -> None:
    landscape = landscape_of(tmp_path, [0.1 * epoch for epoch in range(1, 10)], target=0.2)
    assert epochs_to_target(random_search(landscape.space, tmp_path / "one"), landscape, workers=1) == 2
    assert epochs_to_target(random_search(landscape.space, tmp_path / "four"), landscape, workers=4) == 5


def test_who_uses_up_all_trials_without_arriving_never_arrives(tmp_path: Path) -> None:
    landscape = landscape_of(tmp_path, [0.1] * 9, target=0.2)
    for contestant in (Ours(landscape.space, tmp_path / "ours"), Stock(landscape.space)):
        assert epochs_to_target(contestant, landscape, workers=2) == math.inf
        assert contestant.begin() is None


def test_the_stock_contestant_tells_of_a_cut_trial_as_ray_does(tmp_path: Path) -> None:
    stock = Stock(space_of(tmp_path, SPACE))
    good, bad = stock.begin(), stock.begin()
    assert good
    assert bad
    for epoch in (1, 2, 3):
        assert stock.report(good, epoch, 0.9, 0.1, last=False)
    assert stock.report(bad, 2, 0.5, 0.5, last=False)
    assert not stock.report(bad, 3, 0.5, 0.5, last=False)
    told = stock._searcher._ot_study.trials[1]
    assert (told.state, told.value) == (optuna.trial.TrialState.COMPLETE, 0.5)
    assert max(told.intermediate_values) == 2  # its last report is dropped


@pytest.mark.parametrize("table", RECORDED, ids=lambda table: table.name)
def test_every_recorded_curve_is_whole_and_lies_in_the_grid(table: curves.Table) -> None:
    assert table.file.stat().st_size < 500_000
    assert len(table.curves) >= 20
    for point, curve in table.curves.items():
        assert all(value in values for value, values in zip(point, table.grid.values(), strict=True))
        assert len(curve.accuracies) <= table.epochs  # fewer where it diverged
        assert all(0 <= accuracy <= 1 for accuracy in curve.accuracies)
        assert len(curve.losses) in (0, len(curve.accuracies))


def test_a_table_says_of_a_configuration_it_lacks_what_it_knows_of_the_one_most_like_it(tmp_path: Path) -> None:
    table = replace(curves.TABLES["fsdd-official"], folder=tmp_path)
    table.file.write_text(
        "backbone,scale,lr,mixup,roll,val_acc_1,val_loss_1\n"
        "resnet18,log,0.0007,0.0,0.5,0.5,1\nresnet18,log,0.01,0.0,0.0,0.6,1\nmobilenet_v2,log,0.004,0.0,0.0,0.7,\n"
    )
    asked = {"backbone": "resnet18", "scale": "log", "lr": 0.004, "mixup": 0.0, "roll": 0.0}
    nearest = table.nearest(asked, among=table.curves)
    assert nearest == ("resnet18", "log", 0.01, 0.0, 0.0)
    assert table.curves[nearest] == curves.Curve((0.6,), (1.0,))
    there = dict(zip(table.grid, nearest, strict=True))
    assert table.nearest(there, among=table.curves) == nearest


def test_a_recording_goes_on_where_it_ended_in_one_order_for_all_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [replace(curves.TABLES[name], folder=tmp_path) for name in ("gtzan100-1", "gtzan100-2")]
    for table in tables:
        curves.begin(table)
    curves.add(tables[0], tables[0].points[0], curves.Curve((0.5, 0.25), (1.0, 2.0)))
    left = list(curves.jobs(tables))
    assert left[:2] == [(tables[1], tables[1].points[0]), (tables[0], tables[0].points[1])]
    assert tables[0].points == tables[1].points
    assert len(left) == 2 * 240 - 1
    assert tables[0].curves == {tables[0].points[0]: curves.Curve((0.5, 0.25), (1.0, 2.0))}


def test_the_ties_benchmark_saves_epochs_by_looking_at_losses(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark_ties.main(["--orders", "10"])
    rows = re.findall(
        r"grace (\d), (accuracies alone|equal accuracies).* ([\d.]+) epochs +([\d.]+)%", capsys.readouterr().out
    )
    epochs = {(grace, how): float(spent) for grace, how, spent, _ in rows}
    assert len(epochs) == 6
    assert all(epochs[grace, "equal accuracies"] < epochs[grace, "accuracies alone"] for grace in "12")


def test_a_portfolio_covers_sets_that_want_different_things_before_it_repeats_itself(tmp_path: Path) -> None:
    grid = {"backbone": ("a", "b", "c"), "lr": (0.1, 0.2)}
    tables = []
    for number, best in enumerate((("a", 0.1), ("b", 0.2))):
        table = curves.Table(f"set-{number}", "", f"set-{number}", {"epochs": 1}, grid, folder=tmp_path)
        curves.begin(table)
        for point in table.points:
            curves.add(table, point, curves.Curve((1.0 if point == best else 0.5 if point[0] == "c" else 0.1,), (1.0,)))
        tables.append(table)
    assert portfolio.choose(grid, tables, size=1)[0][0] == "c"  # where one has to serve both, second best of each
    assert {("a", 0.1), ("b", 0.2)} < set(portfolio.choose(grid, tables, size=3))
    # A set of another grid has a say in what both have.
    fewer = curves.Table("other", "", "other", {"epochs": 1}, {"lr": (0.2, 0.3)}, folder=tmp_path)
    curves.begin(fewer)
    for point, accuracy in (((0.2,), 0.9), ((0.3,), 0.1)):
        curves.add(fewer, point, curves.Curve((accuracy,), (1.0,)))
    assert portfolio.better(fewer, grid)["a", 0.2] == 0.0
    assert portfolio.better(fewer, grid)["a", 0.1] == 0.5


def test_the_portfolio_is_chosen_from_what_a_space_allows_and_its_lines_are_trials_of_it(
    tmp_path: Path,
) -> None:
    text = """
        fixed: {epochs: 9, weights: none, scale: db}
        search:
          backbone: {choice: [resnet18, densenet121, mobilenet_v2]}
          lr: {loguniform: [5e-4, 6e-3]}
          mixup: {choice: [0.1, 0.2]}
        budget: {trials: 6}
    """
    grid = portfolio.grid_in(space_of(tmp_path, text))
    assert grid == {"backbone": ("resnet18", "mobilenet_v2"), "scale": ("db",), "lr": (7e-4, 1.7e-3, 4e-3)}
    lines = portfolio.baselines(grid, RECORDED)
    assert "scale" not in lines  # the space has it
    space = space_of(tmp_path, f"{textwrap.dedent(text)}\n{lines}")
    assert [baseline.name for baseline in space.baselines] == [f"portfolio-{n + 1}" for n in range(portfolio.SIZE)]
    assert all(baseline.cut and baseline.params for baseline in space.baselines)


def test_the_portfolio_that_ships_is_what_the_script_makes_of_the_recorded_tables() -> None:
    space = load_space(SMALL_DATA)
    lines = portfolio.baselines(portfolio.grid_in(space), RECORDED, name_weights="weights" in space.dimensions)
    assert lines.removeprefix("baselines:\n") in SMALL_DATA.read_text()  # else run tests.benchmarks.portfolio again


def test_shipped_settings_are_scaled_to_the_epochs_of_each_set(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark_efficiency.main(["--shipped", "--seeds", "1", "--trials", "8", "--only", "demo set, 12"])
    said = capsys.readouterr().out
    for name in ("quick", "small-data", "wide"):
        space = load_space(SMALL_DATA.with_stem(name))
        grace = max(1, 12 * space.budget.grace_epochs // space.max_epochs)
        assert f"{name} ({grace}/{space.budget.reduction_factor:g}) " in said


def test_a_gap_lasts_from_the_end_of_a_trial_to_the_beginning_of_the_next_first_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    clock = iter([0.0, 10.0, 12.0, 12.5, 15.5, 16.0])  # trial 0: suggested, reported, ended; trial 1
    monkeypatch.setattr("search.runs.journal.time.time", lambda: next(clock))
    for number in range(2):
        journal.suggested("search", "", {}, {})
        folder = trial_folder(tmp_path, number)
        folder.path.mkdir()
        folder.append(EpochResult(1, 1.0, 0.5, 1.0, 0.5, 0.1, seconds=3.0))
        journal.reported(number, 1, 0.5, 1.0, "continue")
        journal.ended(number, "finished")
    assert gaps(tmp_path, journal, concurrency=1) == [pytest.approx(0.5)]


def test_the_steady_stretch_begins_when_the_last_worker_reports_and_ends_with_the_last_proposal() -> None:
    meter = Meter()
    for time, event, epoch in (
        (0, "suggested", 0), (0, "suggested", 0), (1, "reported", 1), (2, "reported", 2),
        (3, "reported", 1), (4, "reported", 3), (4, "suggested", 0), (5, "reported", 2),
    ):  # fmt: skip
        meter.on_event({"event": event, "time": float(time), "epoch": epoch})
    assert [sample[0] for sample in meter.steady(workers=2)] == [3.0, 4.0]


def test_the_benchmark_of_folds_compares_one_fold_with_several_on_both_tables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_folds.main(["--searches", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith(" ")] == ["probes", "trainings"]
    assert [line.split("folds ")[1][0] for line in lines if line.startswith(" ")] == ["1", "2", "3"] * 5
    assert all("(+0.0 +- 0.0 points" in line for line in lines if "folds 1:" in line)
