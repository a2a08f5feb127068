"""The door for files of run and model folders: what is read has the shape it must have, or there is one clear error.

Such folders are copied, edited, cut short by full disks, and handed on by strangers. Everything that is read from them
comes through here, so that the rest of the program may rely on what it gets.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from trainable.errors import InputError, shown

LARGEST = 256 * 2**20  # bytes of a JSON file: the journal of ten thousand trials has some 100 MB
_MOST_PROBLEMS = 3

Shape = TypeVar("Shape")


class Record(BaseModel):
    """A mapping with these keys, as JSON has them; other versions may have written more."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


def read_json(path: Path, shape: type[Shape], way_out: str) -> Any:
    """The value in a JSON file, as plain values, where it has that shape.

    Raises:
        InputError: it cannot be read, is no JSON, or has another shape; ends with `way_out`.
    """
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= LARGEST else None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: must be readable, got {_reason(error)}. {way_out}") from None
    if text is None:
        raise InputError(f"{path}: must have at most {LARGEST // 2**20} MB, got {size // 2**20} MB. {way_out}")
    return parse_json(text, shape, str(path), way_out)


def parse_json(text: str | bytes, shape: type[Shape], place: str, way_out: str) -> Any:
    """The value in a JSON text, where it has that shape; `place` is where it stands.

    Raises:
        InputError: it is no JSON or has another shape.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: must be JSON, got something else ({_reason(error)}). {way_out}") from None
    return checked(values, shape, place, way_out)


def checked(values: Any, shape: type[Shape], place: str, way_out: str) -> Any:
    """`values` themselves, where they have that shape.

    Raises:
        InputError: with the first keys that have not.
    """
    try:
        _adapter(shape).validate_python(values)
    except ValidationError as error:
        raise InputError([f"{place}: {line}. {way_out}" for line in _lines(error)]) from None
    except RecursionError:
        raise InputError(f"{place}: must be a record, got one that is nested too deeply. {way_out}") from None
    return values


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(shape: Any) -> TypeAdapter[Any]:
    if shape not in _ADAPTERS:
        _ADAPTERS[shape] = TypeAdapter(shape)
    return _ADAPTERS[shape]


def _lines(error: ValidationError) -> list[str]:
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"])
        rule = item["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
        missing = item["type"] == "missing"
        found = "nothing" if missing else shown(item["input"])
        rule = "must be there" if missing else rule.replace("should", "must", 1)
        if item["type"] in ("model_type", "dict_type", "dataclass_type"):
            rule = "must be a record"
        lines.setdefault(key, f"{key + ': ' if key else ''}{rule}, got {found}")
    return list(lines.values())[:_MOST_PROBLEMS]


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return " ".join(str(error).split())[:100] or type(error).__name__
