"""How far a validation score of the search can be trusted: its interval, over groups, with the choice allowed for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search.runs.data import same_dataset
from search.runs.format import interval_in_words
from search.runs.run import Best, RunFolder
from trainable.data.split import group_numbers
from trainable.errors import InputError
from trainable.inference.metrics import accuracy_interval, wilson_interval
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
            scores = [score_trial(run.folder(trial), "val") for trial in trials]
            groups = group_numbers(same_dataset(run))[np.concatenate([each.clips for each in scores])]
        except InputError:
            return Trust(None, highest_of, why_none="whose clips were scored can be seen only while the data is there")
        count = len(set(groups.tolist()))
        if count < len(groups):
            right = np.concatenate([each.right for each in scores])
            interval = accuracy_interval(right.astype(float), groups, highest_of)
            return Trust(interval, highest_of, count, "" if interval else "all validation clips are of one group")
    elif data.get("groups"):
        return Trust(None, highest_of, why_none="the checkpoint that says which clips are right is gone")
    return Trust(wilson_interval(best.accuracy * clips, clips, highest_of), highest_of)
