from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from trainable.config import TrialConfig
from trainable.data.audio import read_waveform
from trainable.data.check import check_data
from trainable.data.dataset import Dataset, load_dataset
from trainable.data.listing import unused_group
from trainable.data.split import split_dataset
from trainable.errors import InputError

Load = Callable[[str], Dataset]


@pytest.fixture
def load(make_clips: Callable[..., Path], tmp_path: Path) -> Load:
    """Writes its text as set.csv beside four clips (clips/class0/000.wav, ...) and loads it."""
    make_clips(classes=2, clips=2, seconds=0.1)

    def call(text: str) -> Dataset:
        (tmp_path / "set.csv").write_bytes(text.encode())
        return load_dataset(str(tmp_path / "set.csv"))

    return call


ROWS = ["clips/class0/000.wav,a", "clips/class0/001.wav,a", "clips/class1/000.wav,b", "clips/class1/001.wav,b"]
PLAIN = "\n".join(["path,label", *ROWS])


def problems(load: Load, text: str, tmp_path: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(text)
    return [line.removeprefix(f"{tmp_path / 'set.csv'}: ") for line in caught.value.problems]


def test_a_csv_gives_labels_groups_splits_and_folds(load: Load, tmp_path: Path) -> None:
    columns = ["x,train,1", ",val,2", "y,test,3", "y,train,1"]
    dataset = load("\n".join(["path,label,group,split,fold", *map(",".join, zip(ROWS, columns, strict=True))]))
    assert (dataset.name, dataset.root, dataset.labels) == ("set", str(tmp_path), ("a", "b"))
    assert [(clip.name, clip.group, clip.split, clip.fold) for clip in dataset.clips] == [
        ("clips/class0/000.wav", "x", "train", 1), ("clips/class0/001.wav", None, "val", 2),
        ("clips/class1/000.wav", "y", "test", 3), ("clips/class1/001.wav", "y", "train", 1),
    ]  # fmt: skip


def test_paths_may_be_absolute_and_outside_and_are_named_as_short_as_can_be(
    load: Load, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "tables").mkdir()
    inside = tmp_path / "clips" / "class0" / "000.wav"
    rows = [f"{inside},a", "./clips/class0/../class0/001.wav,a", *ROWS[2:]]
    assert [clip.name for clip in load("\n".join(["path,label", *rows])).clips] == [row.split(",")[0] for row in ROWS]
    (tmp_path / "tables" / "set.csv").write_text("\n".join(["path,label", *(f"../{row}" for row in ROWS)]))
    dataset = load_dataset(str(tmp_path / "tables" / "set.csv"))
    assert dataset.clips[0].name == str(inside)
    assert dataset.clips[0].path == str(inside)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + PLAIN,  # as Excel saves it
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace("path,label", " Path , LABEL ").replace(",a", ", a "),
        PLAIN + "\n\n,\n",
        PLAIN.replace("clips/class0/000.wav", '"clips/class0/000.wav"'),
        PLAIN.replace("path,label", "path,label,artist,year"),
    ],
    ids=["bom", "windows", "semicolon", "tab", "spaces", "empty lines", "quotes", "more columns"],
)
def test_a_csv_is_read_as_spreadsheets_write_it(load: Load, text: str) -> None:
    dataset = load(text)
    assert dataset.labels == ("a", "b")
    assert [clip.name for clip in dataset.clips] == [row.split(",")[0] for row in ROWS]


@pytest.mark.parametrize("quote", ["", '"'])
def test_paths_and_labels_may_have_spaces_and_letters_of_any_language(load: Load, tmp_path: Path, quote: str) -> None:
    names = ["Ünï cödé/Nr. 1 лес.wav", "Ünï cödé/東京 (live).wav", "Ünï cödé/e\u0301.wav"]
    (tmp_path / "Ünï cödé").mkdir()
    wave = np.sin(np.arange(800))
    for name in names:
        soundfile.write(tmp_path / name, wave, 8000)
    rows = [f"{quote}{name}{quote},{quote}дом und Hof{quote}" for name in names]
    dataset = load("\n".join([PLAIN, *rows]))
    assert dataset.rejected == ()
    found = {clip.name: clip for clip in dataset.clips if clip.name in names}
    assert sorted(found) == sorted(names)  # letter for letter: an accent of its own is not joined to its letter
    for name, clip in found.items():
        assert clip.path == str(tmp_path / name)
        assert dataset.labels[clip.label] == "дом und Hof"
        assert len(read_waveform(clip.path)[0]) == 800


def test_names_of_parts_and_folds_may_be_the_usual_others(load: Load) -> None:
    columns = ["Training,1.0", "valid,2", "TEST,3", "dev,3"]
    dataset = load("\n".join(["path,label,split,fold", *map(",".join, zip(ROWS, columns, strict=True))]))
    assert [clip.split for clip in dataset.clips] == ["train", "val", "test", "val"]
    assert [clip.fold for clip in dataset.clips] == [1, 2, 3, 3]


def test_a_clip_that_the_csv_names_and_the_disk_lacks_is_listed(load: Load) -> None:
    dataset = load(PLAIN + "\nclips/class1/gone.wav,b")
    assert [(item.name, item.reason) for item in dataset.rejected] == [("clips/class1/gone.wav", "no such file")]
    assert len(dataset.clips) == 4


def test_missing_columns_are_named_with_the_likely_ones(load: Load, tmp_path: Path) -> None:
    assert problems(load, "x,y\na.wav,x", tmp_path) == [
        "path: must be a column, got x, y. Add it, or mend the first line.",
        "label: must be a column, got x, y. Add it, or mend the first line.",
    ]
    assert problems(load, "paths,labels\na.wav,x", tmp_path) == [
        "path: must be a column, got paths, labels. Rename the column 'paths' to path.",
        "label: must be a column, got paths, labels. Rename the column 'labels' to label.",
    ]


@pytest.mark.parametrize(
    ("header", "path", "label"),
    [
        ("filename,fold,target,category", "filename", "category"),
        ("Class,File", "file", "class"),
        ("species,file_name", "file_name", "species"),
    ],
)
def test_columns_that_others_call_otherwise_are_to_be_renamed(
    load: Load, tmp_path: Path, header: str, path: str, label: str
) -> None:
    said = header.lower().replace(",", ", ")
    assert problems(load, f"{header}\na,b", tmp_path) == [
        f"path: must be a column, got {said}. Rename the column {path!r} to path.",
        f"label: must be a column, got {said}. Rename the column {label!r} to label.",
    ]


def test_a_column_of_speakers_that_is_not_used_is_named(load: Load, tmp_path: Path) -> None:
    table = tmp_path / "set.csv"
    table.write_text(PLAIN)
    assert unused_group(table) == ""
    table.write_text("\n".join(["path,label,Speaker", *(f"{row},x" for row in ROWS)]))
    assert unused_group(table) == "speaker"
    assert [text for text in check_data(str(table)).warnings if "speaker" in text] == [
        "the column speaker is not used: name it group if no speaker may be in two parts of the split"
    ]
    table.write_text("\n".join(["path,label,speaker,group", *(f"{row},x,y" for row in ROWS)]))
    assert unused_group(table) == ""


def test_folds_may_be_called_fold1_and_fold_2(load: Load) -> None:
    folds = ["fold1", "Fold 2", "fold_3", "fold-10"]
    dataset = load("\n".join(["path,label,fold", *map(",".join, zip(ROWS, folds, strict=True))]))
    assert [clip.fold for clip in dataset.clips] == [1, 2, 3, 10]


def test_two_folds_of_a_csv_are_refused_with_what_helps(load: Load) -> None:
    dataset = load("\n".join(["path,label,fold", *map(",".join, zip(ROWS, "1212", strict=True))]))
    with pytest.raises(InputError) as caught:
        split_dataset(dataset, TrialConfig())
    assert list(caught.value.problems) == [
        "set: fold: must have at least 3 values in the CSV (one fold tests, one validates, the rest trains), "
        "got 2 (1, 2). Add folds, or use split: stratified, or name the parts in a column split."
    ]


def test_all_problems_of_all_lines_are_said_at_once(load: Load, tmp_path: Path) -> None:
    text = "\n".join(
        [
            "path,label,split,fold",
            "clips/class0/000.wav,a,train,1",
            "./clips/class0/000.wav,a,train,1",
            ",a,train,1",
            "clips/class0/001.wav,,trian,one",
        ]
    )
    assert problems(load, text, tmp_path) == [
        "line 3: path: must stand once, got './clips/class0/000.wav' as on line 2. Remove one of the lines.",
        "line 4: path: must not be empty. Fill it in.",
        "line 5: label: must not be empty. Fill it in.",
        "line 5: split: must be train, val or test, got 'trian'. Did you mean train?",
        "line 5: fold: must be a whole number, got 'one'. Change it.",
    ]


def test_thousands_of_the_same_problem_are_cut_short(load: Load, tmp_path: Path) -> None:
    found = problems(load, "path,label\n" + "a.wav,\n" * 100, tmp_path)
    assert len(found) == 21
    assert found[-1] == "and 80 more problems of this kind."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold a header and a line per clip, got nothing. Add them."),
        ("path,label\n", "must hold a line per clip, got only the header. Add clips."),
        ("path,label,label\na,b,c", "label: must be one column, got 2. Rename the others."),
        ('path,label\n"a,b', "must be a CSV, got something else (unexpected end of data). Mend it."),
    ],
)
def test_a_csv_that_is_none_is_refused(load: Load, tmp_path: Path, text: str, message: str) -> None:
    assert problems(load, text, tmp_path) == [message]


def test_a_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_bytes("path,label\nä.wav,x".encode("latin-1"))
    with pytest.raises(InputError) as caught:
        load_dataset(str(tmp_path / "set.csv"))
    assert str(caught.value).startswith(f"{tmp_path / 'set.csv'}: must be a CSV in UTF-8, got ")


def test_a_csv_whose_clips_are_all_missing_says_so(load: Load, tmp_path: Path) -> None:
    assert problems(load, "path,label\nx/a.wav,a\nx/b.wav,b", tmp_path) == [
        "path: must name files, relative to the CSV's own folder or absolute, got 'x/a.wav' and none that is there. "
        f"Move the CSV, or mend the paths: {tmp_path / 'x' / 'a.wav'} is no file."
    ]


def test_a_row_that_is_longer_than_the_header_is_refused_and_a_shorter_one_is_filled_up(
    load: Load, tmp_path: Path
) -> None:
    assert problems(load, PLAIN.replace("000.wav,a", "000, take 2.wav,a"), tmp_path) == [
        "line 2: must have 2 cells as the header, got 3. Put cells with a comma between quotes."
    ]
    dataset = load(PLAIN.replace("path,label", "path,label,group").replace("000.wav,a", "000.wav,a,x"))
    assert [clip.group for clip in dataset.clips] == ["x", None, None, None]
