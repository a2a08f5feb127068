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

from trainable.errors import InputError, Unavailable, visible


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML (or JSON) file.

    Raises:
        InputError: there is no such file, it is not YAML, or it holds something else than a mapping.
    """
    path = Path(path)
    try:
        values = _parsed(_text_of(path))
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
        return _parsed(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(getattr(error, "problem", None) or str(error)) from None


def _text_of(path: Path) -> str:
    """What a file holds, as far as anybody would write it by hand."""
    with path.open(encoding="utf-8") as file:
        text = file.read(_LONGEST + 1)
    if len(text) > _LONGEST:
        raise yaml.YAMLError(f"must have at most {_LONGEST} characters")
    return text


def _parsed(text: str) -> Any:
    """The value of a YAML text, whose size is known before it is made: a few aliases stand for gigabytes."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}, set()) > _MOST_VALUES:
            raise _refusal(f"must hold at most {_MOST_VALUES} values, aliases written out", node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """How many values a node stands for, each alias counted where it stands; `above`: what it lies in."""
    if id(node) in known or isinstance(node, yaml.ScalarNode):
        return known.get(id(node), 1)
    if id(node) in above:
        raise _refusal("must not hold itself", node)
    if len(above) >= _DEEPEST:
        raise _refusal(f"must not be nested deeper than {_DEEPEST} levels", node)
    above.add(id(node))
    children = node.value if isinstance(node, yaml.SequenceNode) else [each for pair in node.value for each in pair]
    known[id(node)] = 1 + sum(_size(child, known, above) for child in children)
    above.discard(id(node))
    return known[id(node)]


# More than the longest space that anybody has written, and little enough to be read at once.
_LONGEST, _LONGEST_KEY, _MOST_VALUES, _DEEPEST = 1_000_000, 200, 20_000, 30


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `1e-4` is a number and `1:30` is none, and a key given twice is an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not where the mapping is made: by then `<<: *other` may have put in keys that are to be overridden.
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal(f"a key must be a plain value, got a {key.id}", key)
            if len(key.value) > _LONGEST_KEY:
                raise _refusal(f"a key must have at most {_LONGEST_KEY} characters, got {_shortened(key.value)}", key)
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


# YAML 1.1 reads 1:30 as 90 and 012 as 10; with YAML 1.2, these are texts, and whoever wants a number says so.
_NUMBERS = {
    "int": re.compile(r"^[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$"),
    "float": re.compile(
        r"^([-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
}
_TAGS = {f"tag:yaml.org,2002:{kind}": pattern for kind, pattern in _NUMBERS.items()}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _TAGS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, list("-+0123456789."))


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


def checked_path(root: str | Path, text: str) -> str:
    """`text` as an absolute path, relative ones from `root`, whether there can be such a file or not.

    A name is taken as it is written: "~" is a letter, and stands for the user's own folder only in "~/", as in a shell.
    What no file can be called (a NUL in it, too many letters) stays and is found missing, by name.
    """
    if text == "~" or text.startswith("~/"):
        text = os.path.expanduser(text)  # noqa: PTH111 (Path's own raises where there is no home)
    return os.path.normpath(os.path.join(root, text))  # noqa: PTH118 (a Path would drop what "~" stands in)


_FORMULA = ("=", "+", "-", "@")


def safe_cell(value: Any) -> Any:
    """A cell of a CSV that a spreadsheet shows and never computes: a text that begins a formula gets an apostrophe.

    Numbers are left alone, also those that are texts. Source: OWASP, CSV injection.
    """
    if not isinstance(value, str):
        return value
    text = "\n".join(map(visible, value.split("\n")))  # a cell may have several lines
    if not text.startswith(_FORMULA) or re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
        return text
    return f"'{text}"


def plain_cell(text: str) -> str:
    """A cell as it was before `safe_cell`."""
    return text[1:] if text.startswith(tuple(f"'{sign}" for sign in _FORMULA)) else text


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
