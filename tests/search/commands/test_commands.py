"""The small commands as a person calls them: what they print where, and their exit codes."""

from __future__ import annotations

import csv
import gc
import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from run_search import app
from tests.support.saved_models import save_small
from tests.support.synthetic import make_run
from trainable.config import TrialConfig
from trainable.data.dataset import load_dataset
from trainable.features.mel_cache import mels_of


def call(*words: object) -> Result:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_small(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def music(make_clips: Callable[..., Path]) -> Path:
    """A folder with three clips, one of them below, and a file that cannot be read."""
    folder = make_clips(classes=1, clips=2) / "class0"
    (folder / "broken.wav").write_text("not audio")
    (folder / "below").mkdir()
    soundfile.write(folder / "below" / "noise.flac", np.random.default_rng(0).uniform(-0.1, 0.1, 9000), 8000)
    return folder


@pytest.mark.slow
def test_files_that_cannot_be_read_are_named_at_the_end_and_make_the_exit_code_one(model: Path, music: Path) -> None:
    result = call("predict", model, music)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"{music}/broken.wav: not readable as audio (format not recognised)"
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert str(music) in lines
    assert f"{music}/below" in lines
    assert [line.split()[0] for line in lines if line.startswith("  ")] == ["file", "000.wav", "001.wav", "noise.flac"]
    assert call("predict", model, music / "000.wav").exit_code == 0


@pytest.mark.slow
def test_labels_come_as_csv_and_as_json_lines_with_a_probability_per_class(model: Path, music: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(call("predict", model, music, "--csv", "--top", 2).stdout)))
    lines = [json.loads(line) for line in call("predict", model, music, "--json", "--top", 2).stdout.splitlines()]
    assert [row["path"] for row in rows] == [line["path"] for line in lines]
    assert len(rows) == 3
    for row, line in zip(rows, lines, strict=True):
        assert row["label"] == line["label"]
        assert len(line["top"]) == len(row["top"].split()) == 2
        assert sum(line["probabilities"].values()) == pytest.approx(1)
        assert sum(float(row[f"p({label})"]) for label in line["probabilities"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "MODEL", "gone.wav"], "gone.wav: no such file or folder"),
        (["predict", "gone", "MODEL"], "gone: must be a model's folder with model.json"),
        (["predict", "MODEL", "MODEL", "--csv", "--json"], "--csv: cannot be given together with --json"),
        (["export", "gone", "out.onnx"], "gone: must be a model's folder with model.json"),
        (["report", "gone"], "gone: must be a run folder with run.json"),
        (["mirror", "gone"], "gone: must be a run folder with run.json"),
        (["retrain", "gone"], "gone: must be a run folder with run.json"),
        (["compare", "gone", "lost"], "lost: must be a run folder with run.json"),
        (["data", "check", "gone"], "no such file or folder, got 'gone'"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_two(model: Path, words: list[str], message: str) -> None:
    result = call(*(model if word == "MODEL" else word for word in words))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_check_of_data_is_for_people_or_as_json(music: Path) -> None:
    soundfile.write(music.parent / "class1.wav", np.zeros(10), 8000)
    (music.parent / "class1").mkdir()
    for name in ("a", "b", "c"):
        soundfile.write(music.parent / "class1" / f"{name}.wav", np.full(8000, 0.1) * np.sin(np.arange(8000)), 8000)
    said = call("data", "check", music.parent)
    assert said.exit_code == 0
    assert "broken.wav: not readable as audio" in said.stdout
    assert "exact copies: 1" in said.stdout
    found = json.loads(call("data", "check", music.parent, "--json").stdout)
    assert found["clips"] == 5  # below/noise.flac lies too deep
    assert [item["label"] for item in found["classes"]] == ["class0", "class1"]


@pytest.mark.slow
def test_a_report_of_several_runs_goes_into_the_first_ones_folder(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, trials=4).path for name in ("one", "two")]
    assert call("report", *runs).stdout.strip() == str(runs[0] / "report.html")
    assert not (runs[1] / "report.html").exists()


def test_the_cache_says_what_it_holds_and_is_emptied(
    make_clips: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("AUDIO_SEARCH_CACHE", str(tmp_path / "cache"))
    dataset = load_dataset(str(make_clips(classes=2, clips=3)))
    settings = TrialConfig(n_fft=256, hop_length=8, n_mels=128, scale="log")
    mels = mels_of(dataset, settings)  # 6 clips of 1001 frames of 128 float32: 3.1 MB
    header, row, total = call("data", "cache").stdout.splitlines()
    assert header.split() == ["data", "set", "clips", "MB", "last", "used", "front", "end"]
    name, clips, megabytes, day, hour, front_end = row.split(maxsplit=5)
    assert (name, clips, megabytes) == ("clips", "6", "3.1")
    used = datetime.strptime(f"{day} {hour}", "%Y-%m-%d %H:%M")
    assert abs(used - datetime.now()) < timedelta(minutes=10)
    assert front_end.rstrip() == "scale log, n_mels 128, windows [256], hop 8, sample_rate 8000"
    place = tmp_path / "cache"
    assert total == f"3 MB of at most 20000 MB in {place}"

    assert call("data", "cache", "--clear").stdout == f"0 entries removed, 0 MB, from {place}\n"  # it is in use
    del mels
    gc.collect()
    said = call("data", "cache", "--clear").stdout
    assert said.startswith("1 entr")
    assert said.endswith(f" removed, 3 MB, from {place}\n")
    assert call("data", "cache").stdout.splitlines()[1:] == [f"0 MB of at most 20000 MB in {place}"]
