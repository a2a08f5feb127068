"""`push` against a stand-in for the hub; the real one has never been asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.commands.push import push
from tests.support.hub import Hub, stand_in
from tests.support.saved_models import save_small
from trainable.errors import InputError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def hub() -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    with stand_in() as server:
        yield server


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_small(tmp_path / "run" / "retrained" / "model")
    (tmp_path / "run" / "retrained" / "model" / "README.md").write_text("# A card\n")
    return tmp_path / "run"


def pushed(hub: Hub, *words: str, token: str = "hf_right") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the hub's address is read when the library is imported."""
    environment = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": token, "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "run_search.py", "push", *words], cwd=ROOT, capture_output=True, text=True, env=environment
    )


@pytest.mark.slow
@pytest.mark.parametrize("inside", ["", "retrained/model"])
def test_the_model_and_its_card_arrive_whole(hub: Hub, run: Path, inside: str) -> None:
    done = pushed(hub, str(run / inside), "hf:somebody/genres", "--private")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{hub.url}/somebody/genres"
    model = run / "retrained" / "model"
    assert hub.files == {path.name: path.read_bytes() for path in model.iterdir()}
    assert set(hub.files) == {"README.md", "model.json", "weights.safetensors"}
    (asked,) = hub.repos.values()  # the library has changed how it says so
    assert asked.get("private") is True or asked.get("visibility") == "private"


@pytest.mark.slow
def test_a_hub_that_refuses_is_one_line_and_no_traceback(hub: Hub, run: Path) -> None:
    done = pushed(hub, str(run), "hf:somebody/genres", token="hf_wrong")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("hf:somebody/genres: the hub does not take it: ")
    assert "401" in done.stderr
    assert hub.files == {}


@pytest.mark.parametrize("target", ["somebody/genres", "hf:genres", "hf:/genres", "hf:a/b/c", "s3:a/b"])
def test_a_target_that_is_none_is_refused(run: Path, target: str) -> None:
    with pytest.raises(InputError, match="TARGET: must be hf:USER/NAME"):
        push(run, target, private=False)


def test_a_run_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got neither\. Retrain it first"):
        push(tmp_path, "hf:a/b", private=False)
