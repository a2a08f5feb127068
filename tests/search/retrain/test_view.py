from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from search.retrain.text import OPTIMISTIC, view

SPREAD = {"mean": 0.8, "deviation": 0.02}


def row(name: str, measured: float, searched: float | None) -> dict[str, Any]:
    spread = {"mean": measured, "deviation": 0.02}
    return {"name": name, "searched": searched, "validation": SPREAD, "measured": spread, "interval_95": [0.7, 0.9]}


def result(**values: Any) -> dict[str, Any]:
    """A result as `retrain` returns it, as far as the view reads it."""
    seeds = {"members": ["a", "b"], "validation": 0.82, "accuracy": 0.86, "interval_95": [0.75, 0.93]}
    return {
        "measured_on": "test", "sentence": "100 test clips, on which nothing was trained or chosen", "accuracy": 0.83,
        "interval_95": [0.7, 0.9], "interval_groups": None, "groups": [], "per_seed": [{}, {}], "chosen": "trial 7",
        "chosen_by": "best mean",
        "candidates": [row("trial 7", 0.83, 0.9), row("trial 3", 0.79, 0.88)],
        "baseline": row("tutorial-simple", 0.7, 0.71), "ensembles": {"seeds": seeds, "greedy": None},
        "difference": {"mean": 0.13, "interval_95": [0.05, 0.2], "p_value": 0.0123, "test": "McNemar exact"},
        "winners_curse": {
            "name": "trial 7", "highest_of": 32, "searched": 0.9, "points_measured": 7.0, "points_validation": 10.0,
        },
        "calibration": {"ece_before": 0.12, "ece_after": 0.03}, "protocol": "stratified: trained on train",
        "model": {"seed": 1}, "failed": [], "notes": [], "earlier": [], **values,
    }  # fmt: skip


def lines(width: int | None = 80, **values: Any) -> list[str]:
    return [line.plain.rstrip() for line in view(result(**values), "runs/a b/retrained", width)]


def test_number_interval_baseline_flattery_and_next_command_are_told() -> None:
    text = "\n".join(lines(120))
    assert "result  trial 7: 83.0% (70.0% to 90.0%), mean of 2 seeds." in text
    assert "against tutorial-simple: +13.0 points (+5.0 to +20.0); p = 0.012 (McNemar exact)." in text
    assert (
        "search  trial 7, the best of 32 trials, scored 90.0% in the search; fresh seeds of it score 10.0 points less "
        "on the same\n        validation clips and 7.0 points less on the test clips."
    ) in text
    assert "ensemble of 2 seeds" in text
    assert "run_search.py predict 'runs/a b/retrained/model' FILE..." in text


@pytest.mark.parametrize(
    ("points", "words"),
    [(7.0, "7.0 points less"), (-2.0, "2.0 points more"), (0.0, "the same"), (-0.04, "the same")],
)  # fmt: skip
def test_fresh_seeds_score_more_or_less_than_the_search_did_or_the_same(points: float, words: str) -> None:
    curse = {
        "name": "trial 4",
        "highest_of": None,
        "searched": 0.9,
        "points_measured": points,
        "points_validation": None,
    }
    said = f"search  trial 4, scored 90.0% in the search; fresh seeds of it score {words} on the test clips."
    assert said.replace("4, scored", "4 scored") in lines(None, winners_curse=curse)


def test_a_retraining_that_validates_better_and_tests_worse_is_told_both() -> None:
    curse = {"name": "trial 4", "highest_of": 9, "searched": 0.8, "points_measured": 4.4, "points_validation": -9.4}
    (said,) = [line for line in lines(None, winners_curse=curse) if line.startswith("search")]
    assert said.endswith("score 9.4 points more on the same validation clips and 4.4 points less on the test clips.")
    optimistic = lines(None, winners_curse=curse, measured_on="validation")
    (said,) = [line for line in optimistic if line.startswith("search")]
    assert said.endswith("fresh seeds of it score 9.4 points more on the same validation clips.")


def test_of_many_groups_the_ends_are_shown() -> None:
    groups = [{"group": f"speaker {n}", "accuracy": 0.5 + n / 100} for n in range(20)]
    (said,) = [line for line in lines(None, groups=groups) if line.startswith("groups")]
    assert said.startswith("groups  speaker 0 50.0%, speaker 1 51.0%, ")
    assert said.endswith(", ..., speaker 19 69.0% (20 groups).")


def test_a_result_on_validation_clips_says_in_so_many_words_that_it_is_optimistic() -> None:
    found = lines(measured_on="validation", sentence=f"20 validation clips: {OPTIMISTIC}")
    assert "on      20 validation clips: validation, chosen by the search: optimistic." in found
    assert found[0].split()[0] == "validation"


def test_without_baseline_curse_or_model_nothing_is_made_up() -> None:
    text = "\n".join(lines(baseline=None, difference=None, winners_curse=None, model=None))
    for word in ("against", "search  ", "next", "baseline"):
        assert word not in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_every_line_but_the_command_fits(width: int) -> None:
    found = lines(
        width, notes=["a note that goes on " * 8], candidates=[row("a name that is far too long " * 3, 0.8, 0.9)]
    )
    assert max(cell_len(line) for line in found if not line.startswith("next")) <= width
