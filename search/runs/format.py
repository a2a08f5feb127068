"""The one place where values become text: settings, durations, shares and statuses."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from search.runs.journal import Trial

ABSENT = object()  # the value of a conditional dimension where its condition does not hold
# A word for each status, in the order in which they are listed. Of a run that nobody drives now nothing is "running".
STATUS_WORDS = {
    "finished": "finished",
    "cut": "cut",
    "running": "not finished",
    "diverged": "diverged",
    "out_of_memory": "out of memory",
    "failed": "failed",
}
# A unit, its length in s, and the time in s below which people use it.
UNITS = (("s", 1.0, 90.0), ("min", 60.0, 90 * 60.0), ("h", 3600.0, 48 * 3600.0), ("days", 86_400.0, math.inf))


def dimensions(trials: Iterable[Trial]) -> list[str]:
    """All dimensions that the trials were sampled from, in the order of the space file."""
    return list(dict.fromkeys(key for trial in trials for key in trial.params))


# When a dimension has a value: its parents, each with the values that it asks for. A space file's own `when`.
Conditions = Mapping[str, Mapping[str, Sequence[Any]]]


def conditions_of(search: Mapping[str, Mapping[str, Any]]) -> Conditions:
    """The conditions in a space's `search` section, as run.json has it; dimensions without any are left out."""
    return {name: dimension["when"] for name, dimension in search.items() if dimension.get("when")}


def value_of(trial: Trial, key: str, conditions: Conditions = MappingProxyType({})) -> Any:
    """What a trial used for a dimension; `ABSENT` where it did not need it.

    A baseline that is no point of the search space is asked by its configuration: it has a value for every field, also
    for those that nothing looks at in it, such as the width of masks where there are none.
    """
    if key in trial.params:
        return trial.params[key]
    if trial.kind == "search" or trial.params:
        return ABSENT
    needs = conditions.get(key, {})
    needed = all(value_of(trial, parent, conditions) in values for parent, values in needs.items())
    return trial.config.get(key, ABSENT) if needed else ABSENT


def differing(trials: Sequence[Trial], keys: Iterable[str], conditions: Conditions = MappingProxyType({})) -> list[str]:
    """Those of `keys` whose values are not the same for all the trials."""
    return [key for key in keys if len({_identity(value_of(trial, key, conditions)) for trial in trials}) > 1]


def short(value: Any) -> str:
    """A value for a table: `1.3e-4`, `0.05`, `yes`, `-` where there is none."""
    if value is ABSENT:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value != 0 and not 0.01 <= abs(value) < 100_000:
            return re.sub(r"(\.0)?e([-+])0?", lambda match: f"e{match[2]}".replace("+", ""), f"{value:.1e}")
        return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
    return "none" if value is None else str(value)


def duration(seconds: float) -> str:
    """A time span: `0.3 s`, `12 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = max(round(seconds), 0)
    if whole < 10 and seconds != whole:
        return f"{max(seconds, 0.0):.2g} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def time_range(low: float, high: float) -> str:
    """A range of seconds in one unit, in steps that an estimate deserves: `about 3 to 5 min`, `less than 10 s`."""
    unit, size = next((unit, size) for unit, size, below in UNITS if high < below)
    step = 10 if unit == "s" else 1 if high / size >= 10 or unit == "min" else 0.5
    bottom, top = math.floor(low / size / step) * step, math.ceil(high / size / step) * step
    if top <= step:
        return f"less than {step:g} {unit}"
    return f"about {bottom:g} to {top:g} {unit}" if bottom else f"up to {top:g} {unit}"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as `84.5%`; nothing where there is none."""
    return "" if value is None else f"{100 * value:.{digits}f}%"


def folds_in_words(folds: Sequence[float]) -> str:
    """What a mean accuracy is made of: `in the mean of 2 folds (90.0%, 85.0%)`; nothing where there is one fold."""
    return f"in the mean of {len(folds)} folds ({', '.join(map(percent, folds))})" if folds else ""


def percent_range(interval: Sequence[float] | None) -> str:
    """An interval of fractions as `66.0% to 91.0%`; nothing where there is none."""
    return "" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"


def interval_in_words(interval: Sequence[float] | None, groups: int | None) -> str:
    """A 95% interval as `66.0% to 91.0%`, over groups of clips as `43.0% to 80.0%, over 6 groups`."""
    if interval is None:
        return "no interval from one group"
    return percent_range(interval) + (f", over {groups} groups" if groups else "")


def percent_spread(spread: Mapping[str, float] | None) -> str:
    """Mean and deviation of fractions as `81.2% ± 1.8`; the mean alone where nothing differs, as with a single seed."""
    if spread is None:
        return ""
    return percent(spread["mean"]) + (f" ± {100 * spread['deviation']:.1f}" if spread["deviation"] else "")


def points(difference: float) -> str:
    """A difference of two fractions as `+2.1 points`."""
    return f"{100 * difference:+.1f} points"


def points_range(interval: Sequence[float] | None) -> str:
    """An interval of a difference as ` (+1.0 to +3.2)`, to follow it; nothing where there is none."""
    return "" if interval is None else f" ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"


def quantity(value: float | None) -> str:
    """A large number as people say it: `11.2M`, `430k`, `1.8G`; nothing where there is none."""
    if value is None:
        return ""
    size, unit = next(((size, unit) for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= size), (1.0, ""))
    return f"{value / size:.3g}{unit}" if value / size < 999.5 else f"{value / size:.0f}{unit}"


def status_word(status: str, live: bool = False) -> str:
    """The word for a status; `live`: the trial is being driven now."""
    return "running" if live and status == "running" else STATUS_WORDS.get(status, status.replace("_", " "))


def status_in_words(trial: Trial, live: bool = False) -> str:
    """How a trial stands, with the epoch of a cut: `finished`, `cut at 8`, `out of memory`."""
    return f"cut at {len(trial.reports)}" if trial.status == "cut" else status_word(trial.status, live)


def stop_in_words(reason: str | None) -> str:
    """Why a session ended: the journal's word for a budget of trials says little to people; "" where it has not."""
    return "every trial is done" if reason == "budget" else reason or ""


def described(trial: Trial, keys: Iterable[str], conditions: Conditions = MappingProxyType({})) -> str:
    """A trial's settings on one line: `resnet18, image_size 224, lr 1.3e-4`; names speak for themselves."""
    parts = []
    for key in keys:
        value = value_of(trial, key, conditions)
        if value is not ABSENT:
            parts.append(value if isinstance(value, str) else f"{key} {short(value)}")
    return ", ".join(parts)


def label(trial: Trial) -> str:
    """How a trial is called in a sentence: `trial 3`, `trial 0 (tutorial-simple)`."""
    return f"trial {trial.number} ({trial.name})" if trial.name else f"trial {trial.number}"


def _identity(value: Any) -> tuple[bool, Any]:
    """Equal for equal values, but tells yes from 1."""
    return isinstance(value, bool), value
