"""A model for clips of one length, in operations that ONNX knows: every index and every mean is made beforehand.

Legend: b clips, n samples, c channels of a mel, m mel rows, f frames, w windows per clip, s the image size, k classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.deltas import with_deltas
from trainable.frontend import Frontend, pad_to, wrap
from trainable.metrics import SMALLEST
from trainable.model import Model, Network
from trainable.windows import crop_frames, crop_starts


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
        self.frames = 1 + max(samples, self.frontend.sizes[0]) // self.frontend.hop
        crop = crop_frames(config, facts.sample_rate, self.frontend.hop)
        self.starts = crop_starts(self.frames, crop, config.eval_crops)
        self.length = crop or self.frames
        positions = torch.stack([torch.arange(self.length) + start for start in self.starts])  # [w, length]
        beyond = positions >= self.frames
        inside = wrap(positions, self.frames, config.padding) if config.padding != "zero" else positions
        self.register_buffer("index", inside.clamp(max=self.frames - 1).flatten())
        self.register_buffer("silent", beyond if config.padding == "zero" else torch.zeros_like(beyond))
        size = config.image_size
        self.register_buffer("time_means", F.adaptive_avg_pool1d(torch.eye(self.length)[None], size)[0])
        self.register_buffer("mel_means", F.adaptive_avg_pool1d(torch.eye(config.n_mels)[None], size)[0])
        if config.channels == "deltas":
            self.register_buffer("window_slope", _slope(self.length))
            self.register_buffer("clip_slope", _slope(self.frames))

    def forward(self, waveform: Tensor) -> Tensor:
        """The probabilities [b, k], not calibrated."""
        waveform = pad_to(waveform, self.frontend.sizes[0], self.config.padding)
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
        images = self.mel_means.T @ windows @ self.time_means
        if self.normalisation.kind == "train":
            mean, std = (torch.tensor(x)[:, None, None] for x in (self.normalisation.mean, self.normalisation.std))
            images = (images - mean) / std
        elif self.normalisation.kind == "clip":
            whole = _with_slopes(mel, self.clip_slope, dim=1) if self.config.channels == "deltas" else mel
            mean = whole.mean(dim=(2, 3), keepdim=True)
            spread = (whole - mean).square().mean(dim=(2, 3), keepdim=True).sqrt()
            std = torch.maximum(spread, 1e-3 * mean.abs() + 1e-12)  # as trainable.normalise.deviation
            images = (images - mean[:, None]) / std[:, None]
        return images.expand(-1, -1, 3, -1, -1)


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
