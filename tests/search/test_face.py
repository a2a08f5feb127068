from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import search
from trainable.errors import InputError

NETWORK = """
import my_sizes
from torch import nn

def make(classes, channels):
    body = nn.Sequential(nn.Conv2d(channels, my_sizes.WIDTH, 3), nn.BatchNorm2d(my_sizes.WIDTH), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(my_sizes.WIDTH, classes))
"""


def test_the_package_shows_what_the_design_names_and_imports_it_late() -> None:
    named = "search resume retrain predict load_run compare load_space Run __version__"
    assert sorted(dir(search)) == sorted(named.split())
    assert all(callable(getattr(search, name)) for name in dir(search) if name != "__version__")
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = search.serach
    code = "import sys, search; dir(search); print({'ray', 'torch', 'optuna'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


@pytest.mark.slow
def test_retrain_is_a_call_whether_or_not_its_package_was_imported_before() -> None:
    code = """
import sys
import search
import search.retrain.plan as plan
print(callable(search.retrain), plan.TOP["holdout"] > 0)
for name in [name for name in sys.modules if name.partition(".")[0] == "search"]:
    del sys.modules[name]
from search import retrain
import search.retrain.plan
print(callable(retrain), retrain is search.retrain, search.retrain.plan is not plan)
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True True\nTrue True True\n"


def test_an_unknown_option_names_those_there_are() -> None:
    with pytest.raises(InputError, match=r"trails: unknown option, got 3. Use one of .*, trials, "):
        search.search("quick", trails=3)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.training
def test_a_notebook_searches_looks_retrains_and_labels(
    make_clips: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clips = make_clips(classes=2, clips=10)
    space = tmp_path / "small.yaml"
    (tmp_path / "mine.py").write_text(NETWORK)
    (tmp_path / "my_sizes.py").write_text("WIDTH = 8\n")
    space.write_text(
        "fixed: {backbone: 'mine.py:make', weights: none, n_fft: 256, hop_length: 64, n_mels: 24, epochs: 2, "
        "test_share: 0.2, scale: log}\nsearch: {lr: {loguniform: [1e-3, 1e-2]}}\n"
        "budget: {trials: 2, grace_epochs: 1}\nresources: {cpu: 1, gpu: 0, at_once: 1}\n"
        "baselines: [{name: plain, lr: 1e-3}]\n"
    )
    run = search.search(space, data=str(clips), name="mine", swanlab="off", cpus_per_trial=1)
    assert run.path.name == "mine"
    for table in (run.trials, run.best, run.epochs, run.retrained):
        assert isinstance(table, pd.DataFrame)
    assert len(run.trials) == 2
    assert list(run.best["trial"]) == [run.trials["trial"].iloc[0]]
    assert set(run.epochs.columns) >= {"trial", "epoch", "train_loss", "train_acc", "val_loss", "val_acc", "lr"}
    assert run.retrained.empty
    assert "2 trials, best" in repr(run)
    # The network was one's own, in a file beside the space; the workers, in folders of their own, had it too.
    assert run.best_config is not None
    assert run.best_config.backbone == f"{tmp_path}/mine.py:make"
    digest = hashlib.sha256(NETWORK.encode()).hexdigest()
    assert json.loads((run.path / "run.json").read_text())["own_backbones"] == {run.best_config.backbone: digest}

    again = search.load_run("runs/mine")
    assert again.trials.equals(run.trials)
    assert len(search.compare(run, "runs/mine")) == 4
    result = search.retrain(again, top=1, seeds=1, epochs=1, baseline="plain", swanlab="off").retrained
    assert result["measured_on"].iloc[0] == "test"
    assert 0 <= result["low_95"].iloc[0] <= result["accuracy"].iloc[0] <= result["high_95"].iloc[0] <= 1
    labels = search.predict(run, clips / "class0", tmp_path / "gone.wav")
    assert list(labels.columns) == ["path", "label", "probability", "reason"]
    assert labels["label"].notna().sum() == 10
    assert labels["reason"].iloc[-1]
    assert run.model().predict(np.zeros(8000) + 0.1 * np.sin(np.arange(8000)), 8000).label in ("class0", "class1")
