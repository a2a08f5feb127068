"""What turns gradients into weights: the optimiser, its precision, the average of the weights, the loss."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from trainable.backbone import is_depthwise, parameter_groups
from trainable.config import TrialConfig


def make_optimizer(model: nn.Module, config: TrialConfig) -> torch.optim.Optimizer:
    """The optimiser of the trainable parameters of `model`, at no learning rate yet: see `set_learning_rate`."""
    groups = parameter_groups(model, config)
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, lr=0.0, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=0.0, fused=True)
        case "sgd":
            return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the rate of the next step; the head's is its multiple."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_multiple"]


class Loss:
    """Mean cross-entropy of a batch against target distributions, in nats, as the optimiser sees it."""

    def __init__(self, config: TrialConfig, train_counts: Tensor) -> None:
        """`train_counts` [k] are the training clips of each class."""
        self.smoothing = config.label_smoothing
        self.weight: Tensor | None = None
        if config.class_balanced:
            # The mean weight of a training clip is 1, so that balancing is no change of the learning rate.
            self.weight = train_counts.sum() / (len(train_counts) * train_counts)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss [] of logits [b, k] against targets [b, k]."""
        return F.cross_entropy(logits.float(), targets, self.weight, label_smoothing=self.smoothing)


class Ema:
    """An average of a model's weights and batch statistics over the steps, exponentially forgetting.

    The decay grows to its full value as min(decay, (1 + t) / (10 + t)): a training of a few hundred steps would
    otherwise be scored on its random beginnings. Source: TensorFlow's ExponentialMovingAverage with num_updates.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.model = copy.deepcopy(model).requires_grad_(False)
        mine, theirs = list(self.model.state_dict().values()), list(model.state_dict().values())
        pairs = list(zip(mine, theirs, strict=True))
        # state_dict's tensors share memory with the model's for as long as it lives.
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the model's weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_([mine for mine, _ in self._averaged], [theirs for _, theirs in self._averaged], 1 - decay)
        for mine, theirs in self._counters:
            mine.copy_(theirs)


@dataclass(frozen=True)
class Precision:
    """How images go through a model: the type of products and the order of numbers in memory."""

    device: torch.device
    dtype: torch.dtype
    layout: torch.memory_format

    def forward(self, model: nn.Module, images: Tensor) -> Tensor:
        """The logits [b, k] of images [b, 3, h, w], float32."""
        # One pass over the images makes three equal channels out of one, orders them and rounds them.
        images = images.to(self.dtype, memory_format=self.layout)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits: Tensor = model(images)
        return logits.float()

    def scaler(self) -> GradScaler:
        """What keeps fp16 gradients from vanishing; it does nothing for the other types, which need no help."""
        return GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def choose_precision(config: TrialConfig, model: nn.Module, device: torch.device) -> Precision:
    """The precision of products, and the layout of images; weights, optimiser and batch norms are float32 throughout.

    auto takes what is fastest here by rule, so that a trial does not depend on what else ran while it was measured:

        GPU        bf16 from compute capability 8.0 on (A100), fp16 on 7.x (V100, T4), fp32 before: no tensor cores
        CPU        bf16 where it multiplies bf16 in hardware (AVX512-BF16 or AMX), but fp32 for depthwise models, which
                   wait for memory: on such a CPU ResNet18 at 224 px took 16 ms per image in bf16 and 30 ms in fp32,
                   MobileNetV3-small at 64 px 3.8 ms in bf16 and 1.9 ms in fp32
        otherwise  fp32
    """
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = _fastest(model, device) if config.precision == "auto" else named[config.precision]
    return Precision(device, dtype, torch.channels_last if config.channels_last else torch.contiguous_format)


def _fastest(model: nn.Module, device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16 if major == 7 else torch.float32
    if device.type == "cpu" and multiplies_bf16() and not is_depthwise(model):
        return torch.bfloat16
    return torch.float32


def multiplies_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
