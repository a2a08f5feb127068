"""Names from outside: whatever a file, a label or a cell is called, nothing falls over or steers a terminal."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from trainable.data.check import check_data, render
from trainable.data.dataset import load_dataset
from trainable.errors import InputError, visible
from trainable.files import checked_path, plain_cell, safe_cell

MakeClips = Callable[..., Path]
ODD = [
    "a\x1b[31mred", "line\nbreak", "tab\there", "bell\a", "caf\udce9", "\u202egnp.exe", "9" * 240, "~tilde", "~root",
    "-rf", "=cmd|' C calc'!A0", "[bold]markup[bold]", "ünï 東京", "a#t=1,2", "%s%n", "'quote\"", "..wav", "CON",
    "a" * 251,
]  # fmt: skip


def harmless(text: str) -> bool:
    text.encode()  # no lone surrogates
    return all(letter.isprintable() or letter in "\n" for letter in text)


def checked(data: str) -> str:
    """What `data check` prints, in both of its forms, once nothing in it steers a terminal."""
    report = check_data(data)
    out = io.StringIO()
    render(report, Console(file=out, width=100, color_system=None))
    text = out.getvalue()
    assert harmless(text)
    json.loads(json.dumps(report.to_json(), allow_nan=False))
    return text


@pytest.mark.parametrize("name", ODD)
def test_a_file_of_any_name_is_a_clip_like_others(make_clips: MakeClips, name: str) -> None:
    root = make_clips(classes=2, clips=6, seconds=0.2)
    shutil.copy(root / "class0" / "000.wav", root / "class0" / f"{name}.wav")
    dataset = load_dataset(str(root))
    assert len(dataset.clips) == 13 - name.startswith(".")
    assert all(harmless(clip.name) for clip in dataset.clips)
    checked(str(root))


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_a_class_of_any_name_is_a_class_like_others(make_clips: MakeClips, name: str) -> None:
    root = make_clips(classes=2, clips=6, seconds=0.2)
    (root / "class1").rename(root / name)
    if name.startswith("."):
        with pytest.raises(InputError):
            load_dataset(str(root))
        return
    assert all(map(harmless, load_dataset(str(root)).labels))
    checked(str(root))


@pytest.mark.slow
@pytest.mark.parametrize("label", [*ODD, "7" * 5000, "٣", "²", "1e999", "nan"])
def test_any_label_and_any_path_of_a_table_is_one(make_clips: MakeClips, tmp_path: Path, label: str) -> None:
    make_clips(classes=1, clips=6, seconds=0.2)
    quoted = label.replace('"', '""')
    written, file = f'"{quoted}"', f'"{quoted}.wav"'
    rows = [f"clips/class0/{n:03d}.wav,{'other' if n % 2 else written}" for n in range(6)]
    rows.append(f"{file},other")
    text = "\n".join(["path,label", *rows])
    (tmp_path / "set.csv").write_bytes(text.encode(errors="surrogateescape"))
    if "\udce9" in label or "\n" in label:  # the latter cannot be told from a quote that swallows rows
        with pytest.raises(InputError, match=r"must be a CSV in UTF-8|quotes must come in pairs"):
            load_dataset(str(tmp_path / "set.csv"))
        return
    dataset = load_dataset(str(tmp_path / "set.csv"))
    assert len(dataset.clips) == 6
    assert len(dataset.rejected) == 1
    checked(str(tmp_path / "set.csv"))


@pytest.mark.parametrize(
    "cell", ["~x.wav", "~backup/a.wav", "a\0b.wav", "n" * 300 + ".wav", "d/" * 3000 + "a.wav", ".", "/", "loop"]
)
def test_a_path_that_is_none_costs_its_own_row_only(make_clips: MakeClips, tmp_path: Path, cell: str) -> None:
    make_clips(classes=2, clips=6, seconds=0.2)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    rows = [f"clips/class{k}/{n:03d}.wav,{k}" for k in range(2) for n in range(6)]
    (tmp_path / "set.csv").write_text("\n".join(["path,label", *rows, f"{cell},1"]))
    dataset = load_dataset(str(tmp_path / "set.csv"))
    assert len(dataset.clips) == 12
    (left_out,) = dataset.rejected
    assert left_out.reason
    checked(str(tmp_path / "set.csv"))


def test_a_tilde_is_a_letter_and_no_other_file_is_meant(make_clips: MakeClips, tmp_path: Path) -> None:
    make_clips(classes=2, clips=2, seconds=0.2)
    (tmp_path / "~backup").mkdir()
    for name in ("~x.wav", "~backup/a.wav", "~root/a.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "clips" / "class0" / "000.wav", tmp_path / name)
        assert checked_path(tmp_path, name) == str(tmp_path / name)
    rows = [f"{name},tilde" for name in ("~x.wav", "~backup/a.wav", "~root/a.wav")]
    (tmp_path / "set.csv").write_text("\n".join(["path,label", *rows, "clips/class1/000.wav,b"]))
    assert len(load_dataset(str(tmp_path / "set.csv")).clips) == 4
    assert checked_path(tmp_path, "~/a.wav") == str(Path.home() / "a.wav")


def test_links_that_lead_back_and_folders_that_are_called_as_files_are_no_obstacle(make_clips: MakeClips) -> None:
    root = make_clips(classes=2, clips=6, seconds=0.2)
    (root / "loop").symlink_to(root / "loop")
    (root / "class0" / "loop.wav").symlink_to(root / "class0" / "loop.wav")
    (root / "class0" / "up").symlink_to(root)
    (root / "class0" / "folder.wav").mkdir()
    dataset = load_dataset(str(root))
    assert len(dataset.clips) == 12
    reasons = {item.name: item.reason for item in dataset.rejected}
    assert reasons.pop("loop") == "a link that leads nowhere"
    assert reasons.pop("class0/loop.wav") == "cannot be opened (Too many levels of symbolic links)"
    assert set(reasons.values()) <= {"lies deeper than its class folder"}


def test_a_folder_called_labels_csv_is_no_table(make_clips: MakeClips, tmp_path: Path) -> None:
    make_clips(classes=1, clips=2)
    (tmp_path / "clips" / "labels.csv").mkdir()
    with pytest.raises(InputError, match=r"at least two classes|must keep at least one clip"):
        load_dataset(str(tmp_path / "clips"))


@pytest.mark.parametrize("data", ["~nouser/x", "x" * 300, "y/" * 300, "a\0b", "a\x1b[2Jb", "", ".", "loop"])
def test_any_name_of_a_data_set_that_is_none_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError) as caught:
        load_dataset(data)
    assert harmless(str(caught.value))


def test_what_is_shown_is_printable_and_keeps_every_language() -> None:
    assert visible("a\x1b[31m\u202e\udce9\0") == "a\\x1b[31m\\u202e\\udce9\\x00"
    for text in ("Größe", "東京", "дом", "👩‍👧", "क्षि", "e\u0301"):
        assert visible(text) == text
    assert visible("x" * 50, 10) == "x" * 9 + "…"


@pytest.mark.parametrize("cell", ["=cmd", "+1+1", "-x", "@SUM(A1)", "=1", "--1"])
def test_no_cell_begins_a_formula_and_it_reads_back_as_it_was(cell: str) -> None:
    assert safe_cell(cell) == f"'{cell}"
    assert plain_cell(safe_cell(cell)) == cell


def test_numbers_and_other_texts_stay_as_they_are() -> None:
    for cell in ("-1", "+2.5", "-1e-5", "a=b", "'quoted", "", 3, -0.5, None):
        assert safe_cell(cell) == cell
