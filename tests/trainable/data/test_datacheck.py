from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from rich.console import Console

from trainable.data.check import DataReport, check_data, render
from trainable.errors import InputError

MakeClips = Callable[..., Path]


def shown(report: DataReport) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    render(report, console)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_a_clean_folder_has_nothing_to_mend_and_a_command_to_go_on_with(make_clips: MakeClips) -> None:
    root = make_clips(classes=2, clips=10, seconds=0.5)
    report = check_data(str(root))
    assert [(item.label, item.clips, item.shortest, item.median, item.longest) for item in report.classes] == [
        ("class0", 10, 0.5, 0.5, 0.5),
        ("class1", 10, 0.5, 0.5, 0.5),
    ]
    assert (report.clips, report.seconds) == (20, 10.0)
    assert report.sample_rates == {8000: 20}
    assert report.channels == {1: 20}
    assert report.split.name == "stratified"
    assert report.split.clips == {"train": 12, "val": 4, "test": 4}
    assert report.warnings == ()
    assert report.command == f"python run_search.py --space spaces/small-data.yaml --data {root}"
    text = shown(report)
    assert "20 clips, 0.2 min, 2 classes" in text
    assert "class1     10        0.50      0.50       0.50" in text
    assert "split: stratified  12 train, 4 val, 4 test" in text
    assert "exact copies: none" in text
    assert "no problems found" in text
    assert "near copies, of 0 clips of 2 s or more, with 1.6 s of sound, compared: none" in text
    assert f"search: {report.command}" in text


def test_the_demo_set_goes_on_with_the_default_space(make_clips: MakeClips, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_clips(classes=2, clips=10, seconds=0.5)
    monkeypatch.setattr("trainable.data.demo.demo_folder", lambda progress: root)
    assert check_data("demo").command == "python run_search.py --data demo"


def test_copies_are_named_with_their_labels_and_parts(make_clips: MakeClips) -> None:
    root = make_clips(classes=2, clips=10, seconds=0.5)
    for number in range(10):
        shutil.copy(root / "class0" / f"{number:03d}.wav", root / "class0" / f"{number:03d}a.wav")
    shutil.copy(root / "class0" / "000.wav", root / "class1" / "other.wav")
    report = check_data(str(root))
    assert len(report.exact) == 10
    first = report.exact[0]
    assert first.names == ("class0/000.wav", "class0/000a.wav", "class1/other.wav")
    assert first.labels == ("class0", "class0", "class1")
    assert first.contradicts
    assert not report.exact[1].contradicts
    assert not any(item.straddles for item in report.exact)  # the split keeps them in one part
    assert report.warnings == (
        "sets of copies with two labels for the same sound, of which one must be wrong: 1",
        "exact copies of other clips: 11; take them away, or they count twice",
    )
    text = shown(report)
    assert "exact copies: 10\n  class0/000.wav (class0, " in text
    assert "two labels" in text


def test_copies_in_one_part_do_not_straddle(make_clips: MakeClips, tmp_path: Path) -> None:
    make_clips(classes=2, clips=4, seconds=0.5)
    shutil.copy(tmp_path / "clips" / "class0" / "000.wav", tmp_path / "clips" / "class0" / "001.wav")
    parts = ["train", "train", "val", "test"]
    rows = [f"clips/class{label}/{n:03d}.wav,{label},{part}" for label in (0, 1) for n, part in enumerate(parts)]
    (tmp_path / "set.csv").write_text("\n".join(["path,label,split", *rows]))
    (copies,) = check_data(str(tmp_path / "set.csv")).exact
    assert copies.parts == ("train", "train")
    assert not copies.straddles


def test_files_that_are_left_out_are_listed_by_name_and_reason(make_clips: MakeClips) -> None:
    root = make_clips(classes=2, clips=10, seconds=0.5)
    for number in range(12):
        (root / "class0" / f"bad{number:02d}.wav").write_bytes(b"")
    report = check_data(str(root))
    assert len(report.rejected) == 12
    assert "files that are left out: 12" in report.warnings
    text = shown(report)
    assert "left out: 12\n  class0/bad00.wav: empty file (0 bytes)\n" in text
    assert "class0/bad10.wav" not in text
    assert "and 2 more: --json lists them all" in text


def test_a_set_that_cannot_be_split_says_why_and_offers_no_command(make_clips: MakeClips) -> None:
    root = make_clips(classes=2, clips=10, seconds=0.5)
    for path in sorted((root / "class1").iterdir())[1:]:
        path.unlink()
    report = check_data(str(root))
    assert report.split.name == ""
    assert report.warnings[0] == (
        "clips: class1: must have 3 clips or more, to be in train, val and test, got 1. Add clips, or hold out less."
    )
    assert "classes are uneven (1 to 10 clips): consider class_balanced: true" in report.warnings
    assert "search: " not in shown(report)


def test_rates_and_channels_that_differ_are_counted(make_clips: MakeClips) -> None:
    root = make_clips(classes=2, clips=10, seconds=0.5)
    wave, rate = soundfile.read(root / "class0" / "000.wav")
    soundfile.write(root / "class0" / "000.wav", [[value, value] for value in wave], 2 * rate)
    report = check_data(str(root))
    assert report.sample_rates == {8000: 19, 16_000: 1}
    assert report.channels == {1: 19, 2: 1}
    assert "sample rates differ: all clips are resampled to 8000 Hz, the most common one" in report.warnings
    assert "sample rates: 8000 Hz: 19, 16000 Hz: 1" in shown(report)


@pytest.mark.slow
def test_fsdds_speakers_straddle_its_given_split(shared_data: Path) -> None:
    report = check_data(str(shared_data / "fsdd" / "fsdd.csv"))
    assert report.groups == dict.fromkeys(("george", "jackson", "lucas", "nicolas", "theo", "yweweler"), 500)
    assert report.straddling_groups == tuple(report.groups)
    assert report.split.clips == {"train": 2160, "val": 540, "test": 300}
    assert report.exact == ()
    assert report.compared == 0  # two have 2 s, mostly of silence
    assert "groups: 6, 6 of them straddle the split" in shown(report)


def test_the_record_is_plain_json(make_clips: MakeClips) -> None:
    root = make_clips(classes=2, clips=10, seconds=0.5)
    shutil.copy(root / "class0" / "000.wav", root / "class1" / "other.wav")
    (root / "class0" / "x.wav").write_bytes(b"")
    values = json.loads(json.dumps(check_data(str(root)).to_json()))
    assert values["clips"] == 21
    assert values["exact"][0]["names"] == ["class0/000.wav", "class1/other.wav"]
    assert values["exact"][0]["contradicts"] is True
    assert values["rejected"] == [{"name": "class0/x.wav", "reason": "empty file (0 bytes)"}]
    assert values["sample_rates"] == {"8000": 21}


def test_a_set_too_large_for_near_copies_says_so(make_clips: MakeClips) -> None:
    report = check_data(str(make_clips(classes=2, clips=10, seconds=0.5)))
    many = dataclasses.replace(report.classes[0], clips=30_000)
    text = shown(dataclasses.replace(report, classes=(many,)))
    assert "near copies: not looked for among more than 20000 clips" in text


def test_names_with_brackets_are_shown_as_they_are(make_clips: MakeClips, tmp_path: Path) -> None:
    root = make_clips(classes=2, clips=10, seconds=0.5).rename(tmp_path / "my [red]clips")
    (root / "class0").rename(root / "[bold]a")
    text = shown(check_data(str(root)))
    assert "[bold]a" in text
    assert f"--data '{root}'" in text


def test_a_set_without_clips_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got no audio file"):
        check_data(str(tmp_path))


def test_floats_at_the_scale_of_whole_numbers_and_absurd_ones_are_named(make_clips: MakeClips) -> None:
    root = make_clips(classes=2, clips=6)
    for name, factor in (("000.wav", 32_768.0), ("001.wav", 1e29)):
        wave, rate = soundfile.read(root / "class0" / name)
        soundfile.write(root / "class0" / name, factor * wave, rate, subtype="DOUBLE")
    report = check_data(str(root))
    assert [item.name for item in report.rejected] == ["class0/001.wav"]
    assert report.rejected[0].reason.startswith("peaks at ")
    assert any(
        line.startswith("clips far above full scale (1): 1, class0/000.wav peaks at ") for line in report.warnings
    )
    json.dumps(report.to_json(), allow_nan=False)
