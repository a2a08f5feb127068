"""The labels of files as a person reads them in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from search.table import GAP, Column, fit, one_line, printable
from trainable.predict import Prediction

_INDENT = "  "  # of files below their folder
_NARROWEST = 8  # characters of a file's name, however narrow the terminal


def view(found: Sequence[Prediction], width: int | None) -> list[Text]:
    """Lines of `width` characters (None: no terminal): each folder once, and its files below it by name.

    Names matter more than the runners-up, which go first where there is little room; a name that is still too long
    loses its middle, because the ends are what files of one folder differ in.
    """
    if not found:
        return []
    paths = [Path(each.path) for each in found]
    labels = [each.label for each in found]
    shares = [f"{each.probability:.0%}" for each in found]
    then = [", ".join(f"{label} {share:.0%}" for label, share in each.top[1:3]) for each in found]
    inner = width - len(_INDENT) if width else None
    taken = sum(GAP + max(map(cell_len, cells)) for cells in (["label", *labels], ["probability", *shares]))
    names = [_shortened(printable(path.name), max(inner - taken, _NARROWEST) if inner else None) for path in paths]
    columns = [
        Column("file", names, right=False, widest=None),
        Column("label", labels, right=False, widest=None),
        Column("probability", shares),
        Column("then", then, right=False, widest=None),
    ]
    fitted = fit(columns[: None if any(then) else 3], inner)
    lines = [Text(_INDENT).append_text(line) for line in fitted.header]
    folder = None
    for path, row in zip(paths, fitted.rows, strict=True):
        if path.parent != folder:
            folder = path.parent
            lines.append(one_line(str(folder), None, "dim"))
        lines.append(Text(_INDENT).append_text(row))
    return lines


def _shortened(name: str, room: int | None) -> str:
    """`name` with an ellipsis in its middle where it is longer than `room` characters."""
    if room is None or cell_len(name) <= room:
        return name
    end = name[len(name) - room // 2 :]
    while cell_len(end) > room // 2:  # letters of two columns
        end = end[1:]
    return set_cell_size(name, room - 1 - cell_len(end)).rstrip() + "…" + end
