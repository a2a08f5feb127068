"""What SwanLab's cloud has refused of an experiment.

The SDK prints an upload that the server refuses for good, drops it and calls the run finished; nothing else tells.
Written against swanlab 0.10.3; `tests/search/mirror/stores/test_cloud.py` notices a version that differs.
"""

from __future__ import annotations

import re
from typing import Any

_HTTP = re.compile(r"\[HTTP\] (.*)-> (\d{3})")
_TRY_AGAIN = (408, 429)  # and all from 500 up: the SDK repeats these itself
_errors: list[str] = []


def load() -> None:
    """Begins to note the errors that the SDK prints."""
    from swanlab.sdk.internal.pkg import console

    if hasattr(console, "noted_for_the_mirror"):
        return
    printed = console.error

    def error(*parts: Any, **options: Any) -> Any:
        _errors.append(" ".join(str(part) for part in parts))
        return printed(*parts, **options)

    console.error = error
    console.noted_for_the_mirror = True


def forget() -> None:
    """Begins a new experiment."""
    _errors.clear()


def what_is_missing() -> str | None:
    """A sentence about what was refused since `forget`; None where all went through, if not at the first attempt."""
    for text in _errors:
        request = _HTTP.search(text)
        if request is None:
            return text
        status = int(request.group(2))
        if status < 500 and status not in _TRY_AGAIN:
            return f"the server refuses data (HTTP {status})"
    return None
