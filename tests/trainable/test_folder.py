from __future__ import annotations

from pathlib import Path

from trainable.folder import EpochResult, TrialFolder


def test_half_a_line_that_a_kill_left_does_not_join_the_next_one(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    first, second = (EpochResult(epoch, 1.0, 0.5, 1.0, 0.5, 1e-4, 1.0) for epoch in (1, 2))
    folder.append(first)
    with folder.epochs_file.open("a") as file:
        file.write('{"epoch": 2, "train_l')
    folder.recover([first])
    folder.append(second)
    assert folder.epochs() == [first, second]
