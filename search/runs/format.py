"""Values as people read them: a trial's settings in few characters, and commands as one would type them here."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from search.runs.journal import Trial

ABSENT = object()  # the value of a conditional dimension where its condition does not hold


def dimensions(trials: Iterable[Trial]) -> list[str]:
    """All dimensions that the trials were sampled from, in the order of the space file."""
    return list(dict.fromkeys(key for trial in trials for key in trial.params))


def value_of(trial: Trial, key: str) -> Any:
    """What a trial used for a dimension; `ABSENT` where it did not need it.

    A baseline that is no point of the search space is asked by its configuration.
    """
    if key in trial.params:
        return trial.params[key]
    return ABSENT if trial.kind == "search" or trial.params else trial.config.get(key, ABSENT)


def differing(trials: Sequence[Trial], keys: Iterable[str]) -> list[str]:
    """Those of `keys` whose values are not the same for all the trials."""
    return [key for key in keys if len({_identity(value_of(trial, key)) for trial in trials}) > 1]


def short(value: Any) -> str:
    """A value for a table: `1.3e-4`, `0.05`, `yes`, `-` where there is none."""
    if value is ABSENT:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value != 0 and not 0.01 <= abs(value) < 100_000:
            return re.sub(r"(\.0)?e([-+])0?", lambda match: f"e{match[2]}".replace("+", ""), f"{value:.1e}")
        return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
    return "none" if value is None else str(value)


def described(trial: Trial, keys: Iterable[str]) -> str:
    """A trial's settings on one line: `resnet18, image_size 224, lr 1.3e-4`; names speak for themselves."""
    parts = []
    for key in keys:
        value = value_of(trial, key)
        if value is not ABSENT:
            parts.append(value if isinstance(value, str) else f"{key} {short(value)}")
    return ", ".join(parts)


def label(trial: Trial) -> str:
    """How a trial is called in a sentence: `trial 3`, `trial 0 (tutorial-simple)`."""
    return f"trial {trial.number} ({trial.name})" if trial.name else f"trial {trial.number}"


def _identity(value: Any) -> tuple[bool, Any]:
    """Equal for equal values, but tells yes from 1."""
    return isinstance(value, bool), value


def program(name: str) -> str:
    """How to call `name` of this Python environment, such as python or swanlab.

    By its name where the shell finds that very program, by its path elsewhere: without an activated environment
    `python` is another Python, which has none of what this one has installed.
    """
    here = Path(sys.executable).absolute().parent / name
    found = shutil.which(name)
    if found and Path(found).absolute() == here:
        return name
    relative = os.path.relpath(here)
    return str(here) if relative.startswith("..") else relative
