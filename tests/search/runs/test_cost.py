"""What trials cost beside how good they are."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from search.runs.cost import COSTS, costs_of, front, front_of
from search.runs.run import RunFolder
from search.runs.tables import write_trials_csv
from tests.support.synthetic import make_run
from trainable.training.trial_folder import Cost


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run whose trials have costs, but for the last one."""
    run = make_run(tmp_path / "run")
    for trial in run.trials[:-1]:
        if trial.reports:
            size = 1_000_000 * (1 + trial.number % 5)
            run.folder(trial).write_cost(Cost(size, 100 * size, 1.5 * (1 + trial.number % 5), None))
    return run


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], []),
        ([(1, 0.5)], [(1, 0.5)]),
        ([(3, 0.9), (1, 0.5), (2, 0.4), (2, 0.7), (4, 0.9)], [(1, 0.5), (2, 0.7), (3, 0.9)]),
        ([(1, 0.5), (1, 0.8)], [(1, 0.8)]),
        ([(2, 0.5), (2, 0.5)], [(2, 0.5)]),
    ],
)
def test_the_front_is_what_no_other_beats_in_both(
    points: list[tuple[float, float]], expected: list[tuple[float, float]]
) -> None:
    assert front(points, cost=lambda point: point[0], worth=lambda point: point[1]) == expected


def test_the_front_of_a_run_holds_only_trials_that_may_be_called_best_and_whose_cost_is_known(run: RunFolder) -> None:
    found = front_of(run, "parameters")
    ranked = {best.trial.number for best in run.ranked()}
    assert {best.trial.number for best, _ in found} <= ranked
    assert [cost for _, cost in found] == sorted({cost for _, cost in found})
    accuracies = [best.accuracy for best, _ in found]
    assert accuracies == sorted(accuracies)
    best = run.best()
    assert best
    assert accuracies[-1] == best.accuracy
    assert front_of(run, "memory_mb") == []


def test_costs_stand_in_trials_csv_under_their_names(run: RunFolder) -> None:
    with write_trials_csv(run).open(newline="") as file:
        rows = {int(row["trial"]): row for row in csv.DictReader(file)}
    first = run.trials[0]
    assert costs_of(run, first)["parameters"] == 1_000_000
    assert [rows[first.number][name] for name in COSTS] == ["1000000", "100000000", "1.5", ""]
    assert [rows[run.trials[-1].number][name] for name in COSTS] == ["", "", "", ""]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("parameters", 11_181_642, "11.2M"), ("latency_ms", 20.32, "20.3 ms"), ("memory_mb", 812.0, "812 MB")],
)
def test_a_cost_is_said_with_its_unit(name: str, value: float, said: str) -> None:
    assert COSTS[name].said(value) == said


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("memory_mb", 3.3, "3.3 MB"), ("memory_mb", 1030.0, "1.03 GB"), ("memory_mb", 999.7, "1 GB"),
        ("latency_ms", 20.25, "20.2 ms"), ("latency_ms", 1500.0, "1.5 s"), ("parameters", 11.2e6, "11.2M"),
    ],
)  # fmt: skip
def test_a_cost_is_said_with_a_unit_that_keeps_it_short(kind: str, value: float, said: str) -> None:
    assert COSTS[kind].said(value) == said
