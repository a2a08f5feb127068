from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.runs.journal import Journal, Trial
from search.runs.run import load_run, next_repeat, rank
from trainable.errors import InputError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "must be JSON, got something else (Expecting value: line 1 column 1 (char 0))"),
        (json.dumps({"space": {"budget": {}}})[:-5], "must be JSON, got something else ("),
        ("[1]", "must be a record, got [1]"),
        ("null", "must be a record, got None"),
        ("{}", "space: must be there, got nothing"),
    ],
)
def test_a_damaged_record_is_named_with_the_way_out(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError) as caught:
        load_run(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'run.json'}: {found}")
    assert "Put back a copy of it" in str(caught.value)


GRACE = 1


class Played:
    """Trials that have ended, and repeats of them, with the accuracies of a table [configuration][fold]."""

    def __init__(self, path: Path, table: Sequence[Sequence[float | None]]) -> None:
        self.journal, self.table = Journal(path), table
        for row in table:
            self.end(self.journal.suggested("search", "", {}, {}), row[0])

    def end(self, trial: Trial, accuracy: float | None) -> None:
        """Ends a trial; None: it diverges."""
        if accuracy is None:
            self.journal.ended(trial.number, "diverged")
            return
        self.journal.reported(trial.number, 1, accuracy, 1 - accuracy, "continue")
        self.journal.ended(trial.number, "finished")

    def repeat(self, number: int, fold: int) -> None:
        trial = self.journal.suggested("repeat", "", {}, {"val_fold": fold}, repeats=number)
        self.end(trial, self.table[number][fold - 1])

    def due(self, folds: int) -> tuple[int, int] | None:
        found = next_repeat(self.journal.trials.values(), GRACE, folds)
        return found and (found[0].number, found[1])

    def play(self, folds: int) -> list[tuple[int, int]]:
        """Gives every repeat that is due, and says which those were."""
        given = []
        while due := self.due(folds):
            given.append(due)
            self.repeat(*due)
        return given

    def ranked(self) -> list[tuple[int, float]]:
        return [(best.trial.number, round(best.accuracy, 3)) for best in rank(self.journal.trials.values(), GRACE)]


def test_the_best_go_on_to_fold_two_and_those_that_still_lead_to_fold_three(tmp_path: Path) -> None:
    played = Played(tmp_path / "events.jsonl", [[0.8, 0.9, 0.85], [0.95, 0.6, 0.9], [0.7, 1.0, 1.0]])
    assert played.play(folds=3) == [(1, 2), (0, 2), (0, 3)]  # 0.95, then 0.775 against 0.8, then 0.85
    assert played.ranked() == [(0, 0.85), (1, 0.775), (2, 0.7)]
    best = rank(played.journal.trials.values(), GRACE)[0]
    assert best.folds == (0.8, 0.9, 0.85)
    assert [trial.number for trial in best.repeats] == [4, 5]


def test_one_lucky_fold_is_not_ahead_of_a_mean_over_more(tmp_path: Path) -> None:
    played = Played(tmp_path / "events.jsonl", [[0.9, 0.8, 0.85], [0.8, 0.0, 0.0]])
    played.play(folds=3)
    lucky = played.journal.suggested("search", "", {}, {})
    played.end(lucky, 0.95)
    assert played.ranked()[0] == (0, 0.85)
    assert played.due(folds=3) == (lucky.number, 2)  # but it is next to show whether it was luck


def test_a_fold_on_which_a_configuration_breaks_counts_as_nothing_right(tmp_path: Path) -> None:
    played = Played(tmp_path / "events.jsonl", [[0.9, None], [0.5, 0.6]])
    assert played.play(folds=2) == [(0, 2), (1, 2)]
    assert played.ranked() == [(1, 0.55), (0, 0.45)]


def test_nothing_is_repeated_while_the_leaders_repeat_runs_or_nobody_has_finished(tmp_path: Path) -> None:
    played = Played(tmp_path / "events.jsonl", [[0.9, 0.8], [0.8, 0.7]])
    played.journal.suggested("repeat", "", {}, {"val_fold": 2}, repeats=0)
    assert played.due(folds=2) is None
    empty = Journal(tmp_path / "empty.jsonl")
    trial = empty.suggested("search", "", {}, {})
    empty.reported(trial.number, 1, 0.9, 0.1, "continue")
    assert next_repeat(empty.trials.values(), GRACE, 2) is None
    empty.ended(trial.number, "cut")
    assert next_repeat(empty.trials.values(), GRACE, 2) is None


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.integers(2, 5), st.integers(1, 12))
def test_the_best_has_had_all_folds_and_whoever_had_fewer_scored_no_more(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, folds: int, trials: int
) -> None:
    accuracy = st.integers(0, 20).map(lambda right: right / 20)
    row = st.tuples(accuracy, *[st.one_of(accuracy, accuracy, st.none())] * (folds - 1))
    table = data.draw(st.lists(row, min_size=trials, max_size=trials))
    played = Played(tmp_path_factory.mktemp("run") / "events.jsonl", table)
    given = played.play(folds)
    assert len(given) == len(set(given)) <= trials * (folds - 1)
    for number in range(trials):
        assert [fold for other, fold in given if other == number] == list(
            range(2, 2 + [n for n, _ in given].count(number))
        )
    all_of_them = list(played.journal.trials.values())
    ranked = rank(all_of_them, GRACE)
    had = {number: 1 + [n for n, _ in given].count(number) for number in range(trials)}
    means = {n: sum(value or 0.0 for value in table[n][: had[n]]) / had[n] for n in range(trials)}
    assert {best.trial.number: pytest.approx(best.accuracy) for best in ranked} == means
    leader = max(means.values())
    assert any(had[number] == folds for number, mean in means.items() if mean == pytest.approx(leader))
    if all(value is not None for values in table for value in values):
        assert ranked[0].accuracy == pytest.approx(leader)
        assert len(ranked[0].folds) == folds
    # Whoever reads the same trials in another order, or from the file, decides the same.
    shuffled = data.draw(st.permutations(all_of_them))
    assert [best.trial.number for best in rank(shuffled, GRACE)] == [best.trial.number for best in ranked]
    assert rank(Journal(played.journal.path).trials.values(), GRACE)[0].folds == ranked[0].folds
