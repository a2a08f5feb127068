"""Real accuracy curves of the demo set, recorded once in `curves.csv`: a grid of configurations, all of it trained."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from trainable.config import TrialConfig

FILE = Path(__file__).with_name("curves.csv")

EPOCHS = 12
# spaces/quick.yaml where that leaves no choice. The test clips validate, too: 240 of 600, half the noise.
FIXED: dict[str, Any] = {
    "data": "demo", "epochs": EPOCHS, "val_share": 0.4, "test_share": 0.0, "weights": "none", "n_mels": 64,
    "normalise": "train", "optimizer": "adamw", "weight_decay": 0.01, "batch_size": 16, "warmup_epochs": 1,
    "warmup": "linear", "schedule": "cosine",
}  # fmt: skip
GRID: dict[str, tuple[Any, ...]] = {
    "backbone": ("resnet18", "regnet_x_400mf", "shufflenet_v2_x0_5"),
    "image_size": (64, 32),
    "scale": ("power", "log", "db"),
    "lr": (3e-4, 7e-4, 1.7e-3, 4e-3, 1e-2),
    "mixup": (0.0, 0.2),
    "roll": (0.0, 0.5),
}
_ACCURACIES = tuple(f"val_acc_{epoch}" for epoch in range(1, EPOCHS + 1))

Curves = dict[tuple[Any, ...], tuple[float, ...]]


def key(values: Mapping[str, Any]) -> tuple[Any, ...]:
    """A configuration's place in the grid."""
    return tuple(values[name] for name in GRID)


def load(file: Path = FILE) -> Curves:
    """Validation accuracies after each epoch, fractions, of every configuration in the grid that is recorded."""
    with file.open(newline="") as lines:
        return {
            tuple(row[name] if isinstance(GRID[name][0], str) else float(row[name]) for name in GRID): tuple(
                float(row[name]) for name in _ACCURACIES
            )
            for row in csv.DictReader(lines)
        }


def record(say: Callable[[str], None], file: Path = FILE, processes: int | None = None) -> None:
    """Trains what is not in `file` yet, a configuration per core at a time, and adds it there."""
    points = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    if not file.exists():
        file.write_text(",".join([*GRID, *_ACCURACIES]) + "\n")
    missing = [point for point in points if key(point) not in load(file)]
    os.environ["OMP_NUM_THREADS"] = "1"  # the trials share the cores as those of a search do
    with ProcessPoolExecutor(processes or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for done, (point, accuracies) in enumerate(zip(missing, pool.map(_trained, missing), strict=True), start=1):
            with file.open("a", newline="") as lines:
                csv.writer(lines).writerow([*key(point), *(f"{accuracy:.4f}" for accuracy in accuracies)])
            say(f"{done} of {len(missing)}: {point}: {max(accuracies):.1%}")


def _trained(point: Mapping[str, Any]) -> list[float]:
    from trainable.training.loop import train

    return [epoch.val_acc for epoch in train(TrialConfig.parse({**FIXED, **point}))]


def space_lines() -> Iterator[str]:
    """The grid as the lines of a space file."""
    yield "search:"
    for name, values in GRID.items():
        yield f"  {name}: {{choice: [{', '.join(str(value) for value in values)}]}}"
