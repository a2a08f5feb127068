from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.runs.gain import FEWEST, Prospect, expected_gain
from search.runs.journal import Journal, Kind, Status
from tests.support.stepping import new_journal


def trial(journal: Journal, accuracy: float, status: Status | None = "finished", kind: Kind = "search") -> None:
    """A trial of two epochs, which gets past a grace of one; one that is `cut` does not."""
    begun = journal.suggested(kind, "", {"lr": 1e-3}, {})
    journal.reported(begun.number, 1, accuracy, 1.0, "cut" if status == "cut" else "continue")
    if status != "cut":
        journal.reported(begun.number, 2, accuracy, 1.0, "continue")
    if status:
        journal.ended(begun.number, status)


def prospect_of(journal: Journal) -> Prospect:
    return Prospect(1, journal.trials.values())


@pytest.mark.parametrize("kind", ["uniform", "beta"])
def test_where_accuracies_come_to_an_end_the_promise_is_kept_within_its_range(kind: str) -> None:
    rng, promised, came, inside = np.random.default_rng(1), [], [], []
    for _ in range(200):
        shares = rng.random((2, 40)) if kind == "uniform" else rng.beta(4, 2, (2, 40))
        before, after = np.sort(0.4 + 0.5 * shares, axis=1)
        gain = expected_gain(before[-11:].tolist(), float(before[-1]), 40)
        assert (gain.trials, 0 <= gain.low <= gain.high) == (40, True)
        promised.append(gain.expected)
        came.append(max(0.0, after[-1] - before[-1]))
        inside.append(gain.low - 1e-9 <= came[-1] <= gain.high + 1e-9)
    # It promises more rather than less: too long a search costs less than a missed best.
    assert np.mean(came) < np.mean(promised) < 2.2 * np.mean(came)
    assert 0.75 < np.mean(inside) < 0.98


def test_an_open_end_promises_more_than_a_near_one() -> None:
    thinning_out = [0.7, 0.705, 0.71, 0.716, 0.723, 0.73, 0.74, 0.75, 0.765, 0.785, 0.82]
    crowding = [0.7, 0.78, 0.79, 0.8, 0.805, 0.81, 0.815, 0.815, 0.82, 0.82, 0.82]
    assert expected_gain(thinning_out, 0.82, 40).expected > 3 * expected_gain(crowding, 0.82, 40).expected


def test_a_search_whose_best_are_all_alike_has_nothing_to_gain() -> None:
    assert expected_gain([0.9] * 6, 0.9, 20).high < 1e-4


def test_nobody_gains_more_than_there_is_room_for() -> None:
    gain = expected_gain([0.5, 0.99, 0.99, 0.99, 0.99], 0.99, 20)
    assert gain.high <= 0.01 + 1e-9


def test_a_gain_is_said_in_points_with_its_range() -> None:
    assert str(expected_gain([0.9] * 6, 0.9, 20)) == "20 more trials promise +0.0 points (+0.0 to +0.0)"


def test_nothing_is_said_before_enough_trials_are_over_and_past_the_grace_period(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    for number in range(FEWEST - 1):
        trial(journal, 0.5 + 0.01 * number)
    assert prospect_of(journal).gain() is None
    trial(journal, 0.9, status=None)  # it still runs
    trial(journal, 0.9, status="failed")  # a crash says nothing of the values
    trial(journal, 0.9, kind="baseline")  # nobody has drawn it
    assert prospect_of(journal).gain() is None
    trial(journal, 0.6)
    gain = prospect_of(journal).gain()
    assert gain is not None
    assert gain.trials == FEWEST

    few = new_journal(tmp_path / "few")
    for number in range(FEWEST):
        trial(few, 0.5, status="finished" if number < 4 else "cut")
    assert prospect_of(few).gain() is None


def test_what_a_baseline_or_a_running_trial_has_reached_must_be_beaten(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    for number in range(FEWEST):
        trial(journal, 0.5 + 0.01 * number)
    alone = prospect_of(journal).gain()
    against_running = prospect_of(journal).gain(best=0.75)
    trial(journal, 0.75, kind="baseline")
    against_baseline = prospect_of(journal).gain()
    assert alone is not None
    assert against_running is not None
    assert against_running == against_baseline
    assert against_running.expected < alone.expected / 2


def test_told_end_by_end_it_says_what_it_would_say_of_all_at_once(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    told = Prospect(1)
    journal.listen(lambda event: told.ended(journal.trials[event["trial"]]) if event["event"] == "ended" else None)
    rng = np.random.default_rng(0)
    for _ in range(20):
        trial(journal, float(rng.uniform(0.5, 0.9)), status="cut" if rng.random() < 0.3 else "finished")
        assert told.gain() == prospect_of(journal).gain()
    assert told.gain() is not None
