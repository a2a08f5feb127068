from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from run_search import app
from search.commands import search as searching
from search.commands import session
from search.commands.search import LEFT_AT_THE_END, ResumeOptions, Searching, resume
from search.mirror import mode as mirror_mode
from search.mirror.worker import DONE_FILE
from search.runs import folder as run_folder
from search.runs.folder import find_run
from search.runs.gain import Prospect
from search.runs.journal import Journal
from search.runs.run import RunFolder, load_run
from search.space.sections import Resources
from search.space.space import Space
from search.tune.cluster import Machines
from search.tune.fit import Clips, Limit, Pace
from search.tune.prepare import hash_of
from search.tune.searcher import StudySearch
from tests.support.retrained import make_run
from tests.support.synthetic import at
from trainable.config import TrialConfig
from trainable.errors import InputError
from trainable.progress import Progress


@pytest.fixture
def run(tmp_path: Path, make_clips: Callable[..., Path]) -> RunFolder:
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


def go_on(path: Path, trials: int | None = None, **options: Any) -> int:
    return resume(path, ResumeOptions(trials, **options))


def test_a_finished_search_has_nothing_to_resume_and_says_how_to_extend_it(
    run: RunFolder, sat: list[Searching]
) -> None:
    with pytest.raises(InputError, match=r"got all 3 trials finished. To extend it: python run_search.py resume"):
        go_on(run.path)
    assert sat == []


def fail(run: RunFolder, number: int, refused: bool = False) -> None:
    """A run whose search has come to its end with a failed trial."""
    lines = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "ended" and line["trial"] == number:
            line |= {"status": "failed", "message": "no such file", "refused": refused}
    (run.path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_failed_trials_are_tried_again_where_that_is_asked_for(run: RunFolder, sat: list[Searching]) -> None:
    fail(run, 1)
    with pytest.raises(InputError, match=r"got all 3 trials finished or failed \(1\)\. To extend it: .* --trials 6\n"):
        go_on(run.path)
    with pytest.raises(InputError, match=r"To try again what failed: python run_search.py resume .* --retry-failed$"):
        go_on(run.path)
    go_on(run.path, retry_failed=True)
    assert [sitting.retry for sitting in sat] == [(1,)]


def test_values_that_do_not_go_together_are_not_tried_again(run: RunFolder, sat: list[Searching]) -> None:
    fail(run, 1, refused=True)
    with pytest.raises(InputError, match=r"got all 3 trials finished\. To extend it: .* --trials 6$"):
        go_on(run.path, retry_failed=True)


@pytest.mark.slow
def test_a_failed_trial_that_is_tried_again_runs_for_the_console_the_mirror_and_the_searcher(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(run, 1)
    mirrored = run.path / "swanlog" / "offline" / "trial_0001" / DONE_FILE
    mirrored.parent.mkdir(parents=True)
    mirrored.touch()
    seen = []

    def run_trials(folder: Path, journal: Journal, make_searcher: Callable[[], StudySearch], *_: object) -> None:
        seen.append((make_searcher().suggest("x"), mirrored.exists()))
        journal.ended(1, "finished")

    monkeypatch.setattr(searching, "_prepare_caches", lambda *_: None)
    monkeypatch.setattr(searching, "close_run", lambda *_: None)
    monkeypatch.setattr(session, "run_trials", run_trials)
    space = replace(Space.from_json(run.record["space"]), resources=Resources(cpu=1, gpu=0))
    mode = mirror_mode.resolve_mode("offline", run.path, "p")
    code = searching._search(Searching(load_run(run.path), space, Machines(1, 2.0, 0.0), mode, retry=(1,)))
    assert code == 0
    assert [(config["number"], there) for config, there in seen] == [(1, False)]
    after = load_run(run.path).journal
    assert [trial.status for trial in after.trials.values()].count("failed") == 0
    assert "[3 of 3, all done]" in capsys.readouterr().out


def test_no_more_trials_run_at_once_than_is_asked_for(run: RunFolder, sat: list[Searching]) -> None:
    go_on(run.path, trials=5)
    go_on(run.path, trials=5, at_once=1)
    go_on(run.path, trials=5, at_once=9)
    assert [sitting.session.at_once for sitting in sat] == [2, 1, 2]


def test_the_advice_to_extend_a_search_says_what_that_promises(run: RunFolder, sat: list[Searching]) -> None:
    for number in range(20):
        trial = run.journal.suggested("search", "", {"lr": 1e-3}, run.trials[-1].config)
        for epoch in (1, 2):
            run.journal.reported(trial.number, epoch, 0.5 + 0.01 * number, 1.0, "continue")
        run.journal.ended(trial.number, "finished")
    run.journal.session(trials=23)
    run.journal.stopped("budget")
    promised = Prospect(1, run.trials).gain()
    assert promised is not None
    with pytest.raises(InputError, match=rf"--trials 46 \({re.escape(str(promised))}\)"):
        go_on(run.path, trials=23)
    assert sat == []


def test_a_search_whose_space_is_used_up_cannot_be_extended(run: RunFolder, sat: list[Searching]) -> None:
    record = json.loads((run.path / "run.json").read_text())
    del record["space"]["search"]["lr"]
    change_record(run.path, space=record["space"])
    with pytest.raises(InputError, match="3 trials finished, and every configuration of the space has been tried"):
        go_on(run.path, trials=20)
    assert sat == []


@pytest.mark.parametrize("missing", ["", *LEFT_AT_THE_END])
def test_a_search_killed_after_its_last_trial_gets_its_files_when_it_is_resumed(
    run: RunFolder, sat: list[Searching], missing: str
) -> None:
    if missing:
        (run.path / missing).unlink()
    else:  # before it said why it ended
        lines = (run.path / "events.jsonl").read_text().splitlines(keepends=True)
        (run.path / "events.jsonl").write_text("".join(lines[:-1]))
    go_on(run.path)
    assert len(sat) == 1


@pytest.mark.slow
def test_a_search_that_is_over_while_it_prepares_its_data_starts_no_trial(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
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


def test_an_extension_that_was_interrupted_goes_on_as_one(run: RunFolder, sat: list[Searching]) -> None:
    go_on(run.path, trials=20)
    run.journal.session(trials=20)
    run.journal.stopped("interrupted")
    go_on(run.path)
    assert [sitting.space.budget.trials for sitting in sat] == [20, 20]


def test_nothing_is_begun_while_another_driver_still_has_the_run(run: RunFolder, sat: list[Searching]) -> None:
    with FileLock(run.path / ".lock"), pytest.raises(InputError, match="must have one driver at a time, got another"):
        go_on(run.path, trials=4)
    assert sat == []


def test_what_a_stopping_driver_writes_last_is_read_because_the_run_is_read_once_it_is_held(
    run: RunFolder, sat: list[Searching], monkeypatch: pytest.MonkeyPatch
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
    run: RunFolder, sat: list[Searching], monkeypatch: pytest.MonkeyPatch
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


def test_a_total_below_what_there_is_is_refused(run: RunFolder, sat: list[Searching]) -> None:
    with pytest.raises(InputError, match=r"--trials: is the new total and must be at least what there is \(3\), got 2"):
        go_on(run.path, trials=2)


@pytest.mark.parametrize("key", ["warm_start", "learn_from"])
def test_what_a_kill_has_kept_from_learning_from_others_is_made_good_before_the_first_trial(
    run: RunFolder, tmp_path: Path, sat: list[Searching], key: str
) -> None:
    cut_short = make_run(tmp_path / "new", Path(run.record["data"]["path"]))
    (cut_short.path / "events.jsonl").write_text("")
    change_record(cut_short.path, **{key: [str(run.path)]})
    go_on(cut_short.path)
    assert [earlier.path for earlier in getattr(sat[0], key)] == [run.path]

    journal = load_run(cut_short.path).journal
    (journal.warmed if key == "warm_start" else journal.learned)(str(run.path), [])
    go_on(cut_short.path)
    assert getattr(sat[1], key) == ()


def test_a_search_is_not_resumed_on_other_clips(run: RunFolder, sat: list[Searching]) -> None:
    next(Path(run.record["data"]["path"]).rglob("*.wav")).unlink()
    with pytest.raises(InputError, match=r"must be the data that the search ran on \(hash \w+\), got \w+: the"):
        go_on(run.path, trials=4)
    assert sat == []


def test_the_devices_that_baselines_name_are_checked_as_well(
    run: RunFolder, sat: list[Searching], monkeypatch: pytest.MonkeyPatch
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
    run: RunFolder, sat: list[Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[Path], dict[str, str]]] = []
    monkeypatch.setattr(session, "check_nodes", lambda *wanted: asked.append(wanted))
    weights = {"resnet18": "imagenet", "densenet121": "none"}
    change_record(run.path, weights=weights)
    go_on(run.path, trials=4)
    assert asked == []  # there is one machine, this one

    @contextmanager
    def joined(address: str | None) -> Iterator[Machines]:
        yield Machines(2, 4.0, 0.0, address, each=((2.0, 0.0), (2.0, 0.0)))

    monkeypatch.setattr(searching, "connected", joined)
    go_on(run.path, 4, address="auto")
    assert asked == [([run.path, Path(run.record["data"]["path"])], weights)]


@pytest.mark.parametrize(
    ("spent", "reason", "left"),
    [(40, "interrupted", 60), (40, "time budget", 100), (120, None, 0), (120, "interrupted", 0)],
)
def test_the_time_that_is_left_is_what_was_not_used_up(
    run: RunFolder, sat: list[Searching], monkeypatch: pytest.MonkeyPatch, spent: int, reason: str | None, left: int
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


def test_a_time_budget_that_is_given_anew_begins_now_and_is_what_a_kill_leaves_a_rest_of(
    run: RunFolder, sat: list[Searching]
) -> None:
    go_on(run.path, trials=20, time_budget="50")
    assert sat[0].time_left == sat[0].new_time_budget == 50
    with at([1000.0]):
        run.journal.session(trials=20, time_budget=50.0)
    with at([1020.0]):
        run.journal.suggested("search", "", {}, run.trials[0].config)
    go_on(run.path, trials=20)
    assert (sat[1].time_left, sat[1].new_time_budget) == (pytest.approx(30), None)


def test_what_each_trial_gets_can_be_changed_when_a_search_goes_on(run: RunFolder, sat: list[Searching]) -> None:
    go_on(run.path, trials=4, cpus_per_trial=2.0)
    assert (sat[0].space.resources.cpu, sat[0].space.epochs) == (2.0, None)
    with pytest.raises(InputError, match="--cpus-per-trial: must be above 0, got -1"):
        go_on(run.path, trials=4, cpus_per_trial=-1.0)
    with pytest.raises(
        InputError, match="--time-budget: must be a duration above 0 such as 45s, 30m or 1h30m, got 'x'"
    ):
        go_on(run.path, trials=4, time_budget="x")


def test_data_that_has_moved_is_named_and_everything_finds_it_from_then_on(
    run: RunFolder, sat: list[Searching]
) -> None:
    old = Path(run.record["data"]["path"])
    nested = Journal(run.path / "retrained" / "events.jsonl")
    nested.path.parent.mkdir()
    nested.suggested("retrain", "simple, seed 1", {}, run.trials[0].config)
    new = old.rename(old.with_name("moved"))
    with pytest.raises(InputError):
        go_on(run.path, trials=4)
    go_on(run.path, trials=4, data=str(new))
    assert sat[0].space.fixed["data"] == str(new)
    assert all(baseline.values["data"] == str(new) for baseline in sat[0].space.baselines)
    again = load_run(run.path)
    assert again.record["data"]["path"] == again.record["space"]["fixed"]["data"] == str(new)
    for journal in (again.journal, Journal(nested.path)):
        assert {trial.config["data"] for trial in journal.trials.values()} == {str(new)}
    go_on(run.path, trials=4)  # it needs to be said only once
    assert len(sat) == 2


def test_other_data_is_not_taken_for_the_moved_one(
    run: RunFolder, sat: list[Searching], make_clips: Callable[..., Path]
) -> None:
    before = (run.path / "run.json").read_bytes()
    other = make_clips(classes=2, clips=3, name="other")
    with pytest.raises(InputError, match=r"must be the data that the search ran on .*Name the moved data set itself"):
        go_on(run.path, trials=4, data=str(other))
    assert (run.path / "run.json").read_bytes() == before
    assert sat == []


def test_clips_that_are_split_otherwise_than_they_were_are_refused(run: RunFolder, sat: list[Searching]) -> None:
    split = run.record["split"]
    change_record(run.path, split={**split, "hash": "other"}, git_commit="0123abc", versions={"numpy": "1.0"})
    with pytest.raises(InputError, match=r"must be split as when the search ran \(split hash other\), got \w+: clips .*"
                       r"go on with that of the search \(commit 0123abc, numpy 1.0\)"):  # fmt: skip
        go_on(run.path, trials=4)
    assert sat == []


def test_a_space_file_that_was_edited_since_is_noticed(run: RunFolder, sat: list[Searching]) -> None:
    source = Path(run.record["space"]["source"])
    change_record(run.path, space_hash=hash_of(source))
    go_on(run.path, trials=4)
    source.write_text(source.read_text() + "# a thought\n")
    go_on(run.path, trials=4)
    source.unlink()
    go_on(run.path, trials=4)
    assert [any("has been edited since" in note for note in sitting.notes) for sitting in sat] == [False, True, False]


def test_what_a_time_budget_refuses_stands_in_the_run_and_is_refused_after_a_resume_too(run: RunFolder) -> None:
    space = Space.from_json(run.record["space"])
    assert searching._refused(run, space) is None  # an older run, or one that has time for everything
    limit = Limit(10.0, 4.0, Clips(100, 20, 120, 5.0, 22_050), {"resnet18": Pace(0.01, 0.001)})
    change_record(run.path, time_limit=asdict(limit))
    refused = searching._refused(load_run(run.path), space)
    assert refused is not None
    cheap = TrialConfig.parse({"image_size": 64})
    assert not refused(cheap)
    assert refused(cheap.model_copy(update={"image_size": 512}))
    assert not refused(cheap.model_copy(update={"image_size": 512, "method": "probe"}))  # once, and forwards only


def test_what_killed_drivers_and_workers_had_half_written_goes_when_the_run_goes_on(
    run: RunFolder, sat: list[Searching]
) -> None:
    left = [run.path / name for name in (".report.html.tmp123", ".study.db.tmp9", "trial_0001/.last.pt.tmp77")]
    kept = [run.path / ".hidden", run.path / "trial_0001" / "last.pt"]
    for file in (*left, *kept):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"half")
    go_on(run.path, trials=4)
    assert [file.name for file in left if file.exists()] == []
    assert all(file.exists() for file in kept)


def test_a_run_is_found_by_its_name_in_the_folder_of_runs(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.path.parents[1])
    storage = Path(run.path.parent.name)
    assert find_run(Path("run"), storage) == storage / "run"
    assert find_run(storage / "run", storage) == storage / "run"  # a path stays one
    assert find_run(run.path, storage) == run.path
    (run.path.parents[1] / "run").mkdir(exist_ok=True)  # a folder of that name that is no run hides nothing
    assert find_run(Path("run"), storage) == storage / "run"
    (run.path.parents[1] / "run").rmdir()
    with pytest.raises(InputError, match=r"other: must be a run folder with run.json, got none. Runs beside it: run\."):
        load_run(find_run(Path("other"), storage))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["report", "run"], ["compare", "run"], ["mirror", "run", "--swanlab", "off"], ["resume", "run"],
        ["retrain", "run", "--top", "0"], ["push", "run", "hf:me/it"], ["data", "suspects", "run"],
    ],
)  # fmt: skip
def test_every_command_takes_a_run_by_its_name(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(run.path.parent.parent)
    done = CliRunner().invoke(app, [*words, "--storage", run.path.parent.name])
    assert "Traceback" not in done.output
    assert "must be a run folder" not in done.output
    assert done.exit_code in (0, 2)
