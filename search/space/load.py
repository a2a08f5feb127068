"""A space file and the command line's flags to a checked `Space`, or to every problem at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search.space.baselines import parse_baselines
from search.space.dimension import Dimension, parse_dimension
from search.space.sections import (
    Budget,
    Constraints,
    Resources,
    Scheduler,
    Searcher,
    check_gpus,
    parse_duration,
    parse_section,
)
from search.space.space import Space, scaled
from search.space.validate import corner_problems
from trainable.backbones import located
from trainable.config import FIELDS, NOT_SEARCHED, TrialConfig, describe
from trainable.errors import InputError, did_you_mean, shown
from trainable.files import read_mapping, read_value
from trainable.training.network import checked_config

KEYS = ("fixed", "search", "baselines", "budget", "resources", "scheduler", "searcher", "constraints")


def shipped_spaces() -> Path:
    """The folder of the space files that come with this program: its checkout's, or the installed ones."""
    checkout = Path(__file__).resolve().parents[2] / "spaces"
    if checkout.is_dir():
        return checkout
    installed = (
        Path(str(file.locate())) for found in distributions(name="audio-search") for file in found.files or ()
        if file.match("audio-search/spaces/*.yaml")
    )  # fmt: skip
    return next(installed).resolve().parent


def space_path(name: str | Path) -> Path:
    """The space file that a person means: a path, or a shipped one by its name (`quick`, `spaces/quick.yaml`).

    Raises:
        InputError: there is no such file.
    """
    path = Path(name)
    shipped = shipped_spaces()
    if path.exists() or path.parent not in (Path(), Path("spaces")):
        return path  # what is wrong with it, its reader says
    named = shipped / f"{path.name.removesuffix('.yaml')}.yaml"
    if named.exists():
        return named
    known = sorted(file.stem for file in shipped.glob("*.yaml"))
    raise InputError(f"{name}: no such file, and no space of that name. {did_you_mean(path.stem, known)}")


def load_space(
    path: str | Path,
    *,
    data: str | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    time_budget: str | float | None = None,
    gpus_per_trial: float | None = None,
    cpus_per_trial: float | None = None,
    at_once: int | None = None,
    seed: int | None = None,
    settings: Sequence[str] = (),
) -> Space:
    """The space in a YAML file, or the shipped one of that name, with what the command line says in its place.

    `settings`: texts FIELD=VALUE, read as if they stood under `fixed`.

    Raises:
        InputError: with every problem of the file and of the flags.
    """
    flags = Flags(data, trials, epochs, time_budget, gpus_per_trial, cpus_per_trial, at_once, seed)
    path = space_path(path)
    raw, wrong_settings = with_settings(read_mapping(path), settings)
    raw = with_whole_paths(raw)
    space, problems = _parse(str(path), raw)
    wrong_flags = wrong_settings + flags.problems(searches_epochs="epochs" in space.dimensions)
    if not wrong_flags:
        space = _with_flags(space, flags)
    if space.budget.grace_epochs > space.max_epochs:
        problems.append(
            f"budget.grace_epochs: must be at most the epochs of a trial ({space.max_epochs}), "
            f"got {space.budget.grace_epochs}. Lower it."
        )
    if not problems:
        problems += corner_problems(space)
    baselines, found = parse_baselines(space, raw.get("baselines", []))
    problems += found
    if not (space.dimensions or baselines or problems):
        problems.append("search: must have a dimension, or baselines a recipe, got neither. See spaces/quick.yaml.")
    if wrong_flags or problems:
        raise InputError([*wrong_flags, *(f"{path}: {line}" for line in problems)])
    return dataclasses.replace(space, baselines=baselines)


def _parse(source: str, raw: Mapping[str, Any]) -> tuple[Space, list[str]]:
    """The space without its baselines, as far as it is right, and the problems."""
    problems = [
        f"{key}: unknown key, got {shown(raw[key])}. {did_you_mean(str(key), KEYS)}" for key in raw if key not in KEYS
    ]
    fixed, found = parse_fixed(raw.get("fixed", {}))
    problems += found
    as_written = raw.get("fixed") if isinstance(raw.get("fixed"), dict) else {}
    dimensions, found = parse_search(raw.get("search", {}), as_written or {})
    problems += found
    budget, found = parse_section("budget", Budget, raw.get("budget", {}))
    problems += found
    resources, found = parse_section("resources", Resources, raw.get("resources", {}))
    problems += found
    scheduling, found = parse_section("scheduler", Scheduler, raw.get("scheduler", {}))
    problems += found
    searcher, found = parse_section("searcher", Searcher, raw.get("searcher", {}))
    problems += found
    constraints, found = parse_section("constraints", Constraints, raw.get("constraints", {}))
    problems += found
    space = Space(
        source, fixed, dimensions, (), budget, resources, scheduling, searcher, constraints=constraints
    )  # fmt: skip
    if budget.folds and fixed.get("val_fold", 1) != 1:
        problems.append(
            f"fixed.val_fold: must be 1 where budget.folds asks for further ones, got {shown(fixed['val_fold'])}. "
            "Leave it out."
        )
    if "grace_epochs" not in budget.model_fields_set:  # nobody has asked for more than there is
        space = space.with_budget(grace_epochs=min(budget.grace_epochs, space.max_epochs))
    return space, problems


def with_flags(space: Space, flags: Flags) -> Space:
    """A space that has been loaded before, with what the command line says now.

    Raises:
        InputError: with every problem of the flags.
    """
    if problems := flags.problems(searches_epochs="epochs" in space.dimensions):
        raise InputError(problems)
    return _with_flags(space, flags)


def _with_flags(space: Space, flags: Flags) -> Space:
    """The space with what the command line says."""
    budget: dict[str, Any] = {"trials": flags.trials, "time": flags.seconds}
    if flags.epochs is not None:
        grace = scaled(space.budget.grace_epochs, flags.epochs / space.max_epochs)
        budget["grace_epochs"] = min(grace, dataclasses.replace(space, epochs=flags.epochs).max_epochs)
    return dataclasses.replace(
        space,
        fixed={**space.fixed, **given(data=flags.data, seed=flags.seed)},
        budget=space.budget.model_copy(update=given(**budget)),
        resources=space.resources.model_copy(
            update=given(gpu=flags.gpus_per_trial, cpu=flags.cpus_per_trial, at_once=flags.at_once)
        ),
        searcher=space.searcher.model_copy(update=given(seed=flags.seed)),
        epochs=space.epochs if flags.epochs is None else flags.epochs,
    )


def parse_fixed(raw: Any) -> tuple[dict[str, Any], list[str]]:
    """The fixed values that are right, and the problems as `KEY: rule, got VALUE. What to do.`"""
    if not isinstance(raw, Mapping):
        return {}, [f"fixed: must map fields to values, got {shown(raw)}. Write fixed: {{epochs: 20}}."]
    problems = []
    right = {}
    for key, value in raw.items():
        if key not in FIELDS:
            problems.append(f"fixed.{key}: unknown key, got {shown(value)}. {did_you_mean(str(key), FIELDS)}")
        elif key == "train_on" and value != "train":
            problems.append(
                f"fixed.train_on: a search needs clips to validate on, got {shown(value)}. Leave it to retrain."
            )
        elif wrong := _wrong_field(key, value):
            problems += [f"fixed.{line}" for line in wrong]
        else:
            right[key] = value
    return right, problems


def _wrong_field(name: str, value: Any) -> list[str]:
    """What is wrong with one field's value, whatever the others are."""
    try:
        TrialConfig.model_validate({name: value})
        if name == "backbone":  # pydantic takes any text; for its usual input, as others would be refused for theirs
            checked_config({name: value, "weights": "none"}, source="")
    except ValidationError as error:
        return describe(error)
    except InputError as error:
        return [problem.removeprefix(": ") for problem in error.problems]
    return []


def parse_search(raw: Any, fixed: Mapping[str, Any]) -> tuple[dict[str, Dimension], list[str]]:
    """The dimensions that are right, parents before their children, and the problems."""
    if not isinstance(raw, Mapping):
        return {}, [f"search: must map fields to distributions, got {shown(raw)}. See spaces/quick.yaml."]
    dimensions: dict[str, Dimension] = {}
    problems: list[str] = []
    for name, value in raw.items():
        dimension, found = parse_dimension(str(name), value)
        problems += found
        if name in NOT_SEARCHED:
            problems.append(f"search.{name}: must be the same for all trials, got {shown(value)}. Put it under fixed.")
        elif name in fixed and not (dimension and dimension.when):  # with a condition, fixed has what holds elsewhere
            problems.append(
                f"search.{name}: stands under fixed too, got {shown(fixed[name])} there. Drop one of the two, or say "
                "with when where it is searched."
            )
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
            wanted = values[0] if len(values) == 1 else list(values)
            if parent in fixed:
                problems.append(
                    f"{key}: must be searched to be a condition, got {shown(fixed[parent])} under fixed. Drop it."
                )
            elif parent not in raw:
                problems.append(
                    f"{key}: must name a dimension, got {shown(wanted)}. "
                    + did_you_mean(parent, (*map(str, raw), *fixed))
                )
            elif parent in dimensions and dimensions[parent].size is None:
                problems.append(
                    f"{key}: must be a dimension whose values can be listed, got {dimensions[parent].kind}: one of its "
                    "values is never drawn exactly. Use a choice there, or drop the condition."
                )
            elif parent in dimensions:
                problems += [
                    f"{key}: must be a value that {parent} can take, got {shown(value)}. Choose one of its own."
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


@dataclass(frozen=True)
class Flags:
    """The flags that change a space; None means "as the file says"."""

    data: str | None = None
    trials: int | None = None
    epochs: int | None = None  # the horizon of every trial, baselines included
    time_budget: str | float | None = None
    gpus_per_trial: float | None = None
    cpus_per_trial: float | None = None
    at_once: int | None = None  # trials
    seed: int | None = None  # of the searcher, and of every trial

    @property
    def seconds(self) -> float | None:
        """The time budget, s."""
        return None if self.time_budget is None else parse_duration(self.time_budget)

    def problems(self, searches_epochs: bool) -> list[str]:
        """What is wrong with the flags, as `--FLAG: rule, got VALUE. What to do.`"""
        least = {"trials": 1, "epochs": 1, "seed": 0, "gpus_per_trial": 0, "at_once": 1}
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
            found.append(f"--time-budget: {error}, got {shown(self.time_budget)}. Change it.")
        return found


def given(**values: Any) -> dict[str, Any]:
    """Those of the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


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
            problems.append(f"--set: must be FIELD=VALUE, got {shown(setting)}. Write for example --set epochs=20.")
        elif field not in FIELDS:
            problems.append(f"--set: unknown field {field!r}, got {shown(setting)}. {did_you_mean(field, FIELDS)}")
        else:
            try:
                fixed[field] = read_value(text)
            except ValueError as error:
                problems.append(f"--set: {field}: must be a YAML value ({error}), got {shown(text)}. Mend it.")
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


def with_whole_paths(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A space file's mapping with whole paths in the place of one's own networks and weights.

    Workers start in other folders, and a value must be the same text wherever it stands.
    """

    def whole(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [whole(name, each) for each in value]
        if not isinstance(value, str) or name not in ("backbone", "weights"):
            return value
        return located(value) if name == "backbone" else _whole_path(value)

    def fields(values: Any) -> Any:
        return {key: whole(key, value) for key, value in values.items()} if isinstance(values, Mapping) else values

    def dimension(name: str, spec: Any) -> Any:
        if not isinstance(spec, Mapping):
            return spec
        made = {"choice": lambda value: whole(name, value), "when": fields}
        return {key: made[key](value) if key in made else value for key, value in spec.items()}

    result = dict(raw)
    if "fixed" in raw:
        result["fixed"] = fields(raw["fixed"])
    if isinstance(raw.get("search"), Mapping):
        result["search"] = {name: dimension(name, spec) for name, spec in raw["search"].items()}
    if isinstance(raw.get("baselines"), list):
        result["baselines"] = [fields(item) for item in raw["baselines"]]
    return result


def _whole_path(weights: str) -> str:
    path = Path(weights).expanduser()
    return str(path.absolute()) if path.exists() else weights


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
