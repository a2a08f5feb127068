"""How far a validation score of the search can be trusted, and whether the best is better than the next.

The interval is over groups and allows for the choice. Where the leaders were repeated on further folds, the best two
are compared clip by clip.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search.runs.data import same_dataset
from search.runs.format import interval_in_words, points
from search.runs.journal import Trial
from search.runs.run import Best, RunFolder
from trainable.data.split import group_numbers
from trainable.errors import InputError
from trainable.inference.metrics import Comparison, accuracy_interval, comparison, wilson_interval
from trainable.inference.scores import score_trial


@dataclass(frozen=True)
class Trust:
    """The 95% interval of a trial's best validation score."""

    interval: tuple[float, float] | None  # fractions
    highest_of: int  # the score is the highest of so many trials', which the lower end allows for
    groups: int | None = None  # of the validation clips; None: the interval is over clips
    why_none: str = ""  # why there is no interval

    def in_words(self) -> str:
        """The interval and what it is over, or why there is none: `95% interval 80.1% to 95.0%, ...`."""
        if self.interval is None:
            return f"no interval: {self.why_none}" if self.why_none else ""
        allowed = f", widened below for the choice among {self.highest_of} trials" if self.highest_of > 1 else ""
        return f"95% interval {interval_in_words(self.interval, self.groups)}{allowed}"


def candidates_of(run: RunFolder) -> int:
    """How many trials of the search have been scored, each of which chance could have made the best."""
    return sum(1 for trial in run.trials if trial.kind not in ("retrain", "repeat") and trial.reports)


def trust(run: RunFolder, best: Best, highest_of: int = 1) -> Trust:
    """How far the score of `best` can be trusted; `highest_of`: among so many trials it was chosen for its score.

    Epochs of one trial score nearly alike, and the allowance for trials is wide enough to hold the choice among them
    as well: see `wilson_interval`.
    """
    trials = (best.trial, *best.repeats)  # each scored on clips of its own
    clips = int(run.record.get("split", {}).get("val", 0)) * len(trials)
    if not clips:
        return Trust(None, highest_of)
    data = run.record.get("data", {})
    # Runs from before groups were noted tell by their clips whether they have any.
    if data.get("groups", 1) and all(run.folder(trial).checkpoint("best").exists() for trial in trials):
        try:
            right, groups = _scored(run, trials)
        except InputError:
            return Trust(None, highest_of, why_none="whose clips were scored can be seen only while the data is there")
        count = len(set(groups.tolist()))
        if count < len(groups):
            interval = accuracy_interval(right.astype(float), groups, highest_of)
            return Trust(interval, highest_of, count, "" if interval else "all validation clips are of one group")
    elif data.get("groups"):
        return Trust(None, highest_of, why_none="the checkpoint that says which clips are right is gone")
    return Trust(wilson_interval(best.accuracy * clips, clips, highest_of), highest_of)


@dataclass(frozen=True)
class Margin:
    """The best configuration against the next, on the clips of the folds that both have been given."""

    other: Trial  # the next, on the first fold
    gain: float  # of accuracy, fraction
    clips: int
    folds: int
    found: Comparison

    def in_words(self) -> str:
        """`+2.5 points against trial 7, the next, on 60 clips of 3 folds, p = 0.38 (McNemar exact)`."""
        on = f"{self.clips} clips of {self.folds} fold{'s' if self.folds > 1 else ''}"
        chance = f"p = {self.found.p_value:.2g} ({self.found.test})"
        return f"{points(self.gain)} against trial {self.other.number}, the next, on {on}, {chance}"


def margin_on_folds(run: RunFolder) -> Margin | None:
    """How far the best is ahead of the next, clip by clip; None where nothing was repeated, or the clips are gone.

    The first fold has chosen both, so what it says flatters both alike.
    """
    ranked = run.ranked()
    if len(ranked) < 2 or not ranked[0].repeats:
        return None
    ours, theirs = ({trial.fold: trial for trial in (best.trial, *best.repeats)} for best in ranked[:2])
    folds = sorted(ours.keys() & theirs.keys())
    try:
        both, groups = _scored(run, [side[fold] for side in (ours, theirs) for fold in folds])
    except InputError:
        return None
    right, others = np.split(both, 2)  # of the same clips
    gain = float(right.mean() - others.mean())
    return Margin(ranked[1].trial, gain, len(right), len(folds), comparison(right, others, groups[: len(right)]))


def _scored(run: RunFolder, trials: Iterable[Trial]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Which validation clips of all trials are right [n], and whose they are [n].

    Raises:
        InputError: a checkpoint is gone, or the data.
    """
    scores = [score_trial(run.folder(trial), "val") for trial in trials]
    clips = np.concatenate([each.clips for each in scores])
    return np.concatenate([each.right for each in scores]), group_numbers(same_dataset(run))[clips]
