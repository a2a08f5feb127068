from __future__ import annotations

from typing import Any

import pytest

from search.space.sections import parse_duration


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (90, 90), (1.5, 1.5), ("90", 90), (" 0.5 ", 0.5), ("1e3", 1000), ("5.", 5), (".5", 0.5), ("1E-1", 0.1),
        ("45s", 45), ("30m", 1800), ("1h30m", 5400), ("1 H 30 M", 5400), ("1.5h", 5400), (".5d", 43_200), ("5.m", 300),
    ],
)  # fmt: skip
def test_a_duration_is_a_number_of_seconds_or_numbers_with_units(said: str | float, seconds: float) -> None:
    assert parse_duration(said) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "said",
    ["soon", "", "5 parsecs", "1h30", "m", "0", "0s", "-5", "-5m", "inf", "nan", float("inf"), float("nan"), True,
     False, None, [5], "9" * 400, "9" * 400 + "d", pytest.param(10**400, id="400 digits")],
)  # fmt: skip
def test_what_is_no_duration_above_0_is_refused(said: Any) -> None:
    with pytest.raises(ValueError, match="must be a duration above 0 such as 45s, 30m or 1h30m"):
        parse_duration(said)
