"""Mels as pictures: through a palette into PNG, and a clip as the network of a trial sees it."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.features.inputs import Inputs

# Dark to bright, even steps to the eye. Source: matplotlib's "magma".
_MAGMA = ((0, 0, 4), (40, 17, 89), (114, 31, 129), (182, 54, 121), (241, 96, 93), (254, 175, 119), (252, 253, 191))
_ROWS, _COLUMNS = 224, 448  # px of a panel at most: enough to see masks, crops and warps, and at most some 100 KB
_GAP = 6  # px between two panels
_BRIGHTEST = 0.995  # of all values: a few loud points, or noise, would leave the rest in the dark


def seen_and_learned(inputs: Inputs, clip: int, rng: torch.Generator | None) -> npt.NDArray[np.uint8]:
    """What a network gets of a clip, high frequencies on top [h, w]: as it is scored and, with `rng`, as it learns it.

    Side by side, in one scale of brightness; of several channels the first, of several windows the first.
    """
    chosen = torch.tensor([clip])
    panels = [inputs.eval_batch(chosen)[0][0]]
    if rng is not None:
        panels.append(inputs.train_batch(chosen, rng)[0])
    small = [_sized(panel[0, 0].float().cpu()) for panel in panels]
    low, high = small[0].min(), small[0].quantile(_BRIGHTEST)
    bright = [((panel - low) / (high - low).clamp(min=1e-9)).clamp(0, 1) * 255 for panel in small]
    gap = torch.full((bright[0].shape[0], _GAP), 255.0)
    joined = torch.cat([bright[0], *(part for panel in bright[1:] for part in (gap, panel))], dim=1)
    picture: npt.NDArray[np.uint8] = joined.flip(0).to(torch.uint8).numpy()
    return picture


def _sized(mel: Tensor) -> Tensor:
    """A mel [h, w] in pixels: each the mean of what lies in it where it is large, whole squares where it is small."""
    size = (min(mel.shape[0], _ROWS), min(mel.shape[1], _COLUMNS))
    times = max(1, min(_ROWS // size[0], _COLUMNS // size[1]))
    return F.adaptive_avg_pool2d(mel[None, None], size)[0, 0].repeat_interleave(times, 0).repeat_interleave(times, 1)


def png(gray: npt.NDArray[np.uint8]) -> bytes:
    """A picture [h, w] as PNG, its values through a palette from dark to bright.

    Source: PNG specification, third edition (colour type 3, filter 0).
    """
    height, width = gray.shape
    steps = np.linspace(0, len(_MAGMA) - 1, 256)
    palette = np.stack([np.interp(steps, range(len(_MAGMA)), channel) for channel in zip(*_MAGMA, strict=True)], axis=1)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), gray], axis=1)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", palette.round().astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
