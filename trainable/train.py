"""One trial: a configuration in, an `EpochResult` after every epoch."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from trainable.backbone import train_mode
from trainable.config import TrialConfig
from trainable.errors import Diverged, OutOfMemory
from trainable.folder import EpochResult, TrialFolder
from trainable.learner import Learner
from trainable.memory import free_memory, is_out_of_memory, keep_freed_memory
from trainable.optimise import set_learning_rate
from trainable.progress import Progress
from trainable.schedule import learning_rate
from trainable.split import Split

CHECK_EVERY = 16  # steps between looks at the loss: each makes the CPU wait for the GPU


def train(
    config: TrialConfig,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    split: Split | None = None,
) -> Iterator[EpochResult]:
    """The epochs of one trial, each as soon as it is trained, scored and on disk.

    With a `folder`, every epoch leaves there `best.pt` (where it is the best so far), `last.pt` and a line in
    `epochs.jsonl` before it is yielded. `resume` goes on from `last.pt` where there is one, on a CPU bit for bit as if
    nothing had happened, and yields what is new. `split` replaces the one that `config` asks for.

    The process belongs to the trial while this generator lives: torch is seeded, has as many threads as OMP_NUM_THREADS
    says where that is set, and has given its memory back, on the GPU too, when the generator has ended or is closed.

    Raises:
        Diverged: the loss became NaN or infinite.
        OutOfMemory: there is no room for this batch and image size.
        InputError: the data, the weights or the device cannot be had.
    """
    free_memory()
    keep_freed_memory()
    threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # Ray sets it to the trial's CPUs
    if threads.isdecimal():
        torch.set_num_threads(max(1, int(threads)))
    no_room: str | None = None
    try:
        yield from _epochs(config, folder, resume, progress, split)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        no_room = str(error).split("\n")[0][:200] or type(error).__name__
    finally:  # here all that the epochs held is gone, as is the error, whose traceback holds it too
        if config.compile:
            torch.compiler.reset()  # its cache would keep the model
        free_memory()
    if no_room is not None:
        raise OutOfMemory(
            f"no room for batch_size {config.batch_size} at image_size {config.image_size} with {config.backbone}: "
            f"{no_room}"
        )


def _epochs(
    config: TrialConfig, folder: Path | None, resume: bool, progress: Progress | None, split: Split | None
) -> Iterator[EpochResult]:
    files = TrialFolder(folder) if folder else None
    state = Learner(config, split, progress)
    if files and resume:
        state.load(files)
    elif files:
        state.begin(files)
    model, inputs, optimizer, scaler = state.model, state.inputs, state.optimizer, state.scaler
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]

    while not state.finished:
        epoch, started = len(state.history), time.perf_counter()
        batches = state.batches()
        tally = Tally(epoch + 1)
        train_mode(model)
        for step, clips in enumerate(batches):
            lr = config.lr * learning_rate(config, epoch, step, len(batches))
            set_learning_rate(optimizer, lr)
            images, targets = inputs.train_batch(clips, state.rng)
            logits = state.precision.forward(model, images)
            loss = state.loss(logits, targets)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if config.grad_clip:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(trainable, config.grad_clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if state.ema:
                state.ema.update()
            tally.add(loss.detach(), logits.detach(), targets, lr)
            if progress:
                progress(f"Epoch {epoch + 1}", step + 1, len(batches))

        train_loss, train_acc = tally.means()
        val_loss, val_acc = state.validate()
        seconds = time.perf_counter() - started
        state.history.append(EpochResult(epoch + 1, train_loss, train_acc, val_loss, val_acc, lr, seconds))
        if files:
            state.save(files)
        random = state.random_state()
        yield state.history[-1]
        state.set_random_state(random)  # whatever the caller has drawn meanwhile


class Tally:
    """Training loss and accuracy of one epoch, added up where the tensors are."""

    def __init__(self, epoch: int) -> None:
        """`epoch` is 1-based."""
        self.epoch = epoch
        self.steps = self.clips = 0
        self._sum = self._right = torch.zeros(())
        self._unseen: list[tuple[Tensor, float]] = []  # losses that nobody has looked at yet, and their rates

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor, lr: float) -> None:
        """Adds a step: its mean loss [], logits and target distributions [b, k].

        Raises:
            Diverged: one of the last losses is NaN or infinite.
        """
        self.steps += 1
        self.clips += len(targets)
        self._sum = self._sum.to(loss.device) + loss * len(targets)
        self._right = self._right.to(loss.device) + (logits.argmax(dim=1) == targets.argmax(dim=1)).sum()
        self._unseen.append((loss, lr))
        if self.steps % CHECK_EVERY == 0:
            self._check()

    def means(self) -> tuple[float, float]:
        """Loss (nats) and accuracy per clip.

        Raises:
            Diverged: one of the last losses is NaN or infinite.
        """
        self._check()
        return float(self._sum) / self.clips, int(self._right) / self.clips

    def _check(self) -> None:
        losses = torch.stack([loss for loss, _ in self._unseen]).tolist() if self._unseen else []
        for step, loss in enumerate(losses, start=self.steps - len(losses) + 1):
            if not math.isfinite(loss):
                lr = self._unseen[step - self.steps - 1][1]
                raise Diverged(f"the loss became {loss} in epoch {self.epoch}, step {step}, at lr {lr:g}")
        self._unseen = []
