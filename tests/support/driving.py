"""Drivers in processes of their own, and waiting for what they do."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def start_driver(run: Path, *options: str, alone: bool = False) -> subprocess.Popen[str]:
    """A driver in a process of its own; `alone`: in a process group of its own, too."""
    command = [sys.executable, "-m", "tests.support.driver", str(run), *options]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0 if alone else None,
    )


def wait_for_events(run: Path, count: int, driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        path = run / "events.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.005)
    pytest.fail(f"no {count} events within two minutes")
