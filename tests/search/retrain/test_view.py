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
        "winners_curse": {"searched": 0.9, "points_measured": 7.0, "points_validation": 10.0},
        "calibration": {"ece_before": 0.12, "ece_after": 0.03}, "protocol": "stratified: trained on train",
        "model": {"seed": 1}, "failed": [], "notes": [], "earlier": [], **values,
    }  # fmt: skip


def lines(width: int | None = 80, **values: Any) -> list[str]:
    return [line.plain.rstrip() for line in view(result(**values), "runs/a b/retrained", width)]


def test_number_interval_baseline_flattery_and_next_command_are_told() -> None:
    text = "\n".join(lines(120))
    assert "result  trial 7: 83.0% (70.0% to 90.0%), mean of 2 seeds." in text
    assert "against tutorial-simple: +13.0 points (+5.0 to +20.0); p = 0.012 (McNemar exact)." in text
    assert "search  its own best score, 90.0%, was 7.0 points too high." in text
    assert "ensemble of 2 seeds" in text
    assert "run_search.py predict 'runs/a b/retrained/model' FILE..." in text


@pytest.mark.parametrize(
    ("points", "words"),
    [(7.0, "7.0 points too high"), (-2.0, "2.0 points too low"), (0.0, "what fresh seeds reach"),
     (-0.04, "what fresh seeds reach")],
)  # fmt: skip
def test_the_searchs_own_score_is_too_high_or_too_low_or_right(points: float, words: str) -> None:
    curse = {"searched": 0.9, "points_measured": points, "points_validation": None}
    assert f"search  its own best score, 90.0%, was {words}." in lines(winners_curse=curse)


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
