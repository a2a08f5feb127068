"""ImageNet weights: which file a backbone takes, whether torch's cache has it, how it gets there, how it is loaded."""

from __future__ import annotations

import hashlib
import os
import pickle
import queue
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from trainable.errors import InputError, Unavailable
from trainable.progress import Progress

_PATIENCE = 20.0  # s without a sign from the server until there is no network; a name that is looked up counts too
# What torch.load and load_state_dict raise for a file that is cut off, no checkpoint, or another model's.
_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError)


def weights_url(name: str) -> str:
    """Where torchvision publishes the ImageNet weights of backbone `name`.

    IMAGENET1K_V1 where there is one, whatever else exists: what the tutorial's `pretrained` means, the same on every
    machine, and V2's long recipe gains on ImageNet itself rather than on what is fine-tuned from it. Two models (RegNet
    Y-128GF, ViT-H/14) have no V1 and take torchvision's default.
    """
    versions = models.get_model_weights(name)
    known: dict[str, Any] = versions.__members__
    return str((known.get("IMAGENET1K_V1") or known["DEFAULT"]).url)


def weights_file(name: str) -> Path:
    """Where torch's cache keeps the weights of backbone `name`, there or not; `TORCH_HOME` moves the cache."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights_url(name)).path).name


def weights_available(name: str) -> bool:
    """Whether the weights of backbone `name` are in torch's cache."""
    return weights_file(name).is_file()


def fetch_weights(names: Iterable[str], progress: Progress | None = None) -> None:
    """Downloads the weights of the backbones `names` that torch's cache lacks, each checked by the hash in its name.

    A file that is already there is left alone. Without a network it gives up within half a minute.

    Raises:
        InputError: with a line for each file that could not be had, and what to do about it.
    """
    missing = [name for name in dict.fromkeys(names) if not weights_available(name)]
    problems = []
    for index, name in enumerate(missing):
        try:
            _download(weights_url(name), weights_file(name), name, progress)
        except (OSError, ValueError) as error:
            problems.append(_missing(name, str(getattr(error, "reason", error))))
            if not isinstance(error, urllib.error.HTTPError | ValueError):
                # No network, or no room: asking for the others would only add to the wait.
                problems += [_missing(other, "not tried after that") for other in missing[index + 1 :]]
                break
    if problems:
        raise InputError(problems)


def load_weights(model: nn.Module, name: str, image_size: int) -> None:
    """Fills `model`, torchvision's `name` with its 1000 classes, from torch's cache.

    A vision transformer's position embeddings are interpolated to `image_size` px.

    Raises:
        InputError: the file is missing, unreadable, or holds another model's weights.
    """
    path = weights_file(name)
    if not path.is_file():
        raise Unavailable(_missing(name, "it is not in torch's cache"))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # DenseNet's files predate the rule that a module's name has no dot.
        state = {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", key): state[key] for key in state}
        state = {key: value for key, value in state.items() if not key.lower().startswith("aux")}
        if name.startswith("vit"):
            state = interpolate_embeddings(image_size, int(model.patch_size), state)  # type: ignore[arg-type]
        model.load_state_dict(state)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise Unavailable(
            f"backbone: {path} must hold torchvision's {name}, got something else ({reason}). "
            "Delete it, so that it is fetched again."
        ) from error


def _download(url: str, target: Path, name: str, progress: Progress | None) -> None:
    """Fetches `url` to `target`, which appears only when it is whole and its hash is right."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.tmp{os.getpid()}")
    digest, done = hashlib.sha256(), 0
    try:
        with _open(url) as response, temporary.open("wb") as file:
            total = int(response.headers.get("Content-Length") or 0)
            while block := response.read(1 << 20):
                file.write(block)
                digest.update(block)
                done += len(block)
                if progress:
                    progress(f"ImageNet weights of {name}", done, max(total, done))
        expected = target.stem.rpartition("-")[2]
        if not digest.hexdigest().startswith(expected):
            raise ValueError(f"what came from {url} does not have the hash {expected}")
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


def _missing(name: str, reason: str) -> str:
    path = weights_file(name)
    return (
        f"weights: imagenet for {name} needs {path}, which is missing ({reason}). Put the file there (from "
        f"{weights_url(name)}), or set TORCH_HOME to a folder that has it under hub/checkpoints, or use weights: auto "
        "or weights: none."
    )
