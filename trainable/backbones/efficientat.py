"""EfficientAT: MobileNetV3s of eight widths that AudioSet has taught, on mels of any number of frames.

Source: Schmid, Koutini, Widmer 2023, "Efficient large-scale audio tagging via transformer-to-CNN knowledge
distillation"; weights released under the MIT licence at github.com/fschmid56/EfficientAT, tag v0.0.1.

Legend: b clips, m = 128 mel rows, f frames, k classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv3 import InvertedResidual, MobileNetV3, _mobilenet_v3_conf
from torchvision.ops.misc import SqueezeExcitation

LICENCE = "MIT"
AUDIOSET_CLASSES = 527
_RELEASE = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"


@dataclass(frozen=True)
class Network:
    """One network of the release: its width, and the file that holds what AudioSet has taught it."""

    name: str
    width: float  # channels, as a multiple of MobileNetV3-large's
    parameters: int  # with AudioSet's 527 classes
    operations: float  # 10^9 multiply-adds for 10 s: 128 mel rows x 1000 frames
    file: str  # trained on ImageNet first, then on AudioSet
    mean_average_precision: float  # on AudioSet's evaluation clips, as the file's name says
    sha256: str | None = None  # None: not known here

    @property
    def url(self) -> str:
        """Where the release publishes the file."""
        return _RELEASE + self.file

    @property
    def features(self) -> int:
        """How many numbers `features` returns for a clip: the pooled ones and the hidden layer's."""
        model = _empty(self.width, AUDIOSET_CLASSES, device="meta")
        hidden = model.classifier[0]
        return int(hidden.in_features + hidden.out_features)


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network("mn01", 0.1, 123_783, 0.02, "mn01_as_mAP_298.pt", 0.298),
        Network("mn02", 0.2, 324_695, 0.04, "mn02_as_mAP_378.pt", 0.378),
        Network(
            "mn04", 0.4, 983_599, 0.11, "mn04_as_mAP_432.pt", 0.432,
            "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
        ),
        Network("mn05", 0.5, 1_431_239, 0.16, "mn05_as_mAP_443.pt", 0.443),
        Network(
            "mn10", 1.0, 4_876_831, 0.54, "mn10_as_mAP_471.pt", 0.471,
            "0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e",
        ),
        Network("mn20", 2.0, 17_909_287, 2.06, "mn20_as_mAP_478.pt", 0.478),
        Network("mn30", 3.0, 39_086_367, 4.55, "mn30_as_mAP_482.pt", 0.482),
        Network("mn40", 4.0, 68_427_303, 8.03, "mn40_as_mAP_484.pt", 0.484),
    )
}  # fmt: skip


def build(name: str, classes: int = AUDIOSET_CLASSES, channels: int = 1) -> MobileNetV3:
    """Network `name` with random weights on the CPU: mels [b, channels, m, f] to logits [b, k], any f.

    torchvision's MobileNetV3 but for three things: the first convolution takes `channels`, the squeeze-excitations end
    in a sigmoid instead of a hard one, and the width is the release's.
    """
    return _empty(NETWORKS[name].width, classes, channels)


def load(model: MobileNetV3, state: Mapping[str, Tensor], head: bool = False) -> None:
    """Puts a released state into `model`: all of it with `head`, else all but the last layer, which stays as it is.

    The mean of the released first filters goes to every channel where `model` takes several, so that equal channels
    give what one gave.

    Raises:
        RuntimeError: it is not the state of a network of this width.
    """
    state = rename(state)
    first, last = "features.0.0.weight", f"classifier.{len(model.classifier) - 1}."
    channels = model.features[0][0].in_channels
    if channels > 1 and first in state:
        state[first] = state[first].repeat(1, channels, 1, 1) / channels
    if not head:
        own = model.state_dict()
        state = {key: own[key] if key.startswith(last) else value for key, value in state.items()}
    model.load_state_dict(state)


def read_state(path: str) -> dict[str, Tensor]:
    """The released state in a file, under the release's names; nothing in the file is executed.

    Raises:
        OSError, RuntimeError, pickle.UnpicklingError, EOFError: it cannot be read as one.
    """
    return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The released state under torchvision's names.

    One squeeze-excitation lies where the release allows several side by side; its two layers are linear there and
    1x1 convolutions here; and the release counts pooling and flattening into the classifier.
    """
    renamed = {}
    for key, value in state.items():
        key = key.replace(".conc_se_layers.0.", ".")
        key = re.sub(r"^classifier\.(2|5)\.", lambda found: f"classifier.{int(found[1]) - 2}.", key)
        squeeze = re.search(r"\.fc[12]\.weight$", key) is not None
        renamed[key] = value[:, :, None, None] if squeeze and value.ndim == 2 else value
    return renamed


def stages(model: MobileNetV3) -> list[nn.Module]:
    """The stages from the input on, the new head left out: the first convolution, 15 blocks, the last convolution and
    the hidden layer."""
    return [*model.features, model.classifier[0]]


def features(model: MobileNetV3, mels: Tensor) -> Tensor:
    """What the frozen network says of mels [b, c, m, f]: [b, pooled + hidden].

    The mean over rows and frames of the last convolution, and the hidden layer after its activation: the first knows
    more of how it sounds, the second more of what it is.
    """
    pooled = model.avgpool(model.features(mels)).flatten(1)
    hidden = model.classifier[1](model.classifier[0](pooled).clone())
    return torch.cat([pooled, hidden], dim=1)


def _empty(width: float, classes: int, channels: int = 1, device: str = "cpu") -> MobileNetV3:
    blocks, last_channel = _mobilenet_v3_conf("mobilenet_v3_large", width_mult=width)
    squeeze = partial(SqueezeExcitation, scale_activation=nn.Sigmoid)
    with torch.device(device):
        model = MobileNetV3(blocks, last_channel, classes, partial(InvertedResidual, se_layer=squeeze))
        old = model.features[0][0]
        new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=False)
        nn.init.kaiming_normal_(new.weight, mode="fan_out")
    model.features[0][0] = new
    return model
