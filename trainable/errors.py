"""How training may end early, and how bad input is refused."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence


def shown(text: object, longest: int = 0) -> str:
    """`text` safe to show: what would steer a terminal, or is no valid text, as its code; shortened to `longest`.

    Names of files, labels and cells come from outside and may hold anything.
    """
    safe = "".join(_shown_letter(letter) for letter in str(text))
    return safe if not longest or len(safe) <= longest else f"{safe[: longest - 1]}…"


def _shown_letter(letter: str) -> str:
    """The letter, or its code where it is invisible or steers: controls, surrogates, changes of direction."""
    kind = unicodedata.category(letter)
    if kind not in ("Cc", "Cs", "Cf", "Zl", "Zp") or letter in "\u200d\u200c":  # joiners are part of words and signs
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class InputError(Exception):
    """What is wrong with the user's input, one problem a line: `FILE: KEY: rule, got VALUE. What to do.`

    The command line prints it as it is and exits with code 2; nobody sees a traceback.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        given = (problems,) if isinstance(problems, str) else tuple(problems)
        self.problems: tuple[str, ...] = tuple("\n".join(map(shown, problem.split("\n"))) for problem in given)
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


# What others call our fields: the tutorial's own names, and spellings.
_OTHER_NAMES = {
    "resize": "image_size", "learning_rate": "lr", "num_epochs": "epochs", "model": "backbone",
    "optimiser": "optimizer", "normalize": "normalise",
}  # fmt: skip


def did_you_mean(name: str, known: list[str] | tuple[str, ...]) -> str:
    """A closing sentence for an unknown `name`: the nearest known one, or all of them where they are few."""
    if _OTHER_NAMES.get(str(name)) in known:
        return f"Did you mean {_OTHER_NAMES[str(name)]}?"
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Use one of {', '.join(known)}." if len(known) <= 12 else "See the README for the names."
