"""Epochs needed to come within one point of the best known configuration: ours, random search, and Ray as documented.

    python -m tests.benchmarks.benchmark_efficiency [--seeds 20] [--workers 4] [--only WORD ...] [--shipped] [--quick]

Accuracy curves come from the seeded family of `tests.support.simulated` and from real trainings on several data sets,
recorded in `tables/` (see `curves.py`). A search has arrived at the first epoch, of any of its trials, whose worth is
at most one point below the best known. In the family that is the accuracy without the noise that the searches see, and
on GTZAN-100 the mean over five folds of which a search sees one, so that no lucky epoch counts. A search that ends
without arriving counts as infinity, and medians stand that.

On the tables one set is left out at a time: what is learned, by `--learn-from` or as a portfolio of first trials, comes
from searches and tables of the other sets. "Misled" learns from the same searches turned upside down.

`--shipped` runs ours at the grace period and reduction factor of each space in `spaces/`, scaled to the epochs of each
set as `--epochs` scales them, against Ray's documented wiring at its own defaults.

The aims, at the median, as a share of the epochs of random search without cuts: 10% cold, 5% with earlier data sets,
at most 1.1 times cold where these mislead, and fewer than `OptunaSearch` with `ASHAScheduler` everywhere.

Measured over 100 seeds with 4 workers, medians and quartiles in epochs:

                                               30 epochs           50 epochs, grace 8   demo set, 12 epochs
    random search, no cuts                     1016 (397 to 1972)  1656 (637 to 3252)   762 (283 to 1528)
    OptunaSearch + ASHAScheduler, defaults     224 (155 to 373)    292 (159 to 548)     216 (114 to 320)
    the same with our grace and factor         320 (180 to 458)    496 (303 to 764)     255 (139 to 376)
    this search, its own grace and factor      178 (98 to 279)     344 (211 to 626)     157 (109 to 251)
    this search with their grace and factor    122 (82 to 236)     122 (82 to 258)      136 (85 to 210)

The first two are simulated. Eight epochs of grace leave two cuts in 50 epochs: no shipped space has them any more.

Measured later, medians in epochs and Ray's wiring in brackets. Over 40 seeds of the simulated 50 epochs (298): a grace
of one epoch 122, of two 239, of one with a factor of four 131. Over 20 seeds of the demo set's 12 epochs (237): a
grace of one 119. Over 16 seeds of the demo set at 64 px (79), where 24 configurations are recorded: 79 and 80. At
equal medians 2 of 20 searches on FSDD by speaker never arrived with a grace of one, so that two is the default.

At the settings of the shipped spaces, medians of 100 seeds and Ray's wiring in brackets: simulated 30 epochs (224)
`small-data.yaml` 185, `wide.yaml` 122; 50 epochs (292) 259 and 192; demo set at 64 px (83) 80 and 77. A grace of two
epochs in ten, which `quick.yaml` had, needed 278, 372 and 98, more than Ray's wiring on all three. Of one, which it has
now: 213 and 260 over 50 seeds, and 80; over 40 seeds of the demo set's 12 epochs 133 (216). FSDD by speaker (99), 40
seeds, 100 trials at most: 83 with `quick.yaml`, and 83 with `wide.yaml`, where 12 never arrived. On the official split
(67) `quick.yaml` needs 67, as many as Ray's wiring.

Sets left out, medians and quartiles in epochs, and "both" for learning with the portfolio:

                            demo set, 12 epochs   demo set, 64 px    FSDD by speaker    FSDD, official
    seeds                   100                   100                100                50
    random search, no cuts  762 (283 to 1528)     159 (77 to 254)    84 (71 to 178)     67 (59 to 161)
    Ray's wiring            216 (114 to 320)      83 (64 to 175)     99 (71 to never)   67 (60 to never)
    cold                    144 (94 to 200)       80 (72 to 105)     84 (72 to 100)     67 (59 to 76)
    learning                130 (85 to 186)       90 (73 to 175)     83 (70 to 103)     66 (59 to 75)
    portfolio               145 (111 to 180)      94 (80 to 118)     70 (70 to 70)      59 (59 to 59)
    both                    131 (85 to 178)       111 (86 to 128)    70 (70 to 70)      59 (59 to 59)
    misled                  144 (91 to 187)       80 (72 to 106)     84 (72 to 98)      67 (59 to 77)

As shares of random search's that is 19% cold and 17% taught on the first, so neither aim in shares is reached, and what
misleads costs nothing. A search of the first that knows the best backbone, size and scale before its first trial still
needs 110 (51 to 150) there, 14%: four workers spend some 30 epochs from the proposal of the trial that arrives to its
arrival, and of the 40 configurations left three do. At 64 px, where 24 configurations of each set are recorded, one of
the first four trials often arrives, so that little is left to learn there. A rule that believed runs from the start and
let them choose every trial needed 144 (91 to 207) on the first and 225 (174 to 279) where they misled; on the second,
over 20 seeds, 277 and 208.

On GTZAN-100 what is best over five folds is to be found on one, by the 20 clips that validate. Over 27 seeds, with 100
trials at most, random search without cuts always arrives, after 175 (80 to 368). Searches that cut often never do: 17
with Ray's wiring, 15 cold, 12 learning, 25 with the portfolio, and of 26 seeds 23 with both and 13 misled. In eight
searches with the portfolio that were looked into, the best was proposed early and cut each time that it came, after 2,
6 or 18 epochs: on that fold others did better. So few clips cannot tell, and medians say little there.

A forest of the search's own trials that votes, from the seventh on, on what TPE offers needed over 60 seeds of the demo
set's 12 epochs 115 (79 to 146) with 24 offers, where TPE alone needed 147 (88 to 213). With 8 offers it needed 123 (88
to 182) there over 47 seeds, and over 60 seeds 183 where TPE needed 192 in the simulated 30 epochs and the same on the
demo set at 64 px and on FSDD by speaker (80 and 84). It costs 0.2 s per proposal and is not in the search yet.

Taking up again what was cut, once it would not be cut any more, brings nothing. Over 100 seeds, medians and quartiles
in epochs, without and with it: simulated, 30 epochs, 185 (92 to 313) and 187 (94 to 343); demo set, 12 epochs, 144 (94
to 200) and 142 (105 to 210); at 64 px 80 (72 to 105) and 80 (72 to 106); FSDD by speaker 84 (72 to 100) and 84 (72 to
99); official split 67 (60 to 77) and 67 (60 to 76). It would keep the last checkpoint of every trial that was cut, four
times its weights, so it stays here and is not in the search.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from search.runs.run import RunFolder
from search.space.load import load_space
from search.space.sections import Budget
from search.space.space import Space, scaled
from tests.benchmarks import curves, portfolio
from tests.benchmarks.contestants import (
    Contestant,
    Landscape,
    Ours,
    Pausing,
    Stock,
    Training,
    epochs_to_target,
    random_search,
)
from tests.support.simulated import CEILING, clean_curve, curve
from trainable.config import TrialConfig

POINT = 0.01
SPACES = Path(__file__).parents[2] / "spaces"
RAYS_GRACE, RAYS_FACTOR = 1, 4.0  # the defaults of `ASHAScheduler`
EARLIER_TRIALS = 40  # of each search on another set
EARLIER_SEEDS = 5  # different searches on each other set, taken in turns
_SCRATCH = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # journals are written line by line


class Searched(Protocol):
    """Something that searches can be tried on."""

    @property
    def title(self) -> str:
        """What is searched, in words."""

    def landscape(self, folder: Path, seed: int, more: str = "") -> Landscape:
        """It as the search with this seed meets it; `more`: lines of its space file."""


@dataclass(frozen=True)
class Family:
    """The simulated curves over a horizon; each seed has a noise of its own."""

    epochs: int
    trials: int
    grace: int = Budget().grace_epochs
    factor: float = Budget().reduction_factor

    @property
    def title(self) -> str:
        return f"simulated curves, {self.epochs} epochs"

    def landscape(self, folder: Path, seed: int, more: str = "") -> Landscape:
        text = f"""
            fixed: {{epochs: {self.epochs}, weights: none, seed: {seed}}}
            search:
              backbone: {{choice: [{", ".join(CEILING)}]}}
              lr: {{loguniform: [1.0e-5, 1.0e-1]}}
              mixup: {{uniform: [0, 0.5]}}
            budget: {{trials: {self.trials}, grace_epochs: {self.grace}, reduction_factor: {self.factor}}}
            searcher: {{seed: {seed}}}
        """

        def training(values: Mapping[str, Any]) -> Training:
            config = TrialConfig.model_validate(dict(values))
            seen = curve(config)
            return Training(seen, 1 - seen, clean_curve(config))

        return Landscape(_space(folder, text), max(CEILING.values()) - POINT, training)


@dataclass(frozen=True)
class Recorded:
    """The recorded curves of one data set: a table, or one per fold, of which each seed sees one."""

    title: str
    tables: tuple[curves.Table, ...]
    trials: int
    grace: int = Budget().grace_epochs
    factor: float = Budget().reduction_factor

    @property
    def epochs(self) -> int:
        """The max epochs of a trial."""
        return self.tables[0].epochs

    @property
    def data(self) -> str:
        """The data set, which nothing that is learned may come from."""
        return self.tables[0].data

    def landscape(self, folder: Path, seed: int, more: str = "") -> Landscape:
        table = self.tables[seed % len(self.tables)]
        text = "\n".join([
            *table.space_lines(),
            f"budget: {{trials: {self.trials}, grace_epochs: {self.grace}, reduction_factor: {self.factor}}}",
            f"searcher: {{seed: {seed}}}",
            more,
        ])  # fmt: skip
        worth, best = _worth(self.tables)

        def training(values: Mapping[str, Any]) -> Training:
            point = table.nearest(values, among=worth)
            seen = table.curves[point]
            losses = seen.losses or tuple(1 - accuracy for accuracy in seen.accuracies)
            return Training(np.array(seen.accuracies), np.array(losses), worth[point])

        return Landscape(_space(folder, text), best - POINT, training)


@cache
def _worth(tables: tuple[curves.Table, ...]) -> tuple[dict[curves.Point, Any], float]:
    """The mean curve of each configuration that all tables have, and the highest accuracy on one of these."""
    first, *others = tables
    shared = [point for point in first.curves if all(point in other.curves for other in others)]
    worth = {
        point: np.mean([_padded(table.curves[point].accuracies, table.epochs) for table in tables], axis=0)
        for point in shared
    }
    return worth, max(max(curve) for curve in worth.values())


def _padded(accuracies: Sequence[float], epochs: int) -> list[float]:
    return [*accuracies, *[0.0] * (epochs - len(accuracies))]


def _space(folder: Path, text: str) -> Space:
    file = folder / "space.yaml"
    file.write_text(text)
    return load_space(file)


def _with_rays(space: Space) -> Space:
    return space.with_budget(grace_epochs=RAYS_GRACE, reduction_factor=RAYS_FACTOR)


def recorded_sets(trials: int) -> list[Recorded]:
    """The data sets that have tables."""
    tables = {name: table for name, table in curves.TABLES.items() if table.file.exists()}
    found = [Recorded(table.title, (table,), trials) for table in tables.values() if table.data != "gtzan100"]
    for title, start in (
        ("GTZAN-100, 64 px, mean of folds", "gtzan100-64px-"),
        ("GTZAN-100, mean of folds", "gtzan100-"),
    ):
        folds = tuple(tables[name] for number in range(1, 6) if (name := f"{start}{number}") in tables)
        found += [Recorded(title, folds, trials)] if folds else []
    return found


@cache
def _earlier(recorded: Recorded, seed: int, upside_down: bool) -> RunFolder:
    """A search on a set, over before the one that learns from it begins."""
    folder = Path(tempfile.mkdtemp(dir=_SCRATCH))
    landscape = replace(replace(recorded, trials=EARLIER_TRIALS).landscape(folder, 1000 + seed), target=2.0)
    ours = Ours(landscape.space, folder / "run")
    epochs_to_target(ours, landscape, workers=4)
    if upside_down:
        for trial in ours.journal.trials.values():
            for report in trial.reports:
                report.value, report.loss = 1 - report.value, -report.loss
    return ours.run


def earlier(searched: Recorded, seed: int, upside_down: bool = False) -> list[RunFolder]:
    """One search on each other data set; where a set has several tables, seeds take turns."""
    others: dict[str, list[Recorded]] = {}
    for other in recorded_sets(EARLIER_TRIALS):
        if other.data != searched.data:
            others.setdefault(other.data, []).append(other)
    return [_earlier(sets[seed % len(sets)], seed % EARLIER_SEEDS, upside_down) for sets in others.values()]


Enter = Callable[[Searched, Path, int], tuple[Contestant, Landscape]]


def _cold(make: Callable[[Space, Path], Contestant]) -> Enter:
    def enter(searched: Searched, folder: Path, seed: int) -> tuple[Contestant, Landscape]:
        landscape = searched.landscape(folder, seed)
        return make(landscape.space, folder / "run"), landscape

    return enter


def _taught(learn: bool, start: bool, upside_down: bool = False) -> Enter:
    def enter(searched: Searched, folder: Path, seed: int) -> tuple[Contestant, Landscape]:
        assert isinstance(searched, Recorded)
        tables = [table for table in curves.TABLES.values() if table.file.exists() and table.data != searched.data]
        more = portfolio.baselines(searched.tables[0].grid, tables) if start and tables else ""
        landscape = searched.landscape(folder, seed, more)
        runs = earlier(searched, seed, upside_down) if learn else []
        return Ours(landscape.space, folder / "run", runs), landscape

    return enter


RANDOM, STOCK, OURS = "random search without cuts", "OptunaSearch + ASHAScheduler, Ray's defaults", "ours"
EVERYWHERE: dict[str, Enter] = {
    RANDOM: _cold(random_search),
    STOCK: _cold(lambda space, folder: Stock(_with_rays(space))),
    "OptunaSearch + ASHAScheduler, our grace and factor": _cold(lambda space, folder: Stock(space)),
    OURS: _cold(Ours),
    "ours, taking up again what was cut": _cold(Pausing),
    "ours, Ray's default grace and factor": _cold(lambda space, folder: Ours(_with_rays(space), folder)),
}
LEAVING_ONE_OUT: dict[str, Enter] = {
    "ours, learning from the other sets": _taught(learn=True, start=False),
    "ours, starting with their portfolio": _taught(learn=False, start=True),
    "ours, both": _taught(learn=True, start=True),
    "ours, misled": _taught(learn=True, start=False, upside_down=True),
}


def shipped(searched: Sequence[Family | Recorded], seeds: int, workers: int) -> None:
    """Prints the epochs that ours needs at the settings of each shipped space, and Ray's wiring at its defaults."""
    spaces = [load_space(SPACES / f"{name}.yaml") for name in ("quick", "small-data", "wide")]
    print(f"epochs to within one point of the best, median of {seeds} seeds, {workers} workers")
    for each in searched:
        theirs = _median(EVERYWHERE[STOCK], each, seeds, workers)
        said = [f"Ray's wiring {theirs:.0f}"]
        for space in spaces:
            budget, grace = space.budget, scaled(space.budget.grace_epochs, each.epochs / space.max_epochs)
            own = replace(each, grace=min(grace, each.epochs), factor=budget.reduction_factor)
            ours = _median(EVERYWHERE[OURS], own, seeds, workers)
            said.append(
                f"{Path(space.source).stem} ({own.grace}/{own.factor:g}) {ours:.0f}, {_ratio(ours, theirs)} of that"
            )
        print(f"  {each.title}: {'; '.join(said)}", flush=True)


@cache  # spaces that scale to the same settings are run once
def _median(enter: Enter, searched: Searched, seeds: int, workers: int) -> float:
    spent = [_race(enter, searched, seed, workers) for seed in range(seeds)]
    return float(np.percentile(spent, 50, method="inverted_cdf"))


def contest(searched: Searched, seeds: int, workers: int) -> None:
    """Prints the epochs that each contestant needs, and their share of random search's."""
    print(f"{searched.title}: epochs to within one point of the best, {seeds} seeds, {workers} workers")
    print(f"  {'':52}{'lower':>9}{'median':>9}{'upper':>9}{'never':>9}{'share':>9}   quartiles; share of random's")
    medians: dict[str, float] = {}
    for name, enter in {**EVERYWHERE, **(LEAVING_ONE_OUT if isinstance(searched, Recorded) else {})}.items():
        spent = [_race(enter, searched, seed, workers) for seed in range(seeds)]
        low, medians[name], high = np.percentile(spent, [25, 50, 75], method="inverted_cdf")
        share = _ratio(medians[name], medians[RANDOM])
        print(
            f"  {name:52}{low:9.0f}{medians[name]:9.0f}{high:9.0f}{int(np.isinf(spent).sum()):9}{share:>9}", flush=True
        )
    print(f"  ours / OptunaSearch + ASHAScheduler: {_ratio(medians[OURS], medians[STOCK])} (aim: below 1)\n")


def _race(enter: Enter, searched: Searched, seed: int, workers: int) -> float:
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as scratch:
        contestant, landscape = enter(searched, Path(scratch), seed)
        return epochs_to_target(contestant, landscape, workers)


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f}" if np.isfinite(min(ours, theirs)) else "none"


def main(arguments: list[str] | None = None) -> None:
    """Runs all contests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4, help="trials at the same time")
    parser.add_argument("--trials", type=int, default=300, help="after so many a search has not arrived")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="contests whose title has one of these")
    parser.add_argument("--shipped", action="store_true", help="ours at the settings of each shipped space")
    parser.add_argument("--quick", action="store_true", help="see that it works: two seeds, few trials")
    args = parser.parse_args(arguments)
    # A sentence for each search, about a space that is converted rightly.
    logging.getLogger("ray.tune.search.optuna.optuna_search").setLevel(logging.ERROR)
    if args.quick:
        args.seeds, args.trials = 2, 20
    # The tutorial's max epochs, and those of spaces/wide.yaml.
    every = [Family(30, args.trials), Family(50, args.trials), *recorded_sets(args.trials)]
    searched = [
        each for each in every if not args.only or any(word.lower() in each.title.lower() for word in args.only)
    ]
    if args.shipped:
        shipped(searched, args.seeds, args.workers)
        return
    for each in searched:
        contest(each, args.seeds, args.workers)


if __name__ == "__main__":
    main()
