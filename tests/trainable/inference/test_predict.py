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
from trainable.errors import InputError
from trainable.features.inputs import Inputs
from trainable.features.mel_cache import mels_of
from trainable.inference.metrics import with_temperature
from trainable.inference.model import load_model, network_of, save_ensemble
from trainable.inference.predict import Prediction, Unreadable, csv_header, predict_files
from trainable.training.loop import clip_probabilities


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


def test_temperature_changes_probabilities_but_no_label(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    sound = read_waveform(make_clips(clips=1) / "class0" / "000.wav")
    save_small(tmp_path / "plain")
    save_small(tmp_path / "soft", temperature=3.0)
    plain, soft = (load_model(tmp_path / name).probabilities([sound]) for name in ("plain", "soft"))
    assert soft == pytest.approx(with_temperature(plain, 3.0))
    assert soft.max() < plain.max()
    assert soft.argmax() == plain.argmax()


def test_a_long_file_is_the_mean_of_its_parts_and_a_slightly_longer_one_is_whole(tmp_path: Path) -> None:
    save_small(tmp_path / "model", clip_seconds=1.0)
    model = load_model(tmp_path / "model")
    wave = torch.randn(24_000, generator=torch.Generator().manual_seed(0)) * 0.1
    parts = model.probabilities((part, 8000) for part in wave.split(8000))
    assert model.probabilities([(wave, 8000)])[0] == pytest.approx(parts.mean(axis=0), abs=1e-6)
    assert len(model._parts((wave[:11_000], 8000))) == 1


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
        "000.wav", "001.wav", "001b.wav", "silent.wav", "empty", "gone.wav",
    ]  # fmt: skip
    reasons = {Path(record.path).name: record.reason for record in found if isinstance(record, Unreadable)}
    assert set(reasons) == {"001b.wav", "silent.wav", "empty", "gone.wav"}
    assert "not readable as audio" in reasons["001b.wav"]
    assert reasons["silent.wav"] == "silent"
    assert reasons["empty"] == "holds no audio files"
    assert reasons["gone.wav"] == "no such file"
    assert said[-1] == (6, 6)


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
