"""Ray's switches in the environment, which it reads when it is imported."""

from __future__ import annotations

import os
from pathlib import Path

# Ray and Tune read these when they are imported.
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

# Where Ray looks for the token of a cluster that lets nobody in without; it makes one for clusters of its own.
_TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_TOKEN_FILE = Path("~/.ray/auth_token")


def set_switches() -> None:
    """Sets what nobody else has set. To be called before anything imports `ray`."""
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    if any(os.environ.get(name) for name in _TOKEN_VARIABLES) or _TOKEN_FILE.expanduser().is_file():
        # Ray shows a token that there is only to its own clusters and to address "auto". One that asks for none does
        # not mind.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
