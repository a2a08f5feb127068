"""The two ways in which training may end early, and the one way to refuse bad input."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(Exception):
    """What is wrong with the user's input, one problem a line: `FILE: KEY: rule, got VALUE. What to do.`

    The command line prints it as it is and exits with code 2; nobody sees a traceback.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[str, ...]]]:
        # An exception crosses process borders by its constructor's arguments.
        return type(self), (self.problems,)


class TrialEnded(Exception):
    """A trial that cannot go on, through no fault of the program: a result to learn from, not a crash."""

    status = "ended"


class Diverged(TrialEnded):
    """The loss became NaN or infinite."""

    status = "diverged"


class OutOfMemory(TrialEnded):
    """The device has no room for this batch and image size."""

    status = "out_of_memory"
