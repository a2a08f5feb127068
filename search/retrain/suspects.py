"""The clips of a run whose label is in doubt, and the list of them that a search leaves out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from search.runs.data import same_dataset
from search.runs.run import RunFolder
from trainable.data.dataset import Dataset
from trainable.errors import InputError
from trainable.files import safe_cell, write_atomically
from trainable.inference.scores import Scores, load_scores, score_trial
from trainable.inference.suspects import Suspect, suspects
from trainable.progress import Progress

TRIALS = 5  # of the search whose validation scores count where nothing was retrained
COLUMNS = ("path", "label", "suggested", "probability_of_label", "probability_of_suggested", "models")


def suspects_of(run: RunFolder, progress: Progress | None = None) -> tuple[Dataset, list[Suspect]]:
    """The run's data set and its clips with doubtful labels, the most doubtful first.

    Only clips are judged that some model has not learned from: all of them after `retrain --protocol folds`, else
    those of the validation and the test.

    Raises:
        InputError: no clip has been judged, or the data has changed since.
    """
    scores = list(_scores(run))
    if not scores:
        raise InputError(
            f"{run.path}: no model has judged clips that it has not learned from, got nothing to compare labels with. "
            "Search first; `retrain --protocol folds` judges every clip."
        )
    return same_dataset(run, progress), suspects(scores)


def _scores(run: RunFolder) -> Iterator[Scores]:
    kept = sorted((run.path / "retrained" / "scores").glob("*.npz"))
    if kept:
        for path in kept:
            scores = load_scores(path)
            if scores is not None:
                yield scores
        return
    for best in run.ranked()[:TRIALS]:
        if run.folder(best.trial).checkpoint("best").exists():
            yield score_trial(run.folder(best.trial), "val")


def write_suspects(dataset: Dataset, found: list[Suspect], target: Path) -> None:
    """Writes the list that `--without` takes: a path relative to the data set, its label and what models say."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for each in found:
        shares = [f"{each.of_label:.4f}", f"{each.of_suggested:.4f}"]
        names = map(safe_cell, (dataset.clips[each.clip].name, each.label, each.suggested))
        table.writerow([*names, *shares, each.models])
    write_atomically(target, text.getvalue())
