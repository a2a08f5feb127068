from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search.mirror.experiment import Experiment, trial_experiment
from search.mirror.mirror import replay
from search.mirror.mode import ResolvedMode
from search.mirror.stores import Offline
from search.mirror.worker import finite, init_arguments, metrics
from search.runs.run import RunFolder
from tests.support.mirrored import (
    METRICS,
    console,
    epoch_result,
    folder,
    make_run,
    picture,
    shown,
    suggest,
    train,
    until,
)

pytestmark = [pytest.mark.process, pytest.mark.slow]

OFFLINE = ResolvedMode("offline", "")
LOCAL = ResolvedMode("local", "")


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    run = make_run(tmp_path / "run", trials=1)
    return trial_experiment(run, run.trials[0])


@pytest.mark.parametrize("mode", ["local", "offline", "cloud"])
def test_swanlab_knows_every_argument_that_it_is_given(mode: str, experiment: Experiment, tmp_path: Path) -> None:
    import swanlab  # it ignores unknown arguments and settings silently

    arguments = init_arguments(experiment, mode, "music", tmp_path)
    known = inspect.signature(swanlab.init).parameters
    assert [name for name in arguments if name not in known or known[name].kind is not known[name].KEYWORD_ONLY] == []
    assert ("id" in arguments) == (mode == "cloud")
    settings = swanlab.Settings
    asked = {settings: {"interactive", "probe", "terminal", "run"},
             settings.Probe: {"hardware", "runtime", "requirements", "conda", "git", "swanlab", "monitor"},
             settings.Terminal: {"proxy_type"}, settings.Run: {"dir"}}  # fmt: skip
    for section, fields in asked.items():
        assert fields <= set(section.model_fields)


def test_the_tutorials_names_are_used_and_what_no_chart_can_draw_is_left_out() -> None:
    assert list(metrics(epoch_result(0, 1), with_validation=True)) == METRICS
    assert list(metrics(epoch_result(0, 1), with_validation=False)) == METRICS[2:]
    assert finite({"val/loss": float("nan"), "train/loss": float("inf"), "val/acc": 0.5}) == {"val/acc": 0.5}


ORPHAN = """
import os, subprocess, sys
code = (
    "from search.mirror import worker as w; w.ORPHAN_S = 0.5; w.Link.receive = lambda *a: w.time.sleep(600); "
    f"w.main({os.getpid()})"
)
print(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL).pid)
"""


def test_a_worker_that_hangs_does_not_outlive_its_driver_for_long() -> None:
    root = Path(__file__).parents[3]
    driver = subprocess.run([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True, cwd=root, check=True)
    status = Path(f"/proc/{int(driver.stdout)}/stat")
    until(lambda: not status.exists() or ") Z " in status.read_text())


LEAKS = """
import os, sys, threading
from pathlib import Path
import swanlab
from search.mirror.stores import Local
from search.mirror.experiment import Experiment
from search.mirror.worker import init_arguments
Local(Path(sys.argv[1])).load()
for number in range(3):
    experiment = Experiment(f"trial_{number:04d}", "", "", f"{number}", "d", "g", "search", [], "#000000", {"a": 1})
    run = swanlab.init(**init_arguments(experiment, "local", "music", Path(sys.argv[1])))
    run.log({"val/acc": 0.5}, step=1)
    run.finish()
paths = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
links = [os.readlink(path) for path in paths if os.path.lexists(path)]
print("left", threading.active_count(), [link for link in links if "inotify" in link])
"""


def test_runs_in_a_row_leave_no_thread_and_no_inotify_instance_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAKS, str(tmp_path / "swanlog")],
        capture_output=True, text=True, cwd=Path(__file__).parents[3], check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "left 1 []"


@pytest.fixture
def offline_run(tmp_path: Path) -> RunFolder:
    run = make_run(tmp_path / "run")
    suggest(run)
    train(run, 0, upto=3)
    run.journal.ended(0, "finished")
    return run


def test_an_offline_run_keeps_the_whole_curve_for_a_later_sync(offline_run: RunFolder) -> None:
    done = replay(offline_run.path, OFFLINE)
    assert (done.mirrored, done.failed, done.problem) == (1, 0, "")
    store = Offline(offline_run.path / "swanlog" / "offline")
    assert store.missing("trial_0000", 3) is None
    assert store.missing("trial_0000", 4) == "SwanLab kept 3 of 4 epochs"


def records(log_dir: Path) -> list[Any]:
    """What an offline run has kept for `swanlab sync`."""
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    (file,) = (log_dir / "trial_0000").glob("run-*.swanlab")
    reader = DataStoreReader()
    reader.open(file)
    return [Record.FromString(data) for data in reader]


def test_an_offline_run_keeps_pictures_and_console_for_a_later_sync(offline_run: RunFolder) -> None:
    picture(offline_run, 0, epoch=2)
    replay(offline_run.path, OFFLINE)
    log_dir = offline_run.path / "swanlog" / "offline"
    kept = records(log_dir)
    media = [record.media for record in kept if record.HasField("media")]
    assert [(each.key, each.step) for each in media] == [("mel", 1), ("confusion", 0)]
    for each in media:
        (item,) = each.value.items
        assert (log_dir / "trial_0000" / "media" / "image" / item.filename).read_bytes().startswith(b"\x89PNG")
    lines = [record.log.line for record in kept if record.HasField("log")]
    assert "finished" in lines
    assert sum(line.startswith("epoch ") for line in lines) == 3


def test_the_local_pages_show_pictures_the_console_and_each_trial_once_however_often_it_is_mirrored(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path / "run", trials=2)
    for number in (0, 1):
        picture(run, number, epoch=2 + number)
        train(run, number, upto=3)
    run.journal.ended(0, "finished")
    assert replay(run.path, LOCAL).mirrored == 2  # the other one as interrupted: its best epoch is not known yet
    found = shown(run.path / "swanlog")
    assert [list(each["curves"])[len(METRICS) :] for each in found.values()] == [["mel", "confusion"], ["mel"]]
    run.journal.ended(1, "cut")
    assert replay(run.path, LOCAL).mirrored == 1
    assert replay(run.path, LOCAL).mirrored == 0
    for each in shown(run.path / "swanlog").values():
        assert {name: list(each["curves"][name]) for name in ("mel", "confusion")} == {"mel": [1], "confusion": [0]}
        (file,) = each["curves"]["confusion"][0]
        kind = run.path / "swanlog" / each["key"] / "media" / "image" / file
        assert kind.read_bytes().startswith(b"\x89PNG")
        lines = console(run.path / "swanlog", each["key"])
        assert [line.split(":")[0] for line in lines if line.startswith("epoch")] == ["epoch 1", "epoch 2", "epoch 3"]


def test_damaged_pictures_cost_nothing_but_themselves_and_the_console_names_them(offline_run: RunFolder) -> None:
    folder(offline_run, 0).mel_file.write_bytes(b"no picture")
    folder(offline_run, 0).answers_file.write_text('{"epoch": 1, "labels": ["a"], "true": [7], "predicted": [0]}')
    done = replay(offline_run.path, OFFLINE)
    assert (done.mirrored, done.failed, done.problem) == (1, 0, "")
    kept = records(offline_run.path / "swanlog" / "offline")
    assert not [record for record in kept if record.HasField("media")]
    lines = [record.log.line for record in kept if record.HasField("log")]
    assert sum("mel.png cannot be shown" in line or "answers.json cannot be shown" in line for line in lines) == 2


CHART = """
import sys
from pathlib import Path
import swanlab
from search.mirror.experiment import Experiment
from search.mirror.worker import init_arguments
experiment = Experiment("trial_0000", "", "", "0", "d", "g", "search", [], "#000000", {"a": 1})
run = swanlab.init(**init_arguments(experiment, "local", "music", Path(sys.argv[1])))
run.log({"val/acc": 0.5}, step=1)
run.log({"confusion": swanlab.ECharts(swanlab.echarts.confusion_matrix([0, 1], [0, 1], ["a", "b"]))}, step=1)
run.finish()
"""


def test_the_local_pages_know_no_chart_of_swanlabs_own_so_the_confusion_matrix_is_a_picture(tmp_path: Path) -> None:
    log_dir = tmp_path / "swanlog"
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", CHART, str(log_dir)], capture_output=True, cwd=root, check=True)
    with contextlib.closing(sqlite3.connect(log_dir / "runs.swanlab")) as database:
        assert database.execute("SELECT name FROM tag").fetchall() == [("val/acc",)]


def test_an_offline_run_that_was_cut_short_is_noticed(offline_run: RunFolder) -> None:
    replay(offline_run.path, OFFLINE)
    log_dir = offline_run.path / "swanlog" / "offline"
    (records,) = (log_dir / "trial_0000").glob("run-*.swanlab")
    records.write_bytes(records.read_bytes()[:-40])
    assert Offline(log_dir).missing("trial_0000", 3) == "the experiment still counts as running"


def test_a_worker_outlives_the_signal_of_a_batch_system_and_leaves_when_its_orders_end(experiment: Experiment) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "search.mirror.worker", str(os.getpid())],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert json.loads(worker.stdout.readline()) == {"say": "alive"}
    worker.terminate()
    assert json.loads(worker.stdout.readline()) == {"say": "alive"}
    assert os.getpriority(os.PRIO_PROCESS, worker.pid) >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    worker.stdin.close()
    assert worker.wait(30) == 0
    assert worker.returncode != -signal.SIGTERM
    worker.stdout.close()
