from __future__ import annotations

import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import run_search as run_search_module
from run_search import answer, app, data_app
from search.commands import retrain as retraining
from search.commands import search as searching
from search.runs.run import load_run
from search.tune.cluster import Machines

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "torchvision", "torchaudio", "ray", "optuna", "swanlab", "pandas", "sklearn", "scipy", "plotly")
MakeClips = Callable[..., Path]

SPACE = """
fixed: {epochs: 2, weights: none, image_size: 32, n_fft: 256, hop_length: 128, n_mels: 32, batch_size: 8,
        scale: log, normalise: train, test_share: 0.2}
search:
  backbone: {choice: [squeezenet1_1, mobilenet_v3_small]}
  lr: {loguniform: [1.0e-4, 1.0e-2]}
baselines: [{name: base, backbone: squeezenet1_1, lr: 1.0e-3}]
budget: {trials: 3, grace_epochs: 1}
resources: {cpu: 1, at_once: 1}
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def words(space: Path, make_clips: MakeClips, tmp_path: Path) -> list[str]:
    """A search that is as it should be; what a test appends replaces what stands here."""
    return ["--space", str(space), "--data", str(make_clips()), "--storage", str(tmp_path / "runs"), "--swanlab", "off"]


@pytest.fixture
def two_cores_and_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that needs no Ray, for what is refused before the first trial."""

    @contextmanager
    def connected(address: str | None) -> Iterator[Machines]:
        yield Machines(1, 2.0, 0.0)

    for module in (searching, retraining):
        monkeypatch.setattr(module, "connected", connected)


def refused(words: list[str], *more: object, here: Path | None = None) -> str:
    """The message on standard error of a command that must end with 2, without a traceback, and leave nothing."""
    here = here or Path(words[1]).parent
    before = sorted(here.rglob("*"))
    result = CliRunner().invoke(app, [*words, *map(str, more)])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert sorted(here.rglob("*")) == before
    return result.stderr


def run_search(*words: object) -> str:
    """What a command prints that must end with 0, in a process of its own."""
    done = subprocess.run(
        [sys.executable, ROOT / "run_search.py", *map(str, words)],
        env={**os.environ, "COLUMNS": "120"}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def here(*words: object) -> str:
    """What a command prints that must end with 0 and needs no process of its own."""
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("later", [0.0, 4.0])  # s: while it gets ready, and about when Ray starts
def test_a_signal_before_the_first_trial_ends_with_130_and_leaves_nothing(
    words: list[str], tmp_path: Path, number: signal.Signals, later: float
) -> None:
    search = subprocess.Popen(
        [sys.executable, ROOT / "run_search.py", *words, "--trials", "40"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert search.stdout is not None
    assert search.stdout.readline()
    time.sleep(later)
    search.send_signal(number)
    out, err = search.communicate(timeout=100)
    assert search.returncode == 130, out + err
    assert "Traceback" not in err
    if "resume" in out:  # it was fast, and has begun: then it has said how to go on
        return
    assert "Interrupted" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_help_imports_nothing_heavy_and_every_command_shows_an_example() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nimport run_search, trainable.__main__\n"
        "for app, words in [(trainable.__main__.app, ['--help'])] + [\n"
        "        (run_search.app, [*line.split(), '--help']) for line in sys.argv[1:]]:\n"
        "    result = CliRunner().invoke(app, words)\n"
        "    assert result.exit_code == 0, result.output\n"
        "    assert 'Example:' in result.stdout or words == ['data', '--help'], words\n"
        "print(*sorted(set(sys.modules)))\n"
    )
    commands = ["", "resume", "retrain", "report", "compare", "predict", "export", "mirror", "schema", "data"]
    commands += ["data check", "data demo", "data get", "data gtzan", "data cache"]
    done = subprocess.run([sys.executable, "-c", code, *commands], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [name for name in HEAVY if name in done.stdout.split()] == []


@pytest.mark.slow
def test_no_help_loses_what_stands_in_square_brackets() -> None:
    for command in [*app.registered_commands, *data_app.registered_commands]:
        assert command.callback is not None
        words = ["data"] if command in data_app.registered_commands else []
        name = command.name or command.callback.__name__
        shown = CliRunner().invoke(app, [*words, name, "--help"], env={"COLUMNS": "200"}).stdout
        said = re.findall(r"\[[\w.,-]+\]", (command.callback.__doc__ or "").replace("\\[", "["))
        assert all(part in shown for part in said), (name, said)
    assert "pip install -e '.[onnx]'" in CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "200"}).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("started", "start"), [("/a/bin/audio-search", "audio-search"), ("run_search.py", "python run_search.py")]
)
def test_the_examples_of_all_helps_call_the_program_as_it_was_started(
    monkeypatch: pytest.MonkeyPatch, started: str, start: str
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # the environment is activated
    monkeypatch.setattr(sys, "argv", [started])
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    names = [
        [],
        *([name] for name in commands if name != "data"),
        *(["data", name] for name in commands["data"].commands),
    ]
    for words in names:
        said = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).stdout
        assert re.search(rf"Example:\s+{re.escape(' '.join([start, *words]))} ", said), (words, said)


@pytest.mark.slow
def test_the_first_line_comes_before_what_takes_seconds_to_import(tmp_path: Path) -> None:
    code = (
        "import io, sys, run_search\nclass Stream(io.StringIO):\n"
        "    encoding = 'utf-8'\n"
        "    def write(self, text): said.append((text, [name for name in sys.argv[1:] if name in sys.modules]))\n"
        "said = []\nreal, sys.stdout = sys.stdout, Stream()\n"
        "run_search.load(['search.commands.search'], sys.stdout)\n"
        "sys.stdout = real\nprint(said[0])\nprint('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *HEAVY], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["('Loading torch and what goes with it ...', [])", "True"]


@pytest.mark.slow
def test_bad_input_is_still_all_that_stands_on_standard_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "run_search.py", "retrain", "missing"], cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == "Loading torch and what goes with it ...\n"
    assert done.stderr.startswith("missing: must be a run folder")


@pytest.mark.parametrize("gone", [True, False])
def test_a_broken_pipe_is_told_where_it_is_not_that_of_the_reader(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gone: bool
) -> None:
    def work() -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(run_search_module, "reader_has_gone", lambda: gone)
    with pytest.raises(typer.Exit) as ended:
        answer(work)
    assert ended.value.exit_code == 1
    assert ("got 'Broken pipe'" in capsys.readouterr().err) is not gone


def test_a_missing_space_file_names_the_nearest(words: list[str], space: Path) -> None:
    near = space.with_name("spice.yaml")
    assert refused(words, "--space", near) == f"{near}: no such file. Did you mean {space}?\n"


def test_a_yaml_error_names_its_line(words: list[str], space: Path) -> None:
    space.write_text("fixed: {epochs: 2\nsearch: [\n")
    message = "line 2, column 7: not valid YAML: expected ',' or '}', but got ':'. Mend that line."
    assert refused(words) == f"{space}: {message}\n"


def test_all_mistakes_of_a_space_file_are_said_at_once(words: list[str], space: Path) -> None:
    space.write_text(
        "fixd: {epochs: 2}\n"
        "fixed: {epochs: two, imagesize: 32, backbone: resnet81, val_share: 1.5}\n"
        "search: {lr: {loguniform: [1.0, 0.1]}, dropout: {unifrm: [0, 1]}, nope: {choice: [1]}}\n"
        "budget: {trails: 3, trials: 0}\n"
        "resources: {gpu: -1}\n"
    )
    backbone = (
        "must be the name of a network (torchvision's, mn01 to mn40, timm:NAME) or a function of your own, "
        "file.py:make, got 'resnet81'. Did you mean resnet18?"
    )
    assert set(refused(words, "--trials", "3").splitlines()) == {
        f"{space}: {problem}"
        for problem in (
            "fixd: unknown key, got {'epochs': 2}. Did you mean fixed?",
            "budget.trails: unknown key, got 3. Did you mean trials?",
            "budget.trials: should be greater than or equal to 1, got 0. Change the value.",
            "resources.gpu: should be greater than or equal to 0, got -1. Change the value.",
            "fixed.epochs: should be a valid integer, got 'two'. Change the value.",
            "fixed.imagesize: unknown key, got 32. Did you mean image_size?",
            f"fixed.backbone: {backbone}",
            "fixed.val_share: should be less than 1, got 1.5. Change the value.",
            "search.lr.loguniform: lower must not pass upper, got [1.0, 0.1]. Widen it, or put the value under fixed.",
            "search.dropout.unifrm: unknown distribution, got [0, 1]. Did you mean uniform?",
            "search.nope: unknown key, got {'choice': [1]}. Did you mean noise?",
        )
    }


@pytest.mark.parametrize(
    ("words_for_it", "message"),
    [
        (["--trials", "0"], "Invalid value for '--trials'"),
        (["--time-budget", "soon"], "--time-budget: must be a duration above 0 such as 45s, 30m or 1h30m, got 'soon'."),
        (["--swanlab", "of"], "Invalid value for '--swanlab'"),
        (["--swanlab", "local", "--project", "a b"], "--project: may hold 1 to 100 of letters, digits and _ -"),
        (["--storage", "s3://bucket/runs"], "--storage: must be a folder that all nodes see, got 's3://bucket/runs'."),
        (["--name", ""], "--name: must be a folder's name of at most 100 letters, digits, '-', '_' and"),
        (["--name", "a/b"], "--name: must be a folder's name of at most 100 letters, digits, '-', '_' and"),
        (["--warm-start", "no/run"], "no/run: "),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_named(words: list[str], words_for_it: list[str], message: str) -> None:
    said = refused(words, *words_for_it)
    assert message in " ".join(said.replace("│", " ").split())


def test_flags_before_a_command_are_refused_and_not_lost(tmp_path: Path) -> None:
    said = refused(["--trials", "5", "--set", "epochs=2", "--dry-run", "compare", str(tmp_path / "run")], here=tmp_path)
    way_out = "Move it, or leave it out: python run_search.py compare --help shows what compare takes."
    assert said.splitlines() == [
        f"{flag}: belongs behind the command, got it before compare. {way_out}"
        for flag in ("--trials", "--set", "--dry-run")
    ]
    assert "got it before data." in refused(["--seed", "1", "data", "check", str(tmp_path)], here=tmp_path)


def test_a_missing_data_path_says_how_far_it_is_right(words: list[str], tmp_path: Path) -> None:
    assert refused(words, "--data", tmp_path / "nowhere" / "clips") == (
        f"data: no such file or folder, got '{tmp_path}/nowhere/clips'. "
        f"Check the path: {tmp_path} is there, nowhere in it is not.\n"
    )


def test_gpus_are_not_asked_for_where_there_are_none(words: list[str], two_cores_and_no_gpu: None) -> None:
    assert refused(words, "--gpus-per-trial", "0.5") == (
        "--gpus-per-trial: must be at most what a node has (0), got 0.5. Lower it, or add machines.\n"
    )


@pytest.mark.parametrize("place", ["a file", "a file/below", "/proc", "/proc/below"])
def test_a_run_folder_that_cannot_be_written_is_named(
    words: list[str], tmp_path: Path, two_cores_and_no_gpu: None, place: str
) -> None:
    (tmp_path / "a file").touch()
    said = refused(words, "--storage", tmp_path / place)
    assert said.startswith(f"--storage: must be a folder that can be written to, got '{tmp_path / place}'")
    assert said.endswith(". Choose another with --storage.\n")
    assert len(said.splitlines()) == 1


def test_a_place_that_cannot_be_written_to_is_named_and_other_errors_keep_their_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/wide/report.html")

    with pytest.raises(typer.Exit) as ended:
        answer(full)
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err.startswith(
        "runs/wide/report.html: must be there and usable, got 'No space left on device'. Free some space, "
        "change its rights"
    )

    for mistake in (KeyError("a mistake of ours"), OSError("Could not load this library: libtorchaudio.so")):

        def broken(error: Exception = mistake) -> None:
            raise error

        with pytest.raises(type(mistake)):
            answer(broken)


def test_a_run_is_never_overwritten(words: list[str], tmp_path: Path) -> None:
    run = tmp_path / "runs" / "there"
    run.mkdir(parents=True)
    (run / "run.json").write_text("a week of work")
    assert refused(words, "--name", "there").startswith(
        f"--name: must be new, because runs are never overwritten, got 'there' ({run} exists). Choose another name"
    )
    assert (run / "run.json").read_text() == "a week of work"


def test_front_ends_that_the_clips_do_not_allow_are_all_named_before_anything_is_written(
    words: list[str], space: Path
) -> None:
    space.write_text(
        SPACE.replace("n_fft: 256, ", "").replace("search:", "search:\n  n_fft: {choice: [256, 16384]}")
        .replace("search:", "search:\n  f_max: {choice: [3000.0, 4400.0]}")
    )  # fmt: skip
    said = refused(words).splitlines()
    assert len(said) == 2
    assert said[0].startswith(f"{space}: f_max: must be at most half the sample rate (4000 Hz at 8000 Hz), got 4400.")
    assert said[1].startswith(f"{space}: n_fft: at least half of the clips must be that long, got 16384 samples")


@pytest.mark.slow
def test_bad_input_that_shows_only_when_the_search_starts_takes_the_run_folder_away_again(
    words: list[str], two_cores_and_no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIO_SEARCH_CACHE_GB", "much")
    assert refused(words) == "AUDIO_SEARCH_CACHE_GB: must be a positive number of gigabytes, got 'much'. Change it.\n"
    Path(words[5]).mkdir()  # a --storage that was there stays
    (Path(words[5]) / "other").mkdir()
    refused(words)


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_searched_and_what_it_costs_and_writes_nothing(
    words: list[str], two_cores_and_no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):  # which it sets for its process
        monkeypatch.setenv(name, "")
    said = here(*words, "--dry-run")
    for line in (
        "30 clips, 3 classes", "18 train, 6 validation, 6 test", "2 CPU cores, no GPU", "3 trials", "s per epoch",
        "expected time:",
    ):  # fmt: skip
        assert line in said
    assert max(map(len, said.splitlines())) > 80  # in a pipe nothing is wrapped
    assert not Path(words[5]).exists()


@pytest.mark.slow
def test_a_search_is_run_extended_retrained_reported_and_used(
    words: list[str], tmp_path: Path, two_cores_and_no_gpu: None
) -> None:
    run = tmp_path / "runs" / "first"
    said = run_search(*words, "--name", "first", "--seed", "7")
    for line in (
        f"Run     {run}",
        "30 clips, 3 classes",
        "3 trials of up to 2 epochs",
        "18 train, 6 validation, 6 test",
    ):
        assert line in said
    assert f"retrain {run}" in said
    assert f"report {run}" in said
    assert {path.name for path in run.iterdir()} - {".lock"} == {
        "run.json", "events.jsonl", "trial_0000", "trial_0001", "trial_0002", "trials.csv", "study.db", "best.yaml",
        "report.html",
    }  # fmt: skip
    _check_trials(run, 3)
    record = json.loads((run / "run.json").read_text())
    assert record["space"]["resources"] == {
        "gpu": None,
        "cpu": 1.0,
        "at_once": 1,
    }  # as wished for, not as this machine has them
    assert (record["hardware"]["gpus_per_trial"], record["hardware"]["cpus_per_trial"]) == (0.0, 1.0)
    assert record["seed"] == 7
    assert record["weights"] == {"squeezenet1_1": "none", "mobilenet_v3_small": "none"}
    assert record["data"]["clips"] == 30
    assert {"command", "space", "split", "versions", "git_commit", "hardware", "mirror"} <= record.keys()
    first = load_run(run).trials

    run_search("resume", run, "--trials", "4")
    _check_trials(run, 4)
    for before, after in zip(first, load_run(run).trials[:3], strict=True):
        assert (before.params, before.reports, before.status) == (after.params, after.reports, after.status)

    said = refused(["retrain", str(run), "--trial", "99"], here=tmp_path)
    assert said == "--trial: must be one of 0 to 3, got 99. See trials.csv.\n"
    said = run_search("retrain", run, "--top", "1", "--seeds", "1")
    result = json.loads((run / "retrained" / "result.json").read_text())
    assert result["measured_on"] == "test"
    assert result["clips"] == 6
    assert len(result["per_seed"]) == 1
    low, high = result["interval_95"]
    assert low <= result["accuracy"] <= high
    assert {"baseline_accuracy", "ensemble_accuracy", "config"} <= result.keys()
    assert f"predict {run}/retrained/model" in said

    assert here("report", run).strip() == str(run / "report.html")
    assert (run / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")
    rows = list(csv.DictReader(here("compare", run, "--csv").splitlines()))
    assert sorted(row["trial"] for row in rows) == ["0", "1", "2", "3"]
    files = sorted((tmp_path / "clips" / "class1").iterdir())
    answers = [json.loads(line) for line in here("predict", run / "retrained" / "model", *files, "--json").splitlines()]
    assert [answer["path"] for answer in answers] == list(map(str, files))
    assert {answer["label"] for answer in answers} <= {"class0", "class1", "class2"}


def _check_trials(run: Path, count: int) -> None:
    """Every trial has its folder, two epochs, and at most its last and its best checkpoint."""
    folders = sorted(run.glob("trial_*"))
    assert [folder.name for folder in folders] == [f"trial_{number:04d}" for number in range(count)]
    for folder, trial in zip(folders, load_run(run).trials, strict=True):
        assert trial.status in ("finished", "cut")
        expected = {
            ".lock",
            "config.json",
            "cost.json",
            "mel.png",
            "epochs.jsonl",
            "answers.json",
            "best.pt",
            "last.pt",
        }
        assert {path.name for path in folder.iterdir()} <= expected
        epochs: list[dict[str, Any]] = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
        assert [epoch["epoch"] for epoch in epochs] == [1, 2][: len(trial.reports)]
        for epoch in epochs:
            assert {"train_loss", "train_acc", "val_loss", "val_acc", "lr", "seconds"} <= epoch.keys()
            assert 0 <= epoch["val_acc"] <= 1
    with (run / "trials.csv").open() as table:
        assert len(list(csv.DictReader(table))) == count
