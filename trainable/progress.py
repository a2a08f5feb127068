"""How a long step says how far it has got."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Any callable of this shape; the command line wraps a progress bar around it, and None is silent."""

    def __call__(self, description: str, done: int, total: int) -> None:
        """Notes that `done` of `total` units of the step called `description` are finished."""
