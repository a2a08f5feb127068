"""A saved model and files to labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainable.data.audio import probe_file, read_waveform
from trainable.data.listing import is_audio
from trainable.errors import InputError
from trainable.inference.metrics import Floats
from trainable.inference.model import Model, Sound
from trainable.progress import Progress


@dataclass(frozen=True)
class Prediction:
    """What a model says of one file."""

    path: str
    label: str
    probability: float  # of `label`, calibrated
    top: tuple[tuple[str, float], ...]  # the likeliest classes and their probabilities, best first
    probabilities: dict[str, float]  # of every class

    def to_json(self) -> dict[str, Any]:
        """The line of `predict --json`."""
        return {
            "path": self.path, "label": self.label, "probability": self.probability, "top": [list(p) for p in self.top],
            "probabilities": self.probabilities,
        }  # fmt: skip

    def to_row(self) -> list[str]:
        """The line of `predict --csv`, under `csv_header`."""
        likely = " ".join(f"{label}:{share:.4f}" for label, share in self.top)
        return [
            self.path, self.label, f"{self.probability:.6f}", likely, *(f"{p:.6f}" for p in self.probabilities.values())
        ]  # fmt: skip


@dataclass(frozen=True)
class Unreadable:
    """A file that has no label, and why."""

    path: str
    reason: str


def csv_header(model: Model) -> list[str]:
    """The column names of `predict --csv`: one more for each class."""
    return ["path", "label", "probability", "top", *(f"p({label})" for label in model.labels)]


def predict_files(
    model: Model, paths: Iterable[str | Path], top: int = 5, progress: Progress | None = None
) -> Iterator[Prediction | Unreadable]:
    """One record per file, in order, as soon as it is known; folders stand for all audio files below them.

    What cannot be read, or is silent, comes out as `Unreadable`; nothing is left out without a word.
    """
    files = list(audio_files(paths))
    rows = model.stream(_read(path) for path in files)
    for done, (path, row) in enumerate(zip(files, rows, strict=True), start=1):
        if progress:
            progress("Labelling", done, len(files))
        yield Unreadable(str(path), row) if isinstance(row, str) else _prediction(str(path), row, model, top)


def audio_files(paths: Iterable[str | Path]) -> Iterator[Path]:
    """The files that `paths` mean: files as they are, of folders the audio files below them by name, sorted.

    A folder without any comes out itself, so that it is reported.
    """
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(Path(base) / name for base, _, names in os.walk(path) for name in names if is_audio(name))
            yield from found or [path]
        else:
            yield path


def _read(path: Path) -> Sound | str:
    """The waveform and its rate, or why there is none."""
    if path.is_dir():
        return "holds no audio files"
    reason = probe_file(str(path)).reason  # by the same rules as a data set's clips
    if reason:
        return reason
    try:
        return read_waveform(path)
    except InputError as error:  # gone since
        return str(error).removeprefix(f"{path}: ")


def _prediction(path: str, row: Floats, model: Model, top: int) -> Prediction:
    order = np.argsort(-row, kind="stable")
    likeliest = tuple((model.labels[index], float(row[index])) for index in order[:top])
    every = {label: float(share) for label, share in zip(model.labels, row, strict=True)}
    return Prediction(path, *likeliest[0], likeliest, every)
