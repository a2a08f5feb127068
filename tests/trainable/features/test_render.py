"""That every field of a configuration does what it says, and no other field does it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from tests.support.sounds import drawn

SIZE = 64
DRAWS = 600


def uneven() -> Tensor:
    """A mel [1, 64, 64] of power between 1 and 2, no two values alike."""
    return 1 + torch.arange(float(SIZE * SIZE)).view(1, SIZE, SIZE) / SIZE**2


def masked(draws: int = DRAWS, **values: Any) -> tuple[Tensor, Tensor]:
    """Which frames and which mel rows are wholly masked, both [draws, 64] bool."""
    hidden = drawn(uneven(), draws, **values)[:, 0] == 0
    return hidden.all(dim=1), hidden.all(dim=2)


def widest_and_mean(hidden: Tensor) -> tuple[int, float]:
    width = hidden.sum(dim=1)
    return int(width.max()), float(width.float().mean())


def runs(hidden: Tensor) -> Tensor:
    """In how many pieces each row of `hidden` is true, [draws]."""
    return hidden[:, 0] + (hidden[:, 1:] & ~hidden[:, :-1]).sum(dim=1)


@pytest.mark.parametrize(("time_mask", "freq_mask"), [(6.0, 31.0), (31.0, 6.0)])
def test_each_mask_is_as_wide_as_its_own_field_says(time_mask: float, freq_mask: float) -> None:
    frames, rows = masked(time_masks=1, freq_masks=1, time_mask=time_mask, freq_mask=freq_mask)
    for hidden, largest in ((frames, time_mask), (rows, freq_mask)):
        widest, mean = widest_and_mean(hidden)
        assert widest == largest - 1  # up to but without the field's value, as the tutorial
        assert mean == pytest.approx((largest - 1) / 2, rel=0.1)


def test_a_mask_of_a_share_is_one_of_its_own_axis() -> None:
    frames, rows = masked(time_masks=1, freq_masks=1, time_mask=0.125, freq_mask=0.5)
    assert widest_and_mean(frames)[0] == 7
    assert widest_and_mean(rows)[0] == 31


@pytest.mark.parametrize(("time_masks", "freq_masks"), [(0, 1), (1, 0), (0, 4), (4, 0), (2, 3), (3, 2)])
def test_there_are_as_many_masks_as_each_field_says(time_masks: int, freq_masks: int) -> None:
    frames, rows = masked(time_masks=time_masks, freq_masks=freq_masks, time_mask=4.0, freq_mask=4.0)
    for hidden, count in ((frames, time_masks), (rows, freq_masks)):
        assert runs(hidden).max() == count  # some are empty, some touch; in hundreds of draws all are seen once


@pytest.mark.parametrize("values", [{"gain": 0.2}, {"gain_db": 6.0}, {"gain_db": 6.0, "scale": "db"}, {"noise": 0.1}])
def test_the_share_of_clips_that_a_change_meets_is_the_fields(values: dict[str, Any]) -> None:
    share = "noise_p" if "noise" in values else "gain_p"
    other = "gain_p" if "noise" in values else "noise_p"
    for wanted in (0.0, 0.2, 1.0):
        images = drawn(uneven(), DRAWS, **values, **{share: wanted, other: 0.6})
        changed = int(((images - uneven()).abs().amax(dim=(1, 2, 3)) > 1e-6).sum())
        if wanted in (0.0, 1.0):
            # A change by less than 1e-6 in 600 draws from a range of 0.4 is not to be expected.
            assert changed == wanted * DRAWS
        else:
            assert stats.binomtest(changed, DRAWS, wanted).pvalue > 0.001
