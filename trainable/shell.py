"""Commands as the person at this shell would type them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def program(name: str) -> str:
    """How to call `name` of this Python environment, such as python or swanlab.

    By its name where the shell finds that very program, by its path elsewhere: without an activated environment
    `python` is another Python, which has none of what this one has installed.
    """
    here = Path(sys.executable).absolute().parent / name
    found = shutil.which(name)
    if found and Path(found).absolute() == here:
        return name
    relative = os.path.relpath(here)
    return str(here) if relative.startswith("..") else relative
