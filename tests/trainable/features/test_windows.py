from __future__ import annotations

import pytest
import torch

from tests.support.sounds import mels_from
from trainable.config import TrialConfig
from trainable.features.crops import Source, crop_frames, crop_starts, drawn_windows, make_source, scoring_windows
from trainable.features.frontend import Normalisation, hop_samples

CPU = torch.device("cpu")


def source(*lengths: int) -> Source:
    mels = mels_from([torch.zeros(1, 2, length) for length in lengths])
    return make_source(mels, TrialConfig(), Normalisation("none"), mels.mean, mels.mean_square, CPU)


def test_a_crop_is_the_nearest_whole_number_of_frames() -> None:
    assert crop_frames(TrialConfig(crop_seconds=3.0), 22050, 640) == 103
    assert crop_frames(TrialConfig(crop_seconds=1e-6), 22050, 640) == 1
    assert crop_frames(TrialConfig(), 22050, 640) is None


@pytest.mark.parametrize(
    ("frames", "crop", "at_most", "starts"),
    [
        (100, None, 8, [0]),  # the whole clip
        (100, 100, 8, [0]),
        (50, 100, 8, [0]),  # padded
        (101, 100, 8, [0]),  # exactly as long as the crop: centred frames are one more
        (102, 100, 8, [0, 2]),  # covered to its end
        (200, 100, 8, [0, 100]),
        (250, 100, 8, [0, 75, 150]),
        (1000, 100, 4, [0, 300, 600, 900]),  # no more than allowed, still from end to end
        (1000, 100, 1, [450]),  # the middle
    ],
)
def test_scoring_windows_are_evenly_spaced_and_cover_the_clip(
    frames: int, crop: int | None, at_most: int, starts: list[int]
) -> None:
    assert crop_starts(frames, crop, at_most) == starts


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("milliseconds", [8.0, 16.0])
@pytest.mark.parametrize("seconds", [1.0, 3.0, 5.0])
def test_a_clip_as_long_as_the_crop_is_scored_on_one_window(rate: int, milliseconds: float, seconds: float) -> None:
    config = TrialConfig(crop_seconds=seconds, hop_ms=milliseconds)
    hop = hop_samples(config, rate)
    assert crop_starts(1 + round(seconds * rate) // hop, crop_frames(config, rate, hop), 5) == [0]


def test_scoring_windows_come_clip_by_clip() -> None:
    windows, counts = scoring_windows(source(25, 10, 30), [2, 0], 10, 8)
    assert counts == [3, 3]
    assert windows.clip.tolist() == [2, 2, 2, 0, 0, 0]
    assert (windows.origin + windows.start).tolist() == [35, 45, 55, 0, 8, 15]
    assert windows.inside


def test_drawn_windows_start_uniformly_at_every_place_that_fits() -> None:
    chosen = [0] * 6000
    windows = drawn_windows(source(25), chosen, torch.tensor(chosen), 20, torch.Generator().manual_seed(0))
    counts = torch.bincount(windows.start, minlength=6)
    assert len(counts) == 6
    assert ((counts - 1000).square() / 1000).sum() < 20.5  # chi-square with 5 degrees of freedom: p = 0.001


def rows(clip_frames: int, window: int, padding: str, shift: int | None = None) -> tuple[list[int], list[bool] | None]:
    clips = source(7, clip_frames)
    windows, _ = scoring_windows(clips, [1], window, 1)
    index, silent = windows.rows(windows.layout(), torch.tensor([shift]) if shift else None, padding)
    return (index - 7).tolist(), None if silent is None else silent.tolist()


def test_what_is_beyond_the_clip_is_silent_repeated_or_mirrored() -> None:
    assert rows(3, 7, "zero") == ([0, 1, 2, 2, 2, 2, 2], [False] * 3 + [True] * 4)
    assert rows(3, 7, "repeat") == ([0, 1, 2, 0, 1, 2, 0], None)
    assert rows(3, 7, "reflect") == ([0, 1, 2, 1, 0, 1, 2], None)


def test_a_roll_moves_a_window_to_the_right_and_wraps_round() -> None:
    assert rows(8, 4, "zero", shift=1) == ([5, 2, 3, 4], None)
    assert rows(8, 4, "zero", shift=-1) == ([3, 4, 5, 2], None)
    assert rows(3, 4, "zero", shift=1) == ([2, 0, 1, 2], [True, False, False, False])
