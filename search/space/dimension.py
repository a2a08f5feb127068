"""One dimension of a search space: a distribution under Ray Tune's name, sampled through Optuna.

Bounds mean what they mean in Ray Tune: `uniform`, `loguniform`, `randint` and `lograndint` leave the upper bound out,
the quantised ones (`quniform`, `qloguniform`, `qrandint`) include it and give multiples of their last argument. With a
step of 1 Ray's own sampler leaves the upper bound of `qrandint` out and its `OptunaSearch` includes it; so does this.
Source: ray.tune.search.sample, ray.tune.search.optuna.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from trainable.config import FIELDS
from trainable.errors import did_you_mean, shown

# What each distribution takes, as the error for a wrong call shows it.
KINDS: dict[str, str] = {
    "choice": "[value, value, ...]",
    "uniform": "[lower, upper]",
    "quniform": "[lower, upper, step]",
    "loguniform": "[lower, upper]",
    "qloguniform": "[lower, upper, step]",
    "randint": "[lower, upper], whole numbers, upper left out",
    "qrandint": "[lower, upper] or [lower, upper, step], whole numbers, upper included",
    "lograndint": "[lower, upper], whole numbers, upper left out",
}
# Names that Ray Tune has and Optuna cannot sample, with what to use instead.
_WITHOUT_OPTUNA = {
    "randn": "uniform", "qrandn": "quniform", "qlograndint": "lograndint", "sample_from": "choice",
    "grid_search": "choice",
}  # fmt: skip


MOST_CHOICES = 1000  # every choice, and every pair with another one, is checked before anything is spent
MOST_STEPS = 10**9  # beyond them neighbouring values are equal to a float's rounding, and to every training


@dataclass(frozen=True)
class Dimension:
    """What one field of the configuration may be, and on which values of other dimensions that depends."""

    name: str  # the TrialConfig field
    kind: str  # one of KINDS
    args: tuple[Any, ...]  # as in the space file
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()  # (other dimension, the values that make this one active)

    @property
    def step(self) -> Any:
        """The quantum of a quantised dimension; None for the others."""
        if self.kind == "qrandint":
            return self.args[2] if len(self.args) == 3 else 1
        return self.args[2] if self.kind in ("quniform", "qloguniform") else None

    @property
    def bounds(self) -> tuple[Any, Any]:
        """The smallest and the largest value, both included where whole numbers or multiples are drawn."""
        low, high = self.args[:2]
        if self.kind in ("randint", "lograndint"):
            return low, high - 1
        if self.step is None:
            return low, high
        first, last = _multiples(low, high, self.step)
        return self._multiple(first), self._multiple(last)

    @property
    def distribution(self) -> BaseDistribution:
        """The distribution that Optuna samples.

        A quantised float is sampled as a whole number of steps: Optuna has no logarithmic scale with a step, and a
        whole number survives the journal's JSON without a rounding error that would change later suggestions.
        """
        match self.kind:
            case "choice":
                return CategoricalDistribution(self.args)
            case "uniform" | "loguniform":
                return FloatDistribution(float(self.args[0]), float(self.args[1]), log=self.kind == "loguniform")
            case "quniform" | "qloguniform":
                first, last = _multiples(*self.args)
                return IntDistribution(first, last, log=self.kind == "qloguniform")
            case "qrandint":
                return IntDistribution(*self.bounds, step=self.step)
            case _:
                return IntDistribution(*self.bounds, log=self.kind == "lograndint")

    @property
    def shown_distribution(self) -> BaseDistribution:
        """The distribution over the values themselves, for people and plots."""
        if self.kind == "quniform":
            return FloatDistribution(*self.bounds, step=float(self.step))
        if self.kind == "qloguniform":  # Optuna has no logarithmic scale with a step
            return FloatDistribution(*self.bounds, log=True)
        return self.distribution

    def suggest(self, trial: optuna.trial.BaseTrial) -> Any:
        """A value of this dimension, drawn by the study's sampler."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return trial.suggest_categorical(self.name, distribution.choices)
        if isinstance(distribution, FloatDistribution):
            return trial.suggest_float(self.name, distribution.low, distribution.high, log=distribution.log)
        assert isinstance(distribution, IntDistribution)
        drawn = trial.suggest_int(
            self.name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
        return self.from_optuna(drawn)

    def draw(self, rng: np.random.Generator) -> Any:
        """A value drawn at random, evenly on the dimension's own scale."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[int(rng.integers(len(distribution.choices)))]
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        step = distribution.step if isinstance(distribution, IntDistribution) else 0
        # Half a step on either side, so that a whole number at the end is as likely as one in the middle.
        low, high = distribution.low - step / 2, distribution.high + step / 2
        drawn = math.exp(rng.uniform(math.log(low), math.log(high))) if distribution.log else rng.uniform(low, high)
        if step:
            drawn = distribution.low + round((drawn - distribution.low) / step) * step
        return self.from_optuna(min(max(drawn, distribution.low), distribution.high))

    def from_optuna(self, drawn: Any) -> Any:
        """The value for what Optuna has drawn."""
        return self._multiple(drawn) if self.kind in ("quniform", "qloguniform") else drawn

    def to_optuna(self, value: Any) -> Any:
        """What Optuna must have drawn for a value."""
        return round(value / self.step) if self.kind in ("quniform", "qloguniform") else value

    def contains(self, value: Any) -> bool:
        """Whether the dimension can take this value."""
        if self.kind == "choice":
            return bool(self._listed(value))
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = self.bounds
        if not low <= value <= high:
            return False
        if self.kind in ("uniform", "loguniform"):
            return True
        step = self.step or 1
        return math.isclose(value / step, round(value / step), rel_tol=1e-9)

    def as_drawn(self, value: Any) -> Any:
        """A value of the dimension as its own samples have it: the 0.0 of a configuration is the 0 of [0, 0.2]."""
        if self.kind == "choice":
            return self._listed(value)[0]
        return int(value) if self.kind in ("randint", "qrandint", "lograndint") else value

    def corners(self) -> tuple[Any, ...]:
        """All choices, or the two bounds."""
        return self.args if self.kind == "choice" else tuple(dict.fromkeys(self.bounds))

    def usual(self, default: Any) -> Any:
        """`default` where the dimension can take it, otherwise its first choice or its middle."""
        if self.contains(default):
            return default
        if self.kind == "choice":
            return self.args[0]
        low, high = self.bounds
        middle = math.sqrt(low * high) if "log" in self.kind else (low + high) / 2
        if self.kind in ("uniform", "loguniform"):
            return middle
        first, last = _multiples(low, high, self.step or 1)
        return self._multiple(min(max(round(middle / (self.step or 1)), first), last))

    @property
    def size(self) -> int | None:
        """How many values there are; None where there is no end of them."""
        if self.kind == "choice":
            return len(self.args)
        if self.kind in ("uniform", "loguniform"):
            return None if self.args[0] < self.args[1] else 1
        low, high = self.bounds
        return round(float(high - low) / (self.step or 1)) + 1

    def values(self) -> Iterator[Any]:
        """All values, as its samples have them, where there is an end of them."""
        if self.kind == "choice":
            yield from self.args
        elif isinstance(self.distribution, IntDistribution):
            step = self.distribution.step
            yield from map(self.from_optuna, range(self.distribution.low, self.distribution.high + 1, step))
        else:
            yield float(self.args[0])

    def _listed(self, value: Any) -> list[Any]:
        """The choice that equals a value, if any; True is no 1."""
        return [
            choice for choice in self.args if choice == value and isinstance(choice, bool) == isinstance(value, bool)
        ]

    def _multiple(self, count: int) -> Any:
        """So many steps; 3 steps of 0.1 are 0.3 to everybody but a float."""
        step = self.step or 1
        return count * step if isinstance(step, int) and "int" in self.kind else float(f"{count * step:.12g}")

    def to_json(self) -> dict[str, Any]:
        """The dimension as a space file has it."""
        when = {parent: list(values) for parent, values in self.when}
        return {self.kind: list(self.args), **({"when": when} if when else {})}


def parse_dimension(name: str, raw: Any) -> tuple[Dimension | None, list[str]]:
    """The dimension that a space file describes, or None, and the problems as `KEY: rule, got VALUE. What to do.`"""
    key = f"search.{name}"
    if name not in FIELDS:
        return None, [f"{key}: unknown key, got {shown(raw)}. {did_you_mean(name, FIELDS)}"]
    if not isinstance(raw, Mapping) or not raw:
        hint = f"Write {{choice: {raw!r}}}." if isinstance(raw, list) else f"To fix {name}, put it under fixed."
        return None, [f"{key}: must be a distribution such as {{choice: [...]}}, got {shown(raw)}. {hint}"]
    problems = [
        f"{key}.{kind}: unknown distribution, got {shown(raw[kind])}. {_which_instead(str(kind))}"
        for kind in raw
        if kind not in KINDS and kind != "when"
    ]
    kinds = [str(kind) for kind in raw if kind in KINDS]
    if len(kinds) > 1 or not (kinds or problems):
        found = f"{' and '.join(kinds)}" if kinds else "none"
        problems.append(f"{key}: must have exactly one distribution, got {found}. Keep one of {', '.join(KINDS)}.")
    when, when_problems = _parse_when(key, raw.get("when", {}))
    if len(kinds) != 1 or problems:
        return None, problems + when_problems
    args = raw[kinds[0]]
    problem = _wrong_args(kinds[0], args)
    if problem:
        return None, [*when_problems, f"{key}.{kinds[0]}: {problem}"]
    return (None if when_problems else Dimension(name, kinds[0], tuple(args), when)), when_problems


def _which_instead(kind: str) -> str:
    if kind in _WITHOUT_OPTUNA:
        return f"Optuna cannot sample it: use {_WITHOUT_OPTUNA[kind]}."
    return did_you_mean(kind, [*KINDS, "when"])


def _wrong_args(kind: str, args: Any) -> str | None:
    """What is wrong with a distribution's arguments."""
    if not isinstance(args, list) or not args:
        return f"must be {KINDS[kind]}, got {shown(args)}. Write a list."
    if len(args) > MOST_CHOICES:
        return f"must list at most {MOST_CHOICES} values, got {len(args)}. Give a range."
    if kind == "choice":
        odd = [value for value in args if value is not None and not isinstance(value, bool | int | float | str)]
        if odd:
            return f"must list plain values, got {shown(odd[0])}. Name one value per choice."
        twice = [value for index, value in enumerate(args) if value in args[:index]]
        return f"must list every value once, got {shown(twice[0])} twice. Drop one." if twice else None
    whole = kind in ("randint", "qrandint", "lograndint")
    count = (2, 3) if kind == "qrandint" else (3,) if kind in ("quniform", "qloguniform") else (2,)
    numbers = all(isinstance(value, int if whole else int | float) and not isinstance(value, bool) for value in args)
    if len(args) not in count or not numbers or not all(math.isfinite(value) for value in args):
        return f"must be {KINDS[kind]}, got {shown(args)}. Write {'whole ' if whole else ''}numbers."
    low, high = args[:2]
    if low > high or (low == high and kind in ("randint", "lograndint")):
        rule = (
            "lower must be below upper, which is left out" if whole and len(args) == 2 else "lower must not pass upper"
        )
        return f"{rule}, got {shown(args)}. Widen it, or put the value under fixed."
    if "log" in kind and low <= 0:
        instead = kind.replace("log", "")
        return f"lower must be above 0 on a logarithmic scale, got {shown(low)}. Raise it, or use {instead}."
    if len(args) == 3:
        return _wrong_step(kind, low, high, args[2])
    return None


def _wrong_step(kind: str, low: Any, high: Any, step: Any) -> str | None:
    if step <= 0:
        return f"step must be above 0, got {shown(step)}. Give the distance of two neighbouring values."
    if max(abs(low), abs(high)) > MOST_STEPS * step:
        return f"step must be at least a {MOST_STEPS:.0e}th of the bounds, got {step!r}. Raise it, or leave it out."
    first, last = _multiples(low, high, step)
    if first > last or (kind == "qloguniform" and first < 1):
        return f"must hold a multiple of the step {step!r}, got {shown([low, high])}. Change the bounds or the step."
    if kind != "qrandint":
        # Ray Tune refuses float bounds that are no multiples of the step, so that nobody is surprised by the ends.
        odd = [bound for bound in (low, high) if not math.isclose(bound / step, round(bound / step), abs_tol=1e-9)]
        if odd:
            return f"bounds must be multiples of the step {step!r}, got {shown(odd[0])}. Change the bound or the step."
    return None


def _parse_when(key: str, raw: Any) -> tuple[tuple[tuple[str, tuple[Any, ...]], ...], list[str]]:
    if not isinstance(raw, Mapping):
        return (), [f"{key}.when: must map a dimension to a value, got {shown(raw)}. Write when: {{schedule: step}}."]
    problems = [f"{key}.when.{p}: must name at least one value, got []. List them." for p, v in raw.items() if v == []]
    return tuple((str(p), tuple(v) if isinstance(v, list) else (v,)) for p, v in raw.items()), problems


def _multiples(low: float, high: float, step: float) -> tuple[int, int]:
    """The first and last whole number of steps inside the bounds; rounding errors do not push a bound out."""
    return math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
