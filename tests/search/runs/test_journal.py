from __future__ import annotations

import json
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


def told(folder: Path, monkeypatch: pytest.MonkeyPatch, *events: tuple[float, str, dict[str, object]]) -> Journal:
    """A journal in which events of these names happened at these moments, s."""
    journal = Journal(folder / "events.jsonl")
    for moment, name, facts in events:
        monkeypatch.setattr("search.runs.journal.time.time", lambda moment=moment: moment)
        getattr(journal, name)(**facts)
    return journal


def test_time_counts_within_sessions_and_a_clock_that_is_set_back_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suggested = {"kind": "search", "name": "", "params": {}, "config": {}}
    journal = told(
        tmp_path, monkeypatch,
        (1000.0, "session", {}), (1007.0, "suggested", suggested), (400.0, "suggested", suggested),
        (412.0, "suggested", suggested), (9000.0, "session", {}), (9001.5, "suggested", suggested),
    )  # fmt: skip
    assert journal.seconds == journal.seconds_of_budget == 7.0 + 12.0 + 1.5
    assert Journal(journal.path).seconds == journal.seconds


@pytest.mark.parametrize(
    ("event", "begins_anew"),
    [
        (("stopped", {"reason": "time budget"}), True),
        (("stopped", {"reason": "interrupted"}), False),
        (("session", {"time_budget": 60.0}), True),
        (("session", {}), False),
    ],
)
def test_a_time_budget_begins_anew_where_it_was_used_up_or_a_new_one_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: tuple[str, dict[str, object]], begins_anew: bool
) -> None:
    journal = told(
        tmp_path, monkeypatch,
        (10.0, "session", {}), (15.0, "moved", {"data": "a"}), (15.0, *event), (18.0, "moved", {"data": "b"}),
    )  # fmt: skip
    for each in (journal, Journal(journal.path)):
        assert (each.seconds, each.seconds_of_budget) == (8.0, 3.0 if begins_anew else 8.0)


def test_a_trial_is_new_ends_once_and_goes_on_where_it_is_tried_again(journal: Journal) -> None:
    running, over = journal.trials[1], journal.trials[0]
    assert (running.status, running.message, running.ended, running.session, running.refused) == (
        "running", "", None, 0, False,
    )  # fmt: skip
    journal.session()
    journal.ended(1, "failed", "its values do not go together", refused=True)
    journal.ended(1, "finished", "too late")
    assert (over.session, over.refused) == (1, False)
    for trial in (running, Journal(journal.path).trials[1]):
        assert (trial.status, trial.message, trial.session, trial.refused) == (
            "failed", "its values do not go together", 2, True,
        )  # fmt: skip
    assert journal.endings == [0, 1]
    journal.retried(1)
    assert (running.status, running.message, running.ended, running.session, running.refused) == (
        "running", "", None, 0, False,
    )  # fmt: skip
    assert (journal.endings, journal.unfinished) == ([0], [running])


def test_what_was_reported_of_an_epoch_is_found_and_a_replay_changes_none_of_it(journal: Journal) -> None:
    journal.reported(1, 2, 0.7, 0.9, "continue")
    journal.reported(1, 1, 0.1, 9.0, "cut")
    found = [journal.report(1, epoch) for epoch in (1, 2, 3)]
    assert [report and (report.epoch, report.value, report.loss, report.decision) for report in found] == [
        (1, 0.6, 1.0, "continue"), (2, 0.7, 0.9, "continue"), None,
    ]  # fmt: skip
    assert journal.steps == 3 + 1


def test_what_was_set_aside_is_unfinished_but_waits_for_another_driver(journal: Journal) -> None:
    journal.suggested("search", "", {}, {})
    journal.set_aside = {1}
    assert [trial.number for trial in journal.unfinished] == [1, 2]
    assert [trial.number for trial in journal.waiting] == [2]


def test_a_listener_takes_the_place_of_its_role_and_others_stay(journal: Journal) -> None:
    heard: list[str] = []
    for name, role in (("one", ""), ("two", ""), ("study", "study"), ("study again", "study")):
        journal.listen(lambda event, name=name: heard.append(f"{name}: {event['event']}"), role)
    journal.moved("elsewhere")
    assert heard == ["one: moved", "two: moved", "study again: moved"]
    assert {trial.config["data"] for trial in journal.trials.values()} == {"elsewhere"}


@pytest.mark.parametrize("event", ["reported", "ended", "retried"])
def test_an_event_that_names_no_trial_or_an_unknown_one_is_named(journal: Journal, event: str) -> None:
    facts = {"epoch": 2, "value": 0.5, "loss": 1.0, "decision": "continue", "status": "cut", "message": "", "time": 1.0}
    for trial in ({}, {"trial": 7}, {"trial": -1}):
        lines = journal.path.read_bytes()
        journal.path.write_bytes(lines + json.dumps({"event": event, **facts, **trial}).encode() + b"\n")
        with pytest.raises(InputError, match="line 7: must be an event"):
            Journal(journal.path)
        journal.path.write_bytes(lines)
