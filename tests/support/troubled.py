"""Simulated training that meets trouble; a worker imports where it is, so this imports little."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.simulated import train
from trainable.config import TrialConfig
from trainable.errors import Unavailable
from trainable.training.trial_folder import EpochResult


def deadly(config: TrialConfig, folder: Path, resume: bool = True, progress: Any = None) -> Iterator[EpochResult]:
    """Simulated training that ends the process of the baseline's worker, as a fault in a library would."""
    if folder.name == "trial_0000":
        os._exit(1)
    yield from train(config, folder, resume, progress)


def breaks_the_gpu(
    config: TrialConfig, folder: Path, resume: bool = True, progress: Any = None
) -> Iterator[EpochResult]:
    """Simulated training on a simulated GPU, which the baseline breaks for all that follows in its process."""
    if folder.name == "trial_0000":
        os.environ["BROKEN_GPU"] = "1"
    if os.environ.get("BROKEN_GPU"):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    yield from train(config, folder, resume, progress)


def tells_of_gpus(
    config: TrialConfig, folder: Path, resume: bool = True, progress: Any = None
) -> Iterator[EpochResult]:
    """Fails with what this worker may see of the machine's GPUs."""
    raise RuntimeError(f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')!r}")
    yield


def lacks_its_data(
    config: TrialConfig, folder: Path, resume: bool = True, progress: Any = None
) -> Iterator[EpochResult]:
    """Simulated training that cannot read its data before somebody puts them back; tells that it has tried."""
    if not (folder.parent / "mounted").exists():
        with (folder.parent / "tried").open("a") as file:
            file.write(".")
        if (folder.parent / "tried").read_text() == "..":
            (folder.parent / "mounted").touch()
        raise (
            Unavailable("/mnt/data: no such folder")
            if folder.name == "trial_0000"
            else OSError(errno.ESTALE, os.strerror(errno.ESTALE), "/mnt/data/a.wav")
        )
    yield from train(config, folder, resume, progress)
