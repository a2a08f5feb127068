"""What is known of SwanLab's local store, so that a version that differs is noticed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from importlib.metadata import version
from pathlib import Path

import pytest

from search.mirror.mirror import replay
from search.mirror.mode import ResolvedMode
from search.mirror.stores import Local
from search.runs.run import RunFolder
from tests.support.mirrored import curve, make_run, shown, suggest, train

pytestmark = [pytest.mark.process, pytest.mark.slow]

LOCAL = ResolvedMode("local", "")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of three mirrored trials; tests change copies of it."""
    run = make_run(tmp_path_factory.mktemp("mirror") / "run")
    for number, status in enumerate(["finished", "cut", "failed"]):
        suggest(run)
        train(run, number, upto=3)
        run.journal.ended(number, status)  # type: ignore[arg-type]
    assert replay(run.path, LOCAL).problem == ""
    return run


@pytest.fixture
def log_dir(original: RunFolder, tmp_path: Path) -> Path:
    shutil.copytree(original.path / "swanlog", tmp_path / "swanlog")
    return tmp_path / "swanlog"


def test_the_versions_are_those_that_this_was_written_for() -> None:
    assert version("swanlab").startswith("0.10.")
    assert version("swanboard").startswith("0.1.10")


def test_a_removed_run_leaves_no_trace_and_the_others_as_they_were(original: RunFolder, log_dir: Path) -> None:
    database = sqlite3.connect(log_dir / "runs.swanlab")
    ids = [ident for (ident,) in database.execute("SELECT id FROM experiment ORDER BY name")]
    Local(log_dir).remove("trial_0001")
    assert not (log_dir / "trial_0001").exists()
    found = shown(log_dir)
    assert [experiment["key"] for experiment in found.values()] == ["trial_0000", "trial_0002"]
    assert [experiment["curves"]["val/acc"] for experiment in found.values()] == [curve(original, n) for n in (0, 2)]
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    for table in ("tag", "namespace", "chart"):
        assert database.execute(f"SELECT COUNT(*) FROM {table} WHERE experiment_id = {ids[1]}").fetchone() == (0,)


def test_the_last_removed_run_takes_its_charts_along_and_removing_is_repeatable(log_dir: Path) -> None:
    for key in ("trial_0000", "trial_0001", "trial_0002", "trial_0002"):
        Local(log_dir).remove(key)
    database = sqlite3.connect(log_dir / "runs.swanlab")
    assert database.execute("SELECT COUNT(*) FROM chart").fetchone() == (0,)
    assert shown(log_dir) == {}


def test_a_replay_makes_experiments_in_the_order_of_their_numbers(log_dir: Path) -> None:
    database = sqlite3.connect(log_dir / "runs.swanlab")
    keys = [key for (key,) in database.execute("SELECT run_id FROM experiment ORDER BY sort")]
    assert keys == ["trial_0000", "trial_0001", "trial_0002"]


def test_making_an_experiment_does_not_read_all_others(log_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from swanboard.db import connect, models
    from swanlab.deprecated import local

    monkeypatch.setattr(local, "LocalCallbacker", local.LocalCallbacker)
    monkeypatch.setattr(models.Tag, "field_exists", models.Tag.field_exists)
    Local(log_dir).load()
    monkeypatch.setattr(models.Tag, "select", lambda *fields: pytest.fail("read the whole table"))
    connect(path=str(log_dir), autocreate=True)
    assert models.Tag.field_exists("folder")
    assert not models.Tag.field_exists("no such field")


def test_what_is_missing_is_named(log_dir: Path) -> None:
    assert Local(log_dir).missing("trial_0000", 3) is None
    assert Local(log_dir).missing("trial_0000", 5) == "SwanLab kept 3 of 5 epochs"
    assert Local(log_dir).missing("trial_0009", 3) == "the experiment is not in SwanLab's database"
    database = sqlite3.connect(log_dir / "runs.swanlab")
    database.execute("UPDATE experiment SET status = 0 WHERE run_id = 'trial_0001'")
    database.commit()
    assert Local(log_dir).missing("trial_0001", 3) == "the experiment still counts as running"


def test_the_table_of_the_local_page_shows_each_metric_under_its_own_name(
    log_dir: Path, original: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWANLAB_LOG_DIR", str(log_dir))
    from swanboard.controller.project import get_project_summary
    from swanboard.db import connect

    connect(path=str(log_dir), autocreate=True)
    monkeypatch.setattr("swanboard.settings.SWANLOG_DIR", str(log_dir))
    answer = json.loads(get_project_summary(1).body)
    last = original.epochs(original.trials[0])[-1]
    row = answer["data"]["summaries"]["000 resnet18 224px lr 1.3e-4"]
    assert row["val/acc"] == pytest.approx(last.val_acc, abs=1e-6)
    assert row["train/loss"] == pytest.approx(last.train_loss, abs=1e-6)
