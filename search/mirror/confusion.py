"""The confusion matrix of a trial as a picture: SwanLab's local pages show pictures, but none of its own charts."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from trainable.training.trial_folder import Answers

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

_LARGEST, _SMALLEST = 44, 2  # px of a cell
_SIDE = 720  # px that all cells of a row have together, where they need not be smaller than _SMALLEST
_FOR_NUMBERS, _FOR_NAMES = 24, 14  # px of a cell from which on there is room for these
_LONGEST_NAME = 18  # characters
_FONT_SIZE, _MARGIN, _TITLE = 13, 12, 22  # px
_WHITE, _BLUE, _INK, _GRID = (255, 255, 255), (8, 48, 107), (40, 40, 40), (225, 225, 225)


def confusion_picture(answers: Answers) -> Image:
    """The matrix: rows are true classes, columns predictions; a cell is as dark as its share of the row is large."""
    from PIL import Image, ImageDraw, ImageFont

    counts = confusion_counts(answers)
    cell = max(_SMALLEST, min(_LARGEST, _SIDE // len(counts)))
    font = ImageFont.load_default(_FONT_SIZE)
    assert isinstance(font, ImageFont.FreeTypeFont)
    names = [_shown(label, number, font) for number, label in enumerate(answers.labels)] if cell >= _FOR_NAMES else []
    band = max((int(font.getlength(name)) for name in names), default=0) + _MARGIN  # px that names take
    left = top = _TITLE + band
    side = len(counts) * cell
    picture = Image.new("RGB", (left + side + _MARGIN, top + side + _MARGIN), _WHITE)
    draw = ImageDraw.Draw(picture)
    draw.text((left + side / 2, _TITLE / 2), "predicted", _INK, font, anchor="mm")
    draw.text((_MARGIN / 2, top - _MARGIN / 2), "true", _INK, font, anchor="ls")
    upright = Image.new("RGB", (band, side), _WHITE)  # the names of the columns, to be turned
    for place, name in enumerate(names):
        middle = (place + 0.5) * cell
        draw.text((left - _MARGIN / 2, top + middle), name, _INK, font, anchor="rm")
        ImageDraw.Draw(upright).text((_MARGIN / 2, middle), name, _INK, font, anchor="lm")
    picture.paste(upright.rotate(90, expand=True), (left, _TITLE))
    for row, line in enumerate(counts):
        clips = max(1, sum(line))
        for column, number in enumerate(line):
            if not number and not names:
                continue  # white on white
            share = number / clips
            x, y = left + column * cell, top + row * cell
            shade = tuple(round(light + share * (dark - light)) for light, dark in zip(_WHITE, _BLUE, strict=True))
            draw.rectangle((x, y, x + cell, y + cell), fill=shade, outline=_GRID if names else None)
            if number and cell >= _FOR_NUMBERS:
                ink = _WHITE if share > 0.5 else _INK
                draw.text((x + cell / 2, y + cell / 2), str(number), ink, font, anchor="mm")
    return picture


def confusion_counts(answers: Answers) -> list[list[int]]:
    """Clips of each true class (row) by what was said of them (column)."""
    counts = [[0] * len(answers.labels) for _ in answers.labels]
    for true, predicted in zip(answers.true, answers.predicted, strict=True):
        counts[true][predicted] += 1
    return counts


def _shown(label: str, number: int, font: FreeTypeFont) -> str:
    """A class's name, shortened, without accents; its number where letters are no Latin ones, which the font lacks."""
    label = "".join(letter for letter in unicodedata.normalize("NFKD", label) if not unicodedata.combining(letter))
    lacking = font.getmask("\uffff").getbbox(), bytes(font.getmask("\uffff"))
    if any((font.getmask(letter).getbbox(), bytes(font.getmask(letter))) == lacking for letter in label):
        return f"class {number + 1}"
    return label if len(label) <= _LONGEST_NAME else label[: _LONGEST_NAME - 2] + ".."
