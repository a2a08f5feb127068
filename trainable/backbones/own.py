"""Networks of one's own: `my_models.py:make` or `package.module:make`, a function of (classes, channels).

It returns an `nn.Module` that takes [b, channels, rows, frames] and gives logits [b, classes].
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from trainable.backbones.record import Backbone
from trainable.errors import InputError, did_you_mean

NAMES: tuple[str, ...] = ()  # whoever wrote them knows them


def find(name: str) -> Backbone | None:
    """The record of somebody's own network, None where the name is not of that form.

    Raises:
        InputError: there is no such file or module, or no such function in it.
    """
    if not is_own(name):
        return None
    function = _function(name)
    return Backbone(
        name,
        name,
        lambda classes, channels, side, initialise: _made(name, function, classes, channels),
        channels=(1, 3),
        native={"image_size": None, "channels": "one"},
        size=(128, 1000),
        bare=False,  # its function may read weights
    )


def is_own(name: str) -> bool:
    """Whether a backbone's name means a function: PLACE:FUNCTION, and not one of another source."""
    place, colon, function = name.rpartition(":")
    return bool(colon and place and function.isidentifier() and place != "timm")


def located(name: str) -> str:
    """A backbone's name that means the same in every folder: the path of somebody's own file is made whole."""
    place, _, function = name.rpartition(":")
    if not is_own(name) or not place.endswith(".py"):
        return name
    return f"{Path(place).expanduser().absolute()}:{function}"


def source_hash(name: str) -> str | None:
    """The SHA-256 of the file that somebody's own network is written in; None for all other backbones."""
    if not is_own(name):
        return None
    file = _module(name).__file__
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


def _function(name: str) -> Callable[[int, int], Any]:
    module, attribute = _module(name), name.rpartition(":")[2]
    function = getattr(module, attribute, None)
    if not callable(function):
        known = tuple(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        hint = did_you_mean(attribute, known) if known else "Write def make(classes, channels)."
        raise InputError(f"backbone: must name a function, got {name!r} and no {attribute} there. {hint}")
    return function  # type: ignore[no-any-return]


def _module(name: str) -> ModuleType:
    place = name.rpartition(":")[0]
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except Exception as error:  # whatever somebody's module does when it is imported
            raise InputError(
                f"backbone: the module {place} must be importable, got {type(error).__name__}: {error} for {name!r}. "
                "Install it, or name its file: path/to/file.py:make."
            ) from error
    path = Path(place).expanduser().absolute()
    if not path.is_file():
        raise InputError(f"backbone: must name a file that is there, got {name!r}. Check the path.")
    # By its content, so that a file that was changed between two trials of one process is read again.
    known = f"own_backbone_{hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:16]}"
    if known in sys.modules:
        return sys.modules[known]
    spec = importlib.util.spec_from_file_location(known, path)
    if spec is None or spec.loader is None:
        raise InputError(f"backbone: must name a Python file, got {name!r}. Check the path.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module
    if str(path.parent) not in sys.path:  # a file may import what lies beside it; last, so that it hides nothing
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever somebody's file does when it is read
        del sys.modules[known]
        raise InputError(
            f"backbone: {path} must be Python that runs, got {type(error).__name__}: {error}. Fix the file."
        ) from error
    return module


def _made(name: str, function: Callable[[int, int], Any], classes: int, channels: int) -> nn.Module:
    try:
        model = function(classes, channels)
    except Exception as error:  # somebody's own code
        raise InputError(
            f"backbone: {name} must build a network for ({classes}, {channels}), classes and channels, got "
            f"{type(error).__name__}: {error}. Fix the function."
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"backbone: {name} must return an nn.Module, got {type(model).__name__}. Fix the function.")
    return model
