"""What a search is about to do, said before it starts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from search.table import fact
from trainable.shell import program


def split_parts(split: Mapping[str, Any]) -> str:
    """A run's split and the clips in its parts, from what run.json says of it."""
    return f"{split['name']}: {split['train']} train, {split['val']} validation, {split['test']} test"


@dataclass(frozen=True)
class Header:
    """The facts of a search as people read them; empty ones are not shown."""

    run: str  # the run folder, as one would type it
    data: str  # "GTZAN/genres_original: 999 clips, 10 classes, 22.05 kHz, 1 left out"
    space: str  # "spaces/wide.yaml: 12 dimensions, 64 trials of up to 30 epochs"
    split: str = ""  # "stratified: 640 train, 160 validation, 199 test"
    devices: str = ""  # "2 GPUs (NVIDIA H200), 1 per trial: 2 trials at a time"
    address: str | None = None  # of the Ray cluster that was joined, for the commands that go on there; not shown
    weights: str = ""  # "ImageNet; random for densenet121"
    mirror: str = ""  # "local"
    how_to_watch: str = ""  # "swanlab watch runs/wide/swanlog"
    notes: tuple[str, ...] = ()  # what must not be overlooked: no data named, weights missing

    def command(self, name: str) -> str:
        """The `name` command on this run as one would type it here, on the cluster where that trains something."""
        there = f" --address {shlex.quote(self.address)}" if self.address and name in ("resume", "retrain") else ""
        return f"{program('python')} run_search.py {name} {shlex.quote(self.run)}{there}"

    def lines(self, width: int | None = None) -> list[Text]:
        """The facts, each on as many lines of `width` characters as it needs (None: on one)."""
        mirror = ", ".join(part for part in (self.mirror, self.how_to_watch) if part)
        facts = {
            "Run": self.run, "Data": self.data, "Space": self.space, "Split": self.split, "Devices": self.devices,
            "Weights": self.weights, "SwanLab": mirror,
        }  # fmt: skip
        lines = [line for name, text in facts.items() if text for line in fact(name, text, width)]
        return lines + [line for note in self.notes for line in fact("!", note, width, "bold yellow")]
