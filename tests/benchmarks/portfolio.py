"""The few configurations that together are near the best on most data sets, as baselines of a space.

    python -m tests.benchmarks.portfolio            # the lines of spaces/small-data.yaml
    python -m tests.benchmarks.portfolio --check    # how good each set's best is that the other sets choose

From the recorded tables alone (see `curves.py`), by greedy cover: the configuration is added that most lowers the mean,
over data sets, of the share of configurations that are better than the best one chosen so far.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.benchmarks import curves
from tests.benchmarks.curves import Table

# Four workers begin with them at once, and a fifth has added next to nothing on any set.
SIZE = 4


def better(table: Table, grid: Mapping[str, Sequence[Any]]) -> dict[curves.Point, float]:
    """The share of a table's configurations that are better than each point of `grid`.

    A point has the best of the configurations that share its values, as far as the table varies them; one with a value
    that the table does not know is as good as the middle.
    """
    shared = [name for name in grid if name in table.grid]
    reached: dict[tuple[Any, ...], float] = {}
    tops = []
    for point, curve in table.curves.items():
        values = dict(zip(table.grid, point, strict=True))
        top = max(curve.accuracies, default=0.0)
        tops.append(top)
        own = tuple(values[name] for name in shared)
        reached[own] = max(top, reached.get(own, 0.0))
    every = np.array(tops)
    shares = {own: float(np.mean(every > top)) for own, top in reached.items()}
    places = [list(grid).index(name) for name in shared]
    return {
        point: shares.get(tuple(point[place] for place in places), 0.5) for point in itertools.product(*grid.values())
    }


def choose(grid: Mapping[str, Sequence[Any]], tables: Sequence[Table], size: int = SIZE) -> list[curves.Point]:
    """The points of `grid` that together cover the tables; tables of one data set count as one."""
    points = list(itertools.product(*grid.values()))
    names = list(dict.fromkeys(table.data for table in tables))
    shares = np.array([
        np.mean([list(better(table, grid).values()) for table in tables if table.data == name], axis=0)
        for name in names
    ])  # [sets, points]  # fmt: skip
    chosen: list[int] = []
    left = np.ones(len(names))  # of each set, the share that is better than the best so far
    for _ in range(min(size, len(points))):
        after = np.minimum(left[:, None], shares)
        # Of equal covers the one that is better on the mean of all sets; then the first.
        scores = after.mean(axis=0) + 1e-3 * shares.mean(axis=0)
        scores[chosen] = np.inf
        chosen.append(int(np.argmin(scores)))
        left = after[:, chosen[-1]]
    return [points[number] for number in chosen]


def baselines(grid: Mapping[str, Sequence[Any]], tables: Sequence[Table]) -> str:
    """The portfolio as lines of a space file: trials that come first and may be cut like any other."""
    lines = ["baselines:"]
    for number, point in enumerate(choose(grid, tables), start=1):
        values = ", ".join(
            f"{name}: {'null' if value is None else value}" for name, value in zip(grid, point, strict=True)
        )
        lines.append(f"  - {{name: portfolio-{number}, cut: true, {values}}}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Prints the portfolio, or how it does on sets that had no say in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="leave one set out")
    args = parser.parse_args(arguments)
    tables = [table for table in curves.TABLES.values() if table.file.exists()]
    if not args.check:
        print(baselines(curves.GRID, tables))
        return
    for table in tables:
        grid = table.grid
        chosen = choose(grid, [other for other in tables if other.data != table.data])
        shares = [better(table, grid)[point] for point in chosen]
        print(f"{table.title}: {min(shares):.1%} of {len(table.curves)} configurations are better")


if __name__ == "__main__":
    main()
