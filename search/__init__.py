"""The search over training runs: Ray, Optuna, ASHA and SwanLab; no tensors."""

from __future__ import annotations

import os

# Ray reads some of these when it is imported, so they are set before anything else of this package is.
_SWITCHES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the console is ours
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about GPU variables on trials without a GPU
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # each trial writes its own epochs.jsonl
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `search.tune.stop` handles signals
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the journal is our snapshot; Tune's own is not used
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # a lost worker is told in one line by the console
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "60",
}


for _name, _value in _SWITCHES.items():
    os.environ.setdefault(_name, _value)
