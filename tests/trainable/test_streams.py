from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAYS = f"{sys.executable} run_search.py compare nowhere"  # a message of our own on standard error, and 2
SHOWS = f"{sys.executable} run_search.py fields lr"  # an answer on standard output, and 0


def shell(command: str) -> tuple[int, str]:
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (f"{SAYS} 2>&-", 2, "nowhere: must be a run folder"),  # said on standard output then
        (f"{SHOWS} >&-", 0, "learning rate"),  # and here on standard error
        (f"{SHOWS} >&- 2>&-", 0, ""),
        (f"{SAYS} <&- >&- 2>&1", 2, ""),
        (f"{SAYS} 2>/dev/full", 2, ""),
        (f"{SHOWS} >/dev/full", 1, "No space left on device"),
        (f"{SHOWS} >/dev/full 2>&1", 1, ""),
        (f"{sys.executable} -m trainable --config nowhere.yaml 2>/dev/full", 2, ""),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_or_full_stream_is_no_traceback_and_changes_no_exit_code(
    command: str, code: int, said: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)  # without it Python writes again at its end what it could not
    ended, text = shell(command)
    assert ended == code, text
    assert said in text
    assert "Traceback" not in text
    assert "Exception ignored" not in text


@pytest.mark.slow
@pytest.mark.process
def test_a_reader_that_has_seen_enough_is_no_error_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    assert shell(f"{sys.executable} run_search.py fields | true") == (0, "")


READ = """
import sys, time
from trainable.streams import reader_has_gone
time.sleep(0.5)
print(reader_has_gone(), file=sys.stderr)
"""


@pytest.mark.process
@pytest.mark.parametrize(("reader", "gone"), [("| true", "True"), ("| cat", "False"), ("> /dev/null", "False")])
def test_a_reader_has_gone_where_its_end_of_the_pipe_is_closed(reader: str, gone: str) -> None:
    assert shell(f"{sys.executable} -c '{READ}' {reader}") == (0, f"{gone}\n")


OPENED = """
import os, sys
from trainable.streams import open_closed_streams
open_closed_streams()
numbers = {os.open(sys.argv[1], os.O_RDWR | os.O_CREAT) for _ in range(3)}
print("printed")
os.write(1, b"written\\n")
assert not numbers & {0, 1, 2}, numbers
"""


@pytest.mark.process
def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    ended = subprocess.run(
        ["sh", "-c", f'exec {sys.executable} -c "$0" {file} <&- >&-', OPENED],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, sorted(ended.stderr.split())) == (0, ["printed", "written"])
    assert file.read_text() == ""
