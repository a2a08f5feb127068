"""The folder for everything that can be made again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The user's cache folder of this project, made if need be; `AUDIO_SEARCH_CACHE` names another one."""
    folder = Path(os.environ.get("AUDIO_SEARCH_CACHE") or platformdirs.user_cache_dir("audio-search"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
