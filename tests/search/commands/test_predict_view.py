from __future__ import annotations

import pytest
from rich.cells import cell_len

from search.commands.predict import view
from trainable.inference.predict import Prediction


def labelled(*paths: str, label: str = "blues", top: int = 5) -> list[Prediction]:
    every = {label: 0.614, "classical": 0.206, "country": 0.18}
    likely = tuple(every.items())[:top]
    return [Prediction(path, label, 0.614, likely, every) for path in paths]


def lines(found: list[Prediction], width: int | None) -> list[str]:
    return [line.plain.rstrip() for line in view(found, width)]


def test_a_folder_is_said_once_and_its_files_stand_below_it_by_name() -> None:
    deep = "/data/music/collections/gtzan/genres_original/blues"
    assert lines(labelled(f"{deep}/blues.00001.wav", f"{deep}/blues.00002.wav", "here.wav"), 80) == [
        "  file             label  probability  then",
        deep,
        "  blues.00001.wav  blues          61%  classical 21%, country 18%",
        "  blues.00002.wav  blues          61%  classical 21%, country 18%",
        ".",
        "  here.wav         blues          61%  classical 21%, country 18%",
    ]


def test_the_runners_up_make_room_for_a_long_name() -> None:
    name = "Somebody - Something that is Rather Long - 03.mp3"
    assert lines(labelled(f"/music/{name}"), 80)[-1] == f"  {name}  blues          61%"
    assert "classical" in lines(labelled(f"/music/{name}"), 120)[-1]


@pytest.mark.parametrize("letter", ["a", "音"])
def test_a_name_that_is_too_long_keeps_both_ends(letter: str) -> None:
    found = labelled(f"/music/take-{letter * 90}-17.flac", f"/music/take-{letter * 90}-18.flac")
    first, second = lines(found, 60)[-2:]
    assert first.startswith("  take-")
    assert "…" in first
    assert first != second
    assert "-17.flac" in first
    assert all(cell_len(line) <= 60 for line in (first, second))


def test_without_a_terminal_everything_is_whole() -> None:
    name = "x" * 300 + ".wav"
    assert name in lines(labelled(f"/{name}"), None)[-1]


def test_one_label_per_file_leaves_no_column_for_others() -> None:
    assert lines(labelled("/a/b.wav", top=1), 80)[0] == "  file   label  probability"


def test_names_cannot_control_the_terminal() -> None:
    found = lines(labelled("/a\x1b[31m/[bold]b\x07.wav"), 80)
    assert found[1] == "/a"
    assert found[2].startswith("  [bold]b .wav")


def test_nothing_labelled_is_nothing_to_show() -> None:
    assert view([], 80) == []
