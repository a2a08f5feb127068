"""What SwanLab's console says of a trial: how it began, every epoch, how it ended, and the traceback of an error."""

from __future__ import annotations

from pathlib import Path

from search.mirror.experiment import Ending, Experiment
from search.runs.format import duration, percent, short
from trainable.training.trial_folder import EpochResult, TrialFolder


def starting_lines(experiment: Experiment) -> list[str]:
    """Which trial it is and what the search has set; its whole configuration stands beside."""
    settings = [(name, value) for name, value in experiment.config.items() if name[0].isdigit()]  # "1 lr"
    searched = ", ".join(f"{name.split(' ', 1)[1]} {short(value)}" for name, value in settings if value != "-")
    return [experiment.name, experiment.description, *filter(None, [searched])]


def epoch_line(epoch: EpochResult, with_validation: bool) -> str:
    """What an epoch achieved."""
    validation = f"val acc {percent(epoch.val_acc)}, val loss {epoch.val_loss:.3f}, " if with_validation else ""
    return (
        f"epoch {epoch.epoch}: {validation}train acc {percent(epoch.train_acc)}, train loss {epoch.train_loss:.3f}, "
        f"lr {short(epoch.lr)}, {duration(epoch.seconds)}"
    )


def ending_lines(experiment: Experiment, ending: Ending) -> list[str]:
    """How it ended and why, its best epoch, and the traceback where there is one."""
    lines = [ending.outcome]
    if ending.best:
        lines.append(f"best epoch {ending.best['epoch']:.0f}: val acc {percent(ending.best['val_acc'])}")
    traceback = TrialFolder(Path(experiment.folder)).error_file
    if ending.state == "crashed" and traceback.exists():  # an earlier attempt may have left one
        lines.append(traceback.read_text(encoding="utf-8", errors="replace"))
    return lines
