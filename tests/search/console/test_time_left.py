"""The range for a search's end holds the truth, and says what it is about."""

from __future__ import annotations

import numpy as np
import pytest

from search.console.time_left import History, Pace, Plan, Underway, pace_of, time_left
from search.runs.journal import Report, Trial
from search.runs.tables import epoch_seconds
from tests.support.simulated_search import apply, simulate

FRACTIONS = (0.1, 0.25, 0.5, 0.75, 0.9)  # of a search's time, at which its end is estimated


def estimates(plan: Plan, seed: int, spread: float) -> list[tuple[float, float, float]]:
    """(low, high, truth) in s at each of FRACTIONS of a simulated search."""
    events = simulate(plan, seed, spread=spread)
    end = events[-1].time
    history, trials, moments, found = History(plan), {}, [fraction * end for fraction in FRACTIONS], []
    for event in events:
        while moments and event.time > moments[0]:
            now = moments.pop(0)
            underway = [
                Underway(len(t.reports), t.config["epochs"], pace_of(t, [0.0]),
                         now - (t.reports[-1].time if t.reports else t.started), t.kind != "baseline")
                for t in trials.values() if not t.over
            ]  # fmt: skip
            low_high = time_left(history, underway, plan.trials - len(trials), now)
            if low_high:
                found.append((*low_high, end - now))
        apply(trials, event)
        trial = trials[event.values["trial"]]
        if event.values["event"] == "reported":
            history.report(event.values["epoch"], event.values["decision"] == "continue", trial.kind != "baseline")
        if event.values["event"] == "ended":
            history.end(len(trial.reports), pace_of(trial, [0.0]), trial.kind != "baseline")
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "spread"),
    [
        (Plan(16, 2, 12, 3, 3.0), 0.4),
        (Plan(64, 4, 30, 8, 3.0), 0.4),
        (Plan(200, 8, 27, 1, 3.0), 0.4),
        (Plan(32, 4, 10, 1, None), 0.4),
        (Plan(16, 2, 12, 3, 3.0), 0.8),  # configurations that differ tenfold in speed
    ],
)
def test_the_range_holds_the_true_end_most_of_the_time_and_is_no_excuse(plan: Plan, spread: float):
    found = np.array([row for seed in range(12) for row in estimates(plan, seed, spread)])
    low, high, truth = found.T
    assert np.mean((low <= truth) & (truth <= high)) > 0.65  # 0.8 is meant; 60 estimates that are not independent
    assert np.median(high / truth) < 2.2
    assert np.median(low / truth) > 0.4


def test_the_plan_has_the_rungs_of_the_space():
    assert Plan(10, 1, 30, 2, 2.5).rungs == (2, 5, 13)


def test_cuts_shorten_the_estimate():
    left = {}
    for factor in (None, 3.0):
        history = History(Plan(40, 2, 27, 1, factor))
        left[factor] = time_left(history, [Underway(1, 27, Pace(1.0, 1.0), 0.0, True)], 39, now=0.0)
    assert left[3.0][1] < 0.4 * left[None][1]
    assert left[3.0][1] < left[None][0]


def test_the_observed_survival_outweighs_the_reduction_factor():
    high = {}
    for survivors in (0, 40):
        history = History(Plan(100, 1, 27, 9, 3.0))
        for _ in range(survivors):
            history.report(9, went_on=True, cuttable=True)
            history.end(27, Pace(1.0, 1.0), cuttable=True)
        for _ in range(40 - survivors):
            history.report(9, went_on=False, cuttable=True)
            history.end(9, Pace(1.0, 1.0), cuttable=True)
        high[survivors] = time_left(history, [], 60, now=0.0)
    assert high[0][1] < 60 * 15 < high[40][0]


def test_nothing_is_claimed_before_the_first_epoch():
    history = History(Plan(10, 2, 10, 1, 3.0))
    assert time_left(history, [Underway(0, 10, None, 5.0, True)], 9, now=0.0) is None


def test_a_time_budget_bounds_the_estimate():
    history = History(Plan(1000, 1, 30, 3, 3.0, deadline=1060.0))
    low, high = time_left(history, [Underway(1, 30, Pace(10.0, 10.0), 0.0, True)], 999, now=1000.0)
    assert low == high == 60.0


def test_a_search_with_nothing_left_to_do_has_no_time_left():
    history = History(Plan(1, 1, 5, 1, None))
    history.end(5, Pace(1.0, 1.0), cuttable=True)
    assert time_left(history, [], 0, now=0.0) == (0.0, 0.0)


def test_time_without_a_driver_does_not_count_as_training():
    trial = Trial(0, "search", "", {}, {}, started=10.0)
    trial.reports = [Report(n, 0.5, 1.0, "continue", t) for n, t in ((1, 15.0), (2, 18.0), (3, 1004.0), (4, 1007.0))]
    sessions = [0.0, 1000.0]  # killed after the second epoch, resumed much later
    assert epoch_seconds(trial, sessions) == [5.0, 3.0, 4.0, 3.0]
    assert pace_of(trial, sessions) == Pace(5.0, pytest.approx(10 / 3))
