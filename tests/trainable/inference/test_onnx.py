"""The ONNX file gives the probabilities of `predict`, or is not written."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.saved_models import save_small
from trainable.backbones.efficientat import FRONT_END
from trainable.errors import InputError
from trainable.inference import onnx as export
from trainable.inference.model import load_model, save_ensemble
from trainable.inference.onnx import OnnxClassifier, export_onnx

# EfficientAT's front end, for the rate of these clips: pre-emphasis, a window shorter than its transform, Kaldi's rows,
# a fixed scale, and mels that keep their shape.
NATIVE: dict[str, Any] = {
    **FRONT_END, "backbone": "mn01", "sample_rate": 8000, "f_max": 4000.0, "n_fft": 256, "hop_length": 80, "n_mels": 32,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        NATIVE,
        {**NATIVE, "crop_seconds": 0.3, "eval_crops": 3},
        {**NATIVE, "padding": "repeat", "channels": "repeat", "mel_scale": "slaney"},
        {},
        {"scale": "log", "normalise": "train", "n_fft": 200, "hop_length": 80},  # no power of two
        {"scale": "db", "normalise": "clip", "crop_seconds": 0.3, "eval_crops": 3},
        {"scale": "pcen", "channels": "windows", "normalise": "clip", "crop_seconds": 2.0, "padding": "repeat"},
        {"scale": "log", "channels": "deltas", "normalise": "clip", "crop_seconds": 0.4, "eval_crops": 1},
        {"scale": "db", "channels": "deltas", "normalise": "train", "crop_seconds": 1.5, "image_size": 50},
        {"scale": "log", "crop_seconds": 1.5, "padding": "reflect", "hop_ms": 7.5},
    ],
)
def test_the_form_for_onnx_says_what_predict_says(values: dict[str, Any], tmp_path: Path) -> None:
    save_small(tmp_path, temperature=1.7, **values)
    model = load_model(tmp_path)
    sounds = [0.2 * torch.randn(8000), 0.3 * torch.sin(torch.arange(8000) * 0.4), 0.01 * torch.randn(8000).cumsum(0)]
    lengths = (8000, 7999, 6100, 4096, 2500, 700, 150, 40, 1)
    sounds = [sounds[number % 3][:length] for number, length in enumerate(lengths)]
    with torch.no_grad():
        form = OnnxClassifier(model, 8000).eval()
        found = torch.cat([form(sound[None]) for sound in sounds]).numpy()
    wanted = model.probabilities((sound, 8000) for sound in sounds)
    assert np.ptp(wanted, axis=0).max() > 1e-3
    assert found == pytest.approx(wanted, abs=export.TOLERANCE)


@pytest.mark.slow
def test_an_exported_model_agrees_with_torch_on_clips_and_takes_any_number_of_them(
    make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    clips = sorted(make_clips(clips=2).rglob("*.wav"))
    facts = save_small(tmp_path / "model", backbone="resnet18", scale="log", crop_seconds=0.6, temperature=1.5)
    done = export_onnx(tmp_path / "model", tmp_path / "new" / "model.onnx", clips)
    assert done.difference < 1e-4
    assert (done.samples, done.sample_rate, done.clips) == (11_999, 8000, len(clips) + 3)
    session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    model = load_model(tmp_path / "model")
    wave = torch.randn(8000, generator=torch.Generator().manual_seed(1)) * 0.1
    for count in (1, 5):
        (found,) = session.run(["probabilities"], {"waveform": wave.expand(count, -1).numpy()})
        assert found.shape == (count, 3)
        assert found[-1] == pytest.approx(model.probabilities([(wave, 8000)])[0], abs=1e-4)
    for length in (11_999, 8000, 5000, 1200, 30):
        sound = torch.randn(length, generator=torch.Generator().manual_seed(length)) * 0.1
        (found,) = session.run(["probabilities"], {"waveform": sound[None].numpy()})
        assert found[0] == pytest.approx(model.probabilities([(sound, 8000)])[0], abs=1e-4)
    with pytest.raises(Exception, match="ConstantOfShape"):  # longer than predict takes in one piece
        session.run(["probabilities"], {"waveform": np.zeros((1, 12_000), dtype=np.float32)})
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["labels"]) == list(facts.labels)
    assert about["sample_rate"] == "8000"


@pytest.mark.slow
def test_a_front_end_that_belongs_to_the_weights_is_inside_the_file(
    make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    clips = sorted(make_clips(clips=1).rglob("*.wav"))
    save_small(tmp_path / "model", **NATIVE)
    done = export_onnx(tmp_path / "model", tmp_path / "model.onnx", clips)
    assert done.difference < 1e-4
    session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    model = load_model(tmp_path / "model")
    for length in (8000, 5000, 1200, 30):  # whole mels, each as long as its clip
        sound = torch.randn(length, generator=torch.Generator().manual_seed(length)) * 0.1
        (found,) = session.run(["probabilities"], {"waveform": sound[None].numpy()})
        assert found[0] == pytest.approx(model.probabilities([(sound, 8000)])[0], abs=1e-4)


@pytest.mark.slow
def test_an_ensemble_becomes_one_form_for_onnx(tmp_path: Path) -> None:
    facts = save_small(tmp_path / "one", seed=1, scale="log")
    save_small(tmp_path / "two", seed=2, crop_seconds=0.4)
    save_ensemble(tmp_path, ["one", "two", "two"], facts.labels, temperature=1.5)
    model = load_model(tmp_path)
    sound = 0.1 * torch.randn(8000)
    with torch.no_grad():
        found = OnnxClassifier(model, 8000).eval()(sound[None]).numpy()
    assert found == pytest.approx(model.probabilities([(sound, 8000)]), abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("difference", [0.01, math.nan])
def test_a_file_that_differs_from_torch_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    save_small(tmp_path / "model")
    monkeypatch.setattr(export, "_require_packages", lambda: None)
    monkeypatch.setattr(export, "_write", lambda module, samples, path, about: path.write_text("wrong"))
    monkeypatch.setattr(export, "_compare", lambda *args: difference)
    with pytest.raises(InputError, match=rf"must agree with torch to 0.0001, got {difference:g}"):
        export_onnx(tmp_path / "model", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.slow
def test_missing_packages_are_named_with_the_command_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_small(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"missing onnxruntime. Install them: pip install -e '\.\[onnx\]'$"):
        export_onnx(tmp_path, tmp_path / "model.onnx")


@pytest.mark.slow
def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_require_packages", lambda: None)
    facts = save_small(tmp_path / "one", n_fft=5000)
    save_small(tmp_path / "two", sample_rate=4000)
    save_ensemble(tmp_path, ["one", "two"], facts.labels)
    with pytest.raises(InputError) as error:
        export_onnx(tmp_path, tmp_path / "model.onnx")
    assert "members must share one sample rate, got [4000, 8000]" in str(error.value)
    assert "n_fft: must be a power of two, or at most 4096" in str(error.value)
