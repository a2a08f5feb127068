from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from trainable.errors import InputError, Unavailable
from trainable.training.trial_folder import Answers, EpochResult, TrialFolder


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


def test_a_checkpoint_that_the_disk_refuses_is_an_error_of_the_disk_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = TrialFolder(tmp_path)
    folder.save("last", {"epoch": 1})

    def refused(state: object, target: Path) -> None:
        target.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", refused)
    with pytest.raises(OSError, match="a checkpoint could not be written"):
        folder.save("last", {"epoch": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert folder.load("last") == {"epoch": 1}


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    folder.save("last", {"weights": torch.zeros(1000)})
    whole = folder.checkpoint("last").read_bytes()
    for damaged in (b"", b"not a checkpoint", whole[: len(whole) // 2], whole[:-20]):
        folder.checkpoint("last").write_bytes(damaged)
        with pytest.raises(Unavailable, match=r"last\.pt: must be a whole checkpoint, got something else"):
            folder.load("last")


def test_damaged_answers_are_named_and_missing_ones_are_none(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    assert folder.answers() is None
    folder.write_answers(Answers(2, ["a", "b"], [0, 1], [1, 1]))
    assert folder.answers() == Answers(2, ["a", "b"], [0, 1], [1, 1])
    folder.answers_file.write_text('{"epoch": 2, "labels": ["a"], "true": ["a"], "predicted": []}')
    with pytest.raises(InputError, match=re.escape("answers.json: true.0: must be a valid integer")):
        folder.answers()
