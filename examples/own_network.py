"""A small network of one's own, for a search over it beside others.

    python run_search.py --data GTZAN/genres_original --set backbone=examples/own_network.py:make \
        --set weights=none --set image_size=null --set channels=one --set scale=log --set n_mels=64

A backbone is a function of the number of classes and of channels that returns a `torch.nn.Module`: inputs
[b, channels, mel rows, frames] to logits [b, classes]. With `image_size: null` the mel keeps its shape; with a number
rows and frames are that many. End it in a linear layer, and `method: probe`, `dropout` and `head_lr_multiple` work too.
"""

import itertools

from torch import Tensor, nn


class SmallNetwork(nn.Module):
    """Four convolutions that halve the mel, the mean over what is left of it, and a linear layer."""

    def __init__(self, classes: int, channels: int, width: int = 32) -> None:
        super().__init__()
        sizes = [channels, width, 2 * width, 4 * width, 8 * width]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
                )
                for before, after in itertools.pairwise(sizes)
            )
        )
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, mels: Tensor) -> Tensor:
        """The logits [b, classes] of mels [b, channels, rows, frames]."""
        return self.head(self.blocks(mels).mean(dim=(2, 3)))


def make(classes: int, channels: int) -> nn.Module:
    """The network for so many classes."""
    return SmallNetwork(classes, channels)
