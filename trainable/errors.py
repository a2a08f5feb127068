"""How training may end early, and how bad input is refused."""

from __future__ import annotations

import difflib
import reprlib
import unicodedata
from collections.abc import Sequence
from typing import Any

from trainable.commands import typed


def visible(text: object, longest: int = 0) -> str:
    """`text` safe to show: what would steer a terminal, or is no valid text, as its code; shortened to `longest`.

    Names of files, labels and cells come from outside and may hold anything.
    """
    safe = "".join(_visible_letter(letter) for letter in str(text))
    return safe if not longest or len(safe) <= longest else f"{safe[: longest - 1]}…"


def _visible_letter(letter: str) -> str:
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
        self.problems: tuple[str, ...] = tuple("\n".join(map(visible, problem.split("\n"))) for problem in given)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[str, ...]]]:
        # An exception crosses process borders by its constructor's arguments.
        return type(self), (self.problems,)


class Unavailable(InputError):
    """What a training needs and no configuration decides is not there now: data, weights, room on a disk.

    The same configuration may well train later, so a search does not hold it against the trial.
    """


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


_SHORT = reprlib.Repr()  # six entries a level
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 4, 120, 120, 60


def shown(value: Any) -> str:
    """A value in an error message: as Python writes it, and short however much somebody has put into it."""
    return _SHORT.repr(value)


def did_you_mean(name: str, known: list[str] | tuple[str, ...], listed_by: str = "fields") -> str:
    """A closing sentence for an unknown `name`: the nearest known one, or all of them where they are few.

    Among equally near ones the first of `known` is meant, and among those that begin with `name` too: whoever has a
    choice of sizes puts the smallest first. `listed_by`: the command that lists them where they are many.
    """
    if _OTHER_NAMES.get(name) in known:
        return f"Did you mean {_OTHER_NAMES[name]}?"
    family = [other for other in known if len(name) >= 3 and other.startswith(name)]
    alike = {other: difflib.SequenceMatcher(None, other, name).ratio() for other in known}
    nearest = family[0] if family else max(known, key=alike.__getitem__, default=None)
    if nearest and (family or alike[nearest] >= 0.6):
        return f"Did you mean {nearest}?"
    return f"Use one of {', '.join(known)}." if len(known) <= 12 else f"`{typed(listed_by)}` lists them."
