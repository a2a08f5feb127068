"""Commands are printed as one types them here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainable.commands import program, retold, typed


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python environment in `.venv` of the current folder."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "swanlab", "audio-search"):
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


@pytest.mark.parametrize(
    ("started", "shown"),
    [
        ("/anywhere/bin/audio-search", "audio-search resume 'my run' --trials 4"),
        ("run_search.py", "python run_search.py resume 'my run' --trials 4"),
        ("/usr/lib/ipykernel_launcher.py", "python run_search.py resume 'my run' --trials 4"),
    ],
)
def test_a_command_is_called_as_this_program_was(
    environment: Path, monkeypatch: pytest.MonkeyPatch, started: str, shown: str
) -> None:
    monkeypatch.setenv("PATH", f"{environment}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "argv", [started])
    assert typed("resume", Path("my run"), "--trials", 4) == shown


@pytest.mark.parametrize("started", ["/anywhere/bin/audio-search", "run_search.py"])
@pytest.mark.parametrize("active", [True, False])
def test_a_help_text_that_is_shown_twice_names_the_program_the_same_way(
    environment: Path, monkeypatch: pytest.MonkeyPatch, started: str, active: bool
) -> None:
    if active:
        monkeypatch.setenv("PATH", f"{environment}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "argv", [started])
    once = retold("Example: `python run_search.py resume runs/a`, or python run_search.py --help")
    assert once == f"Example: `{typed('resume', 'runs/a')}`, or {typed('--help')}"
    assert retold(once) == once


def test_no_other_module_writes_how_the_program_is_called() -> None:
    root = Path(__file__).resolve().parents[2]
    written = [
        f"{file.relative_to(root)}: {line.strip()}"
        for package in ("search", "trainable")
        for file in (root / package).rglob("*.py")
        for line in file.read_text().splitlines()
        if "python run_search.py" in line and file.name != "commands.py" and '"""' not in line
    ]
    assert written == []
