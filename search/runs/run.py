"""A run folder as typed records, and the one rule for "best" that console, SwanLab, report and retrain share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search.runs.journal import Journal, Trial
from search.runs.shapes import Result, RunRecord, WholeRecord
from trainable.errors import InputError
from trainable.shapes import checked, read_json
from trainable.training.trial_folder import EpochResult, TrialFolder


@dataclass(frozen=True)
class Best:
    """The best epoch of a trial; where it was repeated on further folds, the mean of the best epochs of all."""

    trial: Trial
    epoch: int  # 1-based; on the first fold
    accuracy: float  # validation accuracy, fraction
    loss: float  # validation loss, nats
    folds: tuple[float, ...] = ()  # accuracy on each fold, the first one's first; empty where there is but one
    repeats: tuple[Trial, ...] = ()  # the trials of the further folds that have finished


@dataclass(frozen=True)
class RunFolder:
    """A run folder: what `run.json` and the journal say."""

    path: Path
    record: dict[str, Any]  # run.json
    journal: Journal

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.path.name

    @property
    def trials(self) -> list[Trial]:
        """All trials in the order of their numbers."""
        return list(self.journal.trials.values())

    @property
    def grace_epochs(self) -> int:
        """Epochs that every trial gets before it may be cut."""
        return int(self.record["space"]["budget"]["grace_epochs"])

    def folder(self, trial: Trial) -> TrialFolder:
        """Where a trial keeps its files."""
        return trial_folder(self.path, trial.number)

    def epochs(self, trial: Trial) -> list[EpochResult]:
        """A trial's finished epochs, from its own folder."""
        return self.folder(trial).epochs()

    def best(self) -> Best | None:
        """The best trial and epoch, or None where no trial got past the grace period."""
        return best_of(self.trials, self.grace_epochs)

    def ranked(self) -> list[Best]:
        """All trials that may be called best, best first."""
        return rank(self.trials, self.grace_epochs)


def trial_folder(run: Path, number: int) -> TrialFolder:
    """The folder of trial `number` of a run."""
    return TrialFolder(run / f"trial_{number:04d}")


def record_of(path: Path) -> Path:
    """The run.json of a run folder.

    Raises:
        InputError: it is no run folder.
    """
    record = path / "run.json"
    if not record.exists():
        runs = sorted(p.parent.name for p in path.parent.glob("*/run.json"))
        hint = f"Runs beside it: {', '.join(runs)}." if runs else "Name a folder that a search has written."
        raise InputError(f"{path}: must be a run folder with run.json, got none. {hint}")
    return record


def load_run(path: str | Path) -> RunFolder:
    """The run in a folder.

    Raises:
        InputError: it is no run folder, or its record or journal is damaged.
    """
    path = Path(path)
    return RunFolder(path, _read_record(record_of(path)), Journal(path / "events.jsonl"))


def _read_record(path: Path) -> dict[str, Any]:
    way_out = (
        f"Put back a copy of it, or search anew; python -m trainable --config {path.parent}/trial_NNNN/config.json "
        "repeats a trial without it."
    )
    record: dict[str, Any] = read_json(path, RunRecord, way_out)
    return record


def need_whole(run: RunFolder) -> None:
    """Refuses to go on with a run whose run.json does not say all that takes; to look at it, it may.

    Raises:
        InputError: with the keys that are missing.
    """
    way_out = "That is needed to go on with the run: put back a copy of the file, or search anew."
    checked(run.record, WholeRecord, str(run.path / "run.json"), way_out)


def result_of(run: Path) -> dict[str, Any] | None:
    """What `retrained/result.json` of a run folder says, or None where nothing was retrained.

    Raises:
        InputError: it is damaged.
    """
    path = run / "retrained" / "result.json"
    if not path.exists():
        return None
    result: dict[str, Any] = read_json(path, Result, "Delete the file and retrain: what was trained is used again.")
    return result


def validates(config: Mapping[str, Any]) -> bool:
    """Whether a trial of this configuration keeps clips back to validate on; its values mean nothing otherwise."""
    return bool(config.get("train_on", "train") == "train")


def best_epoch(trial: Trial, grace_epochs: int) -> Best | None:
    """A trial's best epoch: highest validation accuracy, then lowest validation loss, then earliest.

    None where the trial did not get past the grace period: it was cut or ended there, or has not come so far yet. A
    trial whose own horizon is shorter than the grace period counts when it has finished. None, too, where a trial of a
    retraining learned from its validation clips.
    """
    if not validates(trial.config):
        return None
    reports = [report for report in trial.reports if math.isfinite(report.value)]
    at_grace = trial.reports[grace_epochs - 1 : grace_epochs]
    past_grace = trial.status == "finished" or any(report.decision == "continue" for report in at_grace)
    if not past_grace or not reports:
        return None
    top = min(reports, key=lambda report: (-report.value, report.loss, report.epoch))
    return Best(trial, top.epoch, top.value, top.loss)


def rank(trials: Iterable[Trial], grace_epochs: int) -> list[Best]:
    """The best epochs of all configurations that have one, best first; older trials first among equals.

    A configuration that was repeated on further folds has its mean over them, and is ahead of those that finished on
    fewer: a score on one fold is the highest of many, so it is luck as well, and does not compare with a mean that was
    chosen before its further folds were seen.
    """
    return sorted(_means(trials, grace_epochs), key=lambda best: (-len(best.repeats), *_order(best)))


def next_repeat(trials: Iterable[Trial], grace_epochs: int, folds: int) -> tuple[Trial, int] | None:
    """The trial that is to be repeated next, and on which fold; None where the leader waits or has had all `folds`.

    The leader is the finished configuration with the highest mean over the folds that it has been given, however many.
    So the best go on to fold 2, those that still lead to fold 3, and one that has not been repeated goes before one
    that has only where it scored more than that one's mean. Once the leader has had all folds, nothing that has had
    fewer scored more: then `rank` has the same configuration first. The means of two compare the same clips, as far as
    both have been given the same folds.
    """
    trials = list(trials)
    finished = [best for best in _means(trials, grace_epochs) if best.trial.status == "finished"]
    if not finished:
        return None
    leader = min(finished, key=_order).trial
    begun = [trial for trial in trials if trial.repeats == leader.number]
    if len(begun) >= folds - 1 or not all(trial.over for trial in begun):
        return None
    return leader, len(begun) + 2


def _order(best: Best) -> tuple[float, float, int]:
    return -best.accuracy, best.loss, best.trial.number


def _means(trials: Iterable[Trial], grace_epochs: int) -> list[Best]:
    """The best epoch of each configuration that has one, with its mean over the folds that it has ended on."""
    firsts, repeats = [], dict[int, list[Trial]]()
    for trial in trials:
        if trial.repeats is None:
            firsts.append(trial)
        elif trial.over:
            repeats.setdefault(trial.repeats, []).append(trial)
    bests = [best for trial in firsts if (best := best_epoch(trial, grace_epochs))]
    return [_mean(best, repeats.get(best.trial.number, []), grace_epochs) for best in bests]


def _mean(best: Best, repeats: Sequence[Trial], grace_epochs: int) -> Best:
    """The best epoch of a configuration with its mean over further folds; one on which it broke counts as 0."""
    if not repeats:
        return best
    finished = tuple(trial for trial in repeats if trial.status == "finished")
    found = [best, *(other for trial in finished if (other := best_epoch(trial, grace_epochs)))]
    folds = tuple(each.accuracy for each in found) + (0.0,) * (len(repeats) + 1 - len(found))
    loss = sum(each.loss for each in found) / len(found)
    return replace(best, accuracy=math.fsum(folds) / len(folds), loss=loss, folds=folds, repeats=finished)


def best_of(trials: Iterable[Trial], grace_epochs: int) -> Best | None:
    """The best trial, or None where none has got past the grace period."""
    ranked = rank(trials, grace_epochs)
    return ranked[0] if ranked else None
