from __future__ import annotations

import pytest

from search.mirror.confusion import confusion_counts, confusion_picture
from trainable.training.trial_folder import Answers

ANSWERS = Answers(3, ["blues", "rock", "jazz"], [0, 0, 0, 1, 1, 2], [0, 0, 2, 1, 1, 0])


def shades(labels: list[str], true: list[int], predicted: list[int]) -> list[list[int]]:
    """How bright each cell is, near its upper left corner, where no number stands."""
    picture = confusion_picture(Answers(1, labels, true, predicted)).convert("L")
    cell, margin = 44, 12
    left, top = (picture.size[axis] - margin - len(labels) * cell for axis in (0, 1))
    return [
        [int(picture.getpixel((left + column * cell + 4, top + row * cell + 4)))  # type: ignore[arg-type]
         for column in range(len(labels))] for row in range(len(labels))
    ]  # fmt: skip


def test_rows_are_true_classes_and_columns_what_was_said() -> None:
    assert confusion_counts(ANSWERS) == [[2, 0, 1], [0, 2, 0], [1, 0, 0]]


def test_a_cell_is_as_dark_as_its_share_of_the_row_is_large() -> None:
    (blues, rock, jazz) = shades(ANSWERS.labels, ANSWERS.true, ANSWERS.predicted)
    assert blues[0] < blues[2] < blues[1] == 255
    assert rock[1] == jazz[0] < blues[0]
    assert rock[0] == rock[2] == jazz[1] == jazz[2] == 255


def test_a_class_without_clips_is_an_empty_row() -> None:
    assert shades(["a", "b"], [0], [0])[1] == [255, 255]


@pytest.mark.parametrize("count", [1, 2, 50, 120, 1000])
def test_any_number_of_classes_fits_into_a_picture_of_a_screens_size(count: int) -> None:
    labels = [f"a class with the long name {number}" for number in range(count)]
    width, height = confusion_picture(Answers(1, labels, [count - 1], [0])).size
    assert max(width, height) <= max(950, 2 * count + 60)


def test_names_in_letters_that_the_font_lacks_become_numbers_and_lose_their_accents() -> None:
    def drawn(name: str) -> bytes:
        return confusion_picture(Answers(1, ["rock", name], [0, 1], [0, 1])).tobytes()

    assert drawn("狗叫") == drawn("class 2")
    assert drawn("Flöte") == drawn("Flote")
    assert drawn("x" * 40) == drawn("x" * 16 + "..")
