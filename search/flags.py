"""What the command line may say in the place of a space file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search.settings import parse_duration


@dataclass(frozen=True)
class Flags:
    """The flags that change a space; None means "as the file says"."""

    data: str | None = None
    trials: int | None = None
    epochs: int | None = None  # the horizon of every trial, baselines included
    time_budget: str | float | None = None
    gpus_per_trial: float | None = None
    cpus_per_trial: float | None = None
    seed: int | None = None  # of the searcher, and of every trial

    @property
    def seconds(self) -> float | None:
        """The time budget, s."""
        return None if self.time_budget is None else parse_duration(self.time_budget)

    def problems(self, searches_epochs: bool) -> list[str]:
        """What is wrong with the flags, as `--FLAG: rule, got VALUE. What to do.`"""
        least = {"trials": 1, "epochs": 1, "seed": 0, "gpus_per_trial": 0}
        found = [
            f"--{name.replace('_', '-')}: must be at least {low}, got {getattr(self, name):g}. Raise it."
            for name, low in least.items()
            if getattr(self, name) is not None and getattr(self, name) < low
        ]
        if self.cpus_per_trial is not None and self.cpus_per_trial <= 0:
            found.append(f"--cpus-per-trial: must be above 0, got {self.cpus_per_trial:g}. Raise it.")
        if self.epochs is not None and searches_epochs:
            found.append(f"--epochs: cannot be set where epochs is searched, got {self.epochs}. Leave it out.")
        try:
            _ = self.seconds
        except ValueError as error:
            found.append(f"--time-budget: {error}, got {self.time_budget!r}. Change it.")
        return found


def given(**values: Any) -> dict[str, Any]:
    """Those of the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def scaled(epochs: int, factor: float) -> int:
    """A number of epochs on another horizon: at least one, never more than its share."""
    return max(1, int(epochs * factor + 1e-9))
