from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from trainable.config import TrialConfig
from trainable.features.inputs import Inputs
from trainable.features.picture import png, seen_and_learned
from trainable.training.loop import Learner

MakeClips = Callable[..., Path]


def inputs(clips: Path, **values: Any) -> Inputs:
    settings = {
        "data": str(clips), "backbone": "resnet18", "weights": "none", "image_size": 32, "n_fft": 256,
        "hop_length": 128, "n_mels": 32, "scale": "log", "normalise": "train", **values,
    }  # fmt: skip
    return Learner(TrialConfig.parse(settings), None, None).inputs


def panels(of: Inputs) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    picture = seen_and_learned(of, 0, torch.Generator().manual_seed(1))
    width = (picture.shape[1] - 6) // 2
    return picture[:, :width], picture[:, width + 6 :]


def test_a_png_holds_the_pixels_that_went_in() -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    data = png(gray)
    at = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[at - 4 : at])
    rows = np.frombuffer(zlib.decompress(data[at + 4 : at + 4 + length]), np.uint8).reshape(3, 5)
    assert np.array_equal(rows[:, 1:], gray)
    assert struct.unpack(">II", data[16:24]) == (4, 3)


@pytest.mark.slow
def test_without_augmentation_a_network_learns_from_what_it_is_scored_on(make_clips: MakeClips) -> None:
    seen, learned = panels(inputs(make_clips()))
    assert np.array_equal(seen, learned)
    assert seen.max() == 255
    assert seen.min() == 0


@pytest.mark.slow
def test_augmentation_is_seen_on_the_right_alone(make_clips: MakeClips) -> None:
    clips = make_clips()
    seen, learned = panels(inputs(clips, time_masks=1, time_mask=0.5, freq_masks=1, freq_mask=0.5))
    assert np.array_equal(seen, panels(inputs(clips))[0])
    assert not np.array_equal(seen, learned)


@pytest.mark.slow
def test_high_frequencies_are_on_top_and_small_inputs_are_enlarged(make_clips: MakeClips) -> None:
    of = inputs(make_clips())
    picture = seen_and_learned(of, 0, None)
    image = of.eval_batch(torch.tensor([0]))[0][0][0, 0]
    assert picture.shape == (224, 224)  # each value a square of 7 x 7
    brightest = torch.nonzero(image == image.max())[0]
    assert picture[(31 - brightest[0]) * 7, brightest[1] * 7] == 255


@pytest.mark.slow
@pytest.mark.parametrize("values", [{"image_size": 512}, {"backbone": "mn01", "image_size": None, "n_mels": 128}])
def test_large_inputs_make_small_files(make_clips: MakeClips, values: dict[str, Any]) -> None:
    picture = seen_and_learned(inputs(make_clips(), **values), 0, torch.Generator().manual_seed(1))
    assert picture.shape[0] <= 224
    assert picture.shape[1] <= 2 * 448 + 6
    assert len(png(picture)) < 200_000
