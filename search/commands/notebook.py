"""The search as a notebook uses it: calls that return tables, where the command line prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from search.commands.compare import compare as compare_runs
from search.commands.retrain import retrain_run
from search.commands.search import ResumeOptions
from search.commands.search import resume as resume_run
from search.commands.search import search as search_with
from search.retrain.plan import RetrainOptions
from search.runs.folder import find_run, free_name
from search.runs.run import RunFolder, result_of
from search.runs.run import load_run as open_folder
from search.space.load import space_path
from search.tune.prepare import Options
from trainable.config import TrialConfig
from trainable.errors import InputError
from trainable.inference.model import Model, load_model
from trainable.inference.predict import Prediction, predict_files


class Run:
    """A run folder as tables, read anew at each look, so that a search can be watched from another notebook.

    `trials`, `epochs`, `best` and `retrained` are DataFrames; accuracies are fractions in [0, 1].
    """

    def __init__(self, path: str | Path) -> None:
        """The run in that folder.

        Raises:
            InputError: it is no run folder.
        """
        self.path = self._folder(path).path

    @staticmethod
    def _folder(path: str | Path) -> RunFolder:
        return open_folder(path)

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial, best first: what was measured of it, then all settings in which trials differ."""
        return compare_runs([self._folder(self.path)])

    @property
    def best(self) -> pd.DataFrame:
        """The row of the best trial; no row where none has got past the grace period yet."""
        best = self._folder(self.path).best()
        trials = self.trials
        return trials[trials["trial"] == (best.trial.number if best else -1)]

    @property
    def best_config(self) -> TrialConfig | None:
        """The best trial's whole configuration."""
        best = self._folder(self.path).best()
        return TrialConfig.parse(best.trial.config, source=str(self.path)) if best else None

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per finished epoch of each trial: losses in nats, accuracies, learning rate and seconds."""
        folder = self._folder(self.path)
        rows = [
            {"trial": trial.number, **dataclasses.asdict(epoch)}
            for trial in folder.trials
            for epoch in folder.epochs(trial)
        ]
        return pd.DataFrame(rows)

    @property
    def result(self) -> dict[str, Any]:
        """`retrained/result.json`, whole; empty before `retrain`."""
        return result_of(self.path) or {}

    @property
    def retrained(self) -> pd.DataFrame:
        """One row with the retrained accuracy, its interval, and what it was measured on; no row before `retrain`."""
        plain = {name: value for name, value in self.result.items() if not isinstance(value, dict | list)}
        low, high = self.result.get("interval_95") or (None, None)
        return pd.DataFrame([{**plain, "low_95": low, "high_95": high}] if plain else [])

    def model(self, device: str = "auto") -> Model:
        """The retrained model, ready to label arrays and files.

        Raises:
            InputError: nothing was retrained yet.
        """
        return load_model(self.path / "retrained" / "model", device)

    def __repr__(self) -> str:
        folder = self._folder(self.path)
        best = folder.best()
        top = f", best {best.accuracy:.1%} (trial {best.trial.number}, epoch {best.epoch})" if best else ""
        return f"Run({str(self.path)!r}: {len(folder.trials)} trials{top})"


def load_run(path: str | Path) -> Run:
    """The run in a folder, as tables.

    Raises:
        InputError: it is no run folder.
    """
    return Run(_path(path))


def search(
    space: str | Path = "quick",
    *,
    warm_start: Sequence[str | Path | Run] = (),
    learn_from: Sequence[str | Path | Run] = (),
    **options: Any,
) -> Run:
    """Searches, shows it in the cell's output, and returns the run; an interrupted one has what was finished.

    Args:
        space: a space file, or a shipped one by its name.
        warm_start: runs whose trials the search learns from, too.
        learn_from: runs on other data that teach what to try; each is let go if it misleads.
        options: what the command line takes, by the same names: data, name, trials, epochs, time_budget, seed,
            storage, swanlab, cpus_per_trial, gpus_per_trial, at_once, address, settings (texts FIELD=VALUE), ...

    Raises:
        InputError: an input is wrong; then nothing has been written.
    """
    _known(options, Options)
    file = space_path(space)
    options.setdefault("name", free_name(file))
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    warm, lessons = (tuple(_path(each) for each in runs) for runs in (warm_start, learn_from))
    given = Options(space=file, warm_start=warm, learn_from=lessons, **plain)
    search_with(given)
    return Run(Path(given.storage) / str(given.name))


def resume(run: str | Path | Run, **options: Any) -> Run:
    """Goes on with an interrupted search, or makes a finished one longer, and returns the run.

    `options` are those of the command line: trials (the new total), data, time_budget, swanlab, ...

    Raises:
        InputError: there is no such run, or nothing left to do.
    """
    resume_run(_path(run), ResumeOptions(**_known(options, ResumeOptions)))
    return Run(_path(run))


def retrain(run: str | Path | Run, *, swanlab: str | None = None, data: str | None = None, **options: Any) -> Run:
    """Retrains the best configurations on new seeds, tests them once, and returns the run with its result.

    `data`: where the data set lies by now. `options` are those of the command line: top, trial, seeds, epochs,
    protocol, baseline, ...

    Raises:
        InputError: the run, its data or the options do not allow it.
    """
    retrain_run(_path(run), RetrainOptions(**_known(options, RetrainOptions)), swanlab, None, data)
    return Run(_path(run))


def predict(model: str | Path | Run | Model, *files: str | Path, top: int = 5) -> pd.DataFrame:
    """One row per file: path, label and probability, or the reason why it has none.

    Raises:
        InputError: there is no such model.
    """
    if isinstance(model, Run):
        model = model.model()
    elif not isinstance(model, Model):
        model = load_model(model)
    found = predict_files(model, files, top)
    return pd.DataFrame([
        {"path": each.path, "label": each.label, "probability": each.probability, "reason": ""}
        if isinstance(each, Prediction)
        else {"path": each.path, "label": None, "probability": None, "reason": each.reason}
        for each in found
    ])  # fmt: skip


def compare(*runs: str | Path | Run, where: str | None = None, sort: str | None = None) -> pd.DataFrame:
    """The trials of several runs as one table, best first.

    Raises:
        InputError: one is no run, or `where` or `sort` make no sense for these columns.
    """
    return compare_runs([open_folder(_path(run)) for run in runs], where, sort)


def _path(run: str | Path | Run) -> Path:
    return run.path if isinstance(run, Run) else find_run(Path(run))


def _known(options: dict[str, Any], of: type[Any]) -> dict[str, Any]:
    """The options, where a command has all of them."""
    known = {field.name for field in dataclasses.fields(of)}
    if unknown := sorted(options.keys() - known):
        raise InputError(
            f"{unknown[0]}: unknown option, got {options[unknown[0]]!r}. Use one of {', '.join(sorted(known))}."
        )
    return options
