"""Model folders for tests: untrained networks whose answers depend strongly on what they hear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainable.config import TrialConfig
from trainable.features.frontend import Normalisation
from trainable.inference.model import Facts, Network, save_model
from trainable.training.network import build_network

SMALL: dict[str, Any] = {
    "backbone": "shufflenet_v2_x0_5", "image_size": 32, "weights": "none", "n_mels": 24, "n_fft": 256,
    "hop_length": 100,
}  # fmt: skip


def save_small(
    folder: Path, seed: int = 0, labels: tuple[str, ...] = ("class0", "class1", "class2"), clip_seconds: float = 1.0,
    temperature: float = 1.0, sample_rate: int = 8000, normalisation: Normalisation | None = None, **values: Any,
) -> Facts:  # fmt: skip
    """Writes a model's folder and returns what the model knows beside its weights."""
    config = TrialConfig.parse({**SMALL, **values})
    channels = 1 if config.channels in ("repeat", "one") else 3
    fitted = {
        "train": Normalisation("train", (-2.0,) * channels, (3.0,) * channels),
        "fixed": Normalisation("fixed", (config.fixed_mean,) * channels, (config.fixed_deviation,) * channels),
    }
    normalisation = normalisation or fitted.get(config.normalise, Normalisation(config.normalise))
    facts = Facts(config, labels, sample_rate, clip_seconds, normalisation)
    torch.manual_seed(seed)
    network = build_network(config, len(labels))
    _sharpen(network, Network(facts, network.state_dict(), torch.device("cpu")))
    save_model(folder, facts, network.state_dict(), temperature, {"epoch": 3})
    return facts


@torch.no_grad()
def _sharpen(network: nn.Module, front: Network) -> None:
    """Fits the batch norms to a few sounds and stretches the head, as training would."""
    rate = front.facts.sample_rate
    time = torch.arange(rate) / rate
    sounds = [(0.3 * torch.sin(2 * torch.pi * pitch * time) + 0.02 * torch.randn(rate), rate)
              for pitch in (150, 300, 500, 800, 1300, 2000)]  # fmt: skip
    images = torch.cat([front.windows(sound) for sound in sounds])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(images)
    logits = network.eval()(images)
    for parameter in list(network.parameters())[-2:]:
        parameter.mul_(2 / (logits - logits.mean(dim=0)).std())
