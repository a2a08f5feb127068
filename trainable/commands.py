"""Commands as one types them here: what this program, and others of its Python environment, are called."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

INSTALLED = "audio-search"  # what pip installs; from a checkout it is run_search.py
_WRITTEN = re.compile(r"(?<![\w/])python run_search\.py")  # as help texts have it; in a path it has been told already


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


def typed(*words: object) -> str:
    """A command of this program, as it was started itself: `audio-search resume runs/a`, or by run_search.py."""
    return shlex.join([*shlex.split(_start()), *map(str, words)])


def retold(text: str) -> str:
    """A help text whose commands are called as this program was started itself; its markup is rich's."""
    return _WRITTEN.sub(lambda _: _start().replace("[", r"\["), text)


def _start() -> str:
    return program(INSTALLED) if Path(sys.argv[0]).stem == INSTALLED else f"{program('python')} run_search.py"
