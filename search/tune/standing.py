"""How trials stand against each other while they are at different epochs: by duels at epochs that both have reached."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Accuracies are fractions of a whole number of clips, so that no step between two of them is as small as this.
_TIE_BREAK = 1e-8  # of accuracy, per nat of validation loss
_MOST_NATS = 100.0


def merit(accuracy: float, loss: float) -> float:
    """A validation accuracy, a fraction, that is lower by next to nothing where the loss (nats) is higher.

    So equal accuracies, which are many where few clips validate, compare by their loss, as they do in the rule for the
    best.
    """
    return accuracy - _TIE_BREAK * min(max(loss, 0.0), _MOST_NATS)


def standings(merits: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """The share of its duels with the others that each trial wins, `[n]` in [0, 1]; one alone has 0.5.

    merits: of each trial, one per epoch, at least one. Two trials meet at the last epoch that both have reached, by the
    best that each had shown until then; a draw is half a win. So a trial that was cut after two epochs is compared
    with a finished one as they were after two epochs, and a young one is not held to be bad for being young.
    """
    trials = len(merits)
    if trials < 2:
        return np.full(trials, 0.5)
    epochs = np.array([len(own) for own in merits])
    best = np.full((trials, epochs.max()), -np.inf)  # [n, epochs] best so far
    for number, own in enumerate(merits):
        best[number, : len(own)] = np.maximum.accumulate(own)
    met = np.minimum(epochs[:, None], epochs[None, :]) - 1  # [n, n]
    ours, theirs = best[np.arange(trials)[:, None], met], best[np.arange(trials)[None, :], met]
    wins = (ours > theirs) + 0.5 * (ours == theirs)
    np.fill_diagonal(wins, 0.0)
    return np.asarray(wins.sum(axis=1) / (trials - 1))
