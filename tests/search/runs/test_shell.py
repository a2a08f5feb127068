from __future__ import annotations

import sys
from pathlib import Path

import pytest

from search.runs.format import program


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python environment in `.venv` of the current folder."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "swanlab"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return folder


def test_an_environment_that_is_not_activated_is_named_by_its_path(environment: Path) -> None:
    assert program("python") == ".venv/bin/python"
    assert program("swanlab") == ".venv/bin/swanlab"


def test_an_activated_environment_needs_no_path(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{environment}:/usr/bin:/bin")
    assert program("python") == "python"


def test_an_environment_elsewhere_is_named_in_full(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(environment / "..")
    assert program("python") == "bin/python"
    monkeypatch.chdir("/")
    assert program("python") == str(environment / "python").lstrip("/")
