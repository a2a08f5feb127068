from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.runs.run import load_run
from trainable.errors import InputError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "must be JSON, got something else (Expecting value: line 1 column 1 (char 0))"),
        (json.dumps({"space": {"budget": {}}})[:-5], "must be JSON, got something else ("),
        ("[1]", "must be a record, got [1]"),
        ("null", "must be a record, got None"),
        ("{}", "space: must be there, got nothing"),
    ],
)
def test_a_damaged_record_is_named_with_the_way_out(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError) as caught:
        load_run(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'run.json'}: {found}")
    assert "Put back a copy of it" in str(caught.value)
