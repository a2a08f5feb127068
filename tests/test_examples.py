"""The examples do what they say: the network of one's own, and the notebook with its script."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def cells_of_script(text: str) -> list[tuple[str, str]]:
    """The cells of a script in the percent format: markdown or code, and what stands in each."""
    found = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        kind = "markdown" if "[markdown]" in head else "code"
        lines = body.strip("\n").split("\n")
        found.append(
            (kind, "\n".join(re.sub("^# ?", "", line) for line in lines) if kind == "markdown" else body.strip("\n"))
        )
    return found


def cells_of_notebook() -> list[tuple[str, str]]:
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]


def test_the_notebook_is_its_script_cell_by_cell_and_holds_no_output() -> None:
    assert cells_of_notebook() == cells_of_script((EXAMPLES / "notebook.py").read_text(encoding="utf-8"))
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.training
def test_the_notebooks_cells_search_look_retrain_and_label(tmp_path: Path) -> None:
    code = "\n".join(text for kind, text in cells_of_notebook() if kind == "code")
    (tmp_path / "cells.py").write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        [sys.executable, "cells.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Run('runs/first': 3 trials, best " in done.stdout
    labels = dict(re.findall(r"clips/(low|high)/00\.wav +(\w+)", done.stdout))
    assert set(labels) == {"low", "high"}
    assert set(labels.values()) <= {"low", "middle", "high"}  # which of them, two epochs cannot teach
    result = json.loads((tmp_path / "runs" / "first" / "retrained" / "result.json").read_text())
    assert result["measured_on"] == "test"


def test_the_ast_example_pads_and_cuts_to_what_its_positions_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for transformers, which is not installed here, and its weights."""
    import importlib.util
    import types

    class Encoder(torch.nn.Module):
        config = types.SimpleNamespace(hidden_size=3)

        def forward(self, frames: torch.Tensor) -> types.SimpleNamespace:
            assert frames.shape == (2, 1024, 128)
            return types.SimpleNamespace(pooler_output=frames.mean(dim=1)[:, :3])

    stand_in = types.ModuleType("transformers")
    stand_in.ASTModel = types.SimpleNamespace(from_pretrained=lambda name: Encoder())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", stand_in)
    spec = importlib.util.spec_from_file_location("transformers_ast", EXAMPLES / "transformers_ast.py")
    assert spec
    assert spec.loader
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    model = example.make(5, 1)
    for frames in (40, 1024, 1500):
        assert model(torch.zeros(2, 1, 128, frames)).shape == (2, 5)
    with pytest.raises(ValueError, match="takes one channel, got 3"):
        example.make(5, 3)
