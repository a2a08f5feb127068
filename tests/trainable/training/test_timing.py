from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.sounds import scored, wave, write_set
from trainable.config import TrialConfig
from trainable.data.split import Split
from trainable.features.inputs import Inputs
from trainable.features.mel_cache import mels_of
from trainable.training.cost import windows_scored
from trainable.training.timing import BATCHES, mel_seconds, seconds_per_epoch, window_seconds

FAST: dict[str, Any] = {"backbone": "mobilenet_v3_small", "weights": "none", "image_size": 32, "n_mels": 32}


@pytest.mark.slow
@pytest.mark.parametrize("batches", [1, 2, BATCHES, BATCHES + 2])
@pytest.mark.parametrize("epochs", [1, 5])
def test_an_epoch_of_any_number_of_batches_can_be_timed(
    make_clips: Callable[..., Path], batches: int, epochs: int
) -> None:
    root = make_clips(classes=2, clips=10, seconds=0.5)  # 16 of the 20 train
    size = {1: 32, 2: 8, 3: 6, 5: 3}[batches]
    config = TrialConfig(data=str(root), batch_size=size, epochs=epochs, crop_seconds=0.2, **FAST)
    seen: list[str] = []
    assert seconds_per_epoch(config, lambda description, done, total: seen.append(description)) > 0
    assert not [description for description in seen if description.startswith("Epoch")]


def test_the_windows_that_are_counted_are_those_that_are_scored(tmp_path: Path) -> None:
    seconds = (0.05, 0.3, 0.5, 0.51, 0.9, 1.6, 4.0)
    dataset = write_set(
        tmp_path, {f"a/{number}.wav": wave(length, seed=number) for number, length in enumerate(seconds)}
    )
    everything = np.arange(len(seconds))
    for crop in (None, 0.5):
        config = TrialConfig(crop_seconds=crop, eval_crops=5, hop_ms=10.0, **FAST)
        inputs = Inputs(
            mels_of(dataset, config), dataset, Split("", everything, everything), config, torch.device("cpu")
        )
        images, _ = scored(inputs, torch.as_tensor(everything))
        assert windows_scored(dataset, everything, config) == len(images)
        assert len(images) < len(seconds) * 5


@pytest.mark.slow
def test_an_input_and_a_second_of_audio_are_timed_without_clips_weights_or_a_trace() -> None:
    threads = torch.get_num_threads()
    config = TrialConfig.parse({"backbone": "mobilenet_v3_small", "weights": "none", "image_size": 64, "scale": "log"})
    small = window_seconds(config, 100, 3, threads=1)
    large = window_seconds(config.model_copy(update={"image_size": 256}), 100, 3, threads=1)
    assert 0 < small < large
    assert 0 < mel_seconds(config, 8000) < 1
    assert torch.get_num_threads() == threads
