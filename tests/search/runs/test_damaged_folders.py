"""A run folder may be cut short, edited or a stranger's: it is read, or one error says what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.commands.compare import compare
from search.report.report import write_report
from search.retrain.plan import RetrainOptions, make_plan
from search.retrain.suspects import suspects_of
from search.runs.run import RunFolder, load_run, need_whole
from tests.support.damage import damage, edits
from tests.support.synthetic import add_result, add_scores, data_record, make_run, write_clips
from trainable.errors import InputError
from trainable.inference.scores import Scores, save_scores
from trainable.training.trial_folder import Cost

pytestmark = [pytest.mark.slow]

EXAMPLES = int(os.environ.get("AUDIO_SEARCH_EXAMPLES", "60"))
TEXT = """
fixed: {data: "DATA", epochs: 4, weights: none, image_size: 64, val_share: 0.4}
search: {lr: {loguniform: [1.0e-5, 1.0e-2]}, optimizer: {choice: [adam, sgd]},
         momentum: {uniform: [0.5, 0.9], when: {optimizer: sgd}}}
baselines: [tutorial-simple]
budget: {trials: 5, grace_epochs: 1, reduction_factor: 3}
"""
LOOKS: dict[str, Any] = {
    "compare": lambda run: compare([run]),
    "report": lambda run: write_report([run]),
    "plan": lambda run: (need_whole(run), make_plan(run, RetrainOptions(top=2, seeds=1))),
    "suspects": suspects_of,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with a result, scores, costs and a best checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    dataset = write_clips(folder / "clips", ("a", "b"), clips=8, seconds=0.3)
    text = TEXT.replace("DATA", str(folder / "clips"))
    told = {"mirror": {"requested": "off", "mode": "off", "project": "p"}, "weights": {}, "space_file": "x.yaml"}
    record = {"labels": dataset.labels, "data": data_record(dataset), "notes": [], **told}
    run = make_run(folder / "run", trials=5, text=text, **record)
    calibration = {"temperature": 1.5, "ece_before": 0.1, "ece_after": 0.05}
    bins = [{"low": 0.5, "high": 1.0, "clips": 4, "accuracy": 0.75, "confidence": 0.8}]
    row = {"name": "trial 1", "trial": 1, "searched": 0.9, "validation": {"mean": 0.8, "deviation": 0.1},
           "measured": {"mean": 0.8, "deviation": 0.1}, "interval_95": [0.6, 0.9], "per_seed": []}  # fmt: skip
    add_result(
        run, chosen="trial 1", candidates=[row], baseline={**row, "name": "b"}, notes=["a note"], seeds=[1, 2],
        calibration={**calibration, "bins_before": bins, "bins_after": bins},
        difference={"mean": 0.1, "interval_95": [0.0, 0.2], "p_value": 0.04, "test": "McNemar exact"},
        ensembles={"seeds": {"accuracy": 0.8, "interval_95": [0.6, 0.9]}, "greedy": None},
        groups=[{"group": "g", "clips": 4, "accuracy": 0.5, "interval_95": [0.2, 0.8]}],
        earlier=[{"created": "then", "accuracy": 0.5}], failed=[{"name": "x", "status": "diverged", "message": "nan"}],
    )  # fmt: skip
    add_scores(run, dataset, range(6), wrong=2)
    best = run.best()
    assert best
    run.folder(best.trial).write_cost(Cost(1000, 2000, 1.5, None))
    scores = Scores(dataset.labels, np.arange(4), np.array([0, 0, 1, 1]), np.full((4, 2), 0.5))
    save_scores(run.path / "retrained" / "scores" / "retrained-trial_0000.test.npz", scores)
    for look in LOOKS.values():
        look(run)
    return run


def files_of(run: Path) -> list[Path]:
    """What is read from a run folder, the files that matter most several times."""
    found = [
        file.relative_to(run) for file in sorted(run.rglob("*")) if file.suffix in (".jsonl", ".json", ".pt", ".npz")
    ]
    often = [Path("run.json"), Path("events.jsonl"), Path("retrained/result.json")]
    return [*often, *often, *(file for file in found if file.name != "config.json")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "run"


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(share=st.floats(0, 0.999), edit=edits(), look=st.sampled_from(sorted(LOOKS)))
def test_a_damaged_run_is_read_or_refused_in_one_error(
    whole: RunFolder, place: Path, share: float, edit: dict[str, Any], look: str
) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole.path, place)
    files = files_of(place)
    file = place / files[int(share * len(files))]
    damage(file, edit)
    started = time.monotonic()
    with suppress(InputError):  # one clear error; whatever else comes fails the test
        LOOKS[look](load_run(place))
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["space"]["budget"].update(grace_epochs="1"), "space.budget.grace_epochs: must be a valid integer"),
        (lambda r: r["space"].pop("budget"), "space.budget: must be there, got nothing"),
        (lambda r: r["data"].update(labels={}), "data.labels: must be a valid list, got {}"),
        (lambda r: r["split"].update(val=-4), "split.val: must be greater than or equal to 0, got -4"),
    ],
)
def test_an_edited_record_is_named_by_file_and_key_with_the_way_out(
    whole: RunFolder, place: Path, change: Any, said: str
) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole.path, place)
    record = json.loads((place / "run.json").read_text())
    change(record)
    (place / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError) as caught:
        load_run(place)
    assert str(caught.value).startswith(f"{place / 'run.json'}: {said}")
    assert "Put back a copy of it" in str(caught.value)
