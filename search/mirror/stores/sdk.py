"""The SwanLab package as a child process needs it: imported once, and able to make a thousand runs in a row.

Written against swanlab 0.10.3; `tests/search/mirror/test_worker.py` notices a version that differs.
"""

from __future__ import annotations

from search.mirror.stores import cloud as mirror_cloud
from search.mirror.stores import local as mirror_local


def load(mode: str) -> None:
    """Imports SwanLab and mends what is in the way of many runs in one process."""
    import swanlab  # noqa: F401
    from swanlab.sdk.internal.core_python import core
    from swanlab.sdk.internal.core_python.watcher import NullFileWatcher

    # Every run makes a watcher for files given to `swanlab.save`, which is not used here, and never ends it: a thread
    # and an inotify instance are lost each time, of which Linux grants a user 128 in all.
    core.FileWatcher = lambda *arguments, **options: NullFileWatcher()

    if mode == "local":
        mirror_local.load()
    elif mode == "cloud":
        mirror_cloud.load()
        mirror_cloud.forget()
