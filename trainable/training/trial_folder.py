"""A trial's folder: its configuration, one line per finished epoch, its last and its best checkpoint.

Nothing here is ever half-written: files are written beside their place and renamed. The last checkpoint carries
the whole history, so a process killed between the checkpoint and the line in `epochs.jsonl` loses neither.
"""

from __future__ import annotations

import dataclasses
import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainable.errors import InputError, Unavailable, visible
from trainable.files import replacing, write_atomically
from trainable.shapes import parse_json, read_json


@dataclass(frozen=True)
class EpochResult:
    """What one epoch of training achieved; accuracies are fractions of clips in [0, 1]."""

    epoch: int  # 1-based: epochs finished so far
    train_loss: float  # mean cross-entropy per clip, nats
    train_acc: float  # on the augmented batches that were trained on; with mixed labels, the larger share counts
    val_loss: float  # mean cross-entropy per clip, nats, over the averaged probabilities of a clip's crops; 0: no clips
    val_acc: float  # one vote per clip, crops averaged; 0 where there are no validation clips
    lr: float  # learning rate at the end of the epoch
    seconds: float  # wall time of the epoch, training and validation, s


@dataclass(frozen=True)
class Cost:
    """What it costs to use a configuration; None where that is not known."""

    parameters: int
    operations: int  # multiply-adds for all scored windows of a clip of the usual length
    latency_ms: float | None  # from a waveform of the usual length to probabilities, on the machine that trained it, ms
    memory_mb: float | None  # the most that the training took at once, MB


@dataclass(frozen=True)
class Answers:
    """What the best epoch said of the validation clips; classes are indices into `labels`."""

    epoch: int
    labels: list[str]
    true: list[int]  # [n] of the validation clips
    predicted: list[int]  # [n]


Which = Literal["last", "best"]


@dataclass(frozen=True)
class TrialFolder:
    """The files of one trial under `path`."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The path of the trial's configuration."""
        return self.path / "config.json"

    @property
    def epochs_file(self) -> Path:
        """The path of the finished epochs, one JSON object a line."""
        return self.path / "epochs.jsonl"

    @property
    def mel_file(self) -> Path:
        """The path of the picture of a clip as the network sees it."""
        return self.path / "mel.png"

    @property
    def answers_file(self) -> Path:
        """The path of what the best epoch said of the validation clips."""
        return self.path / "answers.json"

    @property
    def error_file(self) -> Path:
        """The path of the traceback of what ended the trial, where something did."""
        return self.path / "error.txt"

    def checkpoint(self, which: Which) -> Path:
        """The path of the last or best checkpoint, there or not."""
        return self.path / f"{which}.pt"

    def write_config(self, config: dict[str, Any]) -> None:
        """Makes the folder and writes the configuration into it."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.config_file, json.dumps(config, indent=2) + "\n")

    def write_cost(self, cost: Cost) -> None:
        """Writes what the configuration costs."""
        write_atomically(self.path / "cost.json", json.dumps(dataclasses.asdict(cost)) + "\n")

    def write_answers(self, answers: Answers) -> None:
        """Writes what the best epoch said of the validation clips."""
        write_atomically(self.answers_file, json.dumps(dataclasses.asdict(answers)) + "\n")

    def cost(self) -> Cost | None:
        """What the configuration costs, or None where that has not been measured.

        Raises:
            InputError: the file is damaged.
        """
        path = self.path / "cost.json"
        if not path.exists():
            return None
        found = read_json(path, Cost, "Delete the file: what a trial costs is only shown.")
        return Cost(**{field.name: found.get(field.name) for field in dataclasses.fields(Cost)})

    def answers(self) -> Answers | None:
        """What the best epoch said of the validation clips, or None where nothing is noted.

        Raises:
            InputError: the file is damaged.
        """
        if not self.answers_file.exists():
            return None
        found = read_json(self.answers_file, Answers, "Delete the file: it is only shown.")
        return Answers(**{field.name: found[field.name] for field in dataclasses.fields(Answers)})

    def save(self, which: Which, state: dict[str, Any]) -> None:
        """Writes a checkpoint; afterwards either the old one or the new one is there, whole."""
        import torch  # here, so that reading a run folder needs no torch

        with replacing(self.checkpoint(which)) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # torch's own word for a disk that refuses; these are plain tensors
                raise OSError(errno.ENOSPC, "a checkpoint could not be written: is the disk full?") from error

    def load(self, which: Which) -> dict[str, Any] | None:
        """The checkpoint's state on the CPU, or None where there is none yet.

        Raises:
            Unavailable: the file is damaged.
        """
        import torch

        path = self.checkpoint(which)
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict):
                raise TypeError(f"a {type(state).__name__}")
        except Exception as error:  # whatever torch runs into in a file that is something else
            why = " ".join(str(error).split())[:100]
            raise Unavailable(
                f"{path}: must be a whole checkpoint, got something else ({why}). Put back a copy; without {path.name} "
                f"{'the training begins anew' if which == 'last' else 'the trial has no model'}."
            ) from None
        return state

    def epochs(self) -> list[EpochResult]:
        """The finished epochs; a last line cut off by a kill does not count.

        Raises:
            InputError: a line is damaged.
        """
        if not self.epochs_file.exists():
            return []
        lines = self.epochs_file.read_bytes().split(b"\n")[:-1]
        return [self._epoch(number, line) for number, line in enumerate(lines, start=1)]

    def _epoch(self, number: int, line: bytes) -> EpochResult:
        way_out = (
            "Put back a copy of the file, or delete it: a trial that goes on writes it anew from last.pt, and the "
            "search keeps the accuracies of all trials in events.jsonl."
        )
        place = f"{self.epochs_file}, line {number}"
        try:
            found = parse_json(line, EpochResult, "", "")
        except InputError:
            shown = visible(line.decode(errors="replace").strip(), 40)
            raise InputError(f"{place}: must be what an epoch achieved, got {shown!r}. {way_out}") from None
        return EpochResult(**{field.name: found[field.name] for field in dataclasses.fields(EpochResult)})

    def append(self, result: EpochResult) -> None:
        """Adds the line of a finished epoch."""
        with self.epochs_file.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(result)) + "\n")

    def recover(self, history: list[EpochResult]) -> None:
        """Makes `epochs.jsonl` say exactly what the last checkpoint knows."""
        text = "".join(json.dumps(dataclasses.asdict(result)) + "\n" for result in history)
        # By the text, not by the epochs: half a line that a kill left would join the next one.
        if not self.epochs_file.exists() or self.epochs_file.read_text() != text:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.epochs_file, text)
