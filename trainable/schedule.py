"""The learning rate over a training: warmup, then decay."""

from __future__ import annotations

import math

from trainable.config import TrialConfig


def learning_rate(config: TrialConfig, epoch: int, step: int, steps_per_epoch: int) -> float:
    """What `config.lr` is multiplied by at one step.

    The horizon is `config.epochs`, so a trial that a scheduler cuts had the same rates as one that runs to the end.
    The decay begins where the warmup ends:

        constant  1
        step      gamma ** (epochs since the warmup // step_size)
        cosine    from 1 to 0 over the remaining steps, half a period

    Args:
        config: of the trial.
        epoch: 0-based.
        step: 0-based, within the epoch.
        steps_per_epoch: at least 1.

    Source: the tutorial sets the rate to lr * (epoch + 1) / 5 in its first five epochs and calls StepLR(10, 0.1).step()
    at the end of every epoch from the sixth on, so that the first decay comes ten epochs after the warmup.
    """
    if epoch < config.warmup_epochs:
        return _warmup(config, epoch, step, steps_per_epoch)
    since = epoch - config.warmup_epochs
    if config.schedule == "step":
        return config.gamma ** (since // config.step_size)
    if config.schedule == "cosine":
        done = since + step / steps_per_epoch
        return 0.5 * (1 + math.cos(math.pi * done / (config.epochs - config.warmup_epochs)))
    return 1.0


def _warmup(config: TrialConfig, epoch: int, step: int, steps_per_epoch: int) -> float:
    if config.warmup == "staircase":
        return (epoch + 1) / config.warmup_epochs
    return (epoch * steps_per_epoch + step + 1) / (config.warmup_epochs * steps_per_epoch)
