from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from trainable.config import TrialConfig
from trainable.data.dataset import load_dataset
from trainable.errors import InputError
from trainable.inference.model import load_model, save_trial
from trainable.inference.predict import Prediction, predict_files
from trainable.inference.scores import score_trial
from trainable.training import probe
from trainable.training.loop import Learner, train
from trainable.training.network import checked_config
from trainable.training.probe import Features, fit_head
from trainable.training.trial_folder import TrialFolder

SMALL: dict[str, Any] = {
    "backbone": "mn01", "weights": "none", "sample_rate": 8000, "f_max": 4000.0, "n_fft": 256, "hop_length": 80,
    "win_ms": None, "n_mels": 32, "split": "stratified", "batch_size": 8, "device": "cpu", "method": "probe",
}  # fmt: skip


def config(data: Path, **values: Any) -> TrialConfig:
    return checked_config({**SMALL, "data": str(data), **values})


@pytest.fixture
def clips(make_clips: Callable[..., Path]) -> Path:
    return make_clips(classes=3, clips=10, seconds=0.6)


@pytest.mark.slow
def test_it_is_one_epoch_whatever_the_configuration_says(clips: Path) -> None:
    settings = config(clips, epochs=30, warmup_epochs=5)
    assert (settings.epochs, settings.warmup_epochs) == (1, 0)
    [result] = train(settings)
    assert (result.epoch, result.lr) == (1, 0.0)
    assert result.train_acc > 0.9


@pytest.mark.slow
def test_the_network_itself_says_what_the_regression_says(clips: Path, tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "trial")
    [result] = train(config(clips, crop_seconds=0.25, test_share=0.2), folder.path)
    said = score_trial(folder, "val")
    assert said.accuracy == result.val_acc
    save_trial(folder, tmp_path / "model")
    model = load_model(tmp_path / "model", device="cpu")
    dataset = load_dataset(str(clips))
    paths = [dataset.clips[index].path for index in said.clips]
    for row, found in zip(said.probabilities, predict_files(model, paths), strict=True):
        assert isinstance(found, Prediction)
        np.testing.assert_allclose(list(found.probabilities.values()), row, atol=2e-5)


def test_the_head_is_scikit_learns_regression_on_standardised_features() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    rows = (rng.standard_normal((60, 5)) + labels[:, None]) * [1, 10, 100, 0.1, 1] + 3
    settings = TrialConfig(method="probe", probe_c=0.3)
    model = nn.Sequential(nn.Linear(5, 3))
    features = Features(torch.from_numpy(rows).float(), torch.arange(60))
    fit_head(model, features, torch.from_numpy(labels), settings)
    scaler = StandardScaler().fit(rows)
    wanted = LogisticRegression(C=0.3, max_iter=2000).fit(scaler.transform(rows), labels)
    with torch.no_grad():
        found = model(features.values).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, wanted.predict_proba(scaler.transform(rows)), atol=1e-4)


@pytest.mark.parametrize("present", [[0, 1], [1, 2], [0, 2]])
def test_two_classes_and_classes_that_no_training_clip_has_are_right_too(present: list[int]) -> None:
    rng = np.random.default_rng(0)
    labels = torch.tensor(present * 10)
    rows = torch.from_numpy(rng.standard_normal((20, 4))).float() + 2 * labels[:, None]
    model = nn.Sequential(nn.Linear(4, 3))
    fit_head(model, Features(rows, torch.arange(20)), labels, TrialConfig(probe_c=10.0))
    assert torch.equal(model(rows).argmax(dim=1), labels)


def test_every_clip_counts_the_same_however_many_windows_it_has() -> None:
    rows, labels = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 1, 1])
    once, often = nn.Sequential(nn.Linear(1, 2)), nn.Sequential(nn.Linear(1, 2))
    fit_head(once, Features(rows, torch.arange(3)), labels, TrialConfig())
    repeated = Features(rows[[0, 1, 2, 2, 2]], torch.tensor([0, 1, 2, 2, 2]))
    fit_head(often, repeated, labels, TrialConfig())
    torch.testing.assert_close(once[0].weight, often[0].weight, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_stronger_penalty_makes_a_smaller_head(clips: Path) -> None:
    def size(c: float) -> float:
        state = Learner(config(clips, probe_c=c), None, None)
        state.probe(None)
        return float(probe.linear_head(state.model, state.config).weight.detach().norm())

    assert size(0.001) < size(1.0)


@pytest.mark.slow
def test_features_are_made_once_for_all_trials_that_see_the_same(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIO_SEARCH_CACHE", str(tmp_path / "cache"))
    made: list[int] = []
    original = probe.compute
    monkeypatch.setattr(probe, "compute", lambda *args: made.append(1) or original(*args))
    results = [next(train(config(clips, **values))) for values in ({}, {}, {"probe_c": 1.0}, {"split_seed": 1})]
    assert len(made) == 1
    assert results[0].val_loss == results[1].val_loss != results[2].val_loss
    for values in ({"crop_seconds": 0.2}, {"hop_length": 40}, {"seed": 1}):  # with random weights a seed is a network
        next(train(config(clips, **values)))
    assert len(made) == 4


@pytest.mark.slow
def test_training_can_start_where_the_probe_ends(clips: Path) -> None:
    [probed] = train(config(clips))
    [started, *_] = train(config(clips, method="train", head_start="probe", epochs=1, lr=1e-12, batch_norm="frozen"))
    assert started.val_acc == probed.val_acc
    assert started.val_loss == pytest.approx(probed.val_loss, abs=1e-4)
    [random, *_] = train(config(clips, method="train", epochs=1, lr=1e-12, batch_norm="frozen"))
    assert random.val_loss > probed.val_loss + 0.1


@pytest.mark.slow
def test_a_network_without_a_linear_last_layer_is_refused(clips: Path) -> None:
    with pytest.raises(InputError, match="needs a network that ends in a linear layer with a bias, got squeezenet1_1"):
        next(train(config(clips, backbone="squeezenet1_1", channels="repeat", image_size=32)))


@pytest.mark.slow
def test_frozen_batch_norms_keep_their_statistics_and_learn_their_scales(clips: Path) -> None:
    def change(**values: Any) -> tuple[bool, bool]:
        state = Learner(config(clips, method="train", epochs=1, lr=1e-2, **values), None, None)
        before = {name: value.clone() for name, value in state.model.state_dict().items()}
        from trainable.training.loop import _train_epoch

        _train_epoch(state, None)
        after = state.model.state_dict()
        moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
        norm = "features.3.block.0.1."
        return norm + "running_mean" in moved, norm + "weight" in moved

    assert change(batch_norm="frozen") == (False, True)
    assert change(batch_norm="train") == (True, True)
