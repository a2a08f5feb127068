"""What the README tells people to type exists, and does what it is there for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from ray.tune.schedulers import TrialScheduler
from typer.main import get_command
from typer.testing import CliRunner

from run_search import app
from search.commands import retrain as retraining
from search.commands import search as searching
from search.commands import session
from search.runs.journal import Journal
from search.tune.cluster import Machines
from search.tune.tuner import Running
from trainable.config import TrialConfig
from trainable.data import demo

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
IN_ORDER = list(
    dict.fromkeys(
        found.strip().strip("`")
        for found in re.findall(
            r"python run_search\.py[^\n`#|]*|`(?:predict|resume|retrain|data|report|compare|mirror) [^`]*`", README
        )
    )
)
COMMANDS = [command.removeprefix("python run_search.py").strip() for command in IN_ORDER]

# What cannot be done here, and which tests do it with a stand-in.
ELSEWHERE = {
    "data get esc-50 ESC-50": "tests/trainable/data/test_catalogue.py",
    "data get fsdd FSDD": "tests/trainable/data/test_catalogue.py",
    "data get gtzan GTZAN": "tests/trainable/data/test_catalogue.py",
    "push runs/NAME hf:USER/NAME": "tests/search/commands/test_push.py",
}
# What people put in the place of these words, and what would take hours or needs the real GTZAN.
INSTEAD = {
    "RUN [RUN ...]": "runs/NAME", "RUN": "runs/NAME", "FILE_OR_FOLDER": "clips", "FILE": "clips/low/0.wav",
    "/shared/": "shared/", "--trials 200": "--trials 4", "--trials 20": "--trials 3", "--set split=gtzan-filtered": "",
    "--seeds 3": "--seeds 1", "--seeds 5": "--seeds 2", "retrain runs/NAME": "retrain runs/NAME --seeds 2",
    "retrain runs/wide --protocol folds": "retrain runs/wide --protocol folds --seeds 1",
}  # fmt: skip
MADE = (
    "runs/NAME/report.html", "runs/NAME/retrained/model", "model.onnx", "runs/NAME/swanlog", "runs/wide/report.html",
    "runs/fsdd/retrained/result.json", "shared/runs/wide/trials.csv",
)  # fmt: skip
SUBJECTS = {"resume": ["runs/NAME"], "predict": ["runs/NAME/retrained/model", "clips/low/0.wav"]}

NETWORK = """
from torch import nn

def make(classes, channels):
    body = [nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(4, classes))
"""
SPACE = """
fixed: {DATAbackbone: 'mine.py:make', weights: none, epochs: 1, n_fft: 256, hop_length: 128, n_mels: 16, scale: log,
        test_share: 0.2, image_size: null}
search: {lr: {loguniform: [1.0e-3, 1.0e-1]}}
baselines: [{name: tutorial-simple, lr: 1.0e-3}]
budget: {trials: 2, grace_epochs: 1}
resources: {cpu: 1, gpu: 0}
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_one_with_these_flags(command: str) -> None:
    words = shlex.split(re.sub(r"COMMAND|[\[\]]|\.\.\.", "", command))
    node = get_command(app)
    while words and hasattr(node, "commands") and words[0] in node.commands:
        node = node.commands[words.pop(0)]
    known = {flag for parameter in node.params for flag in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known
    assert not hasattr(node, "commands") or not words or words[0].startswith("-")


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) > 30
    assert set(ELSEWHERE) <= set(COMMANDS)


@contextmanager
def no_ray(address: str | None) -> Iterator[Machines]:
    yield Machines(1, 2.0, 0.0)


def one_after_the_other(
    run: Path, journal: Journal, make_searcher: Callable[[], Any], make_scheduler: Callable[[], Any], stop: Any,
    running: Running,
) -> None:  # fmt: skip
    """Trains the trials of a search or a retraining in this process, as Tune would with one worker."""
    searcher, scheduler = make_searcher(), make_scheduler()
    while isinstance(suggested := searcher.suggest("x"), dict):
        config = TrialConfig.parse(suggested["config"])
        trial = SimpleNamespace(trial_id="x", config=suggested)
        for epoch in running.train(config, Path(suggested["folder"]), True, None):
            result = {
                "epoch": epoch.epoch, "val_acc": epoch.val_acc, "val_loss": epoch.val_loss, "message": "",
                "status": "finished" if epoch.epoch == config.epochs else "running",
            }  # fmt: skip
            if scheduler.on_trial_result(None, trial, result) != TrialScheduler.CONTINUE:
                break
        searcher.on_trial_complete("x")


@pytest.fixture
def small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with all that the README speaks of, small: its spaces, its data sets, a network of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIO_SEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "make_demo", partial(demo.make_demo, clips_per_class=5, seconds=0.5))
    for module in (searching, retraining):
        monkeypatch.setattr(module, "connected", no_ray)
    monkeypatch.setattr(session, "run_trials", one_after_the_other)
    rng, time = np.random.default_rng(0), np.arange(2000) / 8000
    rows = ["path,label,group"]
    for pitch, label in ((300, "low"), (900, "high")):
        for number in range(12):
            wave = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.02 * rng.standard_normal(time.size)
            for folder in (
                "clips",
                "GTZAN/genres_original",
                "GTZAN100/genres_original",
                "shared/GTZAN/genres_original",
            ):
                (tmp_path / folder / label).mkdir(parents=True, exist_ok=True)
                soundfile.write(tmp_path / folder / label / f"{number}.wav", wave, 8000)
            rows.append(f"{tmp_path}/clips/{label}/{number}.wav,{label},speaker{number % 6}")
    (tmp_path / "FSDD" / "FSDD").mkdir(parents=True)
    for table in ("clips.csv", "FSDD/FSDD/fsdd.csv"):
        (tmp_path / table).write_text("\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "spaces").mkdir()
    (tmp_path / "mine.py").write_text(NETWORK, encoding="utf-8")
    for space in ("quick", "small-data", "tutorial", "wide"):
        data = "data: demo, " if space == "quick" else ""
        (tmp_path / "spaces" / f"{space}.yaml").write_text(SPACE.replace("DATA", data), encoding="utf-8")


def leave_something(run: Path, failed: bool) -> None:
    """Gives a run a trial that a killed driver has left, or one that failed."""
    journal = Journal(run / "events.jsonl")
    last = journal.trials[max(journal.trials)]
    trial = journal.suggested("search", "", last.params, last.config)
    if failed:
        journal.ended(trial.number, "failed", "a reason that is gone by now")


@pytest.mark.slow
@pytest.mark.training
def test_the_commands_of_the_readme_run_one_after_the_other(small_world: None, tmp_path: Path) -> None:
    assert COMMANDS[0] == ""  # the first search; the README calls its run NAME
    # A script for SLURM resumes what another of its lines has begun.
    for command in sorted(COMMANDS, key=lambda command: command.startswith("resume /shared")):
        if command in ELSEWHERE:
            continue
        text = command.replace("COMMAND", "search")
        for word, instead in INSTEAD.items():
            text = re.sub(rf"(?<![\w/]){re.escape(word)}(?!(?<=\w)\w)", instead, text)
        words = shlex.split(text) if text else ["--name", "NAME"]
        if words[0] in SUBJECTS and all(word.startswith("-") or word[0].isdigit() for word in words[1:]):
            words[1:1] = SUBJECTS[words[0]]
        if words[0] == "resume" and "--trials" not in words:
            leave_something(Path(words[1]), failed="--retry-failed" in words)
        if (words[0].startswith("--") and words != ["--help"]) or words[0] == "retrain":
            words += ["--swanlab", "off"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{words}: {done.output}"
        assert "Traceback" not in done.output, words
    for made in MADE:
        assert (tmp_path / made).exists(), made
