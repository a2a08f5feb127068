"""A saved model as one ONNX file that takes a waveform: front end, windows, network and calibration inside.

ONNX needs shapes that are known beforehand, so the file takes clips of one length: by default that of the longest
clip of the training set, at the model's own sample rate, mono, full scale 1. The number of clips is free. Every index
and every mean is made beforehand, in operations that ONNX knows.

Legend: b clips, n samples, c channels of a mel, m mel rows, f frames, w windows per clip, s the image size, k classes.
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

from trainable.data.audio import read_waveform
from trainable.errors import InputError
from trainable.features.crops import crop_frames, crop_starts
from trainable.features.frontend import Frontend, frame_count, with_deltas, wrap
from trainable.inference.metrics import SMALLEST
from trainable.inference.model import Model, Network, load_model

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
    model = load_model(model_folder, device="cpu")
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


class FixedClassifier(nn.Module):
    """Waveforms [b, n] to calibrated probabilities [b, k]: what `Model.probabilities` says of clips of n samples."""

    def __init__(self, model: Model, samples: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_Branch(network, samples) for network in model.networks)
        self.shares = model.shares
        self.temperature = model.temperature

    def forward(self, waveform: Tensor) -> Tensor:
        """The probabilities [b, k]."""
        parts = [share * branch(waveform) for share, branch in zip(self.shares, self.branches, strict=True)]
        mean = torch.stack(parts).sum(dim=0)
        return (mean.clamp(min=SMALLEST).log() / self.temperature).softmax(dim=1)


class _Branch(nn.Module):
    """One network: what `Network.windows` and `Network.scores` do."""

    index: Tensor  # [w * length] the frame at each place of each window
    silent: Tensor  # [w, length] whether the window is silent there
    time_means: Tensor  # [length, s]
    mel_means: Tensor  # [m, s]
    window_slope: Tensor  # [length, length]
    clip_slope: Tensor  # [f, f]

    def __init__(self, network: Network, samples: int) -> None:
        super().__init__()
        facts, config = network.facts, network.facts.config
        self.frontend = network.frontend
        self.network = network.module
        self.config = config
        self.normalisation = facts.normalisation
        self.transforms = nn.ModuleList(_Power(self.frontend, index) for index in range(len(self.frontend.sizes)))
        self.frames = frame_count(config, facts.sample_rate, samples)
        crop = crop_frames(config, facts.sample_rate, self.frontend.hop)
        self.starts = crop_starts(self.frames, crop, config.eval_crops)
        self.length = crop or self.frames
        positions = torch.stack([torch.arange(self.length) + start for start in self.starts])  # [w, length]
        beyond = positions >= self.frames
        inside = wrap(positions, self.frames, config.padding) if config.padding != "zero" else positions
        self.register_buffer("index", inside.clamp(max=self.frames - 1).flatten())
        self.register_buffer("silent", beyond if config.padding == "zero" else torch.zeros_like(beyond))
        if size := config.image_size:  # without one mels keep their shape
            self.register_buffer("time_means", F.adaptive_avg_pool1d(torch.eye(self.length)[None], size)[0])
            self.register_buffer("mel_means", F.adaptive_avg_pool1d(torch.eye(config.n_mels)[None], size)[0])
        if config.channels == "deltas":
            self.register_buffer("window_slope", _slope(self.length))
            self.register_buffer("clip_slope", _slope(self.frames))

    def forward(self, waveform: Tensor) -> Tensor:
        """The probabilities [b, k], not calibrated."""
        waveform = self.frontend.prepared(waveform)
        power = torch.stack([transform(waveform) for transform in self.transforms], dim=1)
        mel = self.frontend.compress(power).transpose(-1, -2)  # [b, c, m, f]
        images = self._images(mel)  # [b, w, 3, s, s]
        flat = images.flatten(0, 1)
        scores: Tensor = self.network(flat).softmax(dim=1)
        return scores.reshape(-1, len(self.starts), scores.shape[1]).mean(dim=1)

    def _images(self, mel: Tensor) -> Tensor:
        windows = mel[..., self.index].reshape(*mel.shape[:3], len(self.starts), self.length).permute(0, 3, 1, 2, 4)
        silence = self.frontend.silence(mel)[:, None, None, None, None]
        windows = torch.where(self.silent[:, None, None, :], silence, windows)  # [b, w, c, m, length]
        if self.config.channels == "deltas":
            windows = _with_slopes(windows, self.window_slope, dim=2)
        images = self.mel_means.T @ windows @ self.time_means if self.config.image_size else windows
        if self.normalisation.mean:
            mean, std = (torch.tensor(x)[:, None, None] for x in (self.normalisation.mean, self.normalisation.std))
            images = (images - mean) / std
        elif self.normalisation.kind == "clip":
            whole = _with_slopes(mel, self.clip_slope, dim=1) if self.config.channels == "deltas" else mel
            mean = whole.mean(dim=(2, 3), keepdim=True)
            spread = (whole - mean).square().mean(dim=(2, 3), keepdim=True).sqrt()
            std = torch.maximum(spread, 1e-3 * mean.abs() + 1e-12)  # as trainable.normalise.deviation
            images = (images - mean[:, None]) / std[:, None]
        return images.expand(-1, -1, self.config.input_channels, -1, -1)


class _Power(nn.Module):
    """Waveforms [b, n] to mel power [b, f, m]: `Frontend.power` for ONNX."""

    window: Tensor  # [size]
    filters: Tensor  # [bins, m]
    matrix: Tensor  # [2 * bins, 1, size]

    def __init__(self, frontend: Frontend, index: int) -> None:
        super().__init__()
        self.size, self.hop = frontend.sizes[index], frontend.hop
        self.register_buffer("window", getattr(frontend, f"window{index}"))
        self.register_buffer("filters", getattr(frontend, f"filters{index}"))
        self.exact = self.size & (self.size - 1) == 0
        if not self.exact:
            self.register_buffer("matrix", self._matrix())

    def _matrix(self) -> Tensor:
        """The transform as filters [2 * bins, 1, size]: real parts, then imaginary parts."""
        bins = torch.arange(self.size // 2 + 1, dtype=torch.float64)
        # The product is reduced before it is scaled: the sine of a large number would be inexact.
        turns = torch.outer(bins, torch.arange(self.size, dtype=torch.float64)) % self.size
        angle = 2 * torch.pi * turns / self.size
        return (torch.cat([angle.cos(), -angle.sin()]) * self.window.double()).float()[:, None]

    def forward(self, waveform: Tensor) -> Tensor:
        """The mel power."""
        padded = F.pad(waveform[:, None], (self.size // 2, self.size // 2), mode="reflect")
        if self.exact:
            spectrum = torch.stft(padded[:, 0], self.size, self.hop, window=self.window, center=False,
                                  return_complex=True)  # fmt: skip
            energy = torch.view_as_real(spectrum).square().sum(dim=-1)
        else:
            real, imaginary = F.conv1d(padded, self.matrix, stride=self.hop).chunk(2, dim=1)
            energy = real.square() + imaginary.square()
        return torch.matmul(energy.transpose(-1, -2), self.filters)


def _slope(frames: int) -> Tensor:
    """The matrix [f, f] whose product with frames [.., f] is their first difference over time."""
    return with_deltas(torch.eye(frames)[:, None], [(0, frames)])[:, 1].T.contiguous()


def _with_slopes(mel: Tensor, slope: Tensor, dim: int) -> Tensor:
    """Mels [.., 1, m, f] with their first and second differences as channels, along `dim`."""
    first = mel @ slope
    return torch.cat([mel, first, first @ slope], dim=dim)
