"""Epochs needed to come within one point of the best known configuration: ours, random search, and Ray as documented.

    python -m tests.benchmarks.benchmark_efficiency [--seeds 20] [--workers 4] [--quick]   # about 2 minutes
    python -m tests.benchmarks.benchmark_efficiency --record      # trains the table of real curves, about an hour

Accuracy curves come from the seeded family of `tests.support.simulated` and from `curves.csv`, real trainings on the
demo set; see `curves.py`. A search has arrived at the first epoch, of any of its trials, whose accuracy is at most one
point below the best known. In the family that is the accuracy without the noise that the searches see, so that no
lucky epoch counts. A search that ends without arriving counts as infinity, and medians stand that.

The aims, at the median: at most a quarter of the epochs of random search without cuts, and fewer than `OptunaSearch`
with `ASHAScheduler`. Both are measured with the budget that a space of ours has, and, because that decides much, both
again with the grace period and the reduction factor of the other.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.space.load import load_space
from search.space.sections import Budget
from search.space.space import Space
from tests.benchmarks import curves
from tests.benchmarks.contestants import (
    Contestant,
    Landscape,
    Ours,
    Stock,
    epochs_to_target,
    random_search,
)
from tests.support.simulated import CEILING, clean_curve, curve
from trainable.config import TrialConfig

POINT = 0.01
RAYS_GRACE, RAYS_FACTOR = 1, 4.0  # the defaults of `ASHAScheduler`


@dataclass(frozen=True)
class Family:
    """The simulated curves over a horizon; each seed has a noise of its own."""

    epochs: int
    trials: int
    grace: int = Budget().grace_epochs

    @property
    def title(self) -> str:
        """What is searched, in words."""
        return f"simulated curves, {self.epochs} epochs"

    def landscape(self, folder: Path, seed: int) -> Landscape:
        """The family as the search with this seed meets it."""
        text = f"""
            fixed: {{epochs: {self.epochs}, weights: none, seed: {seed}}}
            search:
              backbone: {{choice: [{", ".join(CEILING)}]}}
              lr: {{loguniform: [1.0e-5, 1.0e-1]}}
              mixup: {{uniform: [0, 0.5]}}
            budget: {{trials: {self.trials}, grace_epochs: {self.grace}}}
            searcher: {{seed: {seed}}}
        """

        def look_up(values: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
            config = TrialConfig.model_validate(dict(values))
            return curve(config), clean_curve(config)

        return Landscape(_space(folder, text), max(CEILING.values()) - POINT, look_up)


@dataclass(frozen=True)
class Table:
    """The recorded curves; seeds differ in what is proposed when."""

    recorded: curves.Curves
    trials: int
    grace: int = Budget().grace_epochs

    @property
    def title(self) -> str:
        """What is searched, in words."""
        return f"{len(self.recorded)} real curves, {curves.EPOCHS} epochs"

    def landscape(self, folder: Path, seed: int) -> Landscape:
        """The table as the search with this seed meets it."""
        text = "\n".join([
            f"fixed: {{epochs: {curves.EPOCHS}, weights: none}}",
            *curves.space_lines(),
            f"budget: {{trials: {self.trials}, grace_epochs: {self.grace}}}",
            f"searcher: {{seed: {seed}}}",
        ])  # fmt: skip

        def look_up(values: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
            accuracies = np.array(self.recorded[curves.key(values)])
            return accuracies, accuracies

        best = max(max(accuracies) for accuracies in self.recorded.values())
        return Landscape(_space(folder, text), best - POINT, look_up)


def _space(folder: Path, text: str) -> Space:
    file = folder / "space.yaml"
    file.write_text(text)
    return load_space(file)


def _with_rays(space: Space) -> Space:
    return space.with_budget(grace_epochs=RAYS_GRACE, reduction_factor=RAYS_FACTOR)


RANDOM, STOCK, OURS = "random search without cuts", "OptunaSearch + ASHAScheduler, Ray's defaults", "ours"
CONTESTANTS: dict[str, Callable[[Space, Path], Contestant]] = {
    RANDOM: random_search,
    STOCK: lambda space, folder: Stock(_with_rays(space)),
    "OptunaSearch + ASHAScheduler, our grace and factor": lambda space, folder: Stock(space),
    OURS: Ours,
    "ours, Ray's default grace and factor": lambda space, folder: Ours(_with_rays(space), folder),
}


def contest(searched: Family | Table, seeds: int, workers: int) -> None:
    """Prints the epochs that each contestant needs, and the ratios that the aims are about."""
    print(f"{searched.title}: epochs to within one point of the best, {seeds} seeds, {workers} workers")
    print(f"  {'':52}{'lower':>9}{'median':>9}{'upper':>9}{'never':>9}   quartiles")
    medians = {}
    for name, enter in CONTESTANTS.items():
        spent = []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as scratch:
                landscape = searched.landscape(Path(scratch), seed)
                contestant = enter(landscape.space, Path(scratch) / "run")
                spent.append(epochs_to_target(contestant, landscape, workers))
        low, medians[name], high = np.percentile(spent, [25, 50, 75], method="inverted_cdf")
        print(f"  {name:52}{low:9.0f}{medians[name]:9.0f}{high:9.0f}{int(np.isinf(spent).sum()):9}", flush=True)
    print(f"  ours / random search: {_ratio(medians[OURS], medians[RANDOM])} (aim: at most 0.25)")
    print(f"  ours / OptunaSearch + ASHAScheduler: {_ratio(medians[OURS], medians[STOCK])} (aim: below 1)\n")


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f}" if np.isfinite(min(ours, theirs)) else "none, as neither arrives"


def main(arguments: list[str] | None = None) -> None:
    """Runs all contests, or records the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4, help="trials at the same time")
    parser.add_argument("--trials", type=int, default=300, help="after so many a search has not arrived")
    parser.add_argument("--quick", action="store_true", help="see that it works: two seeds, few trials")
    parser.add_argument("--record", action="store_true", help="add to curves.csv what is missing there")
    args = parser.parse_args(arguments)
    if args.record:
        curves.record(lambda line: print(line, flush=True))
        return
    if args.quick:
        args.seeds, args.trials = 2, 20
    # The tutorial's horizon, and the one of spaces/wide.yaml with the grace that it gives.
    searched: list[Family | Table] = [Family(30, args.trials), Family(50, args.trials, grace=8)]
    if curves.FILE.exists():
        searched.append(Table(curves.load(), args.trials))
    for each in searched:
        contest(each, args.seeds, args.workers)


if __name__ == "__main__":
    main()
