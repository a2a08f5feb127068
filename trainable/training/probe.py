"""The probe: a logistic regression on what the last layer of a frozen network reads, put into that layer.

The network that comes out is an ordinary one, so saving, scoring and exporting know nothing of probes.

Legend: n clips, w windows of all clips, d features, k classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from trainable.backbones import source_hash
from trainable.backbones.head import head_of
from trainable.config import TrialConfig
from trainable.data.dataset import Dataset
from trainable.errors import Diverged, InputError
from trainable.features.disk_cache import ABOUT
from trainable.features.inputs import Inputs
from trainable.features.mel_cache import feature_store, mel_key
from trainable.progress import Progress
from trainable.training.device import Precision

_VERSION = 1  # raise it when the same network and windows give other features
_TENSORS = "features.safetensors"
_MOST_STEPS = 2000  # of the solver; 50 to 300 are usual
_NEVER = -30.0  # the logit of a class that no training clip has
# What decides how a clip is shown, beside its mel and the normalisation.
_SHOWN = ("crop_seconds", "eval_crops", "padding", "image_size", "channels", "scale")


@dataclass(frozen=True)
class Features:
    """What the last layer reads, for every scoring window of every clip of a data set."""

    values: Tensor  # [w, d] float32 on the CPU
    owner: Tensor  # [w] int64: the clip that each window shows, an index into Dataset.clips

    def of(self, clips: Tensor) -> Features:
        """Those of `clips` [n]; `owner` is then a position in `clips`."""
        place = torch.full((int(self.owner.max()) + 1,), -1)
        place[clips] = torch.arange(len(clips))
        chosen = place[self.owner] >= 0
        return Features(self.values[chosen], place[self.owner][chosen])

    def probabilities(self, head: nn.Linear, clips: int) -> Tensor:
        """The probabilities [n, k] that `head` gives each of so many clips: softmax, then the mean over its windows."""
        weight, bias = head.weight.detach().float().cpu(), head.bias.detach().float().cpu()
        scored = (self.values @ weight.T + bias).softmax(dim=1)
        total = torch.zeros(clips, scored.shape[1]).index_add_(0, self.owner, scored)
        return total / torch.bincount(self.owner, minlength=clips)[:, None]


def features_of(
    model: nn.Module, inputs: Inputs, dataset: Dataset, config: TrialConfig, precision: Precision,
    progress: Progress | None = None,
) -> Features:  # fmt: skip
    """The features of all clips: at once where this network has seen them so before, else computed and kept.

    Leaves `model` in evaluation mode.

    Raises:
        InputError: the network does not end in a linear layer.
        Diverged: a feature is not finite.
    """
    store, key = feature_store(), _key(model, inputs, dataset, config)
    holder = store.hold(key)
    if holder is None:

        def make(folder: Path) -> None:
            found = compute(model, inputs, len(dataset.clips), config, precision, progress)
            save_file({"values": found.values, "owner": found.owner}, folder / _TENSORS)
            (folder / ABOUT).write_text(json.dumps({"dataset": dataset.name, "backbone": config.backbone}) + "\n")

        def waiting() -> None:
            if progress:
                progress("Waiting for another process that makes the same features", 0, 1)

        holder = store.build(key, 4096 * len(dataset.clips), make, waiting)
    with holder:
        return Features(**load_file(store.folder / key / _TENSORS))


@torch.inference_mode()
def compute(
    model: nn.Module, inputs: Inputs, clips: int, config: TrialConfig, precision: Precision,
    progress: Progress | None = None,
) -> Features:  # fmt: skip
    """The features of the first so many clips, in float32 whatever the training does."""
    head = linear_head(model, config)
    model.eval()
    read: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda module, given: read.append(given[0]))
    exact = dataclasses.replace(precision, dtype=torch.float32)
    values, owners = [], []
    order = torch.argsort(inputs.lengths(torch.arange(clips)), stable=True)
    try:
        done = 0
        for batch in torch.split(order, max(1, config.batch_size // config.scored_crops)):
            for images, owner in inputs.eval_batch(batch):
                for part in torch.split(images, config.batch_size):
                    exact.forward(model, part)
                    values.append(read.pop().float().cpu())
                owners.append(batch[owner.cpu()])
            done += len(batch)
            if progress:
                progress("Features", done, clips)
    finally:
        hook.remove()
    found = torch.cat(values)
    if found.ndim != 2:
        raise InputError(
            f"method: probe needs a last layer that reads one row per clip, got {list(found.shape[1:])} of "
            f"{config.backbone}. Use method: train."
        )
    if not found.isfinite().all():
        raise Diverged(f"the frozen {config.backbone} answers with NaN or infinity. Use scale: log, or other weights.")
    return Features(found, torch.cat(owners))


def fit_head(model: nn.Module, features: Features, labels: Tensor, config: TrialConfig) -> None:
    """Puts a logistic regression on the features of training clips of these `labels` [n] into the last layer.

    Every clip counts the same, however many windows it has; features have unit deviation where they are penalised.
    """
    head = linear_head(model, config)
    rows, owner = features.values.double().numpy(), features.owner.numpy()
    share = 1 / np.bincount(owner, minlength=len(labels))[owner]
    scaler = StandardScaler().fit(rows, sample_weight=share)
    weighing = "balanced" if config.class_balanced else None
    solver = LogisticRegression(C=config.probe_c, max_iter=_MOST_STEPS, class_weight=weighing)
    with threadpool_limits(1):  # on two threads of a busy machine it took ten times as long
        solver.fit(scaler.transform(rows), labels.numpy()[owner], sample_weight=share)
    slopes, offsets = _all_classes(solver, head.out_features)
    slopes = slopes / scaler.scale_
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(slopes))
        head.bias.copy_(torch.from_numpy(offsets - slopes @ scaler.mean_))


def _all_classes(solver: Any, classes: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Slopes [k, d] and offsets [k] of the regression; two classes have one row, which is the second's."""
    slopes, offsets = solver.coef_, solver.intercept_
    if len(solver.classes_) == 2:
        slopes, offsets = np.concatenate([0 * slopes, slopes]), np.concatenate([0 * offsets, offsets])
    every, bias = np.zeros((classes, slopes.shape[1])), np.full(classes, _NEVER)
    every[solver.classes_], bias[solver.classes_] = slopes, offsets
    return every, bias


def linear_head(model: nn.Module, config: TrialConfig) -> nn.Linear:
    """The last layer of `model`, where it is one that a regression can be put into.

    Raises:
        InputError: it is not.
    """
    head = head_of(model)[1]
    if not isinstance(head, nn.Linear) or head.bias is None:
        raise InputError(
            f"method: probe needs a network that ends in a linear layer with a bias, got {config.backbone}, which ends "
            f"in {type(head).__name__}. Use method: train and head_start: random."
        )
    return head


def _key(model: nn.Module, inputs: Inputs, dataset: Dataset, config: TrialConfig) -> str:
    """What names the features: the mels, how they are shown, and the network but for its last layer."""
    digest = hashlib.sha256()
    shown = {name: getattr(config, name) for name in _SHOWN}
    about = [_VERSION, mel_key(dataset, config), shown, dataclasses.asdict(inputs.normalisation), config.backbone,
             source_hash(config.backbone)]  # fmt: skip
    digest.update(json.dumps(about).encode())
    head = f"{head_of(model)[0]}."
    for name, tensor in model.state_dict().items():
        if not name.startswith(head):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]
