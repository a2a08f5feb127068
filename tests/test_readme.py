"""What the README tells people to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from run_search import app

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    {found.strip() for found in re.findall(r"python run_search\.py([^\n`#|]*)", README)}
    | set(re.findall(r"`((?:predict|resume|retrain|data) [^`]*)`", README))
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_one_with_these_flags(command: str) -> None:
    words = shlex.split(re.sub(r"COMMAND|[\[\]]|\.\.\.", "", command))
    node = get_command(app)
    while words and hasattr(node, "commands") and words[0] in node.commands:
        node = node.commands[words.pop(0)]
    known = {flag for parameter in node.params for flag in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known
    assert not hasattr(node, "commands") or not words or words[0].startswith("-")


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) > 30
