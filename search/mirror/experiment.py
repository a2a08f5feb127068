"""What SwanLab shows of a trial: its name, what it can be compared by, and how it ended.

SwanLab's local pages know neither group nor tags, so name, description and configuration carry all of it. Its table
lists the configuration in the order of ASCII: keys that begin with a capital come first, so what people look for has
one, what was searched has a digit, which comes before that, and the fields of `TrialConfig` keep their own names.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from search.runs.cost import COSTS, costs_of
from search.runs.format import ABSENT, conditions_of, folds_in_words, percent, short, status_word, value_of
from search.runs.journal import Trial
from search.runs.run import RunFolder, best_epoch, load_run

# SwanLab's own palette. In this order neighbouring trials differ, and a trial keeps its colour when it is replayed.
_COLORS = (
    "#528d59", "#587ad2", "#c24d46", "#dfb142", "#6d4ba4", "#6ebad3", "#d0703c", "#40877c",
    "#892d58", "#9cbe5d", "#d47694", "#905f4a", "#8cc5b7", "#b15fbb", "#e3b292", "#989fa3",
)  # fmt: skip
_LONGEST_NAME = 100  # characters; the local database's limit
_LONGEST_DESCRIPTION = 255  # characters; the local database's limit
_LONGEST_OUTCOME = 200  # characters, so that a traceback does not fill a table
# The keys that `Ending` fills in. There from the start: the table takes its columns from what it meets first.
_COST_KEYS = {
    "parameters": "Parameters", "operations": "Operations per clip", "latency_ms": "Time per clip",
    "memory_mb": "Memory in training",
}  # fmt: skip
_OPEN = {"Outcome": "running", "Best epoch": "-", "Best val acc": "-", **dict.fromkeys(_COST_KEYS.values(), "-")}


@dataclass(frozen=True)
class Experiment:
    """One SwanLab experiment, from its first moment on. Plain values, so that JSON carries it to the child."""

    key: str  # "trial_0017"; unique in the run, and the name of SwanLab's folder for it
    folder: str  # the trial's own folder, whose epochs.jsonl is the curve; absolute
    id: str  # SwanLab's id in the cloud: the same after a resume
    name: str
    description: str
    group: str  # the search
    job_type: str  # baseline, search, repeat or retrain
    tags: list[str]
    color: str  # #rrggbb
    config: dict[str, Any]


@dataclass(frozen=True)
class Ending:
    """How an experiment ended."""

    outcome: str  # for people: "cut by ASHA at epoch 3"
    state: Literal["success", "crashed", "aborted"]  # SwanLab's words
    final: bool  # False: the trial may go on later, and then its experiment is made anew
    best: dict[str, float] = field(default_factory=dict)  # epoch, val_acc, val_loss; empty without a best epoch
    cost: dict[str, str] = field(default_factory=dict)  # what is known of it, as people read it

    @property
    def error(self) -> str | None:
        """What SwanLab shows as the reason; None where nothing went wrong."""
        return None if self.state == "success" else self.outcome

    @property
    def config(self) -> dict[str, Any]:
        """What the experiment's configuration says in the end."""
        first_line = self.outcome.strip().splitlines()[0] if self.outcome.strip() else "-"
        closing: dict[str, Any] = {"Outcome": first_line[:_LONGEST_OUTCOME]}
        if self.best:
            closing |= {"Best epoch": int(self.best["epoch"]), "Best val acc": round(self.best["val_acc"], 4)}
        return closing | self.cost


INTERRUPTED = Ending("interrupted: the search stopped before this trial's end; `resume` takes it up again",
                     "aborted", final=False)  # fmt: skip


def trial_experiment(run: RunFolder, trial: Trial) -> Experiment:
    """The experiment of a trial of a run."""
    config, kind = trial.config, trial.kind
    data = str(run.record.get("data", {}).get("name") or config.get("data", ""))
    backbone = str(config.get("backbone", ""))
    key = f"{'retrain' if kind == 'retrain' else 'trial'}_{trial.number:04d}"
    search = home(run.path).resolve().name
    described = [f"search {search}", kind if kind == "search" else f"{kind} {trial.name}".strip(),
                 f"data {data}", backbone, f"weights {config.get('weights')}"]  # fmt: skip
    heading = {"Search": search, "Kind": kind, "Data": data, "Trial": trial.number, "Recipe": trial.name or "-"}
    return Experiment(
        key=key,
        folder=str(run.folder(trial).path.resolve()),
        id=f"{key.replace('_', '-')}-{_fingerprint(run)}",
        name=experiment_name(run, trial),
        description=" · ".join(described)[:_LONGEST_DESCRIPTION],
        group=search,
        job_type=kind,
        tags=[tag for tag in (backbone, data, kind) if tag],
        color=_COLORS[trial.number % len(_COLORS)],
        config={**_searched(run, trial), **_OPEN, **heading, **{name: _plain(value) for name, value in config.items()}},
    )


def _searched(run: RunFolder, trial: Trial) -> dict[str, Any]:
    """The searched settings, numbered in the order of the space: digits come before capitals.

    Every trial has the same keys, or the page's table would lack columns that its first trial has no value for.
    """
    search = run.record.get("space", {}).get("search") or {}
    conditions = conditions_of(search)
    width = len(str(len(search)))
    values = {name: value_of(trial, name, conditions) for name in search}
    return {
        f"{number:0{width}d} {name}": "-" if value is ABSENT else _rounded(_plain(value))
        for number, (name, value) in enumerate(values.items(), start=1)
    }


def _rounded(value: Any) -> Any:
    """A number with the digits that a table has room for; the field itself has all of them."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def experiment_name(run: RunFolder, trial: Trial) -> str:
    """A name that sorts by number and says what the trial is: `017 resnet18 224px lr 1.3e-4`."""
    planned = int(run.record.get("space", {}).get("budget", {}).get("trials", 0))
    number = f"{trial.number:0{max(3, len(str(max(planned, trial.number + 1) - 1)))}d}"
    config = trial.config
    parts = ["retrain" if trial.kind == "retrain" else "", number, trial.name, str(config.get("backbone", "")),
             f"{config['image_size']}px" if "image_size" in config else "",
             f"lr {short(config['lr'])}" if "lr" in config else ""]  # fmt: skip
    return " ".join(part for part in parts if part)[:_LONGEST_NAME]


def trial_ending(run: RunFolder, trial: Trial) -> Ending:
    """How a trial ended, with its best epoch by the one rule for it, and what it costs to use."""
    if not trial.over:
        return INTERRUPTED
    match trial.status:
        case "finished":
            outcome = "finished"
        case "cut":
            outcome = f"cut by ASHA at epoch {len(trial.reports)}"
        case status:
            outcome = f"{status_word(status)}: {trial.message}".rstrip(": ")
    best = best_epoch(trial, run.grace_epochs)
    if trial.repeats is not None:
        mean = next((each for each in run.ranked() if each.trial.number == trial.repeats), None)
        outcome += f"; trial {trial.repeats} has {percent(mean.accuracy)} {folds_in_words(mean.folds)}" if mean else ""
    return Ending(
        outcome=outcome,
        state="success" if trial.status in ("finished", "cut") else "crashed",
        final=True,
        best={"epoch": best.epoch, "val_acc": best.accuracy, "val_loss": best.loss} if best else {},
        cost={
            _COST_KEYS[name]: COSTS[name].said(value)
            for name, value in costs_of(run, trial).items()
            if value is not None
        },
    )


def home(path: Path) -> Path:
    """The run folder whose SwanLab pages show a run: its own, and for a retraining that of the search it came from."""
    return path.parent if path.name == "retrained" and (path.parent / "run.json").exists() else path


def _fingerprint(run: RunFolder) -> str:
    """Ten characters that tell this run from others of its name, and stay the same when its folder moves."""
    owner = home(run.path)
    created = (run.record if owner == run.path else load_run(owner).record).get("created")
    return hashlib.sha256(f"{owner.resolve().name} {created}".encode()).hexdigest()[:10]


def _plain(value: Any) -> Any:
    """SwanLab writes None as {}; a word is better."""
    return "unset" if value is None else value
