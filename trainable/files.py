"""Files that are read as YAML or written whole, and the folder for everything that can be made again."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from trainable.errors import InputError, Unavailable


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML (or JSON) file.

    Raises:
        InputError: there is no such file, it is not YAML, or it holds something else than a mapping.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1, cutoff=0.5)
        hint = f"Did you mean {path.parent / near[0]}?" if near else "Check the path."
        raise InputError(f"{path}: no such file. {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}. Name a YAML file in UTF-8.") from None
    except (yaml.YAMLError, RecursionError) as error:  # the latter where something holds itself
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{path}: {place}not valid YAML: {problem}. Mend that line.") from None
    if not isinstance(values, dict):
        kind = "nothing" if values is None else type(values).__name__
        raise InputError(f"{path}: must hold keys and values, got {kind}. See spaces/quick.yaml.")
    return values


def read_value(text: str) -> Any:
    """The value that a text such as `1e-4`, `null` or `[0, 1]` stands for in a YAML file.

    Raises:
        ValueError: it is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(getattr(error, "problem", None) or str(error)) from None


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `1e-4` is a number, and a key given twice is an error, not a silent choice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not where the mapping is made: by then `<<: *other` may have put in keys that are to be overridden.
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal(f"a key must be a plain value, got a {key.id}", key)
            if (key.tag, key.value) in seen:
                raise _refusal(f"the key {key.value!r} stands twice", key)
            seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except ValueError as error:  # the 31st of February, or more digits than Python reads
            why = str(error).partition(";")[0]  # what follows is for programmers
            raise _refusal(f"{_shortened(node.value)} cannot be read: {why}", node) from None
        if isinstance(value, int) and abs(value) >= 2**64:  # no field takes it, and a float could overflow
            raise _refusal(f"a whole number must be below 2^64, got {_shortened(node.value)}", node)
        return value


def _refusal(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _shortened(text: str) -> str:
    """The text, without the middle of it where it is long."""
    return text if len(text) <= 40 else f"{text[:20]}... of {len(text)} characters"


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path of a new file beside `path`, which takes its place at the end: nobody ever meets half a file.

    Where it cannot be written whole nothing of it stays, so that a full disk is not fuller for it.

    Raises:
        OSError: the disk refuses it; names `path`.
    """
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes `content` to `path` so that a reader, or a kill, never meets half a file."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def cache_folder() -> Path:
    """The user's cache folder of this project, made if need be; `AUDIO_SEARCH_CACHE` names another one.

    Raises:
        InputError: it cannot be made.
    """
    folder = Path(os.environ.get("AUDIO_SEARCH_CACHE") or platformdirs.user_cache_dir("audio-search"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"AUDIO_SEARCH_CACHE: must be a folder that can be made, got {folder} ({error.strerror}). "
            "Set it to another one."
        ) from None
    return folder
