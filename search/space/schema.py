"""The JSON Schema of space files, for editors that complete and check YAML while one types.

It is made from the same classes that check a file, so it knows every field, range and choice; what takes more than one
field at a time (conditions, values that do not go together) only `load_space` knows.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from search.space.dimension import KINDS
from search.space.sections import DURATION_PART, Budget, Constraints, Resources, Scheduler, Searcher
from trainable.backbones import BACKBONES
from trainable.backbones import KINDS as WEIGHTS
from trainable.config import FIELDS, NOT_SEARCHED, RECIPES, SHARED_FIELDS, TrialConfig, facts_of

_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_PAIR = {"type": "array", "minItems": 2, "maxItems": 2}
_TRIPLE = {"type": "array", "minItems": 3, "maxItems": 3}
_NUMBERS = {"items": {"type": "number"}}
_WHOLE = {"items": {"type": "integer"}}
_SHAPES: dict[str, dict[str, Any]] = {
    "uniform": {**_PAIR, **_NUMBERS}, "loguniform": {**_PAIR, **_NUMBERS},
    "quniform": {**_TRIPLE, **_NUMBERS}, "qloguniform": {**_TRIPLE, **_NUMBERS},
    "randint": {**_PAIR, **_WHOLE}, "lograndint": {**_PAIR, **_WHOLE},
    "qrandint": {"type": "array", "minItems": 2, "maxItems": 3, **_WHOLE},
}  # fmt: skip


def json_schema() -> dict[str, Any]:
    """The schema as plain values; `spaces/space.schema.json` is a copy of it."""
    fields: dict[str, Any] = TrialConfig.model_json_schema()["properties"]
    references = {name: {"$ref": f"#/$defs/fields/{name}"} for name in FIELDS}
    searched = {name: _dimension(fields[name], name) for name in FIELDS if name not in NOT_SEARCHED}
    own = {name: reference for name, reference in references.items() if name not in SHARED_FIELDS}
    recipe = {"$ref": "#/$defs/recipe"}
    cut = {"type": "boolean", "description": "it may be cut like a trial of the sampler's own; it must be a point"}
    about = {"name": {"type": "string"}, "recipe": recipe, "cut": cut}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A search space for audio classification",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "fixed": _mapping(references, "values that all trials share; what is not here has its default"),
            "search": _mapping(searched, "what the search varies, and how"),
            "baselines": {
                "description": "evaluated first: a recipe's name, or a mapping with a recipe, a name and fields",
                "type": "array",
                "items": {"anyOf": [recipe, _mapping({**about, **own}, "a point")]},
            },
            "budget": _section(Budget),
            "resources": _section(Resources),
            "scheduler": {"anyOf": [{"enum": ["asha", "none"]}, _section(Scheduler)]},
            "searcher": {"anyOf": [{"enum": ["tpe", "random", "cmaes"]}, _section(Searcher)]},
            "constraints": _section(Constraints),
        },
        "$defs": {
            "fields": {name: _field(name, field) for name, field in fields.items()},
            "kinds": {kind: {"description": KINDS[kind], **shape} for kind, shape in _SHAPES.items()},
            "recipe": {"enum": sorted(RECIPES)},
            "when": {
                "description": "only where another dimension has this value, or one of these",
                "type": "object",
                "additionalProperties": {"anyOf": [_SCALAR, {"type": "array", "minItems": 1, "items": _SCALAR}]},
            },
        },
    }


def _dimension(field: dict[str, Any], name: str) -> dict[str, Any]:
    """A distribution over a field: exactly one, and perhaps a condition."""
    kinds: dict[str, Any] = {
        "choice": {
            "description": KINDS["choice"], "type": "array", "minItems": 1, "uniqueItems": True,
            "items": {"$ref": f"#/$defs/fields/{name}"},
        }
    }  # fmt: skip
    if _is_number(field):
        kinds |= {kind: {"$ref": f"#/$defs/kinds/{kind}"} for kind in _SHAPES}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {**kinds, "when": {"$ref": "#/$defs/when"}},
        "oneOf": [{"required": [kind]} for kind in kinds],
    }


def _is_number(field: dict[str, Any]) -> bool:
    types = [field.get("type"), *(option.get("type") for option in field.get("anyOf", []))]
    return "number" in types or "integer" in types


def _mapping(properties: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "type": "object", "additionalProperties": False, "properties": properties}


def _section(model: type[BaseModel]) -> dict[str, Any]:
    properties = {name: _plain(field) for name, field in model.model_json_schema()["properties"].items()}
    if "time" in properties:
        properties["time"]["anyOf"].append({"type": "string", "pattern": rf"^({DURATION_PART})+\s*$"})
    return _mapping(properties, (model.__doc__ or "").splitlines()[0])


def _field(name: str, field: dict[str, Any]) -> dict[str, Any]:
    """A field's schema: its meaning with its unit, and the names of backbones, whose type is a text."""
    facts = facts_of(name)
    plain = {key: value for key, value in _plain(field).items() if key not in facts}
    if facts["unit"]:
        plain["description"] += f" ({facts['unit']})"
    if name == "backbone":  # by name, or timm:NAME, or a function of one's own
        plain |= {"anyOf": [{"enum": list(BACKBONES)}, {"pattern": ":"}]}
    if name == "weights":
        plain |= {"anyOf": [{"enum": [*WEIGHTS, "auto", "none"]}, {"pattern": "[./]"}]}
    return plain


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    """A field's schema without the title that pydantic makes of its name."""
    return {key: value for key, value in field.items() if key != "title"}
