"""Space files for tests, written from text."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from search.space.load import load_space
from search.space.space import Space
from trainable.errors import InputError


def space_of(folder: Path, text: str, **flags: object) -> Space:
    """The space in a file that holds `text`."""
    path = folder / "space.yaml"
    path.write_text(dedent(text))
    return load_space(path, **flags)  # type: ignore[arg-type]


def problems_of(folder: Path, text: str, **flags: object) -> list[str]:
    """The problems of that file, without the file's name, which every line must start with."""
    with pytest.raises(InputError) as caught:
        space_of(folder, text, **flags)
    prefix = f"{folder / 'space.yaml'}: "
    assert all(line.startswith((prefix, "--")) for line in caught.value.problems)
    return [line.removeprefix(prefix) for line in caught.value.problems]
