from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from search.commands import search as searching
from search.commands import session
from search.commands.search import LEFT_AT_THE_END, Searching, resume
from search.mirror import mode as mirror_mode
from search.runs import folder as run_folder
from search.runs.run import Run, load_run
from search.space.sections import Resources
from search.space.space import Space
from search.tune.cluster import Machines
from tests.support.retrained import make_run
from trainable.errors import InputError
from trainable.progress import Progress


@pytest.fixture
def run(tmp_path: Path, make_clips: Callable[..., Path]) -> Run:
    """A search of three trials that has come to its end."""
    run = make_run(tmp_path / "run", make_clips())
    space = {**run.record["space"], "search": {**run.record["space"]["search"], "lr": {"loguniform": [1e-5, 1e-2]}}}
    change_record(run.path, space=space)
    run.journal.session(trials=3)
    run.journal.stopped("budget")
    for name in LEFT_AT_THE_END:
        (run.path / name).touch()
    return load_run(run.path)


@pytest.fixture
def sat(monkeypatch: pytest.MonkeyPatch) -> list[Searching]:
    """What would have been run; nothing is."""
    sittings: list[Searching] = []

    @contextmanager
    def connected(address: str | None) -> Iterator[Machines]:
        yield Machines(1, 2.0, 0.0)

    monkeypatch.setattr(searching, "connected", connected)
    monkeypatch.setattr(searching, "_search", lambda sitting: sittings.append(sitting) or 0)
    return sittings


def change_record(path: Path, **values: object) -> None:
    record = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**record, **values}))


def go_on(path: Path, trials: int | None = None) -> int:
    return resume(path, trials, swanlab=None, address=None)


def test_a_finished_search_has_nothing_to_resume_and_says_how_to_extend_it(run: Run, sat: list[Searching]) -> None:
    with pytest.raises(InputError, match=r"got all 3 trials finished. To extend it: python run_search.py resume"):
        go_on(run.path)
    assert sat == []


def test_a_search_whose_space_is_used_up_cannot_be_extended(run: Run, sat: list[Searching]) -> None:
    record = json.loads((run.path / "run.json").read_text())
    del record["space"]["search"]["lr"]
    change_record(run.path, space=record["space"])
    with pytest.raises(InputError, match="3 trials finished, and every configuration of the space has been tried"):
        go_on(run.path, trials=20)
    assert sat == []


@pytest.mark.parametrize("missing", ["", *LEFT_AT_THE_END])
def test_a_search_killed_after_its_last_trial_gets_its_files_when_it_is_resumed(
    run: Run, sat: list[Searching], missing: str
) -> None:
    if missing:
        (run.path / missing).unlink()
    else:  # before it said why it ended
        lines = (run.path / "events.jsonl").read_text().splitlines(keepends=True)
        (run.path / "events.jsonl").write_text("".join(lines[:-1]))
    go_on(run.path)
    assert len(sat) == 1


def test_a_search_that_is_over_while_it_prepares_its_data_starts_no_trial(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips: list[int] = []

    def prepare(space: Space, trials: int, progress: Progress) -> None:
        for done in range(100):
            progress("Making mels", done, 100)
            clips.append(done)

    monkeypatch.setattr(searching, "_prepare_caches", prepare)
    monkeypatch.setattr(session, "run_trials", lambda *_: pytest.fail("no trial may start"))
    space = Space.from_json(run.record["space"])
    space = replace(space, resources=Resources(cpu=1, gpu=0))
    mode = mirror_mode.resolve_mode("off", run.path, "p")
    monkeypatch.setattr(searching, "close_run", lambda *_: None)
    searching._search(Searching(load_run(run.path), space, Machines(1, 2.0, 0.0), mode, time_left=0))
    assert clips == []
    assert load_run(run.path).journal.stop_reason == "time budget"


def test_an_extension_that_was_interrupted_goes_on_as_one(run: Run, sat: list[Searching]) -> None:
    go_on(run.path, trials=20)
    run.journal.session(trials=20)
    run.journal.stopped("interrupted")
    go_on(run.path)
    assert [sitting.space.budget.trials for sitting in sat] == [20, 20]


def test_nothing_is_begun_while_another_driver_still_has_the_run(run: Run, sat: list[Searching]) -> None:
    with FileLock(run.path / ".lock"), pytest.raises(InputError, match="must have one driver at a time, got another"):
        go_on(run.path, trials=4)
    assert sat == []


def test_what_a_stopping_driver_writes_last_is_read_because_the_run_is_read_once_it_is_held(
    run: Run, sat: list[Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def held_once_the_other_has_let_go(path: Path) -> Iterator[None]:
        run.journal.suggested("search", "", {}, run.trials[0].config)
        run.journal.stopped("interrupted")
        yield

    monkeypatch.setattr(run_folder, "only_driver", held_once_the_other_has_let_go)
    go_on(run.path)
    assert [trial.number for trial in sat[0].run.journal.unfinished] == [3]


def test_a_search_is_resumed_where_the_cloud_that_auto_had_found_is_away(
    run: Run, sat: list[Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    change_record(run.path, mirror={"requested": "auto", "mode": "cloud", "project": "p"})
    monkeypatch.setattr(mirror_mode, "check_login", lambda timeout: {"ok": False, "key": False, "problem": "away"})
    go_on(run.path, trials=4)
    assert sat[0].mode.mode == "local"
    assert "it is mirrored locally" in sat[0].mode.warning


def test_a_folder_without_a_run_is_left_as_it_is(tmp_path: Path, sat: list[Searching]) -> None:
    with pytest.raises(InputError, match=r"must be a run folder with run.json, got none"):
        go_on(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_total_below_what_there_is_is_refused(run: Run, sat: list[Searching]) -> None:
    with pytest.raises(InputError, match=r"--trials: is the new total and must be at least what there is \(3\), got 2"):
        go_on(run.path, trials=2)


def test_a_warm_start_that_a_kill_has_cut_short_is_made_good_before_the_first_trial(
    run: Run, tmp_path: Path, sat: list[Searching]
) -> None:
    cut_short = make_run(tmp_path / "new", Path(run.record["data"]["path"]))
    (cut_short.path / "events.jsonl").write_text("")
    change_record(cut_short.path, warm_start=[str(run.path)])
    go_on(cut_short.path)
    assert [warm.path for warm in sat[0].warm_start] == [run.path]

    journal = load_run(cut_short.path).journal
    journal.warmed(str(run.path), [])
    go_on(cut_short.path)
    assert sat[1].warm_start == ()


def test_a_search_is_not_resumed_on_other_clips(run: Run, sat: list[Searching]) -> None:
    next(Path(run.record["data"]["path"]).rglob("*.wav")).unlink()
    with pytest.raises(InputError, match=r"must be the data that the search ran on \(hash \w+\), got \w+: the"):
        go_on(run.path, trials=4)
    assert sat == []


def test_the_devices_that_baselines_name_are_checked_as_well(
    run: Run, sat: list[Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def connected(address: str | None) -> Iterator[Machines]:
        yield Machines(1, 2.0, 4.0)

    monkeypatch.setattr(searching, "connected", connected)
    space = run.record["space"]
    baseline = {**space["baselines"][0], "values": {**space["baselines"][0]["values"], "device": "cuda:1"}}
    change_record(run.path, space={**space, "baselines": [baseline]})
    with pytest.raises(InputError, match=r"run.yaml: baselines.simple.device: must be cuda or cuda:0, because each"):
        go_on(run.path, trials=4)
    change_record(run.path, space={**space, "baselines": [baseline], "resources": {"gpu": 0.0, "cpu": 1.0}})
    with pytest.raises(InputError, match=r"baselines.simple.device: must be a device that trials get, got 'cuda:1' an"):
        go_on(run.path, trials=4)
    assert sat == []


def test_all_nodes_are_asked_for_the_data_when_a_search_is_resumed(
    run: Run, sat: list[Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[Path], list[str]]] = []
    monkeypatch.setattr(session, "check_nodes", lambda *wanted: asked.append(wanted))
    change_record(run.path, weights={"resnet18": "imagenet", "densenet121": "none"})
    go_on(run.path, trials=4)
    assert asked == []  # there is one machine, this one

    @contextmanager
    def joined(address: str | None) -> Iterator[Machines]:
        yield Machines(2, 4.0, 0.0, address, each=((2.0, 0.0), (2.0, 0.0)))

    monkeypatch.setattr(searching, "connected", joined)
    resume(run.path, 4, swanlab=None, address="auto")
    assert asked == [([run.path, Path(run.record["data"]["path"])], ["resnet18"])]


@pytest.mark.parametrize(
    ("spent", "reason", "left"), [(40, "interrupted", 60), (40, "time budget", 100), (120, None, 100)]
)
def test_the_time_that_is_left_is_what_was_not_used_up(
    run: Run, sat: list[Searching], monkeypatch: pytest.MonkeyPatch, spent: int, reason: str | None, left: int
) -> None:
    space = run.record["space"]
    change_record(run.path, space={**space, "budget": {**space["budget"], "time": 100.0}})
    (run.path / "events.jsonl").write_text("")
    clock = iter([1000.0, 1000.0 + spent, 1000.0 + spent])
    monkeypatch.setattr("search.runs.journal.time.time", lambda: next(clock))
    journal = load_run(run.path).journal
    journal.session(trials=3)
    journal.suggested("search", "", {}, run.trials[0].config)
    if reason:
        journal.stopped(reason)
    go_on(run.path)
    assert sat[0].time_left == pytest.approx(left)
