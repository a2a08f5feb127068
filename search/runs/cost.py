"""What trials cost to use, beside how good they are: one list of costs, and the front of best trade-offs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from search.runs.format import quantity
from search.runs.journal import Trial
from search.runs.run import Best, RunFolder

T = TypeVar("T")


@dataclass(frozen=True)
class CostKind:
    """A kind of cost, less of which is better."""

    title: str  # on an axis
    unit: str  # behind its values
    thousand: str  # of that unit, in one word
    before: bool  # known before a trial's first epoch, so that a space may limit it

    def said(self, value: float) -> str:
        """A value with its unit: `11.2M`, `20.3 ms`, `1.03 GB`."""
        if not self.unit:
            return quantity(value)
        return f"{value:.3g} {self.unit}" if value < 999.5 else f"{value / 1000:.3g} {self.thousand}"


# By the name of the field of `Cost`, which is also the name of the column.
COSTS: dict[str, CostKind] = {
    "parameters": CostKind("parameters", "", "", True),
    "operations": CostKind("multiply-adds per clip", "", "", True),
    "latency_ms": CostKind("time per clip", "ms", "s", True),
    "memory_mb": CostKind("memory in training", "MB", "GB", False),
}


def costs_of(run: RunFolder, trial: Trial) -> dict[str, float | None]:
    """What a trial costs, by the names in COSTS; None where that is not known."""
    cost = run.folder(trial).cost()
    return dataclasses.asdict(cost) if cost else dict.fromkeys(COSTS)


def front(items: Sequence[T], cost: Callable[[T], float], worth: Callable[[T], float]) -> list[T]:
    """Those of `items` that no other beats in both, cheapest first: each costs more than the one before and is better.

    Of items that are alike in both the first stays.
    """
    found: list[T] = []
    for item in sorted(items, key=lambda item: (cost(item), -worth(item))):
        if not found or worth(item) > worth(found[-1]):
            found.append(item)
    return found


def front_of(run: RunFolder, by: str) -> list[tuple[Best, float]]:
    """The run's front of validation accuracy against one cost, cheapest first, each with that cost.

    Only trials that may be called best take part: of a trial that was cut early nobody knows what it would reach.
    """
    priced = [(best, costs_of(run, best.trial)[by]) for best in run.ranked()]
    known = [(best, value) for best, value in priced if value is not None]
    return front(known, cost=lambda item: item[1], worth=lambda item: item[0].accuracy)
