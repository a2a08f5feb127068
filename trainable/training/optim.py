"""The optimiser, its learning rate over a training, the average of the weights, and the loss."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.backbones.head import head_of, stages
from trainable.config import TrialConfig


def learning_rate(config: TrialConfig, epoch: int, step: int, steps_per_epoch: int) -> float:
    """What `config.lr` is multiplied by at one step.

    The horizon is `config.epochs`, so a trial that a scheduler cuts had the same rates as one that runs to the end.
    The decay begins where the warmup ends:

        constant  1
        step      gamma ** (epochs since the warmup // step_size)
        cosine    from 1 to 0 over the remaining steps, half a period

    Args:
        config: of the trial.
        epoch: 0-based.
        step: 0-based, within the epoch.
        steps_per_epoch: at least 1.

    Source: the tutorial sets the rate to lr * (epoch + 1) / 5 in its first five epochs and calls StepLR(10, 0.1).step()
    at the end of every epoch from the sixth on, so that the first decay comes ten epochs after the warmup.
    """
    if epoch < config.warmup_epochs:
        return _warmup(config, epoch, step, steps_per_epoch)
    since = epoch - config.warmup_epochs
    if config.schedule == "step":
        return config.gamma ** (since // config.step_size)
    if config.schedule == "cosine":
        done = since + step / steps_per_epoch
        return 0.5 * (1 + math.cos(math.pi * done / (config.epochs - config.warmup_epochs)))
    return 1.0


def _warmup(config: TrialConfig, epoch: int, step: int, steps_per_epoch: int) -> float:
    if config.warmup == "staircase":
        return (epoch + 1) / config.warmup_epochs
    return (epoch * steps_per_epoch + step + 1) / (config.warmup_epochs * steps_per_epoch)


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


def parameter_groups(model: nn.Module, config: TrialConfig) -> list[dict[str, Any]]:
    """Optimiser groups with `params`, `lr_multiple` and `weight_decay`; frozen parameters are in none of them.

    The head's learning rate is `head_lr_multiple` times the body's, and each stage's `layer_decay` times that of the
    one after it, the head's own not counted. Norms, biases and everything else that is a vector
    (layer scales, class tokens) get no weight decay: pulling them to zero regularises nothing.
    """
    head = {id(parameter) for parameter in head_of(model)[1].parameters()}
    multiples: dict[int, float] = {}
    if config.layer_decay != 1:  # a network of one's own may have no stages that could be told apart
        parts = stages(model)
        for place, part in enumerate(parts):
            multiples |= {id(parameter): config.layer_decay ** (len(parts) - place) for parameter in part}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        multiple = config.head_lr_multiple if id(parameter) in head else multiples.get(id(parameter), 1.0)
        decay = 0.0 if parameter.squeeze().ndim <= 1 else config.weight_decay
        groups.setdefault((multiple, decay), []).append(parameter)
    return [
        {"params": params, "lr_multiple": multiple, "weight_decay": decay}
        for (multiple, decay), params in groups.items()
    ]


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
