"""One table over runs: right columns, best first, filters with clear errors, and `trials.csv`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from search.commands.compare import compare, print_comparison, table_lines
from search.runs.journal import Journal
from search.runs.run import RunFolder, load_run
from search.runs.tables import MEASURED, TrialsTable, write_trials_csv
from trainable.errors import InputError

DIMENSIONS = {
    "backbone": {"choice": ["resnet18", "resnet50"]}, "lr": {"loguniform": [1e-5, 1e-2]},
    "schedule": {"choice": ["step", "cosine"]}, "step_size": {"randint": [5, 15], "when": {"schedule": "step"}},
}  # fmt: skip
DEFAULTS = {"backbone": "resnet18", "lr": 1e-4, "schedule": "constant", "step_size": 10, "epochs": 9, "image_size": 64}


def make_run(path: Path, **fixed: Any) -> RunFolder:
    """A run of a baseline and four trials: finished, cut in the grace period, failed at once, and still running."""
    path.mkdir(parents=True)
    record = {"space": {"search": DIMENSIONS, "budget": {"grace_epochs": 2}}, "created": "now"}
    (path / "run.json").write_text(json.dumps(record))
    journal = Journal(path / "events.jsonl")
    journal.session(command=[])
    samples: list[tuple[str, dict[str, Any], list[float], str]] = [
        ("tutorial", {}, [0.3, 0.5, 0.6], "finished"),
        ("", {"backbone": "resnet50", "lr": 1e-3, "schedule": "cosine"}, [0.4, 0.8, 0.7], "finished"),
        ("", {"backbone": "resnet18", "lr": 1e-2, "schedule": "step", "step_size": 5}, [0.9, 0.1], "cut"),
        ("", {"backbone": "resnet18", "lr": 2e-3, "schedule": "cosine"}, [], "failed"),
        ("", {"backbone": "resnet50", "lr": 3e-4, "schedule": "step", "step_size": 7}, [0.5, 0.7, 0.75], "running"),
    ]
    for number, (name, params, values, status) in enumerate(samples):
        journal.suggested("baseline" if name else "search", name, params, {**DEFAULTS, **fixed, **params})
        for epoch, value in enumerate(values, start=1):
            cut = status == "cut" and epoch == 2
            journal.reported(number, epoch, value, 1 - value, "cut" if cut else "continue")
        if status != "running":
            journal.ended(number, status, "RuntimeError: shapes" if status == "failed" else "")  # type: ignore[arg-type]
    return load_run(path)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "first")


def test_rows_come_best_first_by_the_one_rule_and_cut_trials_have_no_best(run: RunFolder):
    frame = compare([run])
    assert list(frame["trial"]) == [1, 4, 0, 2, 3]
    assert list(frame["best_acc"].head(3)) == [0.8, 0.75, 0.6]
    assert list(frame["best_epoch"].head(3)) == [2, 3, 3]
    cut = frame[frame["status"] == "cut"].iloc[0]
    assert pd.isna(cut["best_acc"])
    assert cut["last_acc"] == 0.1
    assert list(frame["epochs_run"]) == [3, 3, 3, 2, 0]


def test_columns_are_the_dimensions_that_differ_and_inactive_ones_are_missing(run: RunFolder):
    frame = compare([run]).set_index("trial")
    assert [name for name in frame.columns if name not in MEASURED] == ["backbone", "lr", "schedule", "step_size"]
    assert pd.isna(frame.loc[1, "step_size"])
    assert frame.loc[0, "lr"] == 1e-4  # a baseline is asked by its configuration


def test_whole_numbers_stay_whole_where_some_rows_have_none(run: RunFolder):
    rows = json.loads(compare([run]).to_json(orient="records"))
    assert [repr(row["step_size"]) for row in sorted(rows, key=lambda row: row["trial"])[1:]] == [
        "None",
        "5",
        "None",
        "7",
    ]
    assert "5.0" not in compare([run]).to_csv()


def test_a_baseline_has_no_value_where_a_condition_does_not_hold(run: RunFolder):
    params = {"backbone": "resnet18", "lr": 1e-4, "schedule": "constant"}
    run.journal.suggested("baseline", "point", params, {**DEFAULTS, **params})
    frame = compare([run]).set_index("name")
    assert pd.isna(frame.loc["point", "step_size"])
    assert pd.isna(frame.loc["tutorial", "step_size"])  # which is no point of the space, and keeps its rate constant


def test_runs_are_compared_by_what_is_fixed_differently_too(run: RunFolder, tmp_path: Path):
    frame = compare([run, make_run(tmp_path / "second", image_size=96)])
    assert len(frame) == 10
    assert set(frame["run"]) == {"first", "second"}
    assert set(frame["image_size"]) == {64, 96}
    assert list(frame["best_acc"].head(2)) == [0.8, 0.8]


def test_runs_of_one_name_are_told_apart_by_their_paths(run: RunFolder, tmp_path: Path):
    other = make_run(tmp_path / "elsewhere" / "first")
    assert set(compare([run, other])["run"]) == {str(run.path), str(other.path)}


def test_where_filters_on_any_setting_and_columns_that_no_longer_differ_go(run: RunFolder):
    frame = compare([run], where="backbone == 'resnet50' and image_size == 64")
    assert list(frame["trial"]) == [1, 4]
    assert "backbone" not in frame.columns
    assert compare([run], where="best_acc > 0.99").empty


@pytest.mark.parametrize(
    "where", ["lr >", "learning_rate > 1", "lr", "1 + 1", "lr = 3", "backbone > 3", "@x > 3", "lr\n"]
)
def test_a_bad_where_is_one_clear_error(run: RunFolder, where: str):
    with pytest.raises(InputError, match=r"^--where: must be .*, got '"):
        compare([run], where=where)


def test_an_unknown_column_in_where_asks_what_was_meant(run: RunFolder):
    with pytest.raises(InputError, match=r"name 'best_ac' is not defined\)\. Did you mean best_acc\?$"):
        compare([run], where="best_ac > 0.5")


def test_a_word_without_quotes_is_told_from_a_wrong_column(run: RunFolder):
    with pytest.raises(InputError, match=r"name 'finished' is not defined\)\. Put words in quotes, as here\.$"):
        compare([run], where="status == finished")


def test_sort_takes_a_column_either_way_and_missing_values_come_last(run: RunFolder):
    assert list(compare([run], sort="lr")["trial"]) == [0, 4, 1, 3, 2]
    assert list(compare([run], sort="-lr")["trial"]) == [2, 3, 1, 4, 0]
    assert list(compare([run], sort="last_acc")["trial"]) == [4, 1, 0, 2, 3]
    assert list(compare([run], sort="-best_acc")["trial"])[:3] == [0, 4, 1]
    assert list(compare([run], sort="image_size").columns)[-1] == "image_size"


def test_an_unknown_sort_column_asks_what_was_meant(run: RunFolder):
    with pytest.raises(InputError, match=r"^--sort: unknown column, got best_ac\. Did you mean best_acc\?$"):
        compare([run], sort="best_ac")


def test_a_column_that_resembles_none_gets_the_names(run: RunFolder):
    with pytest.raises(InputError, match=r"got foo\. Use run, trial, .*, memory_mb, or a setting's name\.$"):
        compare([run], sort="foo")


def test_csv_and_json_are_machine_readable(run: RunFolder):
    text = io.StringIO()
    print_comparison([run.path], style="csv", stream=text)
    frame = pd.read_csv(io.StringIO(text.getvalue()))
    assert list(frame["trial"]) == [1, 4, 0, 2, 3]
    assert text.getvalue().splitlines()[1].startswith("first,1,,search,finished,0.8,2,0.7,3,")
    text = io.StringIO()
    print_comparison([run.path], style="json", stream=text)
    rows = json.loads(text.getvalue())
    assert rows[0]["best_epoch"] == 2
    assert rows[4]["best_acc"] is None
    assert rows[0]["lr"] == 1e-3


def test_json_keeps_every_digit(tmp_path: Path):
    run = make_run(tmp_path / "digits", weight_decay=0.0024132778200829053)
    other = make_run(tmp_path / "others")
    text = io.StringIO()
    print_comparison([run.path, other.path], style="json", stream=text)
    assert json.loads(text.getvalue())[0]["weight_decay"] == pytest.approx(0.0024132778200829053, rel=1e-12)


def test_the_table_for_people_fits_80_columns_and_names_what_it_left_out(run: RunFolder):
    lines = table_lines(compare([run]), 80)
    assert max(map(len, lines)) <= 80
    assert "backbone" in lines[1]
    assert any("no room for" in line and "seconds" in line for line in lines)
    whole = table_lines(compare([run]), None)
    assert "80.0%" in whole[1]
    assert "1e-3" in whole[1]
    assert "step_size" in whole[0]
    assert "no room" not in "\n".join(whole)


def test_all_bad_paths_are_named_at_once(run: RunFolder, tmp_path: Path):
    with pytest.raises(InputError) as caught:
        print_comparison([run.path, tmp_path / "no", tmp_path / "neither"])
    assert len(caught.value.problems) == 2


def test_a_run_without_trials_says_so(tmp_path: Path, run: RunFolder):
    (run.path / "events.jsonl").unlink()
    text = io.StringIO()
    print_comparison([run.path], stream=text)
    assert text.getvalue() == "No trials to compare.\n"
    for style, empty in (("json", "[]"), ("csv", "run,trial,")):
        text = io.StringIO()
        print_comparison([run.path], style=style, stream=text)
        assert text.getvalue().startswith(empty)


def test_trials_csv_has_a_row_per_trial_with_its_sample_and_message(run: RunFolder):
    frame = pd.read_csv(write_trials_csv(run)).set_index("trial")
    assert list(frame.index) == [0, 1, 2, 3, 4]
    assert list(frame["status"]) == ["finished", "finished", "cut", "failed", "running"]
    assert frame.loc[3, "message"] == "RuntimeError: shapes"
    assert frame.loc[1, "lr"] == 1e-3
    assert frame.loc[1, "best_acc"] == 0.8
    assert frame.loc[2, "step_size"] == 5


def test_trials_csv_follows_the_search(run: RunFolder):
    table = TrialsTable(run)
    run.journal.listen(table.on_event)
    run.journal.suggested("search", "", {"lr": 1e-4, "mixup": 0.2}, {"lr": 1e-4, "mixup": 0.2})
    assert not (run.path / "trials.csv").exists()
    run.journal.ended(4, "finished")
    frame = pd.read_csv(run.path / "trials.csv").set_index("trial")
    assert frame.loc[4, "status"] == "finished"
    run.journal.ended(5, "diverged", "the loss became nan\nin epoch 1")
    frame = pd.read_csv(run.path / "trials.csv").set_index("trial")
    assert list(frame["status"])[-2:] == ["finished", "diverged"]
    assert frame.loc[5, "mixup"] == 0.2
    assert frame.loc[5, "message"] == "the loss became nan\nin epoch 1"
