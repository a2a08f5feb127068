"""The command `fields`: what a trial's configuration may say."""

from __future__ import annotations

from itertools import groupby

import yaml
from rich.table import Table

from search.console.table import terminal
from trainable.config import FIELDS, TrialConfig, facts_of, range_of
from trainable.errors import InputError, did_you_mean


def fields(pattern: str | None) -> int:
    """Prints the fields whose name holds `pattern`, group by group, each with its range, default and meaning.

    Raises:
        InputError: no field's name does.
    """
    chosen = [name for name in FIELDS if pattern is None or pattern in name]
    if not chosen:
        hint = did_you_mean(str(pattern), FIELDS)
        raise InputError(f"fields: must be part of a field's name, got {pattern!r}. {hint}")
    screen = terminal()
    for group, names in groupby(chosen, key=lambda name: facts_of(name)["group"]):
        table = Table(group, "default", "unit", "values", "meaning", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in names:
            meaning = TrialConfig.model_fields[name].description
            table.add_row(name, default_of(name), facts_of(name)["unit"], range_of(name), meaning)
        screen.print(table)
        screen.print()
    return 0


def default_of(name: str) -> str:
    """A field's default as a space file would say it."""
    return str(yaml.safe_dump(TrialConfig.model_fields[name].default)).splitlines()[0]
