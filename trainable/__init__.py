"""One training run: audio, torch, and neither Ray, Optuna nor SwanLab.

    from trainable import TrialConfig, load_model, train

    for epoch in train(TrialConfig(data="clips", backbone="resnet18", weights="none")):
        print(epoch.epoch, epoch.val_acc)
    load_model("runs/NAME/retrained/model").predict(array, rate)

What is listed here is imported when it is first used, so that `import trainable` costs nothing.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainable.config import TrialConfig
    from trainable.data.dataset import load_dataset
    from trainable.data.split import split_dataset
    from trainable.errors import InputError
    from trainable.inference.model import load_model
    from trainable.inference.predict import predict_files
    from trainable.training.loop import train
    from trainable.training.trial_folder import EpochResult

    __version__: str

__all__ = [
    "EpochResult", "InputError", "TrialConfig", "__version__", "load_dataset", "load_model", "predict_files",
    "split_dataset", "train",
]  # fmt: skip

_WHERE = {
    "EpochResult": "training.trial_folder", "InputError": "errors", "TrialConfig": "config",
    "load_dataset": "data.dataset", "load_model": "inference.model", "predict_files": "inference.predict",
    "split_dataset": "data.split", "train": "training.loop",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("audio-search")
    if name not in _WHERE:
        raise AttributeError(f"module 'trainable' has no attribute {name!r}")
    return getattr(importlib.import_module(f"trainable.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
