"""The clips of a run: the same ones in the same parts whenever it goes on, wherever they lie by now."""

from __future__ import annotations

import json
from typing import Any

from search.runs.journal import Journal
from search.runs.run import RunFolder, load_run
from search.runs.shapes import ClipsRecord
from trainable.config import SHARED_FIELDS, TrialConfig
from trainable.data.dataset import Dataset, absolute, load_dataset
from trainable.data.split import split_dataset
from trainable.errors import InputError
from trainable.files import write_atomically
from trainable.progress import Progress
from trainable.shapes import checked


def same_dataset(run: RunFolder, progress: Progress | None = None, data: str | None = None) -> Dataset:
    """The data set of a run, as it was when the search ran; `data`: where it lies by now.

    Raises:
        InputError: it has changed since, or is split otherwise, so that other clips would be trained on, scored and set
            aside for the test.
    """
    way_out = "That is needed to find the clips: put back a copy of the file, or search anew."
    checked(run.record, ClipsRecord, str(run.path / "run.json"), way_out)
    known, path = run.record["data"], data or str(run.record["data"]["path"])
    dataset = load_dataset(path, progress, known.get("group_column"))
    if dataset.hash != known["hash"]:
        way_out = "Name the moved data set itself." if data else "Put the old files back, or search again."
        raise InputError(
            f"{path}: must be the data that the search ran on (hash {known['hash']}), got {dataset.hash}: "
            f"the clips would be split otherwise. {way_out} Where it was moved as a whole, --data names its new place."
        )
    split = split_dataset(dataset, _shared_config(run, path))
    if split.hash != run.record["split"]["hash"]:
        raise InputError(
            f"{path}: must be split as when the search ran (split hash {run.record['split']['hash']}), got "
            f"{split.hash}: clips of the test might have been learned from. The clips are the same, so it is the "
            f"program that has changed: go on with that of the search ({_program(run)}), or search again."
        )
    return dataset


def _shared_config(run: RunFolder, data: str) -> TrialConfig:
    """A configuration that splits the clips as all of the run's trials do."""
    fixed = run.record["space"]["fixed"]
    shared = {name: fixed[name] for name in SHARED_FIELDS if name in fixed}
    return TrialConfig.parse({**shared, "data": data}, source=str(run.path / "run.json"))


def _program(run: RunFolder) -> str:
    versions = run.record.get("versions") or {}
    found = [f"commit {run.record['git_commit']}"] if run.record.get("git_commit") else []
    found += [f"{name} {versions[name]}" for name in ("torchaudio", "numpy", "scikit-learn") if name in versions]
    return ", ".join(found) or "its version was not noted"


def move_data(run: RunFolder, data: str, progress: Progress | None = None) -> RunFolder:
    """The run with its data at a new place, where everything that goes on from now on finds it. Hold the run.

    Raises:
        InputError: it is not the data that the search ran on.
    """
    path = absolute(data)
    same_dataset(run, progress, path)
    write_atomically(run.path / "run.json", json.dumps(_moved(run.record, path), indent=2) + "\n")
    for journal in (run.journal, Journal(run.path / "retrained" / "events.jsonl")):
        if journal.trials:
            journal.moved(path)
    return load_run(run.path)


def _moved(record: dict[str, Any], path: str) -> dict[str, Any]:
    space = record["space"]
    baselines = [{**each, "values": {**each["values"], "data": path}} for each in space["baselines"]]
    space = {**space, "fixed": {**space["fixed"], "data": path}, "baselines": baselines}
    return {**record, "data": {**record["data"], "path": path}, "space": space}
