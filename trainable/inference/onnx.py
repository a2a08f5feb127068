"""A saved model as one ONNX file that takes a waveform: front end, windows, network and calibration inside.

The file takes clips of any length that `predict` labels in one piece, all of one length in a call, at the model's own
sample rate, mono, full scale 1. Inside they are made equally long, because ONNX wants shapes that are known beforehand,
and what was added counts nowhere: not for the mirrored end, not for means, not for windows.

Legend: b clips, n samples of them, M samples that there is room for, c channels of a mel, m mel rows, F frames that
there is room for, w windows per clip, s the image size, k classes.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
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
from trainable.features.frontend import Frontend, frame_count, wrap
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
    """Writes `target`: input `waveform` [b, n] of any n up to `samples` of its metadata, output `probabilities` [b, k].

    Args:
        model_folder: what `retrain` has written; single models and ensembles.
        target: the ONNX file.
        clips: audio files for which onnxruntime and `predict` are compared, as they are; noise and tones of several
            lengths and levels are besides.
        seconds: the longest clip that it takes, s; None: whatever `predict` labels in one piece.

    Raises:
        InputError: the onnx packages are missing, this model cannot be exported, or the file came out different.
    """
    _require_packages()
    model = load_model(model_folder, device="cpu")
    rate = _common_rate(model, model_folder)
    longest = max(network.facts.clip_seconds for network in model.networks)
    samples = round(seconds * rate) if seconds else math.ceil(1.5 * longest * rate) - 1  # beyond, predict cuts in parts
    wrapped = OnnxClassifier(model, samples).eval()
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"labels": json.dumps(list(model.labels)), "sample_rate": str(rate), "samples": str(samples)}
    _write(wrapped, samples, path, about)
    sounds = [*_synthetic(samples, rate), *_real(model, clips, samples, rate)]
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
        sizes = {0: torch.export.Dim("clips"), 1: torch.export.Dim("samples", min=1, max=samples)}
        program = torch.onnx.export(
            module, (torch.zeros(2, samples // 2 + 1),), input_names=["waveform"], output_names=["probabilities"],
            opset_version=OPSET, dynamo=True, dynamic_shapes=(sizes,), verbose=False,
        )  # fmt: skip
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    program.model.metadata_props.update(about)
    program.save(path)


def _synthetic(samples: int, rate: int) -> list[Tensor]:
    """Tones in noise of several lengths and levels, so that the check does not depend on anybody's files."""
    rng = torch.Generator().manual_seed(0)
    sounds = []
    for length, level, pitch in (
        (samples, 0.5, 110.0),
        (samples // 2, 0.05, 0.05 * rate),
        (rate // 5, 0.005, 0.2 * rate),
    ):
        time = torch.arange(max(1, min(length, samples))) / rate
        tone = torch.sin(2 * torch.pi * pitch * time) + 0.1 * torch.randn(len(time), generator=rng)
        sounds.append(level * tone)
    return sounds


def _real(model: Model, clips: Sequence[str | Path], samples: int, rate: int) -> Iterator[Tensor]:
    """The clips' waveforms at the model's rate; of a long one the parts that `predict` cuts it into."""
    for clip in clips:
        waveform, _ = read_waveform(clip, rate)
        for start, stop in model.parts_of(waveform.numel(), rate):
            if stop - start > samples:
                raise InputError(
                    f"{clip}: must be at most {samples / rate:g} s long, got {(stop - start) / rate:g} s. "
                    "Raise --seconds."
                )
            yield waveform[start:stop]


def _compare(model: Model, path: Path, sounds: Sequence[Tensor], rate: int) -> float:
    """The largest difference between the probabilities of `predict` and those of onnxruntime."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = np.concatenate([session.run(None, {"waveform": sound[None].numpy()})[0] for sound in sounds])
    wanted = model.probabilities((sound, rate) for sound in sounds)
    return float(np.abs(found - wanted).max())


class OnnxClassifier(nn.Module):
    """Waveforms [b, n] to calibrated probabilities [b, k]: what `Model.probabilities` says of them, n up to M."""

    def __init__(self, model: Model, samples: int) -> None:
        """`samples`: M."""
        super().__init__()
        self.samples = samples
        self.branches = nn.ModuleList(_Branch(network, samples) for network in model.networks)
        self.shares = model.shares
        self.temperature = model.temperature

    def forward(self, waveform: Tensor) -> Tensor:
        """The probabilities [b, k]."""
        rest = waveform.new_zeros(waveform.shape[0], self.samples - waveform.shape[1])  # an error where n is above M
        whole = torch.cat([waveform, rest], dim=1)
        length = torch.cat([torch.ones_like(waveform[:1]), torch.zeros_like(rest[:1])], dim=1).sum().to(torch.int64)
        parts = [
            share * branch(whole, length, waveform.shape[1])
            for share, branch in zip(self.shares, self.branches, strict=True)
        ]
        mean = torch.stack(parts).sum(dim=0)
        return (mean.clamp(min=SMALLEST).log() / self.temperature).softmax(dim=1)


class _Branch(nn.Module):
    """One network: what `Network.windows` and `Network.scores` do."""

    mel_means: Tensor  # [m, s]

    def __init__(self, network: Network, samples: int) -> None:
        super().__init__()
        facts, config = network.facts, network.facts.config
        self.frontend = network.frontend
        self.network = network.module
        self.config = config
        self.normalisation = facts.normalisation
        self.transforms = [_Power(self.frontend, index) for index in range(len(self.frontend.sizes))]
        self.registered = nn.ModuleList(self.transforms)
        self.samples = max(samples, self.frontend.shortest)
        self.lost = 1 if self.frontend.pre_emphasis else 0  # samples: the first has none before it
        self.frames = frame_count(config, facts.sample_rate, samples)
        self.crop = crop_frames(config, facts.sample_rate, self.frontend.hop)
        self.windows = max(
            len(crop_starts(frames, self.crop, config.eval_crops)) for frames in range(1, self.frames + 1)
        )
        self.length = self.crop or self.frames
        if size := config.image_size:  # without one mels keep their shape
            self.register_buffer("mel_means", F.adaptive_avg_pool1d(torch.eye(config.n_mels)[None], size)[0])

    def forward(self, waveform: Tensor, length: Tensor, given: int) -> Tensor:
        """The probabilities [b, k], not calibrated, of waveforms [b, M] of which `length` samples are sound.

        `given` is the same number as `length`, known from a shape: what has no square must be cut to it.
        """
        filled = length.clamp(min=self.frontend.shortest)  # short clips are filled up to a window
        frames = 1 + (filled - self.lost) // self.frontend.hop
        sound = self._prepared(waveform, length)
        power = torch.stack([self._power(transform, sound, filled) for transform in self.transforms], dim=1)
        real = torch.arange(self.frames) < frames  # [F]
        mel = self.frontend.compress(power * real[:, None]).transpose(-1, -2)  # [b, c, m, F]
        starts, used = self._starts(frames)
        images = self._images(mel, frames, real, starts)  # [b, w, c, s, s], or mels in their own shape
        if not self.config.image_size and self.crop is None:
            filled_length = torch.sym_max(given, self.frontend.shortest)  # type: ignore[no-untyped-call]
            whole = 1 + (filled_length - self.lost) // self.frontend.hop
            images = images[..., :whole]
        scores: Tensor = self.network(images.flatten(0, 1)).softmax(dim=1)
        each = scores.reshape(-1, self.windows, scores.shape[1])
        return (each * used[:, None]).sum(dim=1) / used.sum()

    def _prepared(self, waveform: Tensor, length: Tensor) -> Tensor:
        """Waveforms [b, M] with what `Frontend.prepared` does to their first `length` samples."""
        place = torch.arange(self.samples)
        inside = place if self.config.padding == "zero" else wrap(place, length, self.config.padding)
        sound = waveform.index_select(1, inside.clamp(max=waveform.shape[1] - 1))
        if self.config.padding == "zero":
            sound = sound * (place < length)
        return sound[:, 1:] - self.frontend.pre_emphasis * sound[:, :-1] if self.lost else sound

    def _power(self, transform: _Power, sound: Tensor, filled: Tensor) -> Tensor:
        """The mel power [b, F, m] with the ends mirrored where the clip's sound ends."""
        half = transform.size // 2
        place = (torch.arange(self.samples - self.lost + 2 * half) - half).abs()
        place = wrap(place, filled - self.lost, "reflect")
        return transform.forward(sound.index_select(1, place.clamp(max=sound.shape[1] - 1)))

    def _starts(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The first frame [w] of each window, and which windows [w] there are: `crop_starts` in tensors."""
        number = torch.arange(self.windows)
        if self.crop is None:
            return torch.zeros_like(number), torch.ones_like(number)
        count = ((frames + self.crop - 1) // self.crop).clamp(max=self.config.eval_crops)
        count = torch.where(frames <= self.crop + 1, torch.ones_like(count), count)
        spare = (frames - self.crop).clamp(min=0)
        spread = torch.round(number * spare.double() / (count - 1).clamp(min=1)).to(torch.int64)
        only = torch.where(frames <= self.crop + 1, torch.zeros_like(spare), spare // 2)
        starts = torch.where(count == 1, only, spread)
        return starts.clamp(max=self.frames - 1), (number < count).to(torch.int64)

    def _images(self, mel: Tensor, frames: Tensor, real: Tensor, starts: Tensor) -> Tensor:
        positions = starts[:, None] + torch.arange(self.length)  # [w, length]
        inside = positions if self.config.padding == "zero" else wrap(positions, frames, self.config.padding)
        index = inside.clamp(max=self.frames - 1).flatten()
        windows = mel.index_select(3, index).reshape(*mel.shape[:3], self.windows, self.length).permute(0, 3, 1, 2, 4)
        if self.config.padding == "zero":
            # The quietest frames are those behind the end, which change no level's range.
            silence = self.frontend.silence(mel)[:, None, None, None, None]
            windows = torch.where((positions >= frames)[:, None, None, :], silence, windows)  # [b, w, c, m, length]
        end = frames if self.crop is None else torch.full_like(frames, self.length)
        if self.config.channels == "deltas":
            windows = _with_slopes(windows, end, dim=2)
        images = windows
        if size := self.config.image_size:
            images = self.mel_means.T @ windows @ _means(self.length, end, size)
        if self.normalisation.mean:
            mean, std = (torch.tensor(x)[:, None, None] for x in (self.normalisation.mean, self.normalisation.std))
            images = (images - mean) / std
        elif self.normalisation.kind == "clip":
            whole = _with_slopes(mel, frames, dim=1) if self.config.channels == "deltas" else mel
            share = real / (frames * mel.shape[2])  # of every value of the clip
            mean = (whole * share).sum(dim=(2, 3), keepdim=True)
            spread = ((whole - mean).square() * share).sum(dim=(2, 3), keepdim=True).sqrt()
            std = torch.maximum(spread, 1e-3 * mean.abs() + 1e-12)  # as trainable.normalise.deviation
            images = (images - mean[:, None]) / std[:, None]
        return images.expand(-1, -1, self.config.input_channels, -1, -1)


def _means(length: int, end: Tensor, size: int) -> Tensor:
    """The matrix [length, size] that averages the first `end` of so many frames into `size` places.

    Source: torch.nn.functional.adaptive_avg_pool1d.
    """
    place, frame = torch.arange(size), torch.arange(length)[:, None]
    first, last = place * end // size, ((place + 1) * end + size - 1) // size
    return ((frame >= first) & (frame < last)).float() / (last - first)


class _Power(nn.Module):
    """Waveforms [b, n], mirrored at their ends, to mel power [b, f, m]: `Frontend.power` for ONNX."""

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
        if self.exact:
            spectrum = torch.stft(waveform, self.size, self.hop, window=self.window, center=False,
                                  return_complex=True)  # fmt: skip
            energy = torch.view_as_real(spectrum).square().sum(dim=-1)
        else:
            real, imaginary = F.conv1d(waveform[:, None], self.matrix, stride=self.hop).chunk(2, dim=1)
            energy = real.square() + imaginary.square()
        return torch.matmul(energy.transpose(-1, -2), self.filters)


def _with_slopes(mel: Tensor, end: Tensor, dim: int) -> Tensor:
    """Mels [.., 1, m, f] with their first and second differences over the first `end` frames as channels, along `dim`.

    As `trainable.features.frontend.with_deltas`.
    """
    frame = torch.arange(mel.shape[-1])

    def slope(x: Tensor) -> Tensor:
        later, earlier = (
            [x.index_select(-1, torch.minimum((frame + step).clamp(min=0), end - 1)) for step in steps]
            for steps in ((1, 2), (-1, -2))
        )
        return (2 * (later[1] - earlier[1]) + later[0] - earlier[0]) / 10

    first = slope(mel)
    return torch.cat([mel, first, slope(first)], dim=dim)
