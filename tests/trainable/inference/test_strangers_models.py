"""A model folder may be half a copy or a stranger's: it labels files or is refused, soon, and reads nothing else."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.damage import damage, edits
from tests.support.saved_models import save_small
from trainable.errors import InputError
from trainable.inference.model import load_model, save_ensemble
from trainable.inference.predict import predict_files

EXAMPLES = int(os.environ.get("AUDIO_SEARCH_EXAMPLES", "60"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_small(tmp_path / "model")
    return tmp_path / "model"


def edit_about(model: Path, **values: Any) -> None:
    about = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps({**about, **values}))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    save_small(folder / "one")
    labels = ("class0", "class1", "class2")
    for seed in (0, 1):
        save_small(folder / "many" / f"seed {seed}", seed=seed)
    save_ensemble(folder / "many", ["seed 0", "seed 1"], labels)
    return {"one": folder / "one", "many": folder / "many", "work": folder / "work"}


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(kind=st.sampled_from(["one", "many"]), share=st.floats(0, 0.999), edit=edits())
def test_a_damaged_model_labels_or_is_refused_in_one_error(
    folders: dict[str, Path], kind: str, share: float, edit: dict[str, Any]
) -> None:
    place = folders["work"]
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folders[kind], place)
    files = sorted(file for file in place.rglob("*") if file.is_file())
    files += [file for file in files if file.suffix == ".json"] * 2
    damage(files[int(share * len(files))], edit)
    started = time.monotonic()
    try:
        model = load_model(place, "cpu")
        label = model.predict(0.1 * np.sin(np.arange(4000.0)), 8000)
        assert 0 <= label.probability <= 1
    except InputError:  # one clear error; whatever else comes fails the test
        pass
    assert time.monotonic() - started < 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"clip_seconds": 1e-5}, "clip_seconds: must be greater than or equal to 0.01, got 1e-05"),
        ({"clip_seconds": 8e5}, "clip_seconds: must leave a mel of at most"),
        ({"members": ["../other"]}, "members: must be folders inside it, got '../other'"),
        ({"members": ["/etc"]}, "members: must be folders inside it, got '/etc'"),
        ({"labels": []}, "labels: "),
        ({"labels": ["a"]}, "must be those of shufflenet_v2_x0_5 for 1 classes"),
        ({"temperature": 0.0}, "temperature: must be greater than or equal to 0.001, got 0.0"),
        ({"format": 2}, "format: must be 1, got 2"),
    ],
)
def test_what_would_hang_or_reach_out_is_refused_before_anything_is_read(
    model: Path, values: dict[str, Any], said: str
) -> None:
    save_small(model.parent / "other")
    edit_about(model, **values)
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        load_model(model, "cpu")
    assert said in str(caught.value)
    assert str(model) in str(caught.value) or "weights:" in str(caught.value)
    assert time.monotonic() - started < 20


def test_a_member_that_is_a_link_to_elsewhere_is_refused(model: Path) -> None:
    save_small(model.parent / "other")
    (model / "member").symlink_to(model.parent / "other")
    edit_about(model, members=["member"])
    with pytest.raises(InputError, match="members: must be folders inside it, got 'member'"):
        load_model(model, "cpu")


@pytest.mark.parametrize("backbone", ["evil.py:make", "MODEL/evil.py:make"])
def test_a_program_that_comes_with_a_model_is_never_run(
    model: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    mark = model.parent / "it was run"
    (model / "evil.py").write_text(f"import pathlib; pathlib.Path({str(mark)!r}).touch()\ndef make(k, c): ...\n")
    monkeypatch.chdir(model)
    config = json.loads((model / "model.json").read_text())["config"]
    edit_about(model, config={**config, "backbone": backbone.replace("MODEL", str(model))})
    with pytest.raises(InputError, match="must be a program that you have put in its place yourself"):
        load_model(model, "cpu")
    assert not mark.exists()


@pytest.mark.slow
def test_a_huge_batch_of_a_strangers_model_takes_no_more_memory_than_any(
    model: Path, make_clips: Callable[..., Path]
) -> None:
    config = json.loads((model / "model.json").read_text())["config"]
    edit_about(model, config={**config, "batch_size": 10**9})
    loaded = load_model(model, "cpu")
    assert loaded._at_once <= 256
    assert len(list(predict_files(loaded, [make_clips(classes=1, clips=2)]))) == 2
