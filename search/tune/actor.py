"""One trial on a Ray worker: its configuration in, one report per epoch out."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ray import tune

from search.tune.cluster import hide_gpus
from trainable.config import TrialConfig
from trainable.errors import InputError, TrialEnded, Unavailable
from trainable.files import write_atomically
from trainable.training.trial_folder import EpochResult, TrialFolder

# Yields an EpochResult after each epoch, with the epoch's files already written: `trainable.training.loop.train`, or
# in tests something that is faster. Keywords: folder, resume, progress.
TrainFunction = Callable[..., Iterator[EpochResult]]
# Tune wants a finite metric in every report. Of a trial that ended before its time nobody reads these: the scheduler
# goes by the status, and what the sampler is told comes from the journal (search/study.py).
FLOOR_ACCURACY = 0.0
FLOOR_LOSS = 1e9
STOP_FILE = ".stop"  # in the run folder: the driver asks all running trials to end at once
# Ends of an attempt that say nothing of the trial: the driver wants to stop; what lies outside of it cannot be had.
NOT_THE_TRIALS = frozenset({"interrupted", "unavailable"})
LEAVING_S = 60.0  # so long may the worker of a driver that was killed take to notice that


class StopRequested(Exception):
    """The driver wants no more epochs; what is finished is on disk."""


class TrialActor(tune.Trainable):  # type: ignore[misc]  # Ray has no types
    """A worker that runs one trial after the other.

    The trial's folder is the truth: a restarted trial first repeats to the driver what its folder already holds, then
    trains on from the last checkpoint. The driver ignores what it has heard before.
    """

    def setup(self, config: dict[str, Any], train: TrainFunction, without_gpu: bool = False) -> None:
        """Begins the first trial of this worker."""
        if without_gpu:
            hide_gpus()
        self._train = train
        self._gpu_is_gone = False
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Ends the old trial and begins the new one in the same process."""
        self._end()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Ends the trial; frees what it holds."""
        self._end()

    def step(self) -> dict[str, Any]:
        """The next epoch, or how the trial ended. Never raises for what a configuration does wrong."""
        if self._gpu_is_gone:  # the trial that broke it has been reported; this one goes on in a new process
            os._exit(1)
        try:
            return self._report(self._next_epoch())
        except StopIteration:  # stopped early on a plateau
            return {**dataclasses.asdict(self._seen[-1]), "status": "finished", "message": ""}
        except StopRequested:
            return self._ended("interrupted", "")
        except TrialEnded as error:
            return self._ended(error.status, str(error))
        except (OSError, ImportError, Unavailable) as error:
            # A disk, a mount, a network, a permission or what is installed here: no configuration decides these.
            return self._ended("unavailable", in_words(error))
        except InputError as error:
            return {**self._ended("failed", str(error)), "refused": True}
        except Exception as error:  # a bug in one configuration must not stop the search, and is not retried
            self._gpu_is_gone = _takes_the_gpu_along(error)
            return self._ended("failed", f"{type(error).__name__}: {error}{self._keep_traceback()}")

    def _begin(self, config: dict[str, Any]) -> None:
        self._folder = TrialFolder(Path(config["folder"]))
        self._stop_file = self._folder.path.parent / STOP_FILE
        self._next_look = 0.0
        self._values = config["config"]
        self._seen: list[EpochResult] = []
        self._unreported: deque[EpochResult] = deque()
        self._epochs: Iterator[EpochResult] | None = None
        self._lock: FileLock | None = None

    def _end(self) -> None:
        epochs = getattr(self, "_epochs", None)
        if epochs is not None and hasattr(epochs, "close"):
            epochs.close()  # the generator frees its model and its memory
        self._epochs = None
        lock = getattr(self, "_lock", None)
        if lock is not None:
            lock.release()
        self._lock = None

    def _start(self) -> Iterator[EpochResult]:
        config = TrialConfig.model_validate(self._values)  # the driver has parsed it, with all the checks
        self._take_folder()
        with suppress(OSError):
            self._folder.error_file.unlink(missing_ok=True)  # of an attempt before `resume --retry-failed`
        if not self._folder.config_file.exists():
            self._folder.write_config(config.to_json())
        self._last_epoch = config.epochs
        self._look_at_disk()
        return iter(self._train(config, folder=self._folder.path, resume=True, progress=self._on_batch))

    def _take_folder(self) -> None:
        """Holds the trial's folder, so that a worker which has outlived its driver never writes to it as well.

        Raises:
            Unavailable: another process does not let go of it.
        """
        self._folder.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder.path / ".lock")
        try:
            lock.acquire(timeout=LEAVING_S)
        except Timeout:
            raise Unavailable(
                f"{self._folder.path}: must be one process's, got another one that trains there. Wait until it ends."
            ) from None
        self._lock = lock

    def _next_epoch(self) -> EpochResult:
        if self._epochs is None:
            self._epochs = self._start()
        while not self._unreported:
            over = next(self._epochs, None) is None
            self._look_at_disk()  # also at the end: what a kill kept out of epochs.jsonl has been put there by now
            if over and not self._unreported:
                raise StopIteration
        return self._unreported.popleft()

    def _look_at_disk(self) -> None:
        """Queues the epochs of `epochs.jsonl` that the driver has not heard of in this attempt."""
        epochs = self._folder.epochs()
        self._unreported.extend(epochs[len(self._seen) :])
        self._seen = epochs

    def _on_batch(self, description: str, done: int, total: int) -> None:
        """Looks once a second whether the driver wants to stop, so that an epoch of minutes does not hold it up."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + 1.0
            if self._stop_file.exists():
                raise StopRequested

    def _report(self, epoch: EpochResult) -> dict[str, Any]:
        status = "finished" if epoch.epoch >= self._last_epoch else "running"
        return {**dataclasses.asdict(epoch), "status": status, "message": ""}

    def _keep_traceback(self) -> str:
        """Nothing, with the traceback of the exception at hand in `error.txt`; why not, where it cannot be written.

        The disk that refuses it may be what ended the trial, and the report must go out: without one the trial would
        count as a lost worker and be tried again.
        """
        try:
            self._folder.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self._folder.error_file, traceback.format_exc())
        except OSError as error:
            return f" (its traceback could not be written to error.txt: {error.strerror or error})"
        return ""

    def _ended(self, status: str, message: str) -> dict[str, Any]:
        """A last report; the floor values keep Tune from ever meeting None or NaN."""
        return {
            "epoch": max(len(self._seen), 1), "val_acc": FLOOR_ACCURACY, "val_loss": FLOOR_LOSS,
            "status": status, "message": message,
        }  # fmt: skip


def in_words(error: OSError | ImportError | Unavailable) -> str:
    """What cannot be had, and where."""
    if isinstance(error, Unavailable):
        return str(error)
    if isinstance(error, ImportError):
        return f"{error}: must be installed where trials run, in {sys.prefix} on {socket.gethostname()}"
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error or type(error).__name__}"


def _takes_the_gpu_along(error: Exception) -> bool:
    """Whether an error leaves its process no GPU: an illegal memory access, an assert on the device and the like.

    Every later CUDA call then fails in the same way, those of the next trial too. Running out of memory is none of
    them. By the name of torch's type, because nothing here imports torch; and by the text, which older calls raise as
    a plain RuntimeError. Simulated in the tests; not yet met on a real GPU.
    """
    of_cuda = type(error).__name__ == "AcceleratorError" or str(error).startswith("CUDA error")
    return isinstance(error, RuntimeError) and of_cuda and "out of memory" not in str(error)
