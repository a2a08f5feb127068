"""Every value has one way to be written, whoever shows it."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from search.console.time_left import in_words
from search.report.figures import STATUS_COLOURS, STATUS_SYMBOLS
from search.runs.format import (
    ABSENT,
    STATUS_WORDS,
    conditions_of,
    differing,
    duration,
    percent,
    percent_range,
    percent_spread,
    points,
    quantity,
    short,
    status_in_words,
    status_word,
    value_of,
)
from search.runs.journal import BROKEN, OVER, Report, Status, Trial


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.3e-4, "1.3e-4"), (1e-5, "1e-5"), (0.05, "0.05"), (0.1234567, "0.123"), (22050.0, "22050"), (999.6, "1000"),
        (1.3e-10, "1.3e-10"), (-1e-3, "-1e-3"), (0.0, "0"), (1e10, "1e10"), (True, "yes"), (None, "none"), (224, "224"),
        (1.3246e-4, "1.3e-4"),
    ],
)  # fmt: skip
def test_values_are_short(value: Any, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (0.312, "0.31 s"), (3.0, "3 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"),
     (185.0, "3 min 05 s"), (3599.7, "1 h 00 min"), (3601.0, "1 h 00 min"), (7630.0, "2 h 07 min"), (-1.0, "0 s")],
)  # fmt: skip
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "time left: known after the first epochs"),
        ((0.0, 0.0), "less than 10 s left"),
        ((12.0, 38.0), "about 10 to 40 s left"),
        ((0.0, 55.0), "up to 60 s left"),
        ((181.0, 290.0), "about 3 to 5 min left"),
        ((3000.0, 7000.0), "about 0.5 to 2 h left"),
        ((40 * 3600.0, 47.9 * 3600.0), "about 40 to 48 h left"),
        ((50 * 3600.0, 90 * 3600.0), "about 2 to 4 days left"),
    ],
)
def test_a_range_reads_as_people_say_it(seconds: tuple[float, float] | None, words: str) -> None:
    assert in_words(seconds) == words


def test_shares_are_percent_and_nothing_where_there_is_none() -> None:
    assert (percent(0.8125), percent(0.8125, 2), percent(None)) == ("81.2%", "81.25%", "")
    assert (percent_range((0.66, 0.91)), percent_range(None)) == ("66.0% to 91.0%", "")
    assert (percent_spread({"mean": 0.8125, "deviation": 0.0177}), percent_spread(None)) == ("81.2% ± 1.8", "")
    assert percent_spread({"mean": 0.8125, "deviation": 0.0}) == "81.2%"  # of one seed
    assert points(0.0213) == "+2.1 points"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0"), (999.0, "999"), (11_200_000, "11.2M"), (999_700, "1000k"), (1_814_073_344, "1.81G")],
)
def test_large_numbers_are_said_in_thousands_millions_and_billions(value: float | None, text: str) -> None:
    assert quantity(value) == text


def test_a_baseline_has_no_value_for_what_nothing_looks_at_in_it() -> None:
    search = {
        "time_masks": {"choice": [0, 1]},
        "time_mask": {"uniform": [0.05, 0.25], "when": {"time_masks": [1]}},
        "deep": {"uniform": [0, 1], "when": {"time_mask": [20]}},
        "lr": {"loguniform": [1e-4, 1e-2]},
    }
    conditions = conditions_of(search)
    config = {"time_masks": 0, "time_mask": 20, "deep": 0.5, "lr": 1e-3}
    baseline = Trial(0, "baseline", "simple", {}, config, started=0.0)
    assert value_of(baseline, "time_mask", conditions) is value_of(baseline, "deep", conditions) is ABSENT
    assert value_of(baseline, "lr", conditions) == 1e-3
    masked = Trial(1, "baseline", "strong", {}, {**config, "time_masks": 1}, started=0.0)
    assert value_of(masked, "time_mask", conditions) == 20
    assert value_of(masked, "deep", conditions) == 0.5
    assert differing([baseline, masked], search, conditions) == ["time_masks", "time_mask", "deep"]


def test_every_status_has_a_word_a_colour_and_a_symbol() -> None:
    for names in (STATUS_WORDS, STATUS_COLOURS, STATUS_SYMBOLS):
        assert set(names) == set(get_args(Status))
    assert {*OVER, "running"} == set(STATUS_WORDS) > BROKEN


def test_a_trial_is_running_only_where_somebody_drives_it() -> None:
    trial = Trial(1, "search", "", {}, {}, started=0.0, status="cut", reports=[Report(1, 0.5, 1.0, "cut", 1.0)])
    assert status_in_words(trial) == "cut at 1"
    assert (status_word("running"), status_word("running", live=True)) == ("not finished", "running")
