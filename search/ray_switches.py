"""Ray's switches in the environment, some of which it reads when it is imported."""

from __future__ import annotations

import os

_SWITCHES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the console is ours
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about GPU variables on trials without a GPU
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # each trial writes its own epochs.jsonl
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `search.stop` handles signals
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the journal is our snapshot; Tune's own is not used
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # a lost worker is told in one line by the console
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "60",
}


def set_switches() -> None:
    """Sets what nobody else has set."""
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
