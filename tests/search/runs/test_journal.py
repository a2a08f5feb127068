from __future__ import annotations

from pathlib import Path

import pytest

from search.runs.journal import Journal
from trainable.errors import InputError


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Two trials, one of them over: six lines."""
    journal = Journal(tmp_path / "events.jsonl")
    journal.session()
    journal.suggested("search", "", {"lr": 0.1}, {})
    journal.suggested("search", "", {"lr": 0.2}, {})
    journal.reported(0, 1, 0.5, 1.0, "continue")
    journal.reported(1, 1, 0.6, 1.0, "continue")
    journal.ended(0, "finished")
    return journal


def test_half_a_last_line_does_not_count_and_the_next_event_takes_its_place(journal: Journal) -> None:
    with journal.path.open("ab") as file:
        file.write(b'{"event": "ended", "trial": 1')
    again = Journal(journal.path)
    assert [trial.status for trial in again.trials.values()] == ["finished", "running"]
    again.ended(1, "cut")
    assert [trial.status for trial in Journal(journal.path).trials.values()] == ["finished", "cut"]
    assert journal.path.read_bytes().count(b"\n") == 7


@pytest.mark.parametrize(
    ("place", "damage", "shown"),
    [
        (6, b"\0\0\0\0\n", "line 7: must be an event of the trials before it, got '\\x00\\x00\\x00\\x00'."),
        (3, b"\n", "line 4: must be an event of the trials before it, got ''."),
        (3, b"\xff{garbage\n", "line 4: must be an event of the trials before it, got '\ufffd{garbage'."),
        (0, b"[]\n", "line 1: must be an event of the trials before it, got '[]'."),
        (2, b'{"event": "ended"}\n', "line 3: must be an event of the trials before it, got "),
        (1, b"x" * 5000 + b"\n", f"line 2: must be an event of the trials before it, got '{'x' * 79}... "),
    ],
)
def test_a_damaged_line_is_named_with_what_is_there_and_the_way_out(
    journal: Journal, place: int, damage: bytes, shown: str
) -> None:
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join([*lines[:place], damage, *lines[place:]]))
    with pytest.raises(InputError) as caught:
        Journal(journal.path)
    assert str(caught.value).startswith(f"{journal.path}: {shown.rstrip()}")
    assert f"keep only the {place} lines before it" in str(caught.value)


def test_an_event_of_a_trial_whose_own_line_is_gone_is_named(journal: Journal) -> None:
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(InputError, match=r"line 4: must be an event of the trials before it, got .*reported"):
        Journal(journal.path)


def test_a_repeat_names_the_trial_whose_configuration_it_has_and_a_file_says_so_again(journal: Journal) -> None:
    journal.suggested("repeat", "fold 2 of trial 0", {"lr": 0.1}, {"val_fold": 2}, repeats=0)
    again = Journal(journal.path)
    assert [(trial.repeats, trial.fold) for trial in again.trials.values()] == [(None, 1), (None, 1), (0, 2)]
    assert again.configurations == 2


@pytest.mark.parametrize("repeats", [7, 2])  # one that is not there, and a repeat
def test_a_repeat_of_what_cannot_be_repeated_is_no_event(journal: Journal, repeats: int) -> None:
    journal.suggested("repeat", "", {}, {"val_fold": 2}, repeats=0)
    journal.suggested("repeat", "", {}, {"val_fold": 2}, repeats=1)
    text = journal.path.read_text().splitlines()
    text[-1] = text[-1].replace('"repeats": 1', f'"repeats": {repeats}')
    journal.path.write_text("\n".join(text) + "\n")
    with pytest.raises(InputError, match="line 8: must be an event of the trials before it"):
        Journal(journal.path)
