"""The two sections of a space file that name fields of a trial: `fixed` and `search`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from search.dimension import Dimension, parse_dimension
from trainable.config import FIELDS, SHARED_FIELDS, TrialConfig, describe, did_you_mean
from trainable.errors import InputError

# Fields that no search may vary: which clips are scored, luck, and the machine.
NOT_SEARCHED = (*SHARED_FIELDS, "seed", "device")


def parse_fixed(raw: Any) -> tuple[dict[str, Any], list[str]]:
    """The fixed values that are right, and the problems as `KEY: rule, got VALUE. What to do.`"""
    if not isinstance(raw, Mapping):
        return {}, [f"fixed: must map fields to values, got {raw!r}. Write fixed: {{epochs: 20}}."]
    problems = []
    right = {}
    for key, value in raw.items():
        if key not in FIELDS:
            problems.append(f"fixed.{key}: unknown key, got {value!r}. {did_you_mean(str(key), FIELDS)}")
        elif key == "train_on" and value != "train":
            problems.append(f"fixed.train_on: a search needs clips to validate on, got {value!r}. Leave it to retrain.")
        elif wrong := _wrong_field(key, value):
            problems += [f"fixed.{line}" for line in wrong]
        else:
            right[key] = value
    return right, problems


def _wrong_field(name: str, value: Any) -> list[str]:
    """What is wrong with one field's value, whatever the others are."""
    try:
        TrialConfig.model_validate({name: value})
        if name == "backbone":  # the only field whose values torchvision knows and pydantic does not
            TrialConfig.parse({name: value}, source="")
    except ValidationError as error:
        return describe(error)
    except InputError as error:
        return [problem.removeprefix(": ") for problem in error.problems]
    return []


def parse_search(raw: Any, fixed: Mapping[str, Any]) -> tuple[dict[str, Dimension], list[str]]:
    """The dimensions that are right, parents before their children, and the problems."""
    if not isinstance(raw, Mapping):
        return {}, [f"search: must map fields to distributions, got {raw!r}. See spaces/quick.yaml."]
    dimensions: dict[str, Dimension] = {}
    problems: list[str] = []
    for name, value in raw.items():
        dimension, found = parse_dimension(str(name), value)
        problems += found
        if name in NOT_SEARCHED:
            problems.append(f"search.{name}: must be the same for all trials, got {value!r}. Put it under fixed.")
        elif name in fixed:
            problems.append(f"search.{name}: stands under fixed too, got {fixed[name]!r} there. Drop one of the two.")
        if dimension and name not in NOT_SEARCHED:
            wrong = _wrong_values(dimension)
            problems += wrong
            if not wrong:
                dimensions[dimension.name] = dimension
    problems += _wrong_conditions(dimensions, raw, fixed)
    ordered, cycle = _parents_first(dimensions)
    if cycle:
        problems.append(
            f"search.{cycle[0]}.when: must not come back to itself, got {' -> '.join(cycle)}. Cut the circle."
        )
    return ordered, problems


def _wrong_values(dimension: Dimension) -> list[str]:
    """What the configuration says to the dimension's choices or bounds."""
    of_floats = dimension.kind in ("uniform", "quniform", "loguniform", "qloguniform")
    # Not by the bounds: they may be whole where nothing between them is.
    if of_floats and any("valid integer" in line for line in _wrong_field(dimension.name, 0.5)):
        instead = {"uniform": "randint", "quniform": "qrandint"}.get(dimension.kind, "lograndint")
        return [f"search.{dimension.name}: takes whole numbers, got {dimension.kind}. Use {instead}."]
    return [f"search.{line}" for value in dimension.corners() for line in _wrong_field(dimension.name, value)]


def _wrong_conditions(
    dimensions: Mapping[str, Dimension], raw: Mapping[Any, Any], fixed: Mapping[str, Any]
) -> list[str]:
    problems = []
    for dimension in dimensions.values():
        for parent, values in dimension.when:
            key = f"search.{dimension.name}.when.{parent}"
            shown = values[0] if len(values) == 1 else list(values)
            if parent in fixed:
                problems.append(
                    f"{key}: must be searched to be a condition, got {fixed[parent]!r} under fixed. Drop it."
                )
            elif parent not in raw:
                problems.append(
                    f"{key}: must name a dimension, got {shown!r}. {did_you_mean(parent, (*map(str, raw), *fixed))}"
                )
            elif parent in dimensions:
                problems += [
                    f"{key}: must be a value that {parent} can take, got {value!r}. Choose one of its own."
                    for value in values
                    if not dimensions[parent].contains(value)
                ]
    return problems


def _parents_first(dimensions: Mapping[str, Dimension]) -> tuple[dict[str, Dimension], list[str]]:
    """The dimensions in an order in which conditions can be decided, and a cycle of conditions where there is one."""
    ordered: dict[str, Dimension] = {}

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in ordered or name not in dimensions:
            return []
        for parent, _ in dimensions[name].when:
            if cycle := visit(parent, [*path, name]):
                return cycle
        ordered[name] = dimensions[name]
        return []

    for name in dimensions:
        if cycle := visit(name, []):
            return dict(dimensions), cycle
    return ordered, []
