"""A saved model says elsewhere what it said in evaluation, of files of any kind, and reports what it cannot read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.support.saved_models import save_small
from trainable.data.audio import read_waveform
from trainable.data.dataset import load_dataset
from trainable.data.split import split_dataset
from trainable.data.stretches import windows
from trainable.errors import InputError
from trainable.features.inputs import Inputs
from trainable.features.mel_cache import mels_of
from trainable.inference.metrics import with_temperature
from trainable.inference.model import load_model, network_of, save_ensemble
from trainable.inference.predict import LabelFiles, Prediction, Unreadable, csv_header, predict_files
from trainable.training.loop import clip_probabilities


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"crop_seconds": 0.3, "eval_crops": 3, "scale": "log", "normalise": "train", "batch_size": 4},
        {"crop_seconds": 1.5, "scale": "db", "normalise": "clip", "channels": "deltas", "padding": "reflect"},
    ],
)
def test_files_get_the_probabilities_of_the_evaluation(
    values: dict[str, Any], make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_clips(clips=5)
    dataset = load_dataset(str(data))
    facts = save_small(tmp_path / "model", data=str(data), **values)
    inputs = Inputs(
        mels_of(dataset, facts.config), dataset, split_dataset(dataset, facts.config), facts.config, torch.device("cpu")
    )
    save_small(tmp_path / "model", normalisation=inputs.normalisation, data=str(data), **values)
    model = load_model(tmp_path / "model")
    module = network_of(facts.config, facts.labels, model.networks[0].module.state_dict())
    wanted = clip_probabilities(module, inputs, torch.arange(len(dataset.clips)), batch_size=4, crops=3).numpy()
    found = list(predict_files(model, [clip.path for clip in dataset.clips]))
    assert np.ptp(wanted[:, 0]) > 0.05  # the network tells clips apart
    for record, row in zip(found, wanted, strict=True):
        assert isinstance(record, Prediction)
        assert np.array(list(record.probabilities.values())) == pytest.approx(row, abs=1e-4)  # float32, sharpened
        assert record.label == dataset.labels[row.argmax()]
        assert record.probability == max(record.probabilities.values())


@pytest.mark.slow
def test_temperature_changes_probabilities_but_no_label(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    sound = read_waveform(make_clips(clips=1) / "class0" / "000.wav")
    save_small(tmp_path / "plain")
    save_small(tmp_path / "soft", temperature=3.0)
    plain, soft = (load_model(tmp_path / name).probabilities([sound]) for name in ("plain", "soft"))
    assert soft == pytest.approx(with_temperature(plain, 3.0))
    assert soft.max() < plain.max()
    assert soft.argmax() == plain.argmax()


@pytest.mark.slow
def test_a_long_file_is_the_mean_of_its_parts_and_a_slightly_longer_one_is_whole(tmp_path: Path) -> None:
    save_small(tmp_path / "model", clip_seconds=1.0)
    model = load_model(tmp_path / "model")
    wave = torch.randn(24_000, generator=torch.Generator().manual_seed(0)) * 0.1
    parts = model.probabilities((part, 8000) for part in wave.split(8000))
    assert model.probabilities([(wave, 8000)])[0] == pytest.approx(parts.mean(axis=0), abs=1e-6)
    assert model._parts((wave[:11_000], 8000)).number == 1


@pytest.mark.slow
def test_batches_change_nothing(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    files = sorted(make_clips(classes=2, clips=5).rglob("*.wav"))
    found = []
    for batch_size in (2, 3, 64):
        save_small(tmp_path / "model", batch_size=batch_size, crop_seconds=0.4, eval_crops=2)
        found.append([r.probability for r in predict_files(load_model(tmp_path / "model"), files)])  # type: ignore[union-attr]
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert found[0] == pytest.approx(found[2], abs=1e-5)


def test_other_rates_and_stereo_are_heard_as_the_model_needs_them(tmp_path: Path) -> None:
    time = np.arange(16_000) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "stereo.flac", np.stack([tone, tone], axis=1), 16_000)
    soundfile.write(tmp_path / "mono.wav", tone[::2], 8000)
    save_small(tmp_path / "model")
    stereo, mono = predict_files(load_model(tmp_path / "model"), [tmp_path / "stereo.flac", tmp_path / "mono.wav"])
    assert isinstance(stereo, Prediction)
    assert isinstance(mono, Prediction)
    assert stereo.probability == pytest.approx(mono.probability, abs=0.05)


@pytest.mark.slow
def test_what_cannot_be_read_is_reported_in_its_place_and_the_rest_is_labelled(
    make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    good = make_clips(classes=1, clips=2) / "class0"
    (good / "001b.wav").write_text("not audio")
    soundfile.write(good / "silent.wav", np.zeros(8000), 8000)
    (good / "._000.wav").write_bytes(b"left behind by macOS")
    (tmp_path / "empty").mkdir()
    save_small(tmp_path / "model")
    said = []
    found = list(
        predict_files(load_model(tmp_path / "model"), [good, tmp_path / "empty", tmp_path / "gone.wav"],
                      progress=lambda text, done, total: said.append((done, total)))
    )  # fmt: skip
    assert [Path(record.path).name for record in found] == [
        "._000.wav", "000.wav", "001.wav", "001b.wav", "silent.wav", "empty", "gone.wav",
    ]  # fmt: skip
    reasons = {Path(record.path).name: record.reason for record in found if isinstance(record, Unreadable)}
    assert set(reasons) == {"._000.wav", "001b.wav", "silent.wav", "empty", "gone.wav"}
    assert "not readable as audio" in reasons["001b.wav"]
    assert reasons["silent.wav"] == "silent"
    assert reasons["empty"] == "holds no files"
    assert reasons["gone.wav"] == "no such file"
    assert said[-1] == (7, 7)


def test_a_record_has_the_top_classes_best_first_and_every_class(
    make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    save_small(tmp_path / "model")
    model = load_model(tmp_path / "model")
    (record,) = predict_files(model, [make_clips(classes=1, clips=1)], top=2)
    assert isinstance(record, Prediction)
    line = json.loads(json.dumps(record.to_json()))
    assert line["top"][0] == [line["label"], line["probability"]]
    assert len(line["top"]) == 2
    assert line["top"][0][1] >= line["top"][1][1]
    assert sum(line["probabilities"].values()) == pytest.approx(1)
    assert len(record.to_row()) == len(csv_header(model)) == 7
    assert csv_header(model)[4:] == ["p(class0)", "p(class1)", "p(class2)"]


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_its_members_as_often_as_they_count(
    make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    sound = read_waveform(make_clips(clips=1) / "class0" / "000.wav")
    facts = save_small(tmp_path / "both" / "one", seed=1)
    save_small(tmp_path / "both" / "two", seed=2, crop_seconds=0.5, scale="log")
    save_ensemble(tmp_path / "both", ["one", "two", "two"], facts.labels)
    one, two = (load_model(tmp_path / "both" / name).probabilities([sound]) for name in ("one", "two"))
    assert np.abs(one - two).max() > 0.05
    assert load_model(tmp_path / "both").probabilities([sound]) == pytest.approx((one + 2 * two) / 3, abs=1e-6)


def test_a_folder_moved_elsewhere_still_loads_and_tells_its_record(tmp_path: Path) -> None:
    save_small(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["model.json", "weights.safetensors"]
    assert load_model(tmp_path / "there").record == {"epoch": 3}
    assert "torch" in json.loads((tmp_path / "there" / "model.json").read_text())["versions"]


def test_what_is_no_model_is_refused_with_a_way_out(tmp_path: Path) -> None:
    save_small(tmp_path / "run" / "retrained" / "model")
    with pytest.raises(InputError, match=r"Did you mean .*run/retrained/model\?"):
        load_model(tmp_path / "run")
    with pytest.raises(InputError, match="Name a folder that `retrain` has written"):
        load_model(tmp_path / "nowhere")
    about = tmp_path / "run" / "retrained" / "model" / "model.json"
    values = json.loads(about.read_text())
    (about.parent / "weights.safetensors").unlink()
    with pytest.raises(InputError, match=r"must hold weights.safetensors"):
        load_model(about.parent)
    about.write_text(json.dumps({**values, "format": 99}))
    with pytest.raises(InputError, match="format: must be 1, got 99"):
        load_model(about.parent)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [32_768.0, 1e29, float("inf")])
@pytest.mark.parametrize("scale", ["power", "log"])
def test_no_level_makes_a_prediction_that_is_no_number(
    make_clips: Callable[..., Path], tmp_path: Path, factor: float, scale: str
) -> None:
    path = make_clips(classes=1, clips=1) / "class0" / "000.wav"
    wave, rate = soundfile.read(path)
    with np.errstate(invalid="ignore"):
        soundfile.write(path, factor * wave, rate, subtype="DOUBLE")
    save_small(tmp_path / "model", scale=scale)
    (found,) = predict_files(load_model(tmp_path / "model"), [path])
    if isinstance(found, Prediction):
        assert sum(found.probabilities.values()) == pytest.approx(1)
        json.dumps(found.to_json(), allow_nan=False)
    else:
        assert "peaks at" in found.reason or "infinite" in found.reason


@pytest.mark.slow
def test_every_file_below_a_folder_is_labelled_or_named_with_its_reason(
    make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_clips(classes=2, clips=1, seconds=0.2)
    clip = root / "class0" / "000.wav"
    (root / "a.m4a").write_text("no sound")
    (root / "cover.jpg").write_text("x")
    (root / ".hidden").mkdir()
    shutil.copy(clip, root / ".hidden" / "inside.wav")
    shutil.copy(clip, root / "._left.wav")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(clip, elsewhere / "linked.wav")
    (root / "link").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    save_small(tmp_path / "model")
    found = {Path(each.path).relative_to(root).as_posix(): each for each in
             predict_files(load_model(tmp_path / "model"), [root])}  # fmt: skip
    labelled = {name for name, each in found.items() if isinstance(each, Prediction)}
    assert labelled == {"class0/000.wav", "class1/000.wav", "link/linked.wav"}
    reasons = {name: (each.reason, each.skipped) for name, each in found.items() if isinstance(each, Unreadable)}
    assert not reasons.pop("a.m4a")[1]
    assert reasons == {
        "cover.jpg": ("not an audio file by its name", True),
        ".hidden": ("hidden folder: name it to label what is in it", True),
        "._left.wav": ("hidden", True),
        "link/back": ("is a link to a folder above it", True),
        "self": ("not an audio file by its name", True),
        "gone.wav": ("no such file", False),
    }


def long_recording(path: Path, seconds: float, rate: int = 8000) -> None:
    """A recording whose pitch changes every second."""
    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * (300 + 150 * (time.astype(int) % 3)) * time), rate)


@pytest.mark.slow
@pytest.mark.parametrize(("window", "hop"), [(1.0, 0.5), (1.0, 1.0), (0.7, 0.3), (20.0, 20.0)])
def test_windows_are_labelled_as_files_of_their_own_would_be(tmp_path: Path, window: float, hop: float) -> None:
    long_recording(tmp_path / "long.wav", 5.25)
    save_small(tmp_path / "model")
    model = load_model(tmp_path / "model")
    found = list(predict_files(model, [tmp_path / "long.wav"], window=window, hop=hop))
    assert all(isinstance(each, Prediction) for each in found)
    places = [each.stretch for each in found]  # type: ignore[union-attr]
    assert places == windows(5.25, window, hop)
    assert places[0].start == 0  # type: ignore[union-attr]
    assert places[-1].end == 5.25  # type: ignore[union-attr]
    whole, rate = read_waveform(tmp_path / "long.wav")
    for each in found:
        assert isinstance(each, Prediction)
        start, stop = each.stretch.samples(rate)  # type: ignore[union-attr]
        alone = model.probabilities([(whole[start:stop], rate)])[0]
        assert list(each.probabilities.values()) == pytest.approx(alone.tolist(), abs=1e-4)


@pytest.mark.slow
def test_a_long_recording_is_labelled_as_if_read_at_once(tmp_path: Path) -> None:
    long_recording(tmp_path / "long.wav", 37.3)
    save_small(tmp_path / "model")
    model = load_model(tmp_path / "model")
    (found,) = predict_files(model, [tmp_path / "long.wav"])
    assert isinstance(found, Prediction)
    at_once = model.probabilities([read_waveform(tmp_path / "long.wav")])[0]
    assert list(found.probabilities.values()) == pytest.approx(at_once.tolist(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("window", "hop"), [(0.0, None), (-1, None), (float("nan"), None), (1.0, 2.0), (1.0, 0.0), (None, 1)]
)
def test_windows_that_are_none_are_refused(tmp_path: Path, window: float | None, hop: float | None) -> None:
    save_small(tmp_path / "model")
    with pytest.raises(InputError, match=r"--window|--hop"):
        list(predict_files(load_model(tmp_path / "model"), [], window=window, hop=hop))


@pytest.mark.slow
def test_label_files_are_what_a_data_set_of_stretches_is_made_of(tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    (recordings / "more").mkdir(parents=True)
    for name in ("a.wav", "more/a.wav", "b.wav"):
        long_recording(recordings / name, 3.0)
    save_small(tmp_path / "model")
    files = LabelFiles(tmp_path / "labels", [recordings])
    found = list(predict_files(load_model(tmp_path / "model"), [recordings], window=1.0))
    for each in found:
        assert isinstance(each, Prediction)
        files.add(each)
    written = (path.relative_to(tmp_path / "labels").as_posix() for path in (tmp_path / "labels").rglob("*.txt"))
    assert sorted(written) == ["a.txt", "b.txt", "more/a.txt"]
    shutil.copy(recordings / "a.wav", tmp_path / "labels" / "a.wav")
    (tmp_path / "labels" / "a.txt").write_text(
        (tmp_path / "labels" / "a.txt").read_text() + "0.000000\t0.500000\tanother class\n"
    )
    dataset = load_dataset(str(tmp_path / "labels" / "a.txt"))
    marked = {clip.stretch: dataset.labels[clip.label] for clip in dataset.clips}
    for each in found:
        if isinstance(each, Prediction) and each.path == str(recordings / "a.wav"):
            assert marked[each.stretch] == each.label
