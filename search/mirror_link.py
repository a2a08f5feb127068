"""What a mirror's child process needs: its line to the driver, and locks that die with it."""

from __future__ import annotations

import fcntl
import json
import os
import select
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, ClassVar

ALIVE_EVERY_S = 1.0
LOCK_FILE = ".lock"
LOCK_POLL_S = 0.05


class Link:
    """Orders from the driver as JSON lines on standard input, news to it on what was standard output."""

    def __init__(self) -> None:
        self._in = 0
        self._out = os.dup(1)
        os.dup2(2, 1)  # what SwanLab prints must not get between the news
        self._buffer = b""
        self._last_news = 0.0

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """The next order, or None where none came in `timeout` seconds.

        Raises:
            EOFError: none can come any more: the driver is gone, or wants this process to go.
        """
        while b"\n" not in self._buffer:
            if not select.select([self._in], [], [], timeout)[0]:
                return None
            chunk = os.read(self._in, 65_536)
            if not chunk:
                raise EOFError
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        order: dict[str, Any] = json.loads(line)
        return order

    def say(self, news: str, **facts: Any) -> None:
        """Tells the driver; a driver that is gone is noticed by `receive`."""
        self._last_news = time.monotonic()
        with suppress(BrokenPipeError):
            os.write(self._out, (json.dumps({"say": news, **facts}) + "\n").encode())

    def alive(self) -> None:
        """Says so, at most once a second: a child that says nothing for long is taken for hung."""
        if time.monotonic() - self._last_news >= ALIVE_EVERY_S:
            self.say("alive")


class Locks:
    """Named locks of one SwanLab folder, all in one file; the system takes them back from a process that dies."""

    _file: IO[bytes] | None = None  # one per process: closing any handle of the file would drop all its locks
    _path: Path | None = None
    _held: ClassVar[set[str]] = set()

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_FILE
        if Locks._path != path:
            folder.mkdir(parents=True, exist_ok=True)
            Locks._file, Locks._path = path.open("ab"), path

    def acquire(self, name: str, timeout: float, waiting: Callable[[], None]) -> bool:
        """Whether the lock could be had within `timeout` seconds; `waiting` is called in between."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, zlib.crc32(name.encode()))
                return True
            except (BlockingIOError, PermissionError):  # POSIX lets systems choose between the two
                if time.monotonic() >= deadline:
                    return False
            waiting()
            time.sleep(LOCK_POLL_S)

    def release(self, name: str) -> None:
        """Gives the lock back."""
        fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, zlib.crc32(name.encode()))

    @contextmanager
    def held(self, name: str, waiting: Callable[[], None], timeout: float = 300.0) -> Iterator[None]:
        """Holds the lock for a while; who has it already may hold it again.

        Raises:
            TimeoutError: another process has held it for `timeout` seconds.
        """
        if name in Locks._held:
            yield
            return
        if not self.acquire(name, timeout, waiting):
            raise TimeoutError(f"another process has held SwanLab's {name} for {timeout:g} s")
        Locks._held.add(name)
        try:
            yield
        finally:
            Locks._held.discard(name)
            self.release(name)

    def holds(self, name: str) -> bool:
        """Whether this process is within `held`."""
        return name in Locks._held

    @property
    def _handle(self) -> IO[bytes]:
        assert Locks._file is not None
        return Locks._file
