"""Confusion matrix and worst mistakes: of the retrained model where there is one, else of the search's best trial."""

from __future__ import annotations

import base64
import csv
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.report.facts import label
from search.runs.data import same_dataset
from search.runs.format import percent, percent_range
from search.runs.run import RunFolder, load_run, result_of
from trainable.config import TrialConfig
from trainable.data.audio import read_waveform
from trainable.data.dataset import Dataset
from trainable.data.split import fold_splits
from trainable.errors import InputError
from trainable.features.picture import png
from trainable.files import plain_cell
from trainable.inference.explain import Stretch, decisive_stretch, model_of_trial
from trainable.inference.metrics import class_scores, confusion, wilson_interval
from trainable.inference.model import Model, load_model
from trainable.inference.preview import Excerpt, cut, excerpt
from trainable.inference.scores import score_trial
from trainable.inference.suspects import Suspect
from trainable.training.trial_folder import TrialFolder

CLIPS = 8  # so many mistakes are shown
SECONDS = 8.0  # of each, s: enough to hear what it is; eight of them are about half a megabyte
PATIENCE_S = 60.0  # for what decides all the mistakes that are shown; a slow network leaves some out
LEAST_DROP = 0.02  # of probability: below it no stretch decides
_COLUMNS = 320  # px of the mel picture


@dataclass(frozen=True)
class Prediction:
    """What a model said of one clip whose class is known."""

    path: str  # absolute, or relative to the data set; "" where the data set is gone
    label: str
    predicted: str
    probability: float  # of the predicted class


@dataclass(frozen=True)
class Scored:
    """Predictions for all clips of one kind."""

    about: str  # whose they are and on what, for the caption
    labels: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    lost: str = ""  # why the clips themselves cannot be shown
    groups: Mapping[str, str] = field(default_factory=dict)  # path: group, of the clips that have one

    @property
    def pairs(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """True and predicted classes [n] as indices into `labels`."""
        index = {name: number for number, name in enumerate(self.labels)}
        true = np.array([index[item.label] for item in self.predictions], dtype=np.int64)
        return true, np.array([index[item.predicted] for item in self.predictions], dtype=np.int64)

    @property
    def mistakes(self) -> list[Prediction]:
        """The wrong ones, the surest first."""
        wrong = [item for item in self.predictions if item.label != item.predicted]
        return sorted(wrong, key=lambda item: (-item.probability, item.path))

    def confusion(self) -> list[list[int]]:
        """Counts: row = true class, column = predicted class."""
        counts: list[list[int]] = confusion(*self.pairs, len(self.labels)).tolist()
        return counts

    def class_rows(self) -> list[list[object]]:
        """Class, clips, recall, its interval, what it is most often taken for, precision and F1, one row per class."""
        rows: list[list[object]] = []
        for score, counts in zip(class_scores(self.labels, *self.pairs), self.confusion(), strict=True):
            others = [(count, name) for name, count in zip(self.labels, counts, strict=True) if name != score.label]
            count, name = max(others, key=lambda other: other[0], default=(0, ""))
            taken = f"{name} ({count})" if count else ""
            right = counts[self.labels.index(score.label)]
            interval = percent_range(wilson_interval(right, score.clips)) if score.clips else ""
            shares = [percent(score.precision), percent(score.f1)]
            rows.append([score.label, score.clips, percent(score.recall), interval, taken, *shares])
        return rows

    def group_rows(self) -> list[list[object]]:
        """Group, clips, share right and its interval, the hardest group first; nothing where clips have no groups."""
        found: dict[str, list[bool]] = {}
        for item in self.predictions:
            if item.path in self.groups:
                found.setdefault(self.groups[item.path], []).append(item.label == item.predicted)
        shares = sorted((sum(right) / len(right), name, right) for name, right in found.items())
        return [
            [name, len(right), percent(share), percent_range(wilson_interval(sum(right), len(right)))]
            for share, name, right in shares
        ]


def scored(run: RunFolder, result: Mapping[str, Any] | None) -> Scored | None:
    """The predictions to show, or None where there are none; `result` is `retrained/result.json`."""
    table_file = run.path / "retrained" / "predictions.csv"
    if result is not None and table_file.exists():
        found = from_csv(table_file, f"the retrained model on {_clips_of(result)}", result.get("labels") or ())
        return replace(found, groups=_groups(run))
    best = run.best()
    if best is None or not run.folder(best.trial).checkpoint("best").exists():
        return None
    scores = score_trial(run.folder(best.trial), "val")
    about = f"trial {label(best.trial)} at epoch {best.epoch} on the validation clips, on which it was chosen"
    paths, lost, groups = [""] * len(scores.clips), "", dict[str, str]()
    try:
        dataset = same_dataset(run)
        paths = [dataset.clips[clip].place for clip in scores.clips]
        groups = {clip.place: clip.group for clip in dataset.clips if clip.group is not None}
    except InputError as error:
        lost = str(error)
    rows = zip(paths, scores.true, scores.predicted, scores.probabilities.max(axis=1), strict=True)
    predictions = [
        Prediction(path, scores.labels[true], scores.labels[said], share) for path, true, said, share in rows
    ]
    return Scored(about, scores.labels, tuple(predictions), lost, groups)


def _groups(run: RunFolder) -> dict[str, str]:
    """Path to group of the clips that have one; nothing where the data is not there any more."""
    try:
        return {clip.place: clip.group for clip in same_dataset(run).clips if clip.group is not None}
    except InputError:
        return {}


def _clips_of(result: Mapping[str, Any]) -> str:
    return {"test": "the test clips", "folds": "all clips, out of fold"}.get(
        result["measured_on"], "the validation clips, on which it was chosen"
    )


def from_csv(path: Path, about: str, labels: Sequence[str]) -> Scored:
    """The predictions in a table with the columns path, label, predicted and probability; `labels` gives the order."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            Prediction(
                plain_cell(row["path"]),
                plain_cell(row["label"]),
                plain_cell(row["predicted"]),
                float(row["probability"]),
            )
            for row in csv.DictReader(file)
        ]
    others = {row.label for row in rows} | {row.predicted for row in rows}
    return Scored(about, (*labels, *sorted(others - set(labels))), tuple(rows))


@dataclass(frozen=True)
class Decides:
    """The stretch of a clip that decides, over its picture and to be played alone."""

    start: float  # s in the clip
    end: float  # s in the clip
    drop: float  # by how much the answer's probability falls without it, fraction
    left: float  # in the picture, percent
    width: float  # percent
    sound: str  # MP3 in base64


@dataclass(frozen=True)
class Card:
    """A mistake to look at and to listen to."""

    name: str  # of the file, with its folder
    label: str
    predicted: str
    probability: float
    seconds: float  # of the clip that are shown, s
    start: float  # of what is shown, s
    picture: str  # PNG in base64
    sound: str  # MP3 in base64
    decides: Decides | None = None  # None where that could not be found out


@dataclass(frozen=True)
class Mistakes:
    """The surest mistakes."""

    cards: tuple[Card, ...]
    lost: tuple[str, ...]  # what is wrong with the files of some
    lost_all: str  # why none can be shown, "" where they can


def mistakes(run: RunFolder, found: Scored, config: TrialConfig) -> Mistakes:
    """The surest mistakes, each with a picture and a sound, and a sentence for each file that cannot be had."""
    if found.lost:
        return Mistakes((), (), found.lost)
    root = str(run.record.get("data", {}).get("path", ""))
    explain = explainer(run)
    cards: list[Card] = []
    lost: list[str] = []
    for item in found.mistakes:
        if len(cards) == CLIPS:
            break
        try:
            path = _locate(root, item.path)
            cards.append(card(item, path, config, explain(path, item.predicted)))
        except InputError as error:
            lost.append(str(error))
    return Mistakes(tuple(cards), tuple(lost), "")


def _locate(root: str, path: str) -> Path:
    base = Path(root)
    return Path(path) if Path(path).is_absolute() else (base.parent if base.is_file() else base) / path


def suspect_cards(dataset: Dataset, found: Sequence[Suspect], config: TrialConfig) -> list[Card]:
    """The most doubtful labels, to look at and to listen to; files that cannot be read any more are left out."""
    cards: list[Card] = []
    for each in found:
        if len(cards) == CLIPS:
            break
        path = dataset.clips[each.clip].place
        with suppress(InputError):
            item = Prediction(path, each.label, each.suggested, each.of_suggested)
            cards.append(card(item, Path(path), config, None))
    return cards


# What decides a clip, given its path and the label that was said; None where it is not to be found out.
Explain = Callable[[Path, str], Stretch | None]


def explainer(run: RunFolder, patience: float = PATIENCE_S) -> Explain:
    """What asks the model that made the run's mistakes, as long as that takes no more than `patience` seconds in all.

    With folds each clip has a model of its own: the one that had not learned from it.
    """
    deadline = time.monotonic() + patience
    try:
        model_for = models_of(run)
    except InputError:  # the mistakes are shown all the same
        return lambda path, label: None

    def explain(path: Path, label: str) -> Stretch | None:
        model = model_for(path) if time.monotonic() <= deadline else None
        if model is None or label not in model.labels:
            return None
        return decisive_stretch(model, read_waveform(path), label)

    return explain


def models_of(run: RunFolder) -> Callable[[Path], Model | None]:
    """Which model has scored a clip, by the clip's path; None where that is not known.

    Raises:
        InputError: a model cannot be read, or the data is not what the folds were dealt from.
    """
    result = result_of(run.path) if (run.path / "retrained" / "predictions.csv").exists() else None
    if result is not None and result["measured_on"] == "folds":
        folders = _out_of_fold(run, result)
        temperature = (result.get("calibration") or {}).get("temperature", 1.0)
        of_trial = cache(partial(model_of_trial, temperature=temperature))
        return lambda path: of_trial(folders[str(path)]) if str(path) in folders else None
    best = run.best()
    if result is not None:
        model = load_model(run.path / "retrained" / "model")
    elif best is not None:
        model = model_of_trial(run.folder(best.trial))
    else:
        return lambda path: None
    return lambda path: model


def _out_of_fold(run: RunFolder, result: Mapping[str, Any]) -> dict[str, TrialFolder]:
    """By a clip's path the training of the seed that was handed over that has not learned from the clip."""
    again, dataset = load_run(run.path / "retrained"), same_dataset(run)
    seed = (result.get("model") or {}).get("seed")
    found: dict[str, TrialFolder] = {}
    for trial in again.trials:
        if trial.name.startswith(f"{result.get('chosen')}, seed {seed}, fold "):
            config = TrialConfig.parse(trial.config, source=str(again.path))
            held_out = fold_splits(dataset, config)[config.fold - 1].test
            found |= {dataset.clips[clip].place: again.folder(trial) for clip in held_out}
    return found


def card(item: Prediction, path: Path, config: TrialConfig, stretch: Stretch | None) -> Card:
    """A clip to look at and to listen to: the part around the stretch that decides, or its beginning.

    Raises:
        InputError: the file is gone or cannot be decoded.
    """
    decided = stretch is not None and stretch.drop >= LEAST_DROP
    middle = (stretch.start + stretch.end) / 2 if stretch and decided else 0.0
    part = excerpt(path, config, SECONDS, around=middle)
    return Card(
        "/".join(Path(item.path).parts[-2:]), item.label, item.predicted, item.probability, part.seconds, part.start,
        base64.b64encode(png(_fit(part.mel))).decode(), base64.b64encode(part.mp3).decode(),
        _decides(path, stretch, part) if stretch and decided else None,
    )  # fmt: skip


def _decides(path: Path, stretch: Stretch, part: Excerpt) -> Decides:
    left = max(stretch.start - part.start, 0.0)
    right = min(stretch.end - part.start, part.seconds)
    return Decides(
        stretch.start, stretch.end, stretch.drop, 100 * left / part.seconds, 100 * (right - left) / part.seconds,
        base64.b64encode(cut(path, stretch.start, stretch.end)).decode(),
    )  # fmt: skip


def _fit(mel: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A mel [m, f] with at most `_COLUMNS` columns, the loudest frame of each kept."""
    frames = mel.shape[1]
    if frames <= _COLUMNS:
        return mel
    starts = np.linspace(0, frames, _COLUMNS, endpoint=False).astype(int)
    return np.maximum.reduceat(mel, starts, axis=1)
