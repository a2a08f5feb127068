"""The driver's end of a mirror's child process: orders out, news in, and an end to a child that hangs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REAP_S = 2.0  # for the system to take back a killed process; one stuck in a dead file system is left to it


class Child:
    """One running `search.mirror_worker`; nothing here ever waits for it."""

    def __init__(self, log: Path) -> None:
        """Starts the process; what SwanLab prints goes to `log` where that can be written.

        It works in the same folder as the driver, where SwanLab may keep a key, but imports nothing from there (-P).

        Raises:
            OSError: the system has no room for another process.
        """
        root = str(Path(__file__).resolve().parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "search.mirror_worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(printed := _appending(log)),
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the driver, which then ends what runs here in good order
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"},
        )
        os.close(printed)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._in.fileno(), False)
        os.set_blocking(self._out.fileno(), False)
        self._buffer = b""
        self.dismissed = False
        self.last_news = time.monotonic()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def fileno(self) -> int:
        """Where news arrive, for `select`."""
        return self._out.fileno()

    def send(self, order: dict[str, Any]) -> bool:
        """Whether the order is on its way; False where the child is dead or has long stopped to read."""
        data = (json.dumps(order) + "\n").encode()
        try:
            return os.write(self._in.fileno(), data) == len(data)
        except (BlockingIOError, BrokenPipeError):
            return False

    def news(self) -> tuple[list[dict[str, Any]], bool]:
        """What the child has said since the last call, and whether it can still say more."""
        open_end = True
        try:
            chunk = os.read(self._out.fileno(), 65_536)
            open_end = bool(chunk)
            self._buffer += chunk
        except BlockingIOError:
            return [], True
        *lines, self._buffer = self._buffer.split(b"\n")
        self.last_news = time.monotonic()
        return [json.loads(line) for line in lines], open_end

    def dismiss(self) -> None:
        """Lets the child finish what it has and go; `kill` is still due."""
        self.dismissed = True
        self._in.close()

    def gone(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """Ends the process now, whatever it does, and frees what it held here."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(REAP_S)
        self._in.close()
        self._out.close()


def _appending(log: Path) -> int:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:  # a full or read-only disk; the child itself will say so
        return os.open(os.devnull, os.O_WRONLY)
