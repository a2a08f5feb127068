from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainable.errors import InputError
from trainable.training.trial_folder import EpochResult, TrialFolder


def test_half_a_line_that_a_kill_left_does_not_join_the_next_one(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    first, second = (EpochResult(epoch, 1.0, 0.5, 1.0, 0.5, 1e-4, 1.0) for epoch in (1, 2))
    folder.append(first)
    with folder.epochs_file.open("a") as file:
        file.write('{"epoch": 2, "train_l')
    folder.recover([first])
    folder.append(second)
    assert folder.epochs() == [first, second]


@pytest.mark.parametrize(
    "damage", [b"\n", b"\xff\xfe{}\n", b'{"epoch": 1}\n', b"[1]\n", b'{"epoch": 1, "train_loss"\n']
)
def test_a_damaged_line_is_named_with_the_way_out(tmp_path: Path, damage: bytes) -> None:
    folder = TrialFolder(tmp_path)
    folder.append(EpochResult(1, 1.0, 0.5, 1.0, 0.5, 1e-4, 1.0))
    with folder.epochs_file.open("ab") as file:
        file.write(damage)
    with pytest.raises(InputError, match=re.escape(f"{folder.epochs_file}, line 2: must be what an epoch achieved")):
        folder.epochs()
