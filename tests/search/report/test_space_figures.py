"""The figures of the searched space: conditional trials stay, cut ones are marked, importances name what counts."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from search.report.facts import space_of, top, trials_of
from search.report.figures import log_ticks, seed_curves
from search.report.space_figures import (
    UNUSED_PLACE,
    Axis,
    axes_of,
    dashboard_importances,
    importance_figure,
    importances,
    parallel,
    slice_figure,
)
from search.runs.run import RunFolder
from search.tune.study_file import write_study
from tests.support.synthetic import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("space") / "run", trials=60)


@pytest.mark.slow
def test_parallel_coordinates_keep_trials_without_a_conditional_setting(run: RunFolder) -> None:
    trials, space = trials_of(run), space_of(run)
    axes = axes_of(trials, space)
    plot = parallel(trials, axes, space)
    shown = [trial for trial in trials if top(trial)]
    assert {trace.meta["trial"] for trace in plot.data if trace.meta} == {trial.number for trial in shown}
    assert plot.layout.meta["axes"] == len(axes) + 1
    place = [axis.name for axis in axes].index("momentum")
    unused = sum(trace.y[place] == UNUSED_PLACE for trace in plot.data[: len(shown)])
    assert unused == sum("momentum" not in trial.params for trial in shown) > 0


def test_cut_trials_are_dotted_in_parallel_coordinates_and_crosses_in_slices(run: RunFolder) -> None:
    trials, space = trials_of(run), space_of(run)
    axes = axes_of(trials, space)
    shown = [trial for trial in trials if top(trial)]
    lines = parallel(trials, axes, space).data[: len(shown)]
    cut = sum(trial.status == "cut" for trial in shown)
    assert sum(trace.line.dash == "dot" for trace in lines) == cut > 0
    lr = next(axis for axis in axes if axis.name == "lr")
    crosses = [trace for trace in slice_figure(trials, lr).data if trace.marker.symbol == "x"]
    assert [len(trace.x) for trace in crosses] == [cut]


@pytest.mark.slow
def test_the_setting_that_decides_is_the_most_important_one(run: RunFolder) -> None:
    shares, count = importances(trials_of(run), space_of(run))
    assert count > 40
    free = [item for item in shares if not item.conditional]
    assert max(free, key=lambda item: item.share).name in ("lr", "backbone")
    assert sum(item.share for item in free) == pytest.approx(1)
    assert all(item.trials < count for item in shares if item.conditional)
    assert sum(len(trace.x) for trace in importance_figure(shares, {}).data) == len(shares)


def test_too_few_trials_have_no_importances(tmp_path: Path) -> None:
    few = make_run(tmp_path / "run", trials=6)
    assert importances(trials_of(few), space_of(few))[0] == []


def test_an_axis_is_logarithmic_where_the_dimension_is_and_clamps_what_lies_outside() -> None:
    axis = Axis("lr", None, 1e-4, 1e-2, log=True)
    assert axis.place(1e-3) == pytest.approx(0.5)
    assert axis.place(1.0) == pytest.approx(1.06)
    assert axis.place(0.0) == axis.place(None) == pytest.approx(-0.06)
    assert Axis("image_size", (64, 96)).place(224) == pytest.approx(1.06)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e-5, 1e-1, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
        (4e-4, 8e-3, [5e-4, 1e-3, 2e-3, 5e-3]),
        (1e-3, 1e-1, [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]),
        (2.1e-3, 2.4e-3, [2.1e-3, 2.4e-3]),
        (1e-7, 1.0, [1e-7, 1e-5, 1e-3, 1e-1]),
    ],
)
def test_logarithmic_axes_are_marked_with_values(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_the_marks_of_a_logarithmic_axis_are_written_as_everywhere(run: RunFolder) -> None:
    trials, space = trials_of(run), space_of(run)
    lr = next(axis for axis in axes_of(trials, space) if axis.name == "lr")
    assert list(slice_figure(trials, lr).layout.xaxis.ticktext) == ["1e-5", "1e-4", "1e-3", "0.01", "0.1"]
    assert [name for _, name in lr.ticks()] == ["1e-5", "0.1"]


@pytest.mark.slow
def test_what_the_dashboard_shows_stands_beside_it_as_the_dashboard_computes_it(run: RunFolder, tmp_path: Path) -> None:
    space = space_of(run)
    write_study(space, run.journal, tmp_path / "study.db")
    theirs = dashboard_importances(tmp_path / "study.db")
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert theirs == pytest.approx(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()))
    ours, _ = importances(trials_of(run), space)
    bars = importance_figure(ours, theirs).data
    beside = next(trace for trace in bars if "optuna-dashboard" in trace.name)
    assert sorted(beside.x) == pytest.approx(sorted(theirs[item.name] for item in ours if item.name in theirs))


@pytest.mark.slow
def test_without_enough_finished_trials_the_dashboard_has_nothing_to_show(tmp_path: Path) -> None:
    few = make_run(tmp_path / "run", trials=2)
    assert dashboard_importances(few.path / "study.db") == {}
    write_study(space_of(few), few.journal, few.path / "study.db")
    assert dashboard_importances(few.path / "study.db") == {}


@pytest.mark.slow
def test_settings_that_few_trials_have_put_no_warnings_on_the_screen(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trials=10)
    write_study(space_of(run), run.journal, run.path / "study.db")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert dashboard_importances(run.path / "study.db")
    assert shown == []


def test_choices_are_marked_as_the_console_writes_them() -> None:
    axis = Axis("crop_seconds", (1.0, 2.5, None, True, "<b>"))
    assert [name for _, name in axis.ticks()] == ["1", "2.5", "none", "yes", "&lt;b&gt;"]
    assert list(slice_figure([], axis).layout.xaxis.ticktext) == [name for _, name in axis.ticks()]


def test_the_folds_of_a_seed_share_its_colour_and_its_line_in_the_legend(run: RunFolder) -> None:
    best = run.trials[0]
    names = [f"careful, seed {seed}, fold {fold}" for fold in (1, 2) for seed in (1, 2)]
    curves = [(replace(best, name=name), run.epochs(best)) for name in names]
    lines = seed_curves(curves).data
    assert [line.name for line in lines if line.showlegend] == ["seed 1", "seed 2"]
    assert len({(line.name, line.line.color) for line in lines}) == 2
    assert "fold 2" in str(lines[-1].hovertext)
