"""All that one trial holds while it trains: data, model, optimiser, randomness, history, and how it is kept on disk."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.backbone import build_backbone
from trainable.cache import mels_of
from trainable.config import TrialConfig
from trainable.dataset import load_dataset
from trainable.errors import Diverged, InputError
from trainable.evaluate import clip_probabilities
from trainable.folder import EpochResult, TrialFolder
from trainable.inputs import Inputs
from trainable.optimise import Ema, Loss, choose_precision, make_optimizer
from trainable.progress import Progress
from trainable.split import Split, split_dataset


class Learner:
    """The state of one trial. Two of equal state go on in exactly the same way on the same CPU."""

    def __init__(self, config: TrialConfig, split: Split | None, progress: Progress | None) -> None:
        """The state before the first epoch; decodes the data where that has not been done yet."""
        torch.manual_seed(config.seed)  # the new head, dropout, stochastic depth
        self.config = config
        self.device = find_device(config.device)
        self.dataset = load_dataset(config.data, progress)
        self.split = split or split_dataset(self.dataset, config)
        self.inputs = Inputs(mels_of(self.dataset, config, progress), self.dataset, self.split, config, self.device)

        labels = torch.tensor([clip.label for clip in self.dataset.clips])
        self.train_clips, self.val_clips = torch.as_tensor(self.split.train), torch.as_tensor(self.split.val)
        self.val_labels = labels[self.val_clips]

        model = build_backbone(config, len(self.dataset.labels))
        self.precision = choose_precision(config, model, self.device)
        self.model = model.to(self.device, memory_format=self.precision.layout)  # type: ignore[call-overload]
        self.ema = Ema(self.model, config.ema) if config.ema else None
        self.optimizer = make_optimizer(self.model, config)
        self.scaler = self.precision.scaler()
        counts = torch.bincount(labels[self.train_clips], minlength=len(self.dataset.labels))
        self.loss = Loss(config, counts.to(self.device))
        self.rng = torch.Generator(self.device).manual_seed(config.seed)  # the batches' order, crops and augmentation
        self.history: list[EpochResult] = []
        self._probabilities = torch.empty(0, len(self.dataset.labels))  # [n, k] of the validation clips, latest epoch

        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # shapes stay the same all through a trial
        if config.compile:
            self.model.compile()

    @property
    def finished(self) -> bool:
        """Whether all epochs are trained, or validation has not got better for `patience` of them."""
        epochs = len(self.history)
        if not self.history or not self.config.patience or not len(self.val_clips):
            return epochs >= self.config.epochs
        top = max(result.val_acc for result in self.history)
        since = epochs - next(result.epoch for result in self.history if result.val_acc == top)
        return epochs >= self.config.epochs or since >= self.config.patience

    @property
    def _scored_model(self) -> nn.Module:
        """The model that is scored and kept: the average where there is one."""
        return self.ema.model if self.ema else self.model

    @property
    def best(self) -> EpochResult:
        """The epoch whose weights are kept: by accuracy, then loss; the last one where nothing is validated."""
        if not len(self.val_clips):
            return self.history[-1]
        return min(self.history, key=lambda result: (-result.val_acc, result.val_loss, result.epoch))

    def batches(self) -> list[Tensor]:
        """The training clips in a new order, in batches of indices [b]; each as often as crops are drawn of it.

        A last batch of a single clip is left out: batch norm cannot be trained on one.
        """
        clips = self.train_clips.repeat(self.config.drawn_crops)
        order = torch.randperm(len(clips), generator=self.rng, device=self.device).cpu()
        batches = torch.split(clips[order], self.config.batch_size)
        return [batch for batch in batches if len(batch) > 1]

    def validate(self) -> tuple[float, float]:
        """Loss (nats per clip) and accuracy of the scored weights on the validation clips; zeros where there are none.

        Raises:
            Diverged: the network's answers, or without validation clips its weights, are not finite.
        """
        model, epoch = self._scored_model, len(self.history) + 1
        if not len(self.val_clips):  # nothing else would notice that the epoch's last step broke what is kept
            numbers = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
            if not torch.stack([tensor.isfinite().all() for tensor in numbers]).all():
                raise Diverged(f"the network's weights became NaN or infinite in epoch {epoch}. Lower lr.")
            return 0.0, 0.0
        self._probabilities = clip_probabilities(
            model, self.inputs, self.val_clips, self.config.batch_size, self.config.scored_crops, self.precision.forward
        )
        if not self._probabilities.isfinite().all():
            raise Diverged(f"the network's answers became NaN in the validation of epoch {epoch}. Lower lr.")
        # Softmax in float32 can be exactly 0; the loss of a wrong answer stays finite.
        loss = F.nll_loss(self._probabilities.clamp(min=1e-12).log(), self.val_labels)
        right = int((self._probabilities.argmax(dim=1) == self.val_labels).sum())
        return float(loss), right / len(self.val_clips)

    def random_state(self) -> dict[str, Tensor]:
        """Where all generators of random numbers are."""
        state = {"torch": torch.get_rng_state(), "inputs": self.rng.get_state()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def set_random_state(self, state: dict[str, Tensor]) -> None:
        """Puts all generators where `random_state` found them."""
        torch.set_rng_state(state["torch"])
        self.rng.set_state(state["inputs"])
        if "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self.device)

    def save(self, files: TrialFolder) -> None:
        """Writes the best checkpoint where the latest epoch is the best, the last one, and the epoch's line.

        In this order: what is trained again after a kill in between writes the same once more.
        """
        if self.best == self.history[-1]:
            files.save("best", self._scored())
        files.save("last", self._state())
        files.append(self.history[-1])

    def load(self, files: TrialFolder) -> None:
        """Goes on from the last checkpoint where there is one; `epochs.jsonl` then says what it knows.

        Raises:
            InputError: the checkpoint is another configuration's.
        """
        state = files.load("last")
        if state is not None:
            if state["config"] != self.config.to_json():
                raise InputError(
                    f"{files.path}: must hold a checkpoint of the same configuration, got another one's. "
                    "Name an empty folder."
                )
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.ema:
                self.ema.model.load_state_dict(state["ema"])
                self.ema.steps = state["ema_steps"]
            self.set_random_state(state["random"])
            self.history = [EpochResult(**result) for result in state["history"]]
        files.recover(self.history)

    def begin(self, files: TrialFolder) -> None:
        """Makes the folder ready for a first epoch: what an earlier training left there is removed."""
        for which in ("last", "best"):
            files.checkpoint(which).unlink(missing_ok=True)
        files.recover([])

    def _state(self) -> dict[str, Any]:
        """The last checkpoint: all that the next epochs depend on, as plain values and tensors."""
        return {
            "config": self.config.to_json(),
            "history": [dataclasses.asdict(result) for result in self.history],
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.model.state_dict() if self.ema else None,
            "ema_steps": self.ema.steps if self.ema else 0,
            "random": self.random_state(),
        }

    def _scored(self) -> dict[str, Any]:
        """The best checkpoint: the weights that were scored, what they need to work, and what they said."""
        seen = [*self.split.train.tolist(), *self.split.val.tolist()]
        return {
            "epoch": len(self.history),
            "weights": self._scored_model.state_dict(),
            "config": self.config.to_json(),
            "labels": list(self.dataset.labels),
            "sample_rate": self.config.sample_rate or self.dataset.sample_rate,  # Hz, the front end's
            "clip_seconds": max(self.dataset.clips[index].seconds for index in seen),  # s, the longest clip seen
            "normalisation": dataclasses.asdict(self.inputs.normalisation),
            "val_clips": self.val_clips,  # [n] indices into Dataset.clips
            "val_labels": self.val_labels,  # [n] indices into labels
            "val_probabilities": self._probabilities,  # [n, k], not calibrated
        }


def find_device(name: str) -> torch.device:
    """The device that a configuration names; auto is the GPU where there is one.

    Raises:
        InputError: it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there[device.type]:
        raise InputError(f"device: must be one of this machine's, got {name!r}, which is not there. Use auto or cpu.")
    return device
