"""Files as a full disk, a half-finished copy, an editor or a stranger leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, -0.5, 1e-5, 1e308, float("nan"), float("inf"), 2**70, "", "x", "../..", "/etc",
    "\x1b[31m", "\0", "a" * 3000, [], [1], [[]], {}, {"a": 1}, [None] * 5,
]  # fmt: skip


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside a value, the value itself left out."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way for key, each in inside for way in ((*above, key), *places(each, (*above, key)))]


@st.composite
def edits(draw: st.DrawFn) -> dict[str, Any]:
    """What is done to a file; by fractions, so that it suits files of any size."""
    how = draw(st.sampled_from(["replace", "replace", "replace", "delete", "cut", "flip", "whole", "swap lines"]))
    share = st.floats(0, 0.999)
    texts = [b"", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 5000, b"<html>"]
    return {
        "how": how, "where": draw(share), "line": draw(share), "value": draw(st.sampled_from(ODD)),
        "byte": draw(st.integers(1, 255)), "text": draw(st.sampled_from(texts)),
    }  # fmt: skip


def damage(file: Path, edit: dict[str, Any]) -> None:
    """Does it."""
    content = file.read_bytes()
    place = int(edit["where"] * len(content))
    match edit["how"]:
        case "cut":
            file.write_bytes(content[:place])
        case "flip" if content:
            file.write_bytes(content[:place] + bytes([content[place] ^ edit["byte"]]) + content[place + 1 :])
        case "whole":
            file.write_bytes(edit["text"])
        case "swap lines" if file.suffix == ".jsonl":
            lines = content.splitlines(keepends=True)
            file.write_bytes(
                b"".join(lines[int(edit["line"] * len(lines)) :] + lines[: int(edit["line"] * len(lines))])
            )
        case "replace" | "delete" if file.suffix in (".json", ".jsonl"):
            lines = content.splitlines(keepends=True) if file.suffix == ".jsonl" else [content]
            number = int(edit["line"] * len(lines))
            value = json.loads(lines[number])
            ways = places(value)
            way = ways[int(edit["where"] * len(ways))]
            parent = value
            for key in way[:-1]:
                parent = parent[key]
            if edit["how"] == "delete":
                del parent[way[-1]]
            else:
                parent[way[-1]] = edit["value"]
            lines[number] = json.dumps(value).encode() + b"\n"
            file.write_bytes(b"".join(lines))
        case _:
            file.write_bytes(content[:place] + content[place + 64 :])
