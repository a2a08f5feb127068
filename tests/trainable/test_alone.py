from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WITHOUT = """
import importlib, pkgutil, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "optuna", "swanlab", "search"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import trainable
for module in pkgutil.walk_packages(trainable.__path__, "trainable."):
    importlib.import_module(module.name)
from trainable.__main__ import app
app(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_trial_is_trained_where_ray_optuna_and_swanlab_are_not_installed(
    make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    config = tmp_path / "small.yaml"
    config.write_text("backbone: squeezenet1_1\nweights: none\nimage_size: 32\nn_fft: 256\nepochs: 1\n")
    words = ["--config", config, "--data", make_clips(), "--folder", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, words)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "epoch   1/1" in done.stdout
    assert (tmp_path / "out" / "model" / "weights.safetensors").exists()
