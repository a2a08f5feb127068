from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from search.space.dimension import KINDS
from search.space.schema import json_schema
from tests.support.spaces import problems_of, space_of

SPACES = Path(__file__).parents[3] / "spaces"


def complaints(values: Any) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(json_schema()).iter_errors(values)]


def test_the_shipped_schema_is_the_one_of_the_code() -> None:
    shipped = json.loads((SPACES / "space.schema.json").read_text())
    assert shipped == json_schema(), "run: python run_search.py schema > spaces/space.schema.json"


@pytest.mark.slow
def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_space_passes_and_points_editors_to_the_schema(path: Path) -> None:
    assert complaints(yaml.safe_load(path.read_text())) == []
    header = path.read_text().split("\nfixed:")[0].splitlines()
    assert header[0].startswith("# python run_search.py")
    assert "# yaml-language-server: $schema=space.schema.json" in header


@pytest.mark.parametrize("kind", KINDS)
def test_every_distribution_can_be_completed(kind: str) -> None:
    args = {"choice": [32], "quniform": [32, 64, 8], "qloguniform": [32, 64, 8]}.get(kind, [32, 64])
    assert complaints({"search": {"n_mels": {kind: args, "when": {"scale": ["log", "db"]}}}}) == []


@pytest.mark.parametrize(
    "text",
    [
        "fixd: {}",
        "fixed: {lr: -1}",
        "search: {scale: {choice: [decibel]}}",
        "search: {scale: {uniform: [0, 1]}}",
        "search: {lr: {uniform: [0.1, 0.2], loguniform: [0.1, 0.2]}}",
        "search: {lr: {uniform: [0.1]}}",
        "search: {data: {choice: [a, b]}}",
        "baselines: [tutorial-simpel]",
        "baselines: [{recipe: tutorial-simple, lrr: 1}]",
        "budget: {trials: 0}",
        "scheduler: ashaa",
    ],
)
def test_what_the_schema_refuses_the_program_refuses_too(tmp_path: Path, text: str) -> None:
    assert complaints(yaml.safe_load(text))
    assert problems_of(tmp_path, text)


@pytest.mark.parametrize("time", ["90", "5.", "45s", "1h30m", ".5h", "5.m", "' 1 h 30 m '"])
def test_every_way_to_write_a_duration_passes(tmp_path: Path, time: str) -> None:
    text = f"search: {{lr: {{uniform: [0.1, 0.2]}}}}\nbudget: {{time: {time}}}"
    assert complaints(yaml.safe_load(text)) == []
    assert space_of(tmp_path, text).budget.time
