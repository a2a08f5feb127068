"""A stretch of a recording: what an annotation marks, and what `predict --window` labels."""

from __future__ import annotations

import math
import re
from typing import NamedTuple


class Stretch(NamedTuple):
    """From `start` to `end`, in s from the recording's beginning; `end` is None where it reaches to the recording's."""

    start: float
    end: float | None

    def named(self, name: str) -> str:
        """The stretch of the recording `name`, as text: `rec.wav#t=1.25,3.5`.

        Source: W3C, Media Fragments URI 1.0, section 4.2.1.
        """
        return f"{name}#t={plain(self.start)}" + ("" if self.end is None else f",{plain(self.end)}")

    def samples(self, rate: int) -> tuple[int, int | None]:
        """The first sample and the one behind the last, at `rate` Hz."""
        return round(self.start * rate), None if self.end is None else round(self.end * rate)


_NAMED = re.compile(r"(?s)(.*)#t=(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?")


def named_stretch(name: str) -> tuple[str, Stretch | None]:
    """The recording's name and the stretch of it that `Stretch.named` put together; None: all of it."""
    found = _NAMED.fullmatch(name)
    if not found:
        return name, None
    return found[1], Stretch(float(found[2]), None if found[3] is None else float(found[3]))


def plain(seconds: float) -> str:
    """A time in s to the microsecond, without zeros at its end."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def windows(seconds: float, window: float, hop: float) -> list[Stretch]:
    """The stretches of `window` s, one every `hop` s, of a recording of so many seconds.

    The last one ends with the recording, so that nothing of it is left out; a recording shorter than a window is one.
    """
    if seconds <= window:
        return [Stretch(0.0, seconds)]
    count = 1 + math.ceil((seconds - window) / hop - 1e-9)
    starts = [min(number * hop, seconds - window) for number in range(count)]
    return [Stretch(start, start + window) for start in starts]
