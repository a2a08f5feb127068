"""Combinations of a space's extreme values that make no valid configuration, found before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from search.space.dimension import Dimension
from search.space.space import Space
from trainable.config import TrialConfig
from trainable.errors import InputError
from trainable.training.network import checked_config

_EACH_END = 20  # a list of backbones is tried whole; 1,000 numbers by 1,000 would take minutes


def corner_problems(space: Space) -> list[str]:
    """Problems of the usual sample, of each dimension's corners and of each pair of corners.

    Values between corners, and rules that take three dimensions at once, are left to the search, where such a trial
    fails with its message.
    """
    wrong = _refused(space, space.usual_sample())
    if wrong:
        return [f"{_section(space, line)}{line}" for line in wrong]
    problems: list[str] = []
    bad: set[tuple[str, Any]] = set()
    for dimension in space.dimensions.values():
        for value in dimension.corners():
            found = _check(space, {dimension.name: value})
            if found:
                problems += found
                bad.add((dimension.name, value))
    for one, other in combinations(space.dimensions.values(), 2):
        problems += _pair_problems(space, one, other, bad)
    return list(dict.fromkeys(problems))


def _pair_problems(space: Space, one: Dimension, other: Dimension, bad: set[tuple[str, Any]]) -> list[str]:
    """The first problem of two dimensions together; of long lists of choices, their ends are tried."""
    for first in _ends(one):
        for second in _ends(other):
            if (one.name, first) in bad or (other.name, second) in bad:
                continue
            found = _check(space, {one.name: first, other.name: second})
            if found:
                return found
    return []


def _ends(dimension: Dimension) -> tuple[Any, ...]:
    corners = dimension.corners()
    return corners if len(corners) <= 2 * _EACH_END else (*corners[:_EACH_END], *corners[-_EACH_END:])


def _check(space: Space, values: Mapping[str, Any]) -> list[str]:
    """What is wrong with `values` where all other dimensions have their usual values."""
    sample = _sample_with(space, values)
    lines = _refused(space, sample) if sample is not None else []
    what = " and ".join(f"{name}={value}" for name, value in values.items())
    # "gain: must ..." of a configuration is "with scale=log, gain must ..." of a space.
    return [
        f"search.{next(iter(values))}: with {what}, {line.replace(': ', ' ', 1)} Or add a when." for line in lines[:1]
    ]


def _refused(space: Space, sample: Mapping[str, Any]) -> list[str]:
    """The problems of a sample, without the name of the file."""
    try:
        checked_config(space.stretched({**space.fixed, **sample}), source="")
    except InputError as error:
        return [problem.removeprefix(": ") for problem in error.problems]
    return []


def _section(space: Space, line: str) -> str:
    """Where in the space file the field that `line` starts with stands."""
    name = line.split(":")[0]
    return "search." if name in space.dimensions else "fixed." if name in space.fixed else ""


def _sample_with(space: Space, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """A sample that has `values`, with parents set so that they are active; None where they exclude each other."""
    wanted = dict(values)
    for name in reversed(list(space.dimensions)):  # children before parents
        if name not in wanted:
            continue
        for parent, allowed in space.dimensions[name].when:
            if wanted.setdefault(parent, allowed[0]) not in allowed:
                return None
    sample: dict[str, Any] = {}
    for dimension in space.dimensions.values():
        if space.active(dimension, sample):
            default = TrialConfig.model_fields[dimension.name].default
            sample[dimension.name] = wanted.get(dimension.name, dimension.usual(default))
    return sample
