from __future__ import annotations

import errno
import os
from pathlib import Path
from textwrap import dedent

import pytest

from trainable.errors import InputError
from trainable.files import read_mapping, read_value, write_atomically


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("-2.5E3", -2500.0), ("3", 3), ("null", None), ("true", True), ("[0, 1]", [0, 1]), ("log", "log")],
)
def test_a_value_is_what_yaml_and_people_mean_by_it(text: str, value: object) -> None:
    assert read_value(text) == value
    assert type(read_value(text)) is type(value)


def test_a_value_that_is_no_yaml_says_why() -> None:
    with pytest.raises(ValueError, match="expected the node content"):
        read_value("[")
    with pytest.raises(ValueError, match="must be below 2\\^64"):
        read_value("9" * 400)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("lr: 1\nlr: 2\n", "line 2, column 1: not valid YAML: the key 'lr' stands twice. Mend that line."),
        ("lr: 1\nb: {<<: {a: 1}, b: 1, b: 2}\n", "line 2, column 23: not valid YAML: the key 'b' stands twice."),
        ("lr: [1\n", "not valid YAML: "),
        ("a: 1\n? [b, c]\n: 1\n", "line 2, column 3: not valid YAML: a key must be a plain value, got a sequence."),
        ("a: {{b}: c}\n", "line 1, column 5: not valid YAML: a key must be a plain value, got a mapping."),
        (f"lr: {'9' * 400}\n", "a whole number must be below 2^64, got 99999999999999999999... of 400 characters."),
        (f"lr: -{'9' * 5000}\n", "line 1, column 5: not valid YAML: -9999999999999999999... of 5001 characters "),
        ("day: 2026-02-31\n", "line 1, column 6: not valid YAML: 2026-02-31 cannot be read: day is out of range"),
        (f"a: {'[' * 5000}\n", "not valid YAML: maximum recursion depth exceeded"),
        ("", "must hold keys and values, got nothing. See spaces/quick.yaml."),
        ("- 1\n", "must hold keys and values, got list. See spaces/quick.yaml."),
    ],
)
def test_a_file_that_holds_no_mapping_says_so(tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_mapping(tmp_path / "mine.yaml")
    assert rule in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}: ")


def test_a_mapping_may_take_over_another_and_override_it(tmp_path: Path) -> None:
    text = """
        first: {inner: [&b {<<: &a {lr: 1.0, name: a}, name: b}]}
        second: {<<: *b, name: c}
        third: {<<: [*a, {mixup: 0.1}]}
    """
    (tmp_path / "mine.yaml").write_text(dedent(text))
    assert read_mapping(tmp_path / "mine.yaml") == {
        "first": {"inner": [{"lr": 1.0, "name": "b"}]},
        "second": {"lr": 1.0, "name": "c"},
        "third": {"lr": 1.0, "name": "a", "mixup": 0.1},
    }


def test_a_missing_file_and_one_that_is_no_text_say_so(tmp_path: Path) -> None:
    (tmp_path / "wide.yaml").write_text("a: 1")
    with pytest.raises(InputError, match=r"no such file. Did you mean .*wide.yaml\?"):
        read_mapping(tmp_path / "wied.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"cannot be read: .* Name a YAML file in UTF-8."):
        read_mapping(tmp_path / "binary.yaml")


def test_what_could_not_be_written_whole_leaves_nothing_behind_and_names_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text("old")

    def full(self: Path, content: bytes) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomically(tmp_path / "a.json", "new")
    assert caught.value.filename == str(tmp_path / "a.json")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"
