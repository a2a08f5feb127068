"""The command `backbones`: the networks that a search may use, what each costs, and which weights there are."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TextIO

import pandas as pd

from search.console.table import Column, fit, terminal
from search.runs.format import quantity, short
from trainable.backbones import BACKBONES, SPOKEN, Backbone, Weights, backbone, best_weights, matching
from trainable.errors import InputError, did_you_mean
from trainable.training.cost import network_size

MOST_COUNTED = 12  # networks that are built to be counted, each in 0.1 to 2 s; of more only the names are told


@dataclass(frozen=True)
class Row:
    """One network, as it is printed and written."""

    name: str
    parameters: int | None  # with the classes that it was published for, or 10; None: too many to build them all
    operations: float | None  # 10^9 multiply-adds for one input of rows x columns
    rows: int
    columns: int
    weights: str  # kinds that are published, the best for sound first
    licence: str  # of each kind of weights, in their order
    megabytes: float | None  # of the file of the first kind
    here: str  # the kinds that torch's cache has
    auto: str  # what `weights: auto` means on this machine


def backbones(pattern: str | None, style: str = "table", stream: TextIO | None = None) -> int:
    """Prints the backbones whose name holds `pattern`; `style`: "table", "csv" or "json" (a list of objects).

    Raises:
        InputError: no backbone's name does.
    """
    names = matching(pattern)
    if not names:
        hint = did_you_mean(str(pattern), BACKBONES, "backbones")
        raise InputError(f"backbones: must be part of a network's name, got {pattern!r}. {hint}")
    rows = rows_of(names)
    stream = stream if stream is not None else sys.stdout
    if style == "json":
        stream.write(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    elif style == "csv":
        pd.DataFrame([asdict(row) for row in rows]).to_csv(stream, index=False)
    else:
        for line in _table(rows):
            stream.write(line + "\n")
    return 0


def rows_of(names: Sequence[str]) -> list[Row]:
    """What is known of the networks of those names.

    Raises:
        InputError: one of them cannot be built.
    """
    records = [backbone(name) for name in names]
    unstated = sum(record.parameters is None for record in records)
    return [_row(record, counted=unstated <= MOST_COUNTED) for record in records]


def _row(record: Backbone, counted: bool) -> Row:
    parameters, operations = network_size(record) if counted or record.parameters else (None, None)
    size = record.weights[0].bytes if record.weights else None
    return Row(
        record.name, parameters, None if operations is None else round(operations, 3), *record.size,
        weights=_joined(weights.kind for weights in record.weights),
        licence=_joined(weights.licence for weights in record.weights),
        megabytes=None if size is None else round(size / 1e6, 1),
        here=_joined(weights.kind for weights in record.weights if weights.here),
        auto=best_weights(record.name),
    )  # fmt: skip


def _joined(words: Iterable[str]) -> str:
    return ", ".join(words)


def _table(rows: Sequence[Row]) -> list[str]:
    screen = terminal()
    records = {row.name: backbone(row.name) for row in rows}
    columns = [
        Column("name", [row.name for row in rows], right=False, widest=60),
        Column("parameters", [quantity(row.parameters) for row in rows]),
        Column("cost", ["" if row.operations is None else f"{short(row.operations)}G" for row in rows]),
        Column("input", [f"{row.rows} x {row.columns}" for row in rows]),
        Column("weights", [_joined(map(_weights, records[row.name].weights)) for row in rows], right=False, widest=60),
    ]
    table = fit(columns, screen.width if screen.is_terminal else None)
    lines = [line.plain.rstrip() for line in (*table.header, *table.rows)]
    if table.left_out:
        lines.append(f"no room for {', '.join(table.left_out)}: widen the terminal, or use --csv or --json")
    lines += ["", "cost: 10^9 multiply-adds for one input of rows x columns; weights: their size, licence, and whether "
              "they are here or fetched when they are first used"]  # fmt: skip
    if any(row.parameters is None for row in rows):
        lines.append(f"parameters and cost are counted where at most {MOST_COUNTED} networks match")
    return lines


def _weights(weights: Weights) -> str:
    """Weights in words: `AudioSet (4 MB, MIT, here)`."""
    size = "" if weights.bytes is None else f"{weights.bytes / 1e6:.0f} MB, "
    return f"{SPOKEN[weights.kind]} ({size}{weights.licence}, {'here' if weights.here else 'not here'})"
