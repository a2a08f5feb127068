"""Real validation curves, recorded once in `tables/NAME.csv`: many configurations of one grid, on several data sets.

    python -m tests.benchmarks.curves --record [NAME ...] [--data FOLDER] [--processes N] [--seconds S]

FOLDER holds `gtzan100/genres_original` and `fsdd/fsdd.csv`; the demo set needs nothing. What is in a table already is
not trained again, and a recording may be ended and gone on with at any time: every table takes its configurations in
one and the same shuffled order. Imports nothing but `trainable`, so that a machine without Ray can record.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import random
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from trainable.config import TrialConfig
from trainable.errors import Diverged

FOLDER = Path(__file__).with_name("tables")

Point = tuple[Any, ...]  # a configuration's values, in the order of its grid's dimensions


@dataclass(frozen=True)
class Curve:
    """What one training reported; shorter than its table's epochs where it diverged."""

    accuracies: tuple[float, ...]  # [epochs] validation accuracy, a fraction
    losses: tuple[float, ...] = ()  # [epochs] nats; empty where the table has none


@dataclass(frozen=True, eq=False)  # each is one file
class Table:
    """A data set, a grid of configurations, and the curves of those that are recorded."""

    name: str
    title: str
    data: str  # what is left out together: tables of one data set say nothing new of each other
    fixed: Mapping[str, Any]
    grid: Mapping[str, tuple[Any, ...]]
    takes: int | None = None  # of each digit and speaker of FSDD
    folder: Path = field(default=FOLDER)

    @property
    def epochs(self) -> int:
        """The max epochs of its trainings."""
        return int(self.fixed["epochs"])

    @property
    def file(self) -> Path:
        """Where its curves are."""
        return self.folder / f"{self.name}.csv"

    @property
    def points(self) -> list[Point]:
        """The configurations that it holds when it is whole, in the order of recording."""
        points = list(itertools.product(*self.grid.values()))
        random.Random(0).shuffle(points)
        return points

    @cached_property
    def curves(self) -> dict[Point, Curve]:
        """The recorded curves by configuration."""
        if not self.file.exists():
            return {}
        with self.file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        return {self._point(row): _curve(row) for row in rows}

    def nearest(self, values: Mapping[str, Any], among: Container[Point]) -> Point:
        """The recorded configuration, one of `among`, that is most like another: that itself where it is there.

        Alike is measured in dimensions: a number counts as much as it differs on its list of values, a backbone more
        than all others together. So the whole grid can be searched where a part of it is recorded.
        """
        point = tuple(values[name] for name in self.grid)
        if point in among:
            return point
        candidates = [other for other in self.curves if other in among]
        return min(candidates, key=lambda other: self._apart(point, other))

    def _apart(self, one: Point, other: Point) -> float:
        apart = 0.0
        for (name, values), mine, theirs in zip(self.grid.items(), one, other, strict=True):
            if all(isinstance(value, float) for value in values):
                apart += abs(values.index(mine) - values.index(theirs)) / (len(values) - 1)
            elif mine != theirs:
                apart += 100 if name == "backbone" else 1
        return apart

    def _point(self, row: Mapping[str, str]) -> Point:
        return tuple(_parsed(row[name], values) for name, values in self.grid.items())

    def space_lines(self) -> Iterator[str]:
        """The grid as the lines of a space file."""
        yield f"fixed: {{epochs: {self.epochs}, weights: none}}"
        yield "search:"
        for name, values in self.grid.items():
            shown = ["null" if value is None else str(value) for value in values]
            yield f"  {name}: {{choice: [{', '.join(shown)}]}}"


def _parsed(text: str, values: Sequence[Any]) -> Any:
    """The value of a grid that a cell stands for."""
    return next(value for value in values if _cell(value) == text or (_is_number(value) and float(text) == value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _cell(value: Any) -> str:
    return "null" if value is None else str(value)


def _curve(row: Mapping[str, str]) -> Curve:
    accuracies, losses = (
        tuple(float(row[name]) for name in row if name.startswith(f"val_{what}_") and row[name])
        for what in ("acc", "loss")
    )
    return Curve(accuracies, losses)


# spaces/quick.yaml where that leaves no choice. The test clips validate, too: 240 of 600, half the noise.
_FIXED: dict[str, Any] = {
    "val_share": 0.4, "test_share": 0.0, "n_mels": 64, "normalise": "train", "optimizer": "adamw", "weight_decay": 0.01,
    "batch_size": 16, "warmup": "linear", "schedule": "cosine", "image_size": 64,
}  # fmt: skip
_LR = (3e-4, 7e-4, 1.7e-3, 4e-3, 1e-2)
# The first table: all of a grid of 360.
_DEMO_12 = Table(
    "demo-12", "demo set, 12 epochs", "demo",
    {**_FIXED, "data": "demo", "epochs": 12, "warmup_epochs": 1, "weights": "none"},
    {
        "backbone": ("resnet18", "regnet_x_400mf", "shufflenet_v2_x0_5"),
        "image_size": (64, 32),
        "scale": ("power", "log", "db"),
        "lr": _LR,
        "mixup": (0.0, 0.2),
        "roll": (0.0, 0.5),
    },
)  # fmt: skip
# All sets are recorded in two sizes, each with a grid that they share, so that what one set teaches can be asked of
# another. MobileNetV2 starts from ImageNet's weights where TORCH_HOME has them, the others from random ones. GTZAN-100
# is the first 10 s of its clips; fold k tests and the next one validates: 60 clips train, 20 validate. The official
# test takes of FSDD, 0 to 4, stay out; a share of the training takes validates.
GRID_64: dict[str, tuple[Any, ...]] = {
    "backbone": ("resnet18", "regnet_x_400mf", "mobilenet_v3_small", "mobilenet_v2"),
    "scale": ("power", "log", "db"),
    "crop_seconds": (None, 1.0),
    "lr": _LR,
    "weight_decay": (0.001, 0.1),
    "mixup": (0.0, 0.2),
    "roll": (0.0, 0.5),
}
_COMMON: dict[str, Any] = {
    **_FIXED, "warmup_epochs": 2, "weights": "auto", "window_ms": 46.0, "hop_ms": 10.0, "padding": "repeat",
}  # fmt: skip
_64: dict[str, Any] = {
    **{key: value for key, value in _COMMON.items() if key not in GRID_64}, "epochs": 24, "batch_size": 32,
    "eval_crops": 4,
}  # fmt: skip
GRID: dict[str, tuple[Any, ...]] = {
    "backbone": ("resnet18", "regnet_x_400mf", "shufflenet_v2_x0_5", "mobilenet_v2"),
    "scale": ("power", "log", "db"),
    "lr": _LR,
    "mixup": (0.0, 0.2),
    "roll": (0.0, 0.5),
}
_32: dict[str, Any] = {
    **{key: value for key, value in _COMMON.items() if key not in GRID}, "epochs": 20, "image_size": 32,
}  # fmt: skip
_GTZAN: dict[str, Any] = {"data": "gtzan100/genres_original", "split": "folds", "n_folds": 5, "batch_size": 8}
_SPEAKERS: dict[str, Any] = {"data": "fsdd", "split": "grouped"}
_OFFICIAL: dict[str, Any] = {"data": "fsdd", "split": "given"}
TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        _DEMO_12,
        Table("demo-64px", "demo set, 64 px", "demo", {**_64, "data": "demo"}, GRID_64),
        *(
            Table(f"gtzan100-64px-{fold}", f"GTZAN-100, 64 px, fold {fold}", "gtzan100",
                  {**_64, **_GTZAN, "train_crops": 2, "fold": fold}, GRID_64)
            for fold in range(1, 6)
        ),
        Table("fsdd-speakers-64px", "FSDD by speaker, 64 px", "fsdd", {**_64, **_SPEAKERS}, GRID_64, takes=15),
        Table("fsdd-official-64px", "FSDD, official split, 64 px", "fsdd", {**_64, **_OFFICIAL}, GRID_64, takes=20),
        *(
            Table(f"gtzan100-{fold}", f"GTZAN-100, fold {fold}", "gtzan100", {**_32, **_GTZAN, "fold": fold}, GRID)
            for fold in range(1, 6)
        ),
        Table("fsdd-speakers", "FSDD by speaker", "fsdd", {**_32, **_SPEAKERS}, GRID, takes=6),
        Table("fsdd-official", "FSDD, official split", "fsdd", {**_32, **_OFFICIAL}, GRID, takes=11),
    )
}  # fmt: skip


def record(tables: Sequence[Table], data: Path, processes: int, seconds: float, say: Callable[[str], None]) -> None:
    """Trains what the tables still lack, table by table in turn, until `seconds` are over, and adds it to them."""
    os.environ["OMP_NUM_THREADS"] = "1"  # the trials share the cores as those of a search do
    until = time.time() + seconds
    sets = {table.name: _data_of(table, data) for table in tables}
    for table in tables:
        begin(table)
    missing = jobs(tables)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running: dict[Future[Curve | None], tuple[Table, Point]] = {}
        for done in itertools.count(1):
            while len(running) < 2 * processes and time.time() < until and (job := next(missing, None)):
                table, point = job
                values = {**table.fixed, **dict(zip(table.grid, point, strict=True)), "data": sets[table.name]}
                running[pool.submit(_trained, values, until)] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                table, point = running.pop(future)
                if curve := future.result():
                    add(table, point, curve)
                    say(f"{done}: {table.name}: {point}: {max(curve.accuracies, default=0):.1%}")


def jobs(tables: Sequence[Table]) -> Iterator[tuple[Table, Point]]:
    """What is missing, such that all tables have about as many whenever the recording ends."""
    for row in itertools.zip_longest(*(table.points for table in tables)):
        for table, point in zip(tables, row, strict=True):
            if point is not None and point not in table.curves:
                yield table, point


def _trained(values: Mapping[str, Any], until: float) -> Curve | None:
    """One training's curve; None where the time was up before its end."""
    from trainable.training.loop import train

    config = TrialConfig.parse(values)  # weights "auto": those that are here, random ones otherwise
    accuracies, losses = [], []
    try:
        for epoch in train(config):
            accuracies.append(epoch.val_acc)
            losses.append(epoch.val_loss)
            if time.time() > until:
                return None
    except Diverged:
        pass  # a curve that ends early says so
    return Curve(tuple(accuracies), tuple(losses))


def _data_of(table: Table, folder: Path) -> str:
    """The data set of a table below `folder`; of FSDD a list of its first takes, the official test takes left out."""
    if table.takes is None:
        return "demo" if table.data == "demo" else str((folder / str(table.fixed["data"])).resolve())
    source = folder / "fsdd" / "fsdd.csv"
    with source.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if int(Path(row["path"]).stem.split("_")[2]) < table.takes]
    official = table.fixed["split"] == "given"
    listing = Path(os.environ.get("TMPDIR", "/tmp")) / f"{table.name}-{os.getpid()}.csv"
    with listing.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split" if official else "group"])
        for row in rows:
            if not (official and row["split"] == "test"):
                path = (source.parent / row["path"]).resolve()
                writer.writerow([path, row["label"], "train" if official else row["group"]])
    return str(listing)


def begin(table: Table) -> None:
    """Writes the header of a table that is new."""
    table.folder.mkdir(parents=True, exist_ok=True)
    if not table.file.exists():
        names = [f"val_{what}_{epoch}" for what in ("acc", "loss") for epoch in range(1, table.epochs + 1)]
        table.file.write_text(",".join([*table.grid, *names]) + "\n")


def add(table: Table, point: Point, curve: Curve) -> None:
    blanks = [""] * (table.epochs - len(curve.accuracies))
    numbers = [[f"{value:.4g}" for value in values] + blanks for values in (curve.accuracies, curve.losses)]
    with table.file.open("a", newline="") as lines:
        csv.writer(lines, lineterminator="\n").writerow([*map(_cell, point), *numbers[0], *numbers[1]])


def main(arguments: list[str] | None = None) -> None:
    """Records tables, or says what is recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", nargs="*", choices=[name for name in TABLES if name != "demo-12"], metavar="NAME")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="where gtzan100 and fsdd are")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the tables are and go")
    args = parser.parse_args(arguments)
    tables = [
        replace(table, folder=args.folder, fixed={**table.fixed, "device": args.device}) for table in TABLES.values()
    ]
    if args.record is not None:
        names = args.record or [name for name in TABLES if name != "demo-12"]
        record([table for table in tables if table.name in names], args.data, args.processes, args.seconds,
               lambda line: print(line, flush=True))  # fmt: skip
    for table in tables:
        print(f"{table.name}: {len(table.curves)} of {len(table.points)} recorded")


if __name__ == "__main__":
    main()
