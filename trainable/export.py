"""A saved model as one ONNX file that takes a waveform: front end, windows, network and calibration inside.

Legend: b clips, n samples, k classes.

ONNX needs shapes that are known beforehand, so the file takes clips of one length: by default that of the longest
clip of the training set, at the model's own sample rate, mono, full scale 1. The number of clips is free.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.audio import read_waveform
from trainable.errors import InputError
from trainable.fixed import FixedClassifier
from trainable.model import Model
from trainable.saved import load

TOLERANCE = 1e-4  # largest difference of a probability between torch and onnxruntime
OPSET = 18
# ONNX's transform is exact enough for powers of two only (onnxruntime 1.32: 1e-4 otherwise). Other sizes become a
# matrix, which would fill the 2 GB of an ONNX file if there were no end to it.
_LARGEST_MATRIX = 4096


@dataclass(frozen=True)
class Exported:
    """What was written, and how far it is from torch."""

    path: Path
    samples: int  # n
    sample_rate: int  # Hz
    difference: float  # largest over the probabilities of all checked clips
    clips: int  # that it was checked on


def export_onnx(
    model_folder: str | Path, target: str | Path, clips: Sequence[str | Path] = (), seconds: float | None = None
) -> Exported:
    """Writes `target`: input `waveform` [b, n], output `probabilities` [b, k]; labels are in its metadata.

    Args:
        model_folder: what `retrain` has written; single models and ensembles.
        target: the ONNX file.
        clips: audio files on which onnxruntime and torch are compared; noise and tones of all levels are besides.
        seconds: the length of the clips that it takes, s; None: the longest clip of the training set.

    Raises:
        InputError: the onnx packages are missing, this model cannot be exported, or the file came out different.
    """
    _require_packages()
    model = load(model_folder, device="cpu")
    rate = _common_rate(model, model_folder)
    samples = round((seconds or max(network.facts.clip_seconds for network in model.networks)) * rate)
    wrapped = FixedClassifier(model, samples).eval()
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"labels": json.dumps(list(model.labels)), "sample_rate": str(rate), "samples": str(samples)}
    _write(wrapped, samples, path, about)
    sounds = [*_synthetic(samples, rate), *(_fitted(read_waveform(clip, rate)[0], samples) for clip in clips)]
    difference = _compare(model, path, sounds, rate)
    if not difference <= TOLERANCE:  # NaN too
        path.unlink()
        raise InputError(
            f"{path}: must agree with torch to {TOLERANCE:g}, got {difference:.2g}. "
            "This configuration cannot be exported; use predict."
        )
    return Exported(path, samples, rate, difference, len(sounds))


def _require_packages() -> None:
    missing = []
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise InputError(
            f"export: needs packages that are not installed, missing {', '.join(missing)}. "
            "Install them: pip install -e '.[onnx]'"
        )


def _common_rate(model: Model, folder: str | Path) -> int:
    """The rate in Hz that all networks take, once it is known that they can be exported at all."""
    problems = []
    rates = sorted({network.facts.sample_rate for network in model.networks})
    if len(rates) > 1:
        problems.append(f"{folder}: members must share one sample rate, got {rates}. Export them one by one.")
    for network in model.networks:
        sizes = [size for size in network.frontend.sizes if size & (size - 1) and size > _LARGEST_MATRIX]
        if sizes:
            problems.append(
                f"{folder}: n_fft: must be a power of two, or at most {_LARGEST_MATRIX}, to be exported, "
                f"got {sizes[0]}. Retrain with another n_fft, or use predict."
            )
    if problems:
        raise InputError(problems)
    return rates[0]


def _write(module: nn.Module, samples: int, path: Path, about: dict[str, str]) -> None:
    """Traces the module on two clips and writes the file, weights inside."""
    for name in ("torch.onnx", "onnxscript", "torch.onnx._internal.exporter._registration"):
        logging.getLogger(name).setLevel(logging.ERROR)  # it explains at length what it optimises
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        program = torch.onnx.export(
            module, (torch.zeros(2, samples),), input_names=["waveform"], output_names=["probabilities"],
            opset_version=OPSET, dynamo=True, dynamic_shapes=({0: torch.export.Dim("clips")},), verbose=False,
        )  # fmt: skip
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    program.model.metadata_props.update(about)
    program.save(path)


def _synthetic(samples: int, rate: int) -> list[Tensor]:
    """Tones in noise at several levels, so that the check does not depend on anybody's files."""
    rng = torch.Generator().manual_seed(0)
    time = torch.arange(samples) / rate
    tones = [torch.sin(2 * torch.pi * pitch * time) for pitch in (110.0, 0.05 * rate, 0.2 * rate)]
    levels = (0.5, 0.05, 0.005)
    noise = torch.randn(len(tones), samples, generator=rng)
    return [level * (tone + 0.1 * hiss) for level, tone, hiss in zip(levels, tones, noise, strict=True)]


def _fitted(waveform: Tensor, samples: int) -> Tensor:
    """The beginning of a waveform, or all of it followed by silence."""
    return F.pad(waveform[:samples], (0, max(0, samples - waveform.numel())))


def _compare(model: Model, path: Path, sounds: Sequence[Tensor], rate: int) -> float:
    """The largest difference between the probabilities of `predict` and those of onnxruntime."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"waveform": torch.stack(list(sounds)).numpy()})[0]
    wanted = model.probabilities((sound, rate) for sound in sounds)
    return float(np.abs(found - wanted).max())
