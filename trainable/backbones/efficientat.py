"""EfficientAT: MobileNetV3s of eight widths that AudioSet has taught, on mels of any number of frames.

Source: Schmid, Koutini, Widmer 2023, "Efficient large-scale audio tagging via transformer-to-CNN knowledge
distillation"; weights released under the MIT licence at github.com/fschmid56/EfficientAT, tag v0.0.1.

Legend: b clips, m = 128 mel rows, f frames, k classes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torchvision.models.mobilenetv3 import InvertedResidual, MobileNetV3, _mobilenet_v3_conf
from torchvision.ops.misc import SqueezeExcitation

from trainable.backbones.record import Backbone, State, Weights

AUDIOSET_CLASSES = 527
_RELEASE = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"


# What the networks were taught to hear: mono at 32 kHz, 25 ms every 10 ms, Kaldi's mels, a fixed scale, never squeezed.
FRONT_END: dict[str, Any] = {
    "sample_rate": 32_000, "pre_emphasis": 0.97, "scale": "log", "log_eps": 1e-5, "n_mels": 128, "mel_scale": "kaldi",
    "n_fft": 1024, "win_ms": 25.0, "window": "symmetric", "hop_length": 320, "f_min": 0.0, "f_max": 15_000.0,
    "normalise": "fixed", "fixed_mean": -4.5, "fixed_deviation": 5.0, "channels": "one", "image_size": None,
}  # fmt: skip


@dataclass(frozen=True)
class Network:
    """One network of the release: its width, and the file that holds what AudioSet has taught it."""

    width: float  # channels, as a multiple of MobileNetV3-large's
    parameters: int  # with AudioSet's 527 classes
    operations: float  # 10^9 multiply-adds for 10 s: 128 mel rows x 1000 frames
    mean_average_precision: float  # on AudioSet's evaluation clips, as the file's name says
    bytes: int | None = None  # None: not known here
    sha256: str | None = None


NETWORKS: dict[str, Network] = {
    "mn01": Network(0.1, 123_783, 0.018, 0.298, 612_421),
    "mn02": Network(0.2, 324_695, 0.040, 0.378, 1_432_101),
    "mn04": Network(
        0.4, 983_599, 0.111, 0.432, 4_066_513, "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"
    ),
    "mn05": Network(0.5, 1_431_239, 0.160, 0.443, 5_878_097),
    "mn10": Network(
        1.0, 4_876_831, 0.541, 0.471, 19_708_753, "0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e"
    ),
    "mn20": Network(2.0, 17_909_287, 2.059, 0.478, 71_938_961),
    "mn30": Network(3.0, 39_086_367, 4.555, 0.482, 156_742_353),
    "mn40": Network(4.0, 68_427_303, 8.028, 0.484),
}
NAMES: tuple[str, ...] = tuple(NETWORKS)


def find(name: str) -> Backbone | None:
    """The record of the release's network of that name, None where there is none."""
    network = NETWORKS.get(name)
    if network is None:
        return None
    file = f"{name}_as_mAP_{round(1000 * network.mean_average_precision)}.pt"
    return Backbone(
        name,
        f"EfficientAT's {name}",
        lambda classes, channels, side, initialise: build(name, classes, channels),
        channels=(1, 3),
        weights=(Weights("audioset", _RELEASE + file, "MIT", network.bytes, network.sha256),),
        native=FRONT_END,
        parameters=network.parameters,
        operations=network.operations,
        size=(128, 1000),
        translate=lambda state, model, side: rename(state),
    )


def build(name: str, classes: int = AUDIOSET_CLASSES, channels: int = 1) -> MobileNetV3:
    """Network `name` with random weights on the CPU: mels [b, channels, m, f] to logits [b, k], any f.

    torchvision's MobileNetV3 but for three things: the first convolution takes `channels`, the squeeze-excitations end
    in a sigmoid instead of a hard one, and the width is the release's.
    """
    blocks, last_channel = _mobilenet_v3_conf("mobilenet_v3_large", width_mult=NETWORKS[name].width)
    squeeze = partial(SqueezeExcitation, scale_activation=nn.Sigmoid)
    model = MobileNetV3(blocks, last_channel, classes, partial(InvertedResidual, se_layer=squeeze))
    old = model.features[0][0]
    new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=False)
    nn.init.kaiming_normal_(new.weight, mode="fan_out")
    model.features[0][0] = new
    return model


def rename(state: State) -> State:
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
