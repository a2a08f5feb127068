"""The search over training runs: Ray, Optuna, ASHA and SwanLab; no tensors.

    import search

    run = search.search("quick", data="clips", trials=16)
    run.trials, run.best, run.epochs                # DataFrames
    search.retrain(run).retrained                   # the number to believe, with its interval
    run.model().predict(array, rate)

What is listed here is imported when it is first used.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

# Ray reads some of these when it is imported, so they are set before anything else of this package is.
_SWITCHES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the console is ours
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about GPU variables on trials without a GPU
    "RAY_prestart_worker_first_driver": "0",  # a process per core, which no trial would use
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # each trial writes its own epochs.jsonl
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `search.tune.stop` handles signals
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the journal is our snapshot; Tune's own is not used
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # a lost worker is told in one line by the console
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "60",
}


for _name, _value in _SWITCHES.items():
    os.environ.setdefault(_name, _value)

if TYPE_CHECKING:
    from search.commands.notebook import Run, compare, load_run, predict, resume, search
    from search.space.load import load_space

    __version__: str

__all__ = [
    "Run", "__version__", "compare", "load_run", "load_space", "predict", "resume", "retrain", "search",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("audio-search")
    if name == "retrain":
        return importlib.import_module("search.retrain")
    if name not in __all__:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    where = "search.space.load" if name == "load_space" else "search.commands.notebook"
    return getattr(importlib.import_module(where), name)


def __dir__() -> list[str]:
    return __all__


class _Retrain(ModuleType):
    """The package `search.retrain`, which is also the call `search.retrain(run, seeds=5)`."""

    def __call__(self, run: Any, **options: Any) -> Any:
        """See `search.commands.notebook.retrain`."""
        return importlib.import_module("search.commands.notebook").retrain(run, **options)


class _Face(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if name == "retrain" and isinstance(value, ModuleType):  # Python binds a package under its name in its parent
            value.__class__ = _Retrain
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
