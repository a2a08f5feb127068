"""`data suspects` and what a search without them does."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from run_search import app
from search.report.report import write_report
from search.retrain.suspects import suspects_of
from search.runs.run import RunFolder
from search.tune.prepare import leave_out
from tests.support.synthetic import add_scores, data_record, make_run, write_clips
from trainable.data.dataset import Dataset, load_dataset
from trainable.errors import InputError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_clips(tmp_path / "clips", ["a", "b", "c"])


@pytest.fixture
def run(tmp_path: Path, dataset: Dataset) -> RunFolder:
    """A run whose best trial takes two of its 18 validation clips for another class."""
    run = make_run(tmp_path / "run", trials=6, labels=dataset.labels, data=data_record(dataset))
    add_scores(run, dataset, range(18), wrong=2)
    return run


def test_the_list_names_the_clips_and_a_search_leaves_them_out(run: RunFolder, dataset: Dataset) -> None:
    done = CliRunner().invoke(app, ["data", "suspects", str(run.path)])
    assert done.exit_code == 0, done.output
    with (run.path / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert {row["path"] for row in rows} <= {"a/clip 0.wav", "a/clip 1.wav"}
    assert {(row["label"], row["suggested"], row["models"]) for row in rows} == {("a", "b", "1")}
    assert f"--without {run.path}/suspects.csv" in done.stdout
    path, count = leave_out(dataset, run.path / "suspects.csv")
    kept = load_dataset(path)
    assert count == len(rows)
    gone = {row["path"] for row in rows}
    assert {clip.path for clip in kept.clips} == {clip.path for clip in dataset.clips if clip.name not in gone}
    assert kept.labels == dataset.labels


def test_groups_splits_and_folds_stay_with_the_clips_that_are_kept(tmp_path: Path, dataset: Dataset) -> None:
    rows = [f"{clip.path},{dataset.labels[clip.label]},g{n},{n % 3}" for n, clip in enumerate(dataset.clips)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,group,fold", *rows]))
    listed = load_dataset(str(tmp_path / "list.csv"))
    (tmp_path / "gone.csv").write_text(f"path\n{listed.clips[4].name}\n")
    kept = load_dataset(leave_out(listed, tmp_path / "gone.csv")[0])
    assert [(clip.path, clip.group, clip.fold) for clip in kept.clips] == [
        (clip.path, clip.group, clip.fold) for index, clip in enumerate(listed.clips) if index != 4
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must be a CSV in UTF-8"),
        ("name\na/clip 0.wav\n", "must have a column path, got name"),
        ("path\na/clip 0.wav\na/other.wav\n", "got 1 that it does not hold, such as 'a/other.wav'"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, dataset: Dataset, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "gone.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        leave_out(dataset, tmp_path / "gone.csv")


def test_an_empty_list_leaves_nothing_out(tmp_path: Path, dataset: Dataset) -> None:
    (tmp_path / "gone.csv").write_text("path,label\n")
    assert leave_out(dataset, tmp_path / "gone.csv")[1] == 0


def test_a_run_that_has_judged_nothing_says_what_would(tmp_path: Path, dataset: Dataset) -> None:
    run = make_run(tmp_path / "other", trials=3, data=data_record(dataset))
    with pytest.raises(InputError, match="retrain --protocol folds"):
        suspects_of(run)


@pytest.mark.slow
def test_the_report_lets_one_hear_the_clips_whose_label_is_in_doubt(run: RunFolder) -> None:
    html = write_report([run]).read_text(encoding="utf-8")
    section = html.split('<section id="labels">')[1].split("</section>")[0]
    _, found = suspects_of(run)
    assert section.count("<audio") == len(found) > 0
    assert "labelled <b>a</b>, seems <b>b</b>" in section
