"""One trial: a configuration in, an `EpochResult` after every epoch; the loop, its state, and validation."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.backbones.head import train_mode
from trainable.config import TrialConfig
from trainable.cores import allowed_cores
from trainable.data.dataset import Dataset, load_dataset
from trainable.data.split import Split, split_dataset
from trainable.errors import Diverged, InputError, OutOfMemory, Unavailable
from trainable.features.inputs import Inputs
from trainable.features.mel_cache import mels_of
from trainable.features.picture import png, seen_and_learned
from trainable.files import write_atomically
from trainable.progress import Progress
from trainable.training.cost import PeakMemory, measured_cost
from trainable.training.device import choose_precision, find_device, free_memory, is_out_of_memory, keep_freed_memory
from trainable.training.network import build_network
from trainable.training.optim import Ema, Loss, learning_rate, make_optimizer, set_learning_rate
from trainable.training.probe import features_of, fit_head, linear_head
from trainable.training.trial_folder import Answers, EpochResult, TrialFolder

CHECK_EVERY = 16  # steps between looks at the loss: each makes the CPU wait for the GPU


def train(
    config: TrialConfig,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    split: Split | None = None,
    data_hash: str | None = None,
) -> Iterator[EpochResult]:
    """The epochs of one trial, each as soon as it is trained, scored and on disk.

    With a `folder`, every epoch leaves there `best.pt` (where it is the best so far), `last.pt` and a line in
    `epochs.jsonl` before it is yielded. `resume` goes on from `last.pt` where there is one, on a CPU bit for bit as if
    nothing had happened, and yields what is new. `split` replaces the one that `config` asks for. `data_hash` is the
    `Dataset.hash` that must be met: where a mount has gone in part, there is another data set.

    The process belongs to the trial while this generator lives: torch is seeded, has as many threads as OMP_NUM_THREADS
    says, or where that is not set at most as many as there are cores for it, and has given its memory back, on the GPU
    too, when the generator has ended or is closed.

    Raises:
        Diverged: the loss became NaN or infinite.
        OutOfMemory: there is no room for this batch and image size.
        Unavailable: the data, the weights or the device cannot be had now, or the data are others than `data_hash`.
        InputError: the configuration does not fit the data.
    """
    free_memory()
    keep_freed_memory()
    threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # Ray sets it to the trial's CPUs
    if threads.isdecimal():
        torch.set_num_threads(max(1, int(threads)))
    elif torch.get_num_threads() > allowed_cores():
        torch.set_num_threads(allowed_cores())
    no_room: str | None = None
    try:
        yield from _epochs(config, folder, resume, lambda: Learner(config, split, progress, data_hash), progress)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        no_room = str(error).split("\n")[0][:200] or type(error).__name__
    finally:  # here all that the epochs held is gone, as is the error, whose traceback holds it too
        if config.compile:
            torch.compiler.reset()  # its cache would keep the model
        free_memory()
    if no_room is not None:
        size = "whole mels" if config.image_size is None else f"image_size {config.image_size}"
        raise OutOfMemory(f"no room for batch_size {config.batch_size} at {size} with {config.backbone}: {no_room}")


def _epochs(
    config: TrialConfig, folder: Path | None, resume: bool, begin: Callable[[], Learner], progress: Progress | None
) -> Iterator[EpochResult]:
    files = TrialFolder(folder) if folder else None
    state = begin()
    if files and resume:
        state.load(files)
    elif files:
        state.begin(files)
    if files:
        state.draw_mel(files)
    memory = PeakMemory(state.device)
    if config.head_start == "probe" and config.method == "train" and not state.history:
        state.probe(progress)

    while not state.finished:
        started = time.perf_counter()
        if config.method == "probe":
            train_loss, train_acc, lr = *state.probe(progress), 0.0
        else:
            train_loss, train_acc, lr = _train_epoch(state, progress)
        val_loss, val_acc = state.validate()
        seconds = time.perf_counter() - started
        state.history.append(
            EpochResult(len(state.history) + 1, train_loss, train_acc, val_loss, val_acc, lr, seconds)
        )  # fmt: skip
        if files:
            state.save(files)
            state.note_cost(files, memory.megabytes())
        random = state.random_state()
        yield state.history[-1]
        state.set_random_state(random)  # whatever the caller has drawn meanwhile


def _train_epoch(state: Learner, progress: Progress | None) -> tuple[float, float, float]:
    """Loss (nats) and accuracy of the next epoch on what is learned from, and its last learning rate."""
    config, epoch = state.config, len(state.history)
    model, inputs, optimizer, scaler = state.model, state.inputs, state.optimizer, state.scaler
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    batches, lr = state.batches(), 0.0
    tally = Tally(epoch + 1, state.precision.hint)
    train_mode(model, config.batch_norm)
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
    return *tally.means(), lr


class Tally:
    """Training loss and accuracy of one epoch, added up where the tensors are."""

    def __init__(self, epoch: int, hint: str = "") -> None:
        """`epoch` is 1-based; `hint` says what to do about a loss that is no number."""
        self.epoch = epoch
        self._hint = hint
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
                raise Diverged(f"the loss became {loss} in epoch {self.epoch}, step {step}, at lr {lr:g}{self._hint}")
        self._unseen = []


def _data_of(config: TrialConfig, progress: Progress | None, expected: str | None) -> Dataset:
    """The data set of a configuration; `expected`: its hash, where that is known.

    Raises:
        Unavailable: it is not there as it must be, which no configuration decides.
    """
    try:
        dataset = load_dataset(config.data, progress, config.group_column)
    except InputError as error:
        raise Unavailable(error.problems) from None
    if expected is not None and dataset.hash != expected:
        raise Unavailable(
            f"{config.data}: must be the data that the search began with (hash {expected}), got {dataset.hash} with "
            f"{len(dataset.clips)} clips. Put the files back as they were."
        )
    return dataset


class Learner:
    """The state of one trial. Two of equal state go on in exactly the same way on the same CPU."""

    def __init__(
        self, config: TrialConfig, split: Split | None, progress: Progress | None, data_hash: str | None = None
    ) -> None:
        """The state before the first epoch; decodes the data where that has not been done yet."""
        torch.manual_seed(config.seed)  # the new head, dropout, stochastic depth
        self.config = config
        self.device = find_device(config.device)
        self.dataset = _data_of(config, progress, data_hash)
        self.split = split or split_dataset(self.dataset, config)
        self.inputs = Inputs(mels_of(self.dataset, config, progress), self.dataset, self.split, config, self.device)

        labels = torch.tensor([clip.label for clip in self.dataset.clips])
        self.train_clips, self.val_clips = torch.as_tensor(self.split.train), torch.as_tensor(self.split.val)
        self.train_labels, self.val_labels = labels[self.train_clips], labels[self.val_clips]

        model = build_network(config, len(self.dataset.labels))
        self.precision = choose_precision(config, model, self.device)
        self.model = model.to(self.device, memory_format=self.precision.layout)  # type: ignore[call-overload]
        self.ema = Ema(self.model, config.ema) if config.ema else None
        self.optimizer = make_optimizer(self.model, config)
        self.scaler = self.precision.scaler()
        counts = torch.bincount(labels[self.train_clips], minlength=len(self.dataset.labels))
        self.loss = Loss(config, counts.to(self.device))
        self.rng = torch.Generator(self.device).manual_seed(config.seed)  # the batches' order, crops and augmentation
        self.history: list[EpochResult] = []
        self._probed: Tensor | None = None  # [n, k] of the validation clips, by a probe's features
        self._probabilities = torch.empty(0, len(self.dataset.labels))  # [n, k] of the validation clips, latest epoch

        if self.device.type == "cuda":
            # Shapes stay the same all through a trial, where whole clips do not keep their own lengths.
            torch.backends.cudnn.benchmark = not self.inputs.of_many_lengths
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
        return [batch for batch in self.inputs.batches(clips[order]) if len(batch) > 1]

    def probe(self, progress: Progress | None) -> tuple[float, float]:
        """Solves the last layer on the features of the frozen network: loss (nats) and accuracy on training clips."""
        features = features_of(self.model, self.inputs, self.dataset, self.config, self.precision, progress)
        own = features.of(self.train_clips)
        fit_head(self.model, own, self.train_labels, self.config)
        if self.ema:
            self.ema = Ema(self.model, self.config.ema)
        head = linear_head(self.model, self.config)
        self._probed = None
        if self.config.method == "probe":  # so that validation has nothing to compute
            self._probed = features.of(self.val_clips).probabilities(head, len(self.val_clips))
        return _loss_and_accuracy(own.probabilities(head, len(self.train_clips)), self.train_labels)

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
        if self._probed is not None:
            self._probabilities = self._probed
        else:
            self._probabilities = clip_probabilities(
                model, self.inputs, self.val_clips, self.config.batch_size, self.config.scored_crops,
                self.precision.forward,
            )  # fmt: skip
        if not self._probabilities.isfinite().all():
            raise Diverged(
                f"the network's answers became NaN in the validation of epoch {epoch}"
                f"{self.precision.hint or '. Lower lr.'}"
            )
        return _loss_and_accuracy(self._probabilities, self.val_labels)

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
            self._note_answers(files)
        files.save("last", self._state())
        files.append(self.history[-1])

    def note_cost(self, files: TrialFolder, memory_mb: float) -> None:
        """Writes what the configuration costs: measured once, and its memory again whenever that has grown."""
        cost = files.cost()
        if cost is None:
            with torch.random.fork_rng(devices=[]):
                cost = measured_cost(self.config, self.dataset, self._scored_model, self.device)
        elif cost.memory_mb is not None and cost.memory_mb >= memory_mb:
            return
        files.write_cost(dataclasses.replace(cost, memory_mb=round(memory_mb, 1)))

    def _note_answers(self, files: TrialFolder) -> None:
        """Writes what the latest epoch said of the validation clips, where there are any."""
        if len(self.val_clips):
            said = self._probabilities.argmax(dim=1).tolist()
            labels = list(self.dataset.labels)
            files.write_answers(Answers(len(self.history), labels, self.val_labels.tolist(), said))

    def draw_mel(self, files: TrialFolder) -> None:
        """Draws a training clip as the network sees it, once; no random number of the training is spent on it."""
        if files.mel_file.exists():
            return
        rng = torch.Generator(self.device).manual_seed(self.config.seed) if self.config.method == "train" else None
        with torch.random.fork_rng(devices=[]):
            picture = seen_and_learned(self.inputs, int(self.train_clips[0]), rng)
        write_atomically(files.mel_file, png(picture))

    def load(self, files: TrialFolder) -> None:
        """Goes on from the last checkpoint where there is one; `epochs.jsonl` then says what it knows.

        Raises:
            InputError: the checkpoint is another configuration's.
        """
        state = files.load("last")
        if state is not None:
            if not self._goes_on_from(state):
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

    def _goes_on_from(self, state: Mapping[str, Any]) -> bool:
        """Whether a checkpoint is of this configuration, on the same clips; these may have been moved."""
        then, now = state["config"], self.config.to_json()
        same_clips = then["data"] == now["data"] or state.get("data_hash") == self.dataset.hash
        return same_clips and {**then, "data": ""} == {**now, "data": ""}

    def begin(self, files: TrialFolder) -> None:
        """Makes the folder ready for a first epoch: what an earlier training left there is removed."""
        for left in (files.checkpoint("last"), files.checkpoint("best"), files.answers_file, files.mel_file):
            left.unlink(missing_ok=True)
        files.recover([])

    def _state(self) -> dict[str, Any]:
        """The last checkpoint: all that the next epochs depend on, as plain values and tensors."""
        return {
            "config": self.config.to_json(),
            "data_hash": self.dataset.hash,
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


def _loss_and_accuracy(probabilities: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy (nats) and share of right answers of probabilities [n, k] for clips of these `labels` [n]."""
    # Softmax in float32 can be exactly 0; the loss of a wrong answer stays finite.
    loss = F.nll_loss(probabilities.clamp(min=1e-12).log(), labels)
    return float(loss), int((probabilities.argmax(dim=1) == labels).sum()) / len(labels)


class EvalInputs(Protocol):
    """What makes scoring windows of clips: `trainable.features.inputs.Inputs`."""

    def eval_batch(self, clips: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Images [w, c, h, w] of the windows of `clips` [b] and whose each is [w], a position in `clips`, by shape."""

    def lengths(self, clips: Tensor) -> Tensor:
        """What sorts `clips` [n] by the shape of their images [n]: frames."""


def plain(model: nn.Module, images: Tensor) -> Tensor:
    """The logits of `images` with no change of precision."""
    logits: Tensor = model(images)
    return logits


@torch.no_grad()
def clip_probabilities(
    model: nn.Module,
    inputs: EvalInputs,
    clips: Tensor,
    batch_size: int,
    crops: int = 1,
    forward: Callable[[nn.Module, Tensor], Tensor] = plain,
) -> Tensor:
    """The probabilities [n, k] of `clips` [n], float32 on the CPU: softmax, then the mean over a clip's windows.

    `crops` is how many windows a clip has at most, so that about `batch_size` windows are in memory at once, however
    many there are per clip. Leaves `model` in evaluation mode.

    Clips are taken in the order of their length, so that those that go through together have one shape.

    Legend: n clips, w windows of all clips of a batch, k classes.
    """
    if not len(clips):
        raise ValueError("there must be clips to score, got none")
    model.eval()
    order = torch.argsort(inputs.lengths(clips), stable=True)
    rows = []
    for batch in torch.split(clips[order], max(1, batch_size // crops)):
        total: Tensor | None = None
        for images, owner in inputs.eval_batch(batch):
            parts = [forward(model, part).float().softmax(dim=1) for part in torch.split(images, batch_size)]
            windows = torch.cat(parts)
            share = torch.nn.functional.one_hot(owner, len(batch)).to(windows.dtype)
            mean = (share.T @ windows) / share.sum(0).clamp(min=1)[:, None]
            total = mean if total is None else total + mean
        if total is not None:
            rows.append(total)
    result = torch.cat(rows)
    return result[torch.argsort(order).to(result.device)].cpu()
