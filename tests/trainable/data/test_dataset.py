from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.recordings import needs_ffmpeg
from trainable.data import demo
from trainable.data.dataset import Dataset, load_dataset
from trainable.errors import InputError

MakeClips = Callable[..., Path]


def problems(data: Path | str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_dataset(str(data))
    return list(caught.value.problems)


def problem(data: Path | str) -> str:
    (only,) = problems(data)
    return only


def left_out(dataset: Dataset) -> dict[str, str]:
    return {item.name: item.reason for item in dataset.rejected}


def test_a_folder_of_class_folders_becomes_clips_by_class_and_name(make_clips: MakeClips) -> None:
    root = make_clips(classes=3, clips=4, seconds=0.5)
    dataset = load_dataset(str(root))
    assert dataset.name == "clips"
    assert dataset.root == str(root)
    assert dataset.labels == ("class0", "class1", "class2")
    assert [clip.name for clip in dataset.clips][:5] == [
        "class0/000.wav", "class0/001.wav", "class0/002.wav", "class0/003.wav", "class1/000.wav",
    ]  # fmt: skip
    clip = dataset.clips[5]
    assert clip.path == str(root / "class1" / "001.wav")
    assert (clip.label, clip.seconds, clip.sample_rate, clip.channels) == (1, 0.5, 8000, 1)
    assert (clip.bytes, clip.mtime_ns) == (Path(clip.path).stat().st_size, Path(clip.path).stat().st_mtime_ns)
    assert (clip.group, clip.split, clip.fold) == (None, None, None)
    assert dataset.rejected == ()
    assert dataset.sample_rate == 8000
    assert dataset.seconds == 6.0


@pytest.mark.slow
def test_the_demo_set_is_a_data_set_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_SEARCH_CACHE", str(tmp_path))
    monkeypatch.setattr(demo, "make_demo", partial(demo.make_demo, seconds=0.25))  # of 5 s they take a minute
    dataset = load_dataset("demo")
    assert dataset.name == "demo"
    assert len(dataset.labels) == 10
    assert len(dataset.clips) == 10 * demo.CLIPS_PER_CLASS
    assert dataset.rejected == ()


def test_gtzan_keeps_its_own_name(make_clips: MakeClips) -> None:
    assert load_dataset(str(make_clips(name="GTZAN/genres_original"))).name == "GTZAN"


@needs_ffmpeg
def test_every_file_that_is_no_clip_is_listed_with_its_reason(make_clips: MakeClips) -> None:
    root = make_clips(classes=2, clips=3)
    (root / "class0" / "._000.wav").write_bytes(b"resource fork")
    (root / "class0" / ".DS_Store").write_bytes(b"")
    (root / "class0" / "notes.txt").write_text("x")
    (root / "class0" / "song.m4a").write_text("x")
    (root / "class0" / "text.wav").write_text("x")
    (root / "class0" / "empty.WAV").write_bytes(b"")
    (root / "class1" / "more").mkdir()
    shutil.copy(root / "class1" / "000.wav", root / "class1" / "more" / "deep.wav")
    shutil.copy(root / "class1" / "000.wav", root / "loose.wav")
    (root / "list.txt").write_text("x")
    (root / ".git").mkdir()
    (root / "__MACOSX").mkdir()
    dataset = load_dataset(str(root))
    assert len(dataset.clips) == 6
    assert left_out(dataset) == {
        ".git/": "hidden",
        "__MACOSX/": "hidden",
        "class0/._000.wav": "hidden (left behind by macOS)",
        "class0/.DS_Store": "hidden",
        "class0/notes.txt": "not an audio file by its name",
        "class0/song.m4a": "not readable as audio (format not recognised)",
        "class0/text.wav": "not readable as audio (format not recognised)",
        "class0/empty.WAV": "empty file (0 bytes)",
        "class1/more/deep.wav": "lies deeper than its class folder",
        "loose.wav": "lies outside the class folders",
    }
    assert [item.name for item in dataset.rejected] == sorted(left_out(dataset))


def test_unicode_spaces_links_and_capital_endings_are_no_obstacle(make_clips: MakeClips, tmp_path: Path) -> None:
    root = make_clips(classes=2, clips=2).rename(tmp_path / "my clips é")
    (root / "class0").rename(root / "Größe 音楽")
    (root / "class1" / "000.wav").rename(root / "class1" / "a b ü.WAV")
    (tmp_path / "link").symlink_to(root)
    (root / "linked").symlink_to(root / "class1")
    dataset = load_dataset(str(tmp_path / "link"))
    assert dataset.labels == ("Größe 音楽", "class1", "linked")
    assert {clip.name for clip in dataset.clips} == {
        "Größe 音楽/000.wav", "Größe 音楽/001.wav", "class1/001.wav", "class1/a b ü.WAV",
        "linked/001.wav", "linked/a b ü.WAV",
    }  # fmt: skip


def test_labels_that_are_numbers_are_in_the_order_of_numbers(make_clips: MakeClips) -> None:
    root = make_clips(classes=3, clips=2)
    for label, name in enumerate(("10", "9", "100")):
        (root / f"class{label}").rename(root / name)
    assert load_dataset(str(root)).labels == ("9", "10", "100")


def test_the_most_common_rate_is_the_data_sets_and_the_higher_one_where_two_are(make_clips: MakeClips) -> None:
    root = make_clips(classes=2, clips=2)
    soundfile.write(root / "class0" / "000.wav", np.sin(np.arange(16_000)), 16_000)
    assert load_dataset(str(root)).sample_rate == 8000
    soundfile.write(root / "class0" / "001.wav", np.sin(np.arange(16_000)), 16_000)
    assert load_dataset(str(root)).sample_rate == 16_000


def test_the_hash_follows_names_sizes_labels_groups_splits_and_folds(tmp_path: Path, make_clips: MakeClips) -> None:
    make_clips(classes=2, clips=2)

    def hash_of(*columns: str) -> str:
        names = [f"clips/class{label}/{clip:03d}.wav" for label in (0, 1) for clip in (0, 1)]
        rows = [f"{name},{name[11]}" + "".join(f",{c.split('=')[1]}" for c in columns) for name in names]
        header = "path,label" + "".join(f",{column.split('=')[0]}" for column in columns)
        (tmp_path / "clips.csv").write_text("\n".join([header, *rows]))
        return load_dataset(str(tmp_path / "clips.csv")).hash

    hashes = [hash_of(), hash_of("group=a"), hash_of("split=train"), hash_of("fold=1")]
    assert len(set(hashes)) == 4
    assert hash_of() == hashes[0]
    path = tmp_path / "clips" / "class1" / "001.wav"
    wave, rate = soundfile.read(path)
    path.touch()
    assert hash_of() == hashes[0]
    soundfile.write(path, wave[:-1], rate)
    assert hash_of() != hashes[0]


def test_a_second_start_decodes_nothing(make_clips: MakeClips) -> None:
    root = make_clips()
    steps: list[str] = []
    first = load_dataset(str(root), lambda description, done, total: steps.append(description))
    assert len(steps) == 30
    assert load_dataset(str(root), lambda description, done, total: steps.append(description)) == first
    assert len(steps) == 30


# What cannot be searched on.


def test_a_path_that_is_not_there_names_the_nearest_that_is(make_clips: MakeClips, tmp_path: Path) -> None:
    make_clips()
    assert problem(tmp_path / "clisp") == (
        f"data: no such file or folder, got '{tmp_path / 'clisp'}'. Did you mean {tmp_path / 'clips'}?"
    )
    assert problem(tmp_path / "q" / "r") == (
        f"data: no such file or folder, got '{tmp_path / 'q' / 'r'}'. "
        f"Check the path: {tmp_path} is there, q in it is not."
    )


def test_a_file_that_is_no_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("x")
    assert problem(tmp_path / "a.wav") == (
        f"data: must be demo, a folder of class folders or a CSV, got '{tmp_path / 'a.wav'}'. Name one of them."
    )


def test_the_folder_above_and_the_folder_below_are_pointed_out(make_clips: MakeClips, tmp_path: Path) -> None:
    root = make_clips(name="GTZAN/genres_original")
    assert problem(tmp_path / "GTZAN") == (
        f"{tmp_path / 'GTZAN'}: must hold class folders with audio files, got them elsewhere. Did you mean {root}?"
    )
    assert problem(root / "class0") == (
        f"{root / 'class0'}: must hold class folders with audio files, got audio files without class folders. "
        f"Did you mean {root}? Otherwise write a CSV with the columns path and label."
    )


def test_class_folders_in_several_places_are_named(make_clips: MakeClips, tmp_path: Path) -> None:
    make_clips(name="set/train")
    make_clips(name="set/test")
    root = tmp_path / "set"
    assert problem(root) == (
        f"{root}: must hold class folders with audio files, got them in 2 places ({root / 'test'}, {root / 'train'}). "
        "Name one of them, or write a CSV with the columns path, label and split."
    )


def test_a_flat_folder_with_a_csv_points_at_the_csv(make_clips: MakeClips, tmp_path: Path) -> None:
    root = make_clips(classes=1)
    (root / "clips.csv").write_text("path,label\nclass0/000.wav,a\n")
    assert problem(root) == (
        f"{root}: must hold at least two classes, got only 'class0'. Did you mean {root / 'clips.csv'}?"
    )
    assert f"Did you mean {root / 'clips.csv'}?" in problem(root / "class0")


def test_an_empty_folder_and_one_without_audio_are_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    text = problem(tmp_path)
    assert text.startswith(f"{tmp_path}: must hold class folders with audio files (.wav, ")
    assert text.endswith("got no audio file. Check the path.")


def test_a_single_class_is_refused(make_clips: MakeClips) -> None:
    root = make_clips(classes=1)
    assert problem(root) == (f"{root}: must hold at least two classes, got only 'class0'. Add clips of another class.")


def test_a_class_that_loses_all_its_clips_is_refused_with_the_reasons(make_clips: MakeClips) -> None:
    root = make_clips(classes=3, clips=4)
    for path in (root / "class1").iterdir():
        path.write_bytes(b"")
    (root / "class3").mkdir()
    assert problems(root) == [
        f"{root}: class1: a class must keep at least one clip, got none: class1/000.wav: empty file (0 bytes); "
        "class1/001.wav: empty file (0 bytes); class1/002.wav: empty file (0 bytes); and 1 more. "
        "Mend the files or take the class away.",
        f"{root}: class3: a class must keep at least one clip, got none: it has no audio files. "
        "Mend the files or take the class away.",
    ]


def test_a_set_of_unreadable_files_is_refused_once_and_not_per_class(make_clips: MakeClips) -> None:
    root = make_clips(classes=2, clips=1)
    for path in root.glob("*/*"):
        path.write_bytes(b"")
    assert problem(root) == (
        f"{root}: must hold readable clips, got none: class0/000.wav: empty file (0 bytes); "
        "class1/000.wav: empty file (0 bytes). Check the path and the files."
    )


@pytest.mark.slow
def test_real_data_loads_whole_and_a_second_time_at_once(shared_data: Path) -> None:
    gtzan = load_dataset(str(shared_data / "gtzan100" / "genres_original"))
    assert (gtzan.name, len(gtzan.clips), len(gtzan.labels), gtzan.sample_rate) == ("gtzan100", 100, 10, 22_050)
    fsdd = load_dataset(str(shared_data / "fsdd" / "fsdd.csv"))
    assert (fsdd.name, len(fsdd.clips), fsdd.sample_rate) == ("fsdd", 3000, 8000)
    assert fsdd.labels == tuple("0123456789")
    assert {clip.group for clip in fsdd.clips} == {"george", "jackson", "lucas", "nicolas", "theo", "yweweler"}
    assert sum(clip.split == "test" for clip in fsdd.clips) == 300
    steps: list[int] = []
    assert load_dataset(str(shared_data / "fsdd" / "fsdd.csv"), lambda *step: steps.append(1)) == fsdd
    assert steps == []
