"""Baselines of a search: recipes and hand-made points that are evaluated first, at their own settings.

A recipe's name stands for that recipe as its source has it: its own values, and `TrialConfig`'s defaults for all that
it leaves open, whatever the space fixes. Only what decides which clips are scored (`SHARED_FIELDS`), what the machine
is (seed, device, precision, ...) and whether weights can be had comes from the space. A mapping is a point of one's
own: what it leaves open comes from its `recipe` where it names one, otherwise from the space. With `cut: true` it is a
first trial like the sampler's own: it competes with them, may be cut, and is not what the best is compared with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from search.space.space import Baseline, Space
from trainable.config import FIELDS, MACHINE_FIELDS, RECIPES, SHARED_FIELDS, TrialConfig
from trainable.errors import InputError, did_you_mean, shown
from trainable.training.network import checked_config

# What a recipe takes over from the space's fixed values.
FROM_SPACE = (*SHARED_FIELDS, *MACHINE_FIELDS, "weights")


def parse_baselines(space: Space, raw: Any) -> tuple[tuple[Baseline, ...], list[str]]:
    """The baselines of a space file, and the problems as `KEY: rule, got VALUE. What to do.`"""
    if not isinstance(raw, list):
        return (), [f"baselines: must be a list of recipes and mappings, got {shown(raw)}. Write [tutorial-simple]."]
    found: list[Baseline] = []
    problems: list[str] = []
    for index, item in enumerate(raw, start=1):
        name = item if isinstance(item, str) else item.get("name") if isinstance(item, Mapping) else None
        if name is not None and not isinstance(name, str):
            problems.append(f"baselines.{index}.name: must be a text, got {shown(name)}. Put it into quotes.")
            continue
        name = str(name or f"baseline-{index}")
        key = f"baselines.{name}"
        if any(baseline.name == name for baseline in found):
            problems.append(f"{key}: must have a name of its own, got a second one. Rename or drop it.")
            continue
        baseline, wrong = _parse(space, key, name, item)
        problems += wrong
        twin = next((each for each in found if baseline and each.values == baseline.values), None)
        if twin:
            problems.append(f"{key}: must differ from {twin.name}, got the same values. Change one, or drop it.")
        found += [baseline] if baseline else []
    return tuple(found), problems


def _parse(space: Space, key: str, name: str, item: Any) -> tuple[Baseline | None, list[str]]:
    if not isinstance(item, str | Mapping):
        return None, [f"{key}: must be a recipe's name or a mapping, got {shown(item)}. Write [tutorial-simple]."]
    recipe = item if isinstance(item, str) else item.get("recipe")
    own = {} if isinstance(item, str) else {k: v for k, v in item.items() if k not in ("name", "recipe", "cut")}
    if recipe is not None and recipe not in tuple(RECIPES):  # which may be a list
        place = key if isinstance(item, str) else f"{key}.recipe"
        return None, [f"{place}: unknown recipe, got {shown(recipe)}. {did_you_mean(str(recipe), tuple(RECIPES))}"]
    cut = item.get("cut", False) if isinstance(item, Mapping) else False
    problems = _wrong_values(space, key, own)
    if not isinstance(cut, bool):
        problems.append(
            f"{key}.cut: must be true or false, got {shown(cut)}. Leave it out for a baseline that is not cut."
        )
    if problems:
        return None, problems
    if recipe is None:
        params, completed = _complete(space, own)
        problems = [
            f"{key}.{field}: has a meaning only {_conditions(space, field)}, got {shown(own[field])}. Leave it out."
            for field in own
            if field in space.dimensions and field not in params
        ]
        values, note = {**space.fixed, **own, **params}, completed
    else:
        values = {**{k: v for k, v in space.fixed.items() if k in FROM_SPACE}, **_recipe(space, recipe), **own}
        note = ""
    stretched = space.stretched(values)
    try:
        config = checked_config(stretched, source=key)
    except InputError as error:
        # `baselines.x: lr: ...` reads better as `baselines.x.lr: ...`
        return None, problems + [problem.replace(f"{key}: ", f"{key}.", 1) for problem in error.problems]
    as_sampled = {field: value for field, value in values.items() if stretched[field] != value}
    baseline = dataclasses.replace(_placed(space, name, config, as_sampled, note), cut=cut)
    if cut and baseline.params is None:  # its epochs would be held against trials that train in another way
        problems.append(
            f"{key}.cut: needs a point of the space, got true for one that is {baseline.note}. Leave it out."
        )
    return (None if problems else baseline), problems


def _recipe(space: Space, name: str) -> dict[str, Any]:
    """A recipe's values; `weights` is the space's where it says anything, or nothing would run without a network."""
    values = dict(RECIPES[name])
    if "weights" in space.fixed:
        values["weights"] = space.fixed["weights"]
    return values


def _wrong_values(space: Space, key: str, own: Mapping[str, Any]) -> list[str]:
    problems = []
    for field, value in own.items():
        if field not in FIELDS:
            hint = did_you_mean(str(field), ("name", "recipe", "cut", *FIELDS))
            problems.append(f"{key}.{field}: unknown key, got {shown(value)}. {hint}")
        elif field in SHARED_FIELDS:
            problems.append(
                f"{key}.{field}: must be the same for all trials, got {shown(value)}. "
                "Put it under fixed, or leave it out."
            )
        elif field in space.dimensions and not space.dimensions[field].contains(value):
            allowed = space.dimensions[field].to_json()
            allowed.pop("when", None)
            problems.append(
                f"{key}.{field}: must lie inside the dimension {shown(allowed)}, got {shown(value)}. "
                "Widen it or change the value."
            )
    return problems


def _complete(space: Space, own: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A full sample around `own`, and what was added to it."""
    params: dict[str, Any] = {}
    added = []
    for dimension in space.dimensions.values():
        if not space.active(dimension, params):
            continue
        if dimension.name in own:
            params[dimension.name] = own[dimension.name]
        else:
            params[dimension.name] = dimension.usual(TrialConfig.model_fields[dimension.name].default)
            added.append(f"{dimension.name}={params[dimension.name]}")
    return params, f"completed with {', '.join(added)}" if added else ""


def _conditions(space: Space, field: str) -> str:
    when = [f"{parent} is {' or '.join(map(str, values))}" for parent, values in space.dimensions[field].when]
    return f"when {' and '.join(when)}"


def _placed(space: Space, name: str, config: TrialConfig, as_sampled: Mapping[str, Any], note: str) -> Baseline:
    """The baseline, with its sample where the space would make exactly this configuration of it.

    Anything else would teach the sampler a value that no sample of its own can repeat. `as_sampled`: what --epochs has
    changed, as it was before; a sample is what the space stretches.
    """
    values = config.to_json()
    params, missed = space.sample_of({**values, **as_sampled})
    outside = [f"{field}={params[field]}" for field in missed]
    if not outside:
        params = {field: space.dimensions[field].as_drawn(value) for field, value in params.items()}
        try:
            twin = space.config(params).to_json()
        except InputError:
            twin = {}
        outside = [f"{field}={value}" for field, value in values.items() if twin.get(field, value) != value]
        if twin and not outside:
            return Baseline(name, values, params, note=note)
    where = ", ".join(outside[:4]) + (", ..." if len(outside) > 4 else "")
    return Baseline(name, values, None, note=f"not a point of this space ({where}): the sampler does not learn from it")
