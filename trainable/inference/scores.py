"""What a trained trial says of clips whose class is known, as files that later steps count and compare.

Legend: n clips, k classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from trainable.data.dataset import load_dataset
from trainable.data.split import split_dataset
from trainable.errors import InputError
from trainable.features.inputs import Inputs
from trainable.features.mel_cache import mels_of
from trainable.files import replacing
from trainable.inference.metrics import Floats, Ints
from trainable.inference.model import best_state, facts_of, network_of
from trainable.progress import Progress
from trainable.training.device import find_device
from trainable.training.loop import clip_probabilities
from trainable.training.trial_folder import TrialFolder

Part = Literal["val", "test"]
_AT_ONCE = 32  # clips between two words of progress


@dataclass(frozen=True, eq=False)
class Scores:
    """A model's probabilities for some clips of a data set."""

    labels: tuple[str, ...]
    clips: Ints  # [n] indices into Dataset.clips
    true: Ints  # [n] indices into labels
    probabilities: Floats  # [n, k], not calibrated
    guess: bool = False  # no model: what guessing would score, in the place of a training that diverged

    @property
    def predicted(self) -> Ints:
        """The likeliest class of each clip, [n]."""
        chosen: Ints = self.probabilities.argmax(axis=1)
        return chosen

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which clips the model has right, [n]."""
        same: npt.NDArray[np.bool_] = self.predicted == self.true
        return same

    @property
    def share_right(self) -> Floats:
        """How right the model is on each clip, [n]: 1 or 0, and 1/m where m classes are equally likely, as a lot is."""
        likeliest = self.probabilities == self.probabilities.max(axis=1, keepdims=True)
        share: Floats = likeliest[np.arange(len(self.true)), self.true] / likeliest.sum(axis=1)
        return share

    @property
    def accuracy(self) -> float:
        """The share of clips that the model has right."""
        return float(self.share_right.mean())


def guessing(labels: Sequence[str], clips: Ints, true: Ints) -> Scores:
    """The scores of a model that has learned nothing: every class is equally likely."""
    return Scores(tuple(labels), clips, true, np.full((len(clips), len(labels)), 1 / len(labels)), guess=True)


def mean_of(scores: Sequence[Scores]) -> Scores:
    """The ensemble of models on the same clips: their mean probabilities."""
    first = scores[0]
    for other in scores[1:]:
        if not np.array_equal(other.clips, first.clips):
            raise ValueError("models can be averaged on the same clips only")
    mean = np.mean([each.probabilities for each in scores], axis=0)
    return Scores(first.labels, first.clips, first.true, mean)


def joined(scores: Sequence[Scores]) -> Scores:
    """The scores of models on different clips as if they were one model's, clips in order."""
    clips = np.concatenate([each.clips for each in scores])
    order = np.argsort(clips, kind="stable")
    if len(np.unique(clips)) != len(clips):
        raise ValueError("scores can be joined only where no clip is scored twice")
    true = np.concatenate([each.true for each in scores])[order]
    probabilities = np.concatenate([each.probabilities for each in scores])[order]
    return Scores(scores[0].labels, clips[order], true, probabilities, all(each.guess for each in scores))


def save_scores(path: Path, scores: Scores) -> None:
    """Writes scores; afterwards the file is there, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file, labels=np.array(scores.labels), clips=scores.clips, true=scores.true,
            probabilities=scores.probabilities,
        )  # fmt: skip


def load_scores(path: Path) -> Scores | None:
    """The scores in a file, or None where there is none."""
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            labels = tuple(str(label) for label in file["labels"])
            scores = Scores(labels, file["clips"], file["true"], file["probabilities"])
        return _fitting(scores, str(path), _SCORE_AGAIN)
    except InputError:
        raise
    except Exception as error:  # whatever NumPy runs into in a file that is something else
        why = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: must hold scores of clips, got something else ({why}). {_SCORE_AGAIN}") from None


_SCORE_AGAIN = "Delete the file: its model is scored again."


def _fitting(scores: Scores, place: str, way_out: str) -> Scores:
    """The scores, where their parts fit together."""
    n, k = len(scores.clips), len(scores.labels)
    shapes = scores.clips.shape == scores.true.shape == (n,) and scores.probabilities.shape == (n, k)
    kinds = (
        all(each.dtype.kind in "iu" for each in (scores.clips, scores.true)) and scores.probabilities.dtype.kind == "f"
    )
    if not (
        shapes and kinds and k and np.isfinite(scores.probabilities).all()
        and (not n or (scores.true.min() >= 0 and scores.true.max() < k and scores.clips.min() >= 0))
    ):  # fmt: skip
        raise InputError(f"{place}: must hold scores of clips that fit together, got others. {way_out}")
    return scores


def score_trial(trial: TrialFolder, part: Part, progress: Progress | None = None, data: str | None = None) -> Scores:
    """What the best checkpoint of a trial says of its validation or test clips.

    The validation scores are those that chose the checkpoint. Test clips are scored in float32, as `predict` does.
    `data`: where the clips lie by now.

    Raises:
        InputError: the checkpoint or the clips cannot be had any more.
    """
    state = best_state(trial)
    if part == "val":
        return _validated(state, str(trial.checkpoint("best")))
    facts = facts_of(state, str(trial.checkpoint("best")))
    labels, config = facts.labels, facts.config
    dataset = load_dataset(data or config.data, progress, config.group_column)
    split = split_dataset(dataset, config)
    device = find_device("cpu" if config.device == "cpu" else "auto")  # this need not be the machine that trained it
    inputs = Inputs(mels_of(dataset, config, progress), dataset, split, config, device)
    model = network_of(config, labels, state["weights"]).to(device)
    rows = []
    clips = torch.as_tensor(split.test)
    for batch in torch.split(clips, _AT_ONCE):
        rows.append(clip_probabilities(model, inputs, batch, config.batch_size, config.scored_crops))
        if progress:
            progress(f"Scoring {trial.path.name} on test clips", sum(map(len, rows)), len(clips))
    true = np.array([dataset.clips[index].label for index in split.test], dtype=np.int64)
    return Scores(labels, split.test, true, _floats(torch.cat(rows)))


def _validated(state: Mapping[str, Any], place: str) -> Scores:
    """The validation scores in a best checkpoint."""
    parts = [state.get(name) for name in ("val_clips", "val_labels", "val_probabilities")]
    labels = state.get("labels")
    if not isinstance(labels, list) or not all(isinstance(part, torch.Tensor) for part in parts):
        raise InputError(f"{place}: must hold validation scores, got none. Put back a copy of it, or train again.")
    clips, true, probabilities = parts
    scores = Scores(tuple(map(str, labels)), _ints(clips), _ints(true), _floats(probabilities))  # type: ignore[arg-type]
    return _fitting(scores, place, "Put back a copy of it, or train again.")


def _ints(tensor: torch.Tensor) -> Ints:
    return tensor.numpy().astype(np.int64)


def _floats(tensor: torch.Tensor) -> Floats:
    return tensor.numpy().astype(np.float64)
