"""`predict --explain`: what is said of each file, and the page beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from run_search import app
from tests.support.saved_models import save_small


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_small(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model"


@pytest.mark.slow
def test_each_file_gets_its_stretch_as_text_and_on_a_page_that_runs_no_script(
    model: Path, make_clips: Callable[..., Path]
) -> None:
    clips = make_clips(classes=2, clips=2)
    done = CliRunner().invoke(app, ["predict", str(model), str(clips), "--explain"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert len([line for line in lines if re.search(r"class\d \d+%, (decided by|no single)", line)]) == 4
    page = Path("explained.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 4
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", page)


@pytest.mark.slow
def test_as_json_each_line_holds_the_stretch(model: Path, make_clips: Callable[..., Path]) -> None:
    done = CliRunner().invoke(app, ["predict", str(model), str(make_clips(classes=1, clips=2)), "--explain", "--json"])
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 2
    assert all(0 <= line["decides"]["start"] < line["decides"]["end"] <= 1.0 for line in lines)


@pytest.mark.slow
def test_what_cannot_be_explained_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    assert CliRunner().invoke(app, ["predict", str(model), "text.wav", "--explain"]).exit_code == 1
    done = CliRunner().invoke(app, ["predict", str(model), "missing.wav", "--explain"])
    assert (done.exit_code, "missing.wav: no such file" in done.stderr) == (2, True)
    done = CliRunner().invoke(app, ["predict", str(model), "text.wav", "--explain", "--csv"])
    assert (done.exit_code, "--csv" in done.stderr) == (2, True)
    assert not (tmp_path / "explained.html").exists()
