"""The live view in a real terminal: tmux, whose pane is captured as a person sees it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]


class Pane:
    """A shell in a terminal of 80 columns and 24 lines."""

    def __init__(self, socket: Path) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        # Importing readline, as pytest does, sets COLUMNS and LINES for child processes, which then never see a resize.
        self._call("new-session", "-d", "-x", "80", "-y", "24", "env", "-u", "COLUMNS", "-u", "LINES", "sh")

    def _call(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], check=True, capture_output=True, text=True, timeout=20).stdout

    def type(self, text: str) -> None:
        self._call("send-keys", "-l", text)
        self._call("send-keys", "Enter")

    def resize(self, width: int, height: int) -> None:
        self._call("resize-window", "-x", str(width), "-y", str(height))

    def screen(self) -> str:
        return self._call("capture-pane", "-p")

    def history(self) -> str:
        return self._call("capture-pane", "-p", "-S", "-1000")

    def cursor_is_shown(self) -> bool:
        return self._call("display-message", "-p", "#{cursor_flag}").strip() == "1"

    def close(self) -> None:
        self._call("kill-server")


@pytest.fixture
def pane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pane]:
    if not shutil.which("tmux"):
        pytest.skip("needs tmux on the PATH")
    opened = Pane(tmp_path_factory.mktemp("tmux") / "socket")
    yield opened
    opened.close()


def until(holds: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


def test_a_person_sees_the_search_and_keeps_its_summary(pane: Pane, tmp_path: Path) -> None:
    command = shlex.join([sys.executable, "-m", "tests.support.watched", str(tmp_path)])
    pane.type(f"cd {shlex.quote(str(ROOT))} && clear && TERM=screen CI= {command}; echo rc=$?")
    until(lambda: re.search(r"Trials +\S+ +\d+ of 12: \d+ running", pane.screen()) is not None, pane.screen)
    view = pane.screen()
    assert re.search(r"Best    \d\d\.\d%, trial \d+ at epoch \d", view)
    assert re.search(r"trial +running +epoch +val acc +settings", view)
    assert not pane.cursor_is_shown()

    for width in (60, 80):
        pane.resize(width, 24)
        title = re.compile(rf"^(?=.{{{width}}}$)runs/watched ─+ \d+ s$", re.MULTILINE)
        until(lambda title=title: title.search(pane.screen()) is not None, pane.screen)
        assert pane.history().count("Speed") == 1  # drawn over what was there, however the terminal wrapped it

    (tmp_path / "go").touch()
    until(lambda: "rc=" in pane.screen(), pane.screen)
    text = pane.history()
    assert "rc=0" in text
    assert re.search(r"Trials  12 of 12: \d+ finished, \d+ cut", text)
    assert text.count("spaces/quick.yaml: 2 dimensions") == 1  # the header stays
    assert "Next" in text
    assert " running, " not in text  # the live view is gone
    assert pane.cursor_is_shown()


def test_a_terminal_made_narrower_at_the_very_end_keeps_nothing_of_the_view(pane: Pane, tmp_path: Path) -> None:
    command = shlex.join([sys.executable, "-m", "tests.support.watched", str(tmp_path)])
    pane.type(f"cd {shlex.quote(str(ROOT))} && clear && TERM=screen CI= {command}; echo rc=$?")
    until(lambda: re.search(r"Trials +\S+ +\d+ of 12: \d+ running", pane.screen()) is not None, pane.screen)
    pane.resize(60, 24)
    (tmp_path / "go").touch()
    until(lambda: "rc=" in pane.screen(), pane.screen)
    text = pane.history()
    assert "Next" in text
    assert "runs/watched ─" not in text  # the view's first line
