"""A model as a folder: weights, configuration, labels, front end, and the record of how it was trained and tested.

`weights.safetensors` and `model.json` are all that is needed to label files elsewhere; neither runs code when it is
read. An ensemble is a folder whose `model.json` names the folders of its members.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainable.config import TrialConfig
from trainable.errors import InputError
from trainable.folder import TrialFolder, write_atomically
from trainable.learner import find_device
from trainable.model import Facts, Model, Network
from trainable.normalise import Normalisation

FORMAT = 1  # of model.json
ABOUT, WEIGHTS = "model.json", "weights.safetensors"
_PACKAGES = ("torch", "torchvision", "torchaudio", "numpy", "soundfile")


def save_model(
    folder: Path, facts: Facts, weights: Mapping[str, Tensor], temperature: float = 1.0,
    record: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Writes a model's folder. `record` says how it was trained and what it achieved, as plain values."""
    folder.mkdir(parents=True, exist_ok=True)
    # Clones: tied or sliced tensors share memory, which safetensors refuses.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    temporary = folder / f".{WEIGHTS}.tmp"
    save_file(tensors, temporary)
    temporary.replace(folder / WEIGHTS)
    _write_about(folder, facts.labels, temperature, record, {
        "config": facts.config.to_json(),
        "sample_rate": facts.sample_rate,
        "clip_seconds": facts.clip_seconds,
        "normalisation": dataclasses.asdict(facts.normalisation),
    })  # fmt: skip


def best_state(trial: TrialFolder) -> dict[str, Any]:
    """The best checkpoint of a trial.

    Raises:
        InputError: it is gone.
    """
    state = trial.load("best")
    if state is None:
        raise InputError(f"{trial.checkpoint('best')}: must be there, got no such file. Put it back, or train again.")
    return state


def save_trial(
    trial: TrialFolder, folder: Path, temperature: float = 1.0, record: Mapping[str, Any] | None = None
) -> None:
    """Writes the model's folder of a trial's best checkpoint."""
    state = best_state(trial)
    config = TrialConfig.parse(state["config"], source=str(trial.path))
    facts = Facts(
        config, tuple(state["labels"]), state["sample_rate"], state["clip_seconds"],
        _normalisation(state["normalisation"]),
    )  # fmt: skip
    save_model(folder, facts, state["weights"], temperature, {"epoch": state["epoch"], **(record or {})})


def save_ensemble(
    folder: Path, members: Sequence[str], labels: Sequence[str], temperature: float = 1.0,
    record: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Writes an ensemble's `model.json`; `members` are model folders inside `folder`, named as often as they count."""
    _write_about(folder, labels, temperature, record, {"members": list(members)})


def _write_about(
    folder: Path, labels: Sequence[str], temperature: float, record: Mapping[str, Any] | None, more: dict[str, Any]
) -> None:
    versions = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    about = {
        "format": FORMAT, "labels": list(labels), "temperature": temperature, **more, "record": dict(record or {}),
        "versions": versions,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / ABOUT, json.dumps(about, indent=2) + "\n")


def load(path: str | Path, device: str = "auto") -> Model:
    """The model in a folder that `retrain` has written, ready to label clips on `device`.

    Raises:
        InputError: it is no model folder, or one that this version cannot read.
    """
    folder = Path(path)
    about = _read_about(folder)
    place = find_device(device)
    counts: dict[str, int] = {}
    for member in about.get("members", ["."]):
        counts[member] = counts.get(member, 0) + 1
    networks = [_network(folder / member, place) for member in counts]
    return Model(tuple(about["labels"]), networks, list(counts.values()), about["temperature"], about["record"])


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT
    if not path.exists():
        inside = sorted(found.parent for found in folder.glob(f"**/{ABOUT}")) if folder.is_dir() else []
        hint = (
            f"Did you mean {inside[0]}?" if inside else "Name a folder that `retrain` has written: RUN/retrained/model."
        )
        raise InputError(f"{folder}: must be a model's folder with {ABOUT}, got none. {hint}")
    about: dict[str, Any] = json.loads(path.read_text())
    if about["format"] != FORMAT:
        raise InputError(f"{path}: format: must be {FORMAT}, got {about['format']!r}. Use the version that wrote it.")
    return about


def _network(folder: Path, device: torch.device) -> Network:
    about = _read_about(folder)
    weights = folder / WEIGHTS
    if not weights.exists():
        raise InputError(f"{folder}: must hold {WEIGHTS}, got none. Copy the whole folder.")
    facts = Facts(
        TrialConfig.parse(about["config"], source=str(folder / ABOUT)), tuple(about["labels"]), about["sample_rate"],
        about["clip_seconds"],
        _normalisation(about["normalisation"]),
    )  # fmt: skip
    return Network(facts, load_file(weights), device)


def _normalisation(values: Mapping[str, Any]) -> Normalisation:
    return Normalisation(values["kind"], tuple(values["mean"]), tuple(values["std"]))
