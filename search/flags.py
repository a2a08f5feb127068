"""What the command line may say in the place of a space file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.settings import check_gpus, parse_duration
from trainable.config import FIELDS, did_you_mean
from trainable.yaml_file import read_value


@dataclass(frozen=True)
class Flags:
    """The flags that change a space; None means "as the file says"."""

    data: str | None = None
    trials: int | None = None
    epochs: int | None = None  # the horizon of every trial, baselines included
    time_budget: str | float | None = None
    gpus_per_trial: float | None = None
    cpus_per_trial: float | None = None
    seed: int | None = None  # of the searcher, and of every trial

    @property
    def seconds(self) -> float | None:
        """The time budget, s."""
        return None if self.time_budget is None else parse_duration(self.time_budget)

    def problems(self, searches_epochs: bool) -> list[str]:
        """What is wrong with the flags, as `--FLAG: rule, got VALUE. What to do.`"""
        least = {"trials": 1, "epochs": 1, "seed": 0, "gpus_per_trial": 0}
        found = [
            f"--{name.replace('_', '-')}: must be at least {low}, got {getattr(self, name):g}. Raise it."
            for name, low in least.items()
            if getattr(self, name) is not None and getattr(self, name) < low
        ]
        if self.cpus_per_trial is not None and self.cpus_per_trial <= 0:
            found.append(f"--cpus-per-trial: must be above 0, got {self.cpus_per_trial:g}. Raise it.")
        try:
            check_gpus(self.gpus_per_trial or 0)
        except ValueError as error:
            found.append(f"--gpus-per-trial: {error}, got {self.gpus_per_trial:g}. Change it.")
        if self.epochs is not None and searches_epochs:
            found.append(f"--epochs: cannot be set where epochs is searched, got {self.epochs}. Leave it out.")
        try:
            _ = self.seconds
        except ValueError as error:
            found.append(f"--time-budget: {error}, got {self.time_budget!r}. Change it.")
        return found


def given(**values: Any) -> dict[str, Any]:
    """Those of the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def scaled(epochs: int, factor: float) -> int:
    """A number of epochs on another horizon: at least one, never more than its share."""
    return max(1, int(epochs * factor + 1e-9))


def with_settings(raw: Mapping[str, Any], settings: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """A space file's mapping as if it said what `--set FIELD=VALUE` says, and what is wrong with the flags.

    A field that the file searches is searched no more, and whatever hangs on it by `when` follows the fixed value. A
    baseline that names the field gets the value too, and loses what has no meaning beside it; a recipe keeps its own
    settings.
    """
    fixed, problems = {}, []
    for setting in settings:
        field, equals, text = setting.partition("=")
        field = field.strip()
        if not equals:
            problems.append(f"--set: must be FIELD=VALUE, got {setting!r}. Write for example --set epochs=20.")
        elif field not in FIELDS:
            problems.append(f"--set: unknown field {field!r}, got {setting!r}. {did_you_mean(field, FIELDS)}")
        else:
            try:
                fixed[field] = read_value(text)
            except ValueError as error:
                problems.append(f"--set: {field}: must be a YAML value ({error}), got {text!r}. Mend it.")
    given_fixed, searched = raw.get("fixed") or {}, raw.get("search") or {}
    if not fixed or not isinstance(given_fixed, Mapping) or not isinstance(searched, Mapping):
        return dict(raw), problems  # what is wrong with the sections is told by those who parse them
    left = {name: spec for name, spec in searched.items() if name not in fixed}
    pointless = _pointless(left, fixed)
    baselines = raw.get("baselines", [])
    if isinstance(baselines, list):
        baselines = [_with(fixed, item, pointless) if isinstance(item, Mapping) else item for item in baselines]
    return {
        **raw,
        "fixed": {**given_fixed, **fixed},
        "search": {name: _without_conditions_on(fixed, spec) for name, spec in left.items() if name not in pointless},
        "baselines": baselines,
    }, problems


def _with(fixed: Mapping[str, Any], baseline: Mapping[Any, Any], pointless: set[Any]) -> dict[Any, Any]:
    """A baseline's mapping with the fixed values of the fields that it names.

    What it leaves open comes from the space, so what is pointless there is so here; not where a recipe has the say.
    """
    dropped = set() if "recipe" in baseline else pointless
    return {key: fixed.get(key, value) for key, value in baseline.items() if key not in dropped}


def _pointless(dimensions: Mapping[Any, Any], fixed: Mapping[str, Any]) -> set[Any]:
    """The dimensions whose conditions cannot hold when some fields are fixed, and what hangs on those."""
    gone: set[Any] = set()
    while never := {name for name, spec in dimensions.items() if name not in gone and _cannot_hold(spec, fixed, gone)}:
        gone |= never
    return gone


def _conditions(spec: Any) -> Mapping[Any, Any]:
    when = spec.get("when") if isinstance(spec, Mapping) else None
    return when if isinstance(when, Mapping) else {}


def _cannot_hold(spec: Any, fixed: Mapping[str, Any], gone: set[Any]) -> bool:
    return any(
        parent in gone or (parent in fixed and fixed[parent] not in (values if isinstance(values, list) else [values]))
        for parent, values in _conditions(spec).items()
    )


def _without_conditions_on(fixed: Mapping[str, Any], spec: Any) -> Any:
    if not _conditions(spec):
        return spec
    left = {parent: values for parent, values in _conditions(spec).items() if parent not in fixed}
    return {**{key: value for key, value in spec.items() if key != "when"}, **({"when": left} if left else {})}
