"""A folder of entries that can be made again: built whole or not at all, used by many, thrown away by age.

An entry is a folder under its key. It is built under a hidden name and renamed when it is whole; a builder that was
killed leaves only the hidden folder, which the next one throws away. Locks are the system's, which lets go of them
when a process dies: an exclusive one for the builder of a key, a shared one for everybody who uses an entry.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import filelock

from trainable.errors import Unavailable

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed anyway
    fcntl = None  # type: ignore[assignment]
ABOUT = "about.json"  # what an entry is; it is written last, and its time of change says when the entry was last used


@dataclass(frozen=True)
class CacheEntry:
    """One entry of the cache."""

    key: str
    bytes: int
    last_used: float  # s since 1970
    in_use: bool  # by a living process
    about: dict[str, Any]  # what its builder says of it


@dataclass(frozen=True)
class Store:
    """The entries in `folder`, together at most `limit` bytes as far as they are not in use."""

    folder: Path
    limit: int

    def hold(self, key: str) -> IO[Any] | None:
        """A file that keeps the entry from being removed until it is closed; None where there is no such entry."""
        path = self.folder / key / ABOUT
        try:
            file = path.open("rb")
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                with contextlib.suppress(PermissionError):  # another user's entry: only its owner's uses count
                    os.utime(path)
                return file
            file.close()
        except FileNotFoundError:  # never built, or removed between opening and locking
            pass
        return None

    def build(self, key: str, size: int, make: Callable[[Path], None], waiting: Callable[[], None]) -> IO[Any]:
        """The hold on the entry, which `make` has filled an empty folder with unless another process came first.

        Args:
            key: the entry's name.
            size: about how many bytes it will take.
            make: fills the folder that it is given, `ABOUT` included.
            waiting: called from time to time while another process builds this entry.

        Raises:
            InputError: the disk has no room.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self._lock(key)
        while True:
            try:
                lock.acquire(timeout=0.5, poll_interval=0.05)
                break
            except filelock.Timeout:
                waiting()
        try:
            holder = self.hold(key)  # another process may have built it while this one waited
            if holder is None:
                self._build(key, size, make)
                holder = self.hold(key)
        finally:
            lock.release()
        if holder is None:
            raise RuntimeError(f"{self.folder / key}: vanished as soon as it was built")
        self._make_room(0)
        return holder

    def _build(self, key: str, size: int, make: Callable[[Path], None]) -> None:
        building = self.folder / f".building-{key}"
        shutil.rmtree(building, ignore_errors=True)  # of a builder that was killed: this process has its lock
        self.clean_up()
        self._make_room(size)
        building.mkdir()
        try:
            make(building)
            building.rename(self.folder / key)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise

    def entries(self) -> list[CacheEntry]:
        """All entries, the most recently used first."""
        entries = []
        for folder in self.folder.glob("[!.]*"):
            try:
                about = json.loads((folder / ABOUT).read_text())
                used = (folder / ABOUT).stat().st_mtime
                size = sum(file.stat().st_size for file in folder.iterdir())
            except (FileNotFoundError, NotADirectoryError):  # removed meanwhile, or no entry
                continue
            entries.append(CacheEntry(folder.name, size, used, self._in_use(folder.name), about))
        return sorted(entries, key=lambda entry: entry.last_used, reverse=True)

    def clear(self) -> tuple[int, int]:
        """How many entries were removed, and their bytes; what a living process uses stays."""
        self.clean_up()
        removed = [entry for entry in self.entries() if self._remove(entry.key)]
        return len(removed), sum(entry.bytes for entry in removed)

    def clean_up(self) -> None:
        """Removes what killed builders and removers left behind; what is being built has its lock taken, and stays."""
        for folder in self.folder.glob(".*-*"):
            try:
                with self._lock(folder.name.partition("-")[2]).acquire(timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)  # another process may be at the same
            except filelock.Timeout:
                continue

    def _make_room(self, needed: int) -> None:
        """Removes the least recently used entries until `needed` more bytes fit, and checks the disk."""
        entries = self.entries()
        total = sum(entry.bytes for entry in entries) + needed
        while total > self.limit and entries:
            entry = entries.pop()
            if self._remove(entry.key):
                total -= entry.bytes
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise Unavailable(
                f"{self.folder}: must have room for {needed / 1e9:.1f} GB, got {free / 1e9:.1f} GB of free disk. "
                "Free some, or set AUDIO_SEARCH_CACHE to a folder on a larger disk."
            )

    def _remove(self, key: str) -> bool:
        """Whether the entry was removed; one that a living process uses is not."""
        path = self.folder / key / ABOUT
        trash = self.folder / f".removed-{key}"
        try:
            with path.open("rb") as file:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(trash, ignore_errors=True)
                path.parent.rename(trash)  # while locked, so that nobody takes hold of it in between
        except (FileNotFoundError, BlockingIOError, PermissionError):  # gone, in use, or in use on Windows
            return False
        shutil.rmtree(trash, ignore_errors=True)
        return True

    def _in_use(self, key: str) -> bool:
        if not fcntl:
            return False
        try:
            with (self.folder / key / ABOUT).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _lock(self, key: str) -> filelock.BaseFileLock:
        locks = self.folder.parent / "locks"
        locks.mkdir(exist_ok=True)
        return filelock.FileLock(locks / f"{key}.lock")
