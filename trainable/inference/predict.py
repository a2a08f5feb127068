"""A saved model and files to labels, of whole files or of windows of them with their times."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainable.data.audio import probe_file, read_spans
from trainable.data.listing import AUDIO
from trainable.data.stretches import Stretch, plain, windows
from trainable.errors import InputError, visible
from trainable.inference.metrics import Floats
from trainable.inference.model import InParts, Model, Sound
from trainable.progress import Progress

_SHORTEST = 0.01  # s, of a window and of a hop: more of them than anybody reads


@dataclass(frozen=True)
class Prediction:
    """What a model says of one file, or of one window of it."""

    path: str
    label: str
    probability: float  # of `label`, calibrated
    top: tuple[tuple[str, float], ...]  # the likeliest classes and their probabilities, best first
    probabilities: dict[str, float]  # of every class
    stretch: Stretch | None = None  # the window; None: the whole file

    def to_json(self) -> dict[str, Any]:
        """The line of `predict --json`."""
        times = {} if self.stretch is None else {"start": self.stretch.start, "end": self.stretch.end}
        return {
            "path": self.path, **times, "label": self.label, "probability": self.probability,
            "top": [list(p) for p in self.top], "probabilities": self.probabilities,
        }  # fmt: skip

    def to_row(self) -> list[str]:
        """The line of `predict --csv`, under `csv_header`."""
        likely = " ".join(f"{label}:{share:.4f}" for label, share in self.top)
        times = [] if self.stretch is None else [plain(time or 0.0) for time in self.stretch]
        return [
            self.path, *times, self.label, f"{self.probability:.6f}", likely,
            *(f"{p:.6f}" for p in self.probabilities.values()),
        ]  # fmt: skip


@dataclass(frozen=True)
class Unreadable:
    """A file that has no label, and why."""

    path: str
    reason: str
    skipped: bool = False  # by its name alone: nobody would expect a label


class AudioFile(NamedTuple):
    """A file to label; `name` is its path from the folder that was named, `skipped` why it is none to label."""

    path: Path
    name: str
    skipped: str = ""


def csv_header(model: Model, windowed: bool = False) -> list[str]:
    """The column names of `predict --csv`: one more for each class, and those of the times of windows."""
    times = ["start", "end"] if windowed else []
    return ["path", *times, "label", "probability", "top", *(f"p({label})" for label in model.labels)]


def predict_files(
    model: Model, paths: Iterable[str | Path], top: int = 5, progress: Progress | None = None,
    window: float | None = None, hop: float | None = None,
) -> Iterator[Prediction | Unreadable]:  # fmt: skip
    """One record per file, in order, as soon as it is known; folders stand for all files below them.

    What cannot be read, is silent, or is no audio by its name comes out as `Unreadable`; nothing is left out without a
    word. A recording of any length takes no more memory than a part of it.

    Args:
        model: from `load_model`.
        paths: files and folders.
        top: so many of the likeliest classes.
        progress: told of every file.
        window: one record per window of so many s instead.
        hop: s from one window to the next; None: windows touch.

    Raises:
        InputError: the window or the hop are no lengths.
    """
    if window is not None:
        hop = window if hop is None else hop
        check_windows(window, hop)
    elif hop is not None:
        raise InputError(f"--hop: needs --window, got {hop:g} alone. Give both.")
    files = list(audio_files(paths))
    asked: deque[tuple[AudioFile, Stretch | None]] = deque()  # what is with the model, in its order

    def sounds() -> Iterator[Sound | InParts | str]:
        for done, file in enumerate(files, start=1):
            for stretch, sound in _sounds(file, model, window, hop):
                asked.append((file, stretch))
                yield sound
            if progress:
                progress("Labelling", done, len(files))

    for row in model.stream(sounds()):
        file, stretch = asked.popleft()
        if isinstance(row, str):
            yield Unreadable(str(file.path), row, skipped=bool(file.skipped))
        else:
            yield _prediction(str(file.path), row, model, top, stretch)


def check_windows(window: float, hop: float) -> None:
    """Refuses windows that leave something out, and more of them than anybody reads."""
    for name, value in (("--window", window), ("--hop", hop)):
        if not _SHORTEST <= value < float("inf"):
            raise InputError(f"{name}: must be {_SHORTEST:g} s or more, got {value:g}. Change it.")
    if hop > window:
        raise InputError(
            f"--hop: must be at most --window ({window:g} s), got {hop:g}: sound between them would be left out."
        )


def audio_files(paths: Iterable[str | Path]) -> Iterator[AudioFile]:
    """The files that `paths` mean: files as they are, of folders all files below them, sorted, links followed.

    What is no file to label (hidden, no audio by its name, a link back to a folder above) comes with its reason. So
    does a folder without any file.
    """
    for path in map(Path, paths):
        if not path.is_dir():
            yield AudioFile(path, path.name)
            continue
        found = list(_below(path, path, frozenset()))
        yield from found or [AudioFile(path, path.name, "holds no files")]


def _below(folder: Path, root: Path, above: frozenset[tuple[int, int]]) -> Iterator[AudioFile]:
    """The files below a folder; `above` are the folders on the way to it, by which a loop of links is known."""
    try:
        status = folder.stat()
        names = sorted(item.name for item in os.scandir(folder))
    except OSError as error:
        yield AudioFile(folder, folder.name, f"cannot be opened ({error.strerror or error})")
        return
    here = (status.st_dev, status.st_ino)
    if here in above:
        yield AudioFile(folder, folder.name, "is a link to a folder above it")
        return
    for name in names:
        path = folder / name
        inside = os.path.isdir(path)  # noqa: PTH112 (Path's own raises in a loop of links)
        relative = path.relative_to(root).as_posix()
        if name.startswith(".") or name == "__MACOSX":
            what = "hidden folder: name it to label what is in it" if inside else "hidden"
            yield AudioFile(path, relative, what)
        elif inside:
            yield from _below(path, root, above | {here})
        elif path.suffix.lower() not in AUDIO:
            yield AudioFile(path, relative, "not an audio file by its name")
        else:
            yield AudioFile(path, relative)


def _sounds(
    file: AudioFile, model: Model, window: float | None, hop: float | None
) -> Iterator[tuple[Stretch | None, Sound | InParts | str]]:
    """The stretches of a file that are labelled, each with its sound, or the reason why there is none."""
    if file.skipped:
        yield None, file.skipped
        return
    probe = probe_file(str(file.path))  # by the same rules as a data set's clips
    if probe.reason:
        yield None, probe.reason
        return
    rate = probe.sample_rate
    if window is None or hop is None:
        spans = model.parts_of(probe.frames, rate)
        yield None, InParts(len(spans), read_spans(file.path, spans))
        return
    stretches = windows(probe.frames / rate, window, hop)
    spans = [_span(stretch, rate, probe.frames) for stretch in stretches]
    try:
        yield from zip(stretches, read_spans(file.path, spans), strict=True)
    except InputError as error:  # gone since
        yield None, str(error)


def _span(stretch: Stretch, rate: int, frames: int) -> tuple[int, int]:
    start, stop = stretch.samples(rate)
    return start, min(frames, frames if stop is None else stop)


def _prediction(path: str, row: Floats, model: Model, top: int, stretch: Stretch | None) -> Prediction:
    order = np.argsort(-row, kind="stable")
    likeliest = tuple((model.labels[index], float(row[index])) for index in order[:top])
    every = {label: float(share) for label, share in zip(model.labels, row, strict=True)}
    return Prediction(path, *likeliest[0], likeliest, every, stretch)


class LabelFiles:
    """Label files of Audacity, one per recording, written window by window below a folder."""

    def __init__(self, folder: Path, paths: Iterable[str | Path]) -> None:
        """`paths`: as `predict_files` takes them; each file's labels get its name and place."""
        self.folder = folder
        self.targets: dict[str, Path] = {}
        taken: set[Path] = set()
        for file in audio_files(paths):
            target = folder / Path(file.name).with_suffix(".txt")
            if target in taken:  # a.wav and a.mp3, or files of two folders
                target = folder / f"{file.name}.txt"
            number = 2
            while target in taken:
                target, number = folder / f"{file.name}.{number}.txt", number + 1
            taken.add(target)
            self.targets[str(file.path)] = target
        self.begun: set[str] = set()

    def add(self, found: Prediction) -> None:
        """Appends a window's label."""
        assert found.stretch is not None  # only windows have times
        target = self.targets[found.path]
        target.parent.mkdir(parents=True, exist_ok=True)
        times = "\t".join(f"{time or 0.0:.6f}" for time in found.stretch)
        with target.open("w" if found.path not in self.begun else "a", encoding="utf-8") as file:
            file.write(f"{times}\t{visible(found.label)}\n")
        self.begun.add(found.path)
