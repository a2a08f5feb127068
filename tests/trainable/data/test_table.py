from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from trainable.config import TrialConfig
from trainable.data.audio import read_waveform
from trainable.data.check import check_data
from trainable.data.dataset import Dataset, load_dataset
from trainable.data.listing import natural
from trainable.data.split import split_dataset
from trainable.data.stretches import Stretch
from trainable.errors import InputError
from trainable.features.frontend import Frontend
from trainable.features.mel_cache import build_mels

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
        ("filename,take,target,category", "filename", "category"),
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


def table(tmp_path: Path, text: str, name: str = "set.csv") -> Dataset:
    """The data set of a table, once its files are there: each a second of its own tone."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return load_dataset(str(path))


def tones(folder: Path, names: Iterable[str], seconds: float = 0.2) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(int(seconds * 8000)) / 8000
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * (200 + 20 * number) * time), 8000)


COLUMNS = {  # name: the value in row n of 24, whose label is n % 3, and whether it is to be named
    "speaker": (lambda n: f"s{n % 4}", True),
    "Patient ID": (lambda n: f"p{n // 4}", True),
    "src_file": (lambda n: f"{100 + n // 2}.wav", True),
    "recorded on": (lambda n: f"2020-05-{1 + n // 4:02d}", True),
    "location": (lambda n: "north" if n % 2 else "south", True),
    "x": (lambda n: f"k{n // 3}", True),  # once per label
    "q": (lambda n: f"v{n % 8}", True),  # any name, but values as groups have
    "target": (lambda n: str(n % 3), False),  # the label's number
    "id": (str, False),  # unique
    "rating": (lambda n: "AB"[n % 2], False),  # a few values that are no name of anything
    "loudness": (lambda n: f"{(n % 5) / 7:.4f}", False),
    "sentence": (lambda n: f"these are words {n % 4}", False),
    "license": (lambda n: "CC-BY", False),
}


@pytest.mark.slow
@pytest.mark.parametrize("column", COLUMNS)
def test_columns_that_look_like_groups_are_named(tmp_path: Path, column: str) -> None:
    value, named = COLUMNS[column]
    names = [f"{n:02d}.wav" for n in range(24)]
    tones(tmp_path, names)
    rows = [f"{name},{'abc'[n % 3]},{value(n)}" for n, name in enumerate(names)]
    dataset = table(tmp_path, "\n".join([f"path,label,{column}", *rows]))
    low = column.lower()
    assert dataset.warnings == ((f"looks like a group: {low}; --group {low} keeps it together",) if named else ())
    if named:
        assert dataset.warnings[0] in check_data(str(tmp_path / "set.csv")).warnings
        grouped = load_dataset(str(tmp_path / "set.csv"), group_column=column)
        assert {clip.group for clip in grouped.clips} == {str(value(n)) for n in range(24)}
        assert grouped.warnings == ()
        assert grouped.hash != dataset.hash


def test_a_group_column_that_is_not_there_is_refused_with_the_nearest(load: Load, tmp_path: Path) -> None:
    load("\n".join(["path,label,speaker", *(f"{row},x" for row in ROWS)]))
    with pytest.raises(InputError) as caught:
        load_dataset(str(tmp_path / "set.csv"), group_column="speakers")
    assert str(caught.value) == (
        f"{tmp_path / 'set.csv'}: group_column: must be a column, got 'speakers'. Did you mean speaker?"
    )
    with pytest.raises(InputError, match="group_column: needs a CSV with such a column, got 'speaker'"):
        load_dataset(str(tmp_path / "clips"), group_column="speaker")


@pytest.mark.parametrize(
    ("pair", "alike"),
    [
        (("Dog", "dog"), True), (("1", "1.0"), True), (("1", "01"), True), (("big dog", "big_dog"), True),
        (("dog ", "dog"), False), (("café", "cafe\u0301"), True), (("ﬁsh", "fish"), True),
        (("rock-n-roll", "rock n roll"), True),
        (("+1", "1"), True), (("1.5", "1.50"), True), (("dog", "dogs"), False), (("1", "10"), False),
        (("-1", "1"), False),
        (("c", "c++"), False), (("c#", "c"), False), (("?", "!"), False),
    ],
)  # fmt: skip
def test_labels_that_a_person_would_take_for_the_same_are_named(load: Load, pair: tuple[str, str], alike: bool) -> None:
    labels = [pair[0], pair[0], pair[1], "other"]
    dataset = load("\n".join(["path,label", *(f"{row[:-1]}{label}" for row, label in zip(ROWS, labels, strict=True))]))
    warned = [text for text in dataset.warnings if "look alike" in text]
    assert bool(warned) == alike
    if alike:
        assert repr(pair[0]) in warned[0]
        assert repr(pair[1]) in warned[0]


@pytest.mark.slow
def test_labels_have_one_order_whatever_python_s_hashes_are() -> None:
    code = (
        "from trainable.data.listing import natural;"
        "print(sorted({'1', '01', '001', '2', '10', '1.0', 'a1', 'a01', 'A1', '\u0661', '9' * 5000, ''}, key=natural))"
    )
    orders = {
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": str(seed)}, check=True,
                       capture_output=True).stdout
        for seed in range(8)
    }  # fmt: skip
    assert len(orders) == 1


def test_the_natural_order_counts_and_tells_all_texts_apart() -> None:
    assert sorted(["f10", "f9", "f010", "f09"], key=natural) == ["f09", "f9", "f010", "f10"]
    assert natural("1") != natural("01")


def test_quotes_that_swallow_rows_are_an_error_with_their_lines(load: Load, tmp_path: Path) -> None:
    rows = [f"{row},plain" for row in ROWS]
    rows[1] = f'{ROWS[1]},"Good morning'
    rows[3] = f'{ROWS[3]},and left."'
    assert problems(load, "\n".join(["path,label,text", *rows]), tmp_path) == [
        "line 3: quotes must come in pairs, got a row of 3 cells from line 3 to 5. Close the quote, or remove it."
    ]
    rows[3] = f"{ROWS[3]},plain"
    assert problems(load, "\n".join(["path,label,text", *rows]), tmp_path)[-1].startswith("line 3: must be a CSV, got ")
    rows[1] = f'"{ROWS[1]},Good" morning'
    assert problems(load, "\n".join(["path,label,text", *rows]), tmp_path)[-1].startswith("line 3: must be a CSV, got ")
    rows[1] = f'"{ROWS[1]},Good"'
    assert problems(load, "\n".join(["path,label,text", *rows]), tmp_path) == [
        "line 3: quotes must come in pairs, got a row of 1 cells from line 3. Close the quote, or remove it."
    ]


def test_a_line_break_between_quotes_is_part_of_a_text(load: Load) -> None:
    dataset = load(
        "\n".join(["path,label,text", f'{ROWS[0]},"one\ntwo, three\nfour"', *(f"{row},x" for row in ROWS[1:])])
    )
    assert len(dataset.clips) == 4


@pytest.mark.parametrize("text", ['"Good morning', 'and left."', '"No', 'and again "no"', '"', '""', 'a "b', '"a" b'])
def test_quotes_in_a_tsv_are_letters_and_no_row_is_lost(load: Load, text: str) -> None:
    rows = [row.replace(",", "\t") + "\tplain" for row in ROWS]
    for place in range(4):
        changed = [*rows[:place], rows[place].replace("plain", text), *rows[place + 1 :]]
        assert len(load("\n".join(["path\tlabel\tsentence", *changed])).clips) == 4


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
        ('path,label\n"a,b', "line 2: must be a CSV, got something else (unexpected end of data). Mend it."),
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


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("train", "val", "eval"), ("train", "val", "test")),
        (("Training", "validation", "Evaluation"), ("train", "val", "test")),
        (("train", "test", "eval"), ("train", "test", "val")),
        (("train", "train", "eval"), ("train", "train", "test")),
    ],
)
def test_evaluation_means_test_unless_there_is_a_test(
    load: Load, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    dataset = load(
        "\n".join(["path,label,split", *(f"{r},{w}" for r, w in zip(ROWS, (*words, words[0]), strict=True))])
    )
    assert tuple(clip.split for clip in dataset.clips)[:3] == parts
    assert f"clips whose split is {words[2].lower()} are {parts[2]} clips" in dataset.notes


def stretches(dataset: Dataset) -> list[tuple[str, str, object, str | None]]:
    return [(Path(clip.path).name, dataset.labels[clip.label], clip.stretch, clip.group) for clip in dataset.clips]


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("start,end", ("0.5,1.25", "2,3.5")),
        ("Start (s),End (s)", ("0.5,1.25", "2,3.5")),
        ("begin_time,end_time", ("0.5,1.25", "2,3.5")),
        ("Begin Time (s),End Time (s)", ("0.5,1.25", "2,3.5")),
        ("onset,offset", ("0.5,1.25", "2,3.5")),
        ("offset,duration", ("0.5,0.75", "2,1.5")),
        ("start,duration", ("0.5,0.75", "2,1.5")),
        ("onset,duration", ("0.5,0.75", "2,1.5")),
    ],
)
def test_stretches_of_recordings_are_clips_and_the_recording_is_their_group(
    tmp_path: Path, header: str, cells: tuple[str, str]
) -> None:
    tones(tmp_path, ["r0.wav", "r1.wav"], seconds=4)
    rows = [f"r{number}.wav,{label},{cell}" for number in range(2) for label, cell in zip("ab", cells, strict=True)]
    dataset = table(tmp_path, "\n".join([f"path,label,{header}", *rows]))
    one, two = Stretch(0.5, 1.25), Stretch(2.0, 3.5)
    assert stretches(dataset) == [
        ("r0.wav", "a", one, "r0.wav"), ("r1.wav", "a", one, "r1.wav"),
        ("r0.wav", "b", two, "r0.wav"), ("r1.wav", "b", two, "r1.wav"),
    ]  # fmt: skip
    assert [clip.seconds for clip in dataset.clips] == [0.75, 0.75, 1.5, 1.5]
    assert dataset.clips[0].name == "r0.wav#t=0.5,1.25"
    assert dataset.notes == ("4 clips are stretches of 2 recordings; each recording is kept in one part",)
    assert len({clip.content for clip in dataset.clips}) == 4


def test_no_recording_is_in_two_parts_and_check_says_so(tmp_path: Path) -> None:
    names = [f"r{number}.wav" for number in range(8)]
    tones(tmp_path, names, seconds=4)
    rows = [f"{name},{label},{start},{start + 0.9}" for name in names for start, label in enumerate("abab")]
    dataset = table(tmp_path, "\n".join(["path,label,start,end", *rows]))
    split = split_dataset(dataset, TrialConfig(test_share=0.2))
    where = [{dataset.clips[index].path for index in part} for part in (split.train, split.val, split.test)]
    assert all(where)
    assert not where[0] & where[1]
    assert not (where[0] | where[1]) & where[2]
    report = check_data(str(tmp_path / "set.csv"))
    assert "32 clips are stretches of 8 recordings; each recording is kept in one part" in report.split.notes
    assert report.straddling_groups == ()


def test_a_stretch_learns_the_same_as_a_file_of_its_own(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).standard_normal(4 * 8000) * 0.1
    soundfile.write(tmp_path / "r.wav", wave, 8000)
    soundfile.write(tmp_path / "cut.wav", wave[4000:12_000], 8000)
    dataset = table(tmp_path, "path,label,start,end\nr.wav,a,0.5,1.5\ncut.wav,b,,\n")
    first, second = dataset.clips
    assert first.content == second.content
    frontend = Frontend(TrialConfig(n_mels=32, n_fft=512, hop_length=256), 8000)
    build_mels(dataset, frontend, tmp_path, None)
    with np.load(tmp_path / "index.npz") as index:
        assert index["mean"][0] == index["mean"][1]
        assert list(np.diff(index["offsets"])) == [32, 32]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("1,0.5", "end: must lie behind the beginning (1 s), got '0.5'. Change it."),
        ("-1,0.5", "start: must be 0 s or more, got '-1'. Change it."),
        ("x,0.5", "start: must be a time in s, got 'x'. Change it."),
        ("0,nan", "end: must be a time in s, got 'nan'. Change it."),
        ("0,1e999", "end: must be a time in s, got '1e999'. Change it."),
    ],
)
def test_times_that_are_none_are_refused_with_their_line(load: Load, tmp_path: Path, cells: str, said: str) -> None:
    text = "\n".join(["path,label,start,end", f"{ROWS[0]},{cells}", *(f"{row},," for row in ROWS[1:])])
    assert problems(load, text, tmp_path) == [f"line 2: {said}"]


def test_a_stretch_that_stands_twice_and_one_behind_the_end_are_named(load: Load, tmp_path: Path) -> None:
    rows = [f"{ROWS[0]},0,0.05", f"{ROWS[0]},0.05,0.1", f"{ROWS[1]},0,0.05", *(f"{row},," for row in ROWS[2:])]
    head = "path,label,start,end"
    assert len(load("\n".join([head, *rows])).clips) == 5
    assert problems(load, "\n".join([head, *rows, rows[0]]), tmp_path) == [
        "line 7: path: must stand once, got 'clips/class0/000.wav#t=0,0.05' as on line 2. Remove one of the lines."
    ]
    dataset = load("\n".join([head, *rows, f"{ROWS[1]},0.05,5", f"{ROWS[1]},7,8"]))
    assert {item.name.partition("#")[2]: item.reason for item in dataset.rejected} == {
        "t=0.05,5": "the recording ends at 0.1 s", "t=7,8": "the recording ends before it",
    }  # fmt: skip


RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"
    "1\tWaveform 1\t1\t0.5\t1.25\t0\t4000\twren\n1\tSpectrogram 1\t1\t0.5\t1.25\t0\t4000\twren\n"
    "2\tSpectrogram 1\t1\t2.0\t3.5\t0\t4000\towl\n"
)
AUDACITY = "0.500000\t1.250000\twren\n\\\t100.0\t4000.0\n2.000000\t3.500000\towl\n"


@pytest.mark.parametrize(("name", "text"), [("r0.Table.1.selections.txt", RAVEN), ("r0.txt", AUDACITY)])
def test_raven_s_and_audacity_s_files_mark_stretches_of_the_recording_beside_them(
    tmp_path: Path, name: str, text: str
) -> None:
    tones(tmp_path, ["r0.wav", "r1.wav"], seconds=4)
    wanted = [("r0.wav", "owl", Stretch(2.0, 3.5), "r0.wav"), ("r0.wav", "wren", Stretch(0.5, 1.25), "r0.wav")]
    assert stretches(table(tmp_path, text, name)) == wanted
    (tmp_path / name.replace("r0", "r1")).write_text(text)
    (tmp_path / "notes.txt").write_text("0.5\t1\tno recording is called so")
    both = load_dataset(str(tmp_path))
    assert len(both.clips) == 4
    assert both.notes == ("4 clips are stretches of 2 recordings; each recording is kept in one part",)


def test_raven_s_tables_of_several_files_count_from_each_file(tmp_path: Path) -> None:
    tones(tmp_path, ["r0.wav", "r1.wav"], seconds=4)
    dataset = table(
        tmp_path,
        "Selection\tBegin Time (s)\tEnd Time (s)\tBegin Path\tFile Offset (s)\tSpecies\n"
        "1\t0.5\t1.25\tC:\\field\\r0.wav\t0.5\twren\n2\t6\t7.5\tC:\\field\\r1.wav\t2\towl\n",
        "all.txt",
    )
    assert stretches(dataset) == [
        ("r1.wav", "owl", Stretch(2.0, 3.5), "r1.wav"), ("r0.wav", "wren", Stretch(0.5, 1.25), "r0.wav"),
    ]  # fmt: skip


def test_esc50_s_metadata_is_taken_as_it_comes(tmp_path: Path) -> None:
    names = [f"{1 + n % 5}-{100 + n // 2}-A-{n % 3}.wav" for n in range(30)]
    names = [f"{n}-{name}" for n, name in enumerate(names)]
    tones(tmp_path / "audio", names)
    rows = [f"{name},{1 + n % 5},{n % 3},{'abc'[n % 3]},True,{100 + n // 2},A" for n, name in enumerate(names)]
    text = "\n".join(["filename,fold,target,category,esc10,src_file,take", *rows])
    dataset = table(tmp_path, text, "meta/esc50.csv")
    assert dataset.rejected == ()
    assert dataset.labels == ("a", "b", "c")
    assert {clip.fold for clip in dataset.clips} == {1, 2, 3, 4, 5}
    assert all(clip.group for clip in dataset.clips)
    assert dataset.notes == ("read as the metadata of ESC-50: its folds, clips of one src_file kept together",)
    with pytest.raises(InputError, match=r"Did you mean .*esc50\.csv\?"):
        load_dataset(str(tmp_path))


def test_urbansound8k_s_metadata_is_taken_as_it_comes_and_its_times_are_no_stretches(tmp_path: Path) -> None:
    rows = []
    for n in range(20):
        name = f"{1000 + n // 2}-{n % 2}-0-{n}.wav"
        tones(tmp_path / "audio" / f"fold{1 + n % 10}", [name], seconds=0.2 + 0.01 * n)
        rows.append(f"{name},{1000 + n // 2},{n}.5,{n}.9,1,{1 + n % 10},{n % 2},{['dog', 'siren'][n % 2]}")
    text = "\n".join(["slice_file_name,fsID,start,end,salience,fold,classID,class", *rows])
    dataset = table(tmp_path, text, "metadata/UrbanSound8K.csv")
    assert dataset.rejected == ()
    assert dataset.labels == ("dog", "siren")
    assert all(clip.stretch is None for clip in dataset.clips)
    assert sorted({clip.fold for clip in dataset.clips if clip.fold}) == list(range(1, 11))
    assert {clip.group for clip in dataset.clips} == {str(1000 + n) for n in range(10)}
    with pytest.raises(InputError, match=r"got fold1, .* as of folds\. Did you mean .*UrbanSound8K\.csv\?"):
        load_dataset(str(tmp_path / "audio"))


def test_speech_commands_lists_give_the_parts_and_its_noise_is_no_class(tmp_path: Path) -> None:
    names = [
        f"{word}/s{speaker}_nohash_{take}.wav" for word in ("yes", "no") for speaker in range(6) for take in (0, 1)
    ]
    tones(tmp_path, [*names, "_background_noise_/pink.wav"])
    lists = {part: [n for n in names if f"/s{number}_" in n] for part, number in (("testing", 4), ("validation", 5))}
    for part, found in lists.items():
        (tmp_path / f"{part}_list.txt").write_text("\n".join([*found, *(["no/gone.wav"] if part == "testing" else [])]))
    dataset = load_dataset(str(tmp_path))
    assert dataset.labels == ("no", "yes")
    split = split_dataset(dataset, TrialConfig())
    assert {dataset.clips[index].name for index in split.test} == set(lists["testing"])
    assert {dataset.clips[index].name for index in split.val} == set(lists["validation"])
    assert {clip.group for clip in dataset.clips} == {f"s{number}" for number in range(6)}
    assert [(item.name, item.reason) for item in dataset.rejected] == [
        ("_background_noise_/", "noise to mix in, and no class, in Speech Commands")
    ]
    assert dataset.notes == (
        "parts after testing_list.txt and validation_list.txt, 1 of the listed files are not here",
    )
