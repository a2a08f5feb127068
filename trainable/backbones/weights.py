"""Weights: how published files get into torch's cache, and how a file or a model's folder gets into a network."""

from __future__ import annotations

import hashlib
import os
import pickle
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trainable.backbones.head import first_convolution, head_of
from trainable.backbones.record import SPOKEN, Backbone, State, Weights
from trainable.errors import InputError, Unavailable
from trainable.files import read_mapping
from trainable.progress import Progress

_PATIENCE = 20.0  # s without a sign from the server until there is no network; a name that is looked up counts too
# What torch.load and load_state_dict raise for a file that is cut off, no checkpoint, or another model's.
_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError,
               pickle.UnpicklingError, SafetensorError)  # fmt: skip
_MODEL, _TENSORS = "model.json", "weights.safetensors"  # of a folder that `retrain` has written


def fetch(wanted: Iterable[tuple[Backbone, Weights]], progress: Progress | None = None) -> None:
    """Downloads the published weights that torch's cache lacks, each checked by its hash where that is known.

    A file that is already there is checked too, and left alone. Without a network it gives up within half a minute.

    Raises:
        InputError: with a line for each file that could not be had or is not the published one, and what to do.
    """
    problems = []
    missing = []
    for backbone, weights in {weights.url: (backbone, weights) for backbone, weights in wanted}.values():
        if not weights.here:
            missing.append((backbone, weights))
        elif not _is_published(weights.file, weights):
            problems.append(
                f"weights: {weights.file} must be the published file with the hash {weights.sha256}, got another one. "
                "Delete it, so that it is fetched again."
            )
    for index, (backbone, weights) in enumerate(missing):
        try:
            _download(weights, backbone.name, progress)
        except (OSError, ValueError) as error:
            problems.append(_missing(backbone, weights, str(getattr(error, "reason", error))))
            if not isinstance(error, urllib.error.HTTPError | ValueError):
                # No network, or no room: asking for the others would only add to the wait.
                problems += [_missing(*other, "not tried after that") for other in missing[index + 1 :]]
                break
    if problems:
        raise InputError(problems)


def load_published(model: nn.Module, backbone: Backbone, weights: Weights, side: int | None) -> None:
    """Fills `model`, all but its last layer, from torch's cache.

    Raises:
        InputError: the file is missing, unreadable, or holds another model's weights.
    """
    if not weights.here:
        raise Unavailable(_missing(backbone, weights, "it is not in torch's cache"))
    try:
        fill(model, backbone, read_state(weights.file), side)
    except _UNREADABLE as error:
        raise Unavailable(
            f"backbone: {weights.file} must hold {backbone.source}, got something else ({_short(error)}). "
            "Delete it, so that it is fetched again."
        ) from error


def load_own(model: nn.Module, backbone: Backbone, path: Path, side: int | None) -> None:
    """Fills `model`, all but its last layer, from a model's folder or a file of a state.

    Raises:
        InputError: it is missing, unreadable, or holds another model's weights.
    """
    problem = check_own(backbone.name, path)
    if problem:
        raise InputError(problem)
    try:
        fill(model, backbone, read_state(path / _TENSORS if path.is_dir() else path), side)
    except _UNREADABLE as error:
        raise InputError(
            f"weights: {path} must hold weights of {backbone.source}, got something else ({_short(error)}). "
            "Name the folder of a model with this backbone, or the file of its state."
        ) from error


def check_own(name: str, path: Path) -> str | None:
    """What is wrong with weights for backbone `name` at `path`, as far as is seen without reading them all."""
    if not path.exists():
        return (
            f"weights: must be audioset, imagenet, none, auto, a model's folder or a file of weights, got "
            f"{str(path)!r}, which is not there. Name one that is."
        )
    if path.is_file():
        return None
    about = folder_facts(path)
    if about is None or not (path / _TENSORS).is_file():
        inside = sorted(found.parent for found in path.glob(f"**/{_MODEL}") if (found.parent / _TENSORS).is_file())
        hint = (
            f"Did you mean {inside[0]}?" if inside else "Name a folder that retrain has written: RUN/retrained/model."
        )
        return f"weights: must be a model's folder with {_MODEL} and {_TENSORS}, got {str(path)!r}. {hint}"
    other = about["config"].get("backbone")
    if other != name:
        return (
            f"weights: must be of the backbone itself, {name}, got {str(path)!r}, a model of {other}. "
            f"Search with backbone: {other}, or name another model."
        )
    return None


def folder_facts(path: Path) -> dict[str, Any] | None:
    """What the `model.json` of a model's folder says; None where there is none or it is an ensemble's.

    Raises:
        InputError: it cannot be read.
    """
    if not (path / _MODEL).is_file():
        return None
    about: dict[str, Any] = read_mapping(path / _MODEL)
    return about if isinstance(about.get("config"), dict) else None


def read_state(path: Path) -> State:
    """The tensors in a file, whoever wrote it; nothing in it is executed.

    A checkpoint that holds a state among other things, under one of the usual names, is read for that.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    for name in ("weights", "state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("no state of a network")
    return state


def fill(model: nn.Module, backbone: Backbone, state: State, side: int | None) -> None:
    """Puts `state` into `model`, all but the last layer, which keeps its own.

    The filters of the first convolution go to as many channels as the model takes, so that equal channels give the
    same answer as before.

    Raises:
        RuntimeError: a tensor is missing, left over, or of another shape.
    """
    own = model.state_dict()
    head = f"{head_of(model)[0]}."
    given = {key: value for key, value in backbone.translate(state, model, side).items() if not key.startswith(head)}
    name, layer = first_convolution(model)
    first = f"{name}.weight"
    if first in given and layer is not None and given[first].shape[1] != layer.weight.shape[1]:
        given[first] = _with_channels(given[first], layer.weight.shape[1])
    model.load_state_dict({**given, **{key: value for key, value in own.items() if key.startswith(head)}})


def _with_channels(filters: Tensor, channels: int) -> Tensor:
    """Filters [o, c, h, w] for so many equal channels: their sum over c, in equal shares."""
    return filters.sum(dim=1, keepdim=True).expand(-1, channels, -1, -1) / channels


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _is_published(path: Path, weights: Weights) -> bool:
    if weights.sha256 is None or len(weights.sha256) < 64:  # a part of it is torchvision's, checked when it came
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == weights.sha256


def _download(weights: Weights, name: str, progress: Progress | None) -> None:
    """Fetches a file, which appears in the cache only when it is whole and its hash is right."""
    target = weights.file
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.tmp{os.getpid()}")
    digest, done = hashlib.sha256(), 0
    try:
        with _open(weights.url) as response, temporary.open("wb") as file:
            total = int(response.headers.get("Content-Length") or 0)
            while block := response.read(1 << 20):
                file.write(block)
                digest.update(block)
                done += len(block)
                if progress:
                    progress(f"{SPOKEN[weights.kind]} weights of {name}", done, max(total, done))
        if done < total:
            raise ValueError(f"what came from {weights.url} ends after {done} of {total} bytes")
        if weights.sha256 and not digest.hexdigest().startswith(weights.sha256):
            raise ValueError(f"what came from {weights.url} does not have the hash {weights.sha256}")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _open(url: str) -> Any:
    """The response to a request, or an OSError within `_PATIENCE`, of which looking up the name is part.

    A resolver without a network can take minutes and cannot be told to hurry, so it is waited for from outside.
    """
    answer: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            answer.put(urllib.request.urlopen(url, timeout=_PATIENCE))
        except Exception as error:  # handed to the caller, whose it is
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        response = answer.get(timeout=_PATIENCE)
    except queue.Empty:
        raise TimeoutError(f"no answer within {_PATIENCE:g} s") from None
    if isinstance(response, Exception):
        raise response
    return response


def _missing(backbone: Backbone, weights: Weights, reason: str) -> str:
    return (
        f"weights: {weights.kind} for {backbone.name} needs {weights.file}, which is missing ({reason}). Put the file "
        f"there (from {weights.url}), or set TORCH_HOME to a folder that has it under hub/checkpoints, or use "
        "weights: auto or weights: none."
    )
