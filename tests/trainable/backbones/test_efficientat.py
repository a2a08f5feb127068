from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from trainable.backbones import efficientat
from trainable.backbones.efficientat import NETWORKS, build, features, load, read_state, rename, stages


@pytest.fixture
def released(shared_data: Path) -> dict[str, torch.Tensor]:
    return read_state(str(shared_data / "weights" / "hub" / "checkpoints" / NETWORKS["mn04"].file))


def as_released(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of `model` under the release's names: what `rename` undoes."""
    state = {}
    for key, value in model.state_dict().items():
        squeeze = ".fc1." in key or ".fc2." in key
        name = key.replace(".fc", ".conc_se_layers.0.fc") if squeeze else key
        name = name.replace("classifier.3.", "classifier.5.").replace("classifier.0.", "classifier.2.")
        state[name] = value.flatten(1) if squeeze and value.ndim == 4 else value
    return state


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_the_parameters_that_its_record_says(name: str) -> None:
    with torch.device("meta"):
        model = build(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == NETWORKS[name].parameters


@pytest.mark.parametrize("name", NETWORKS)
def test_every_file_says_the_average_precision_of_its_record(name: str) -> None:
    network = NETWORKS[name]
    assert network.url == f"https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/{network.file}"
    assert network.file == f"{name}_as_mAP_{round(1000 * network.mean_average_precision)}.pt"


@pytest.mark.parametrize("frames", [1, 15, 32, 101, 1000])
def test_any_number_of_frames_fits(frames: int) -> None:
    model = build("mn01", classes=5).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, 1, 128, frames)).shape == (2, 5)


def test_a_released_state_comes_back_whole_and_without_its_head() -> None:
    taught, whole, fresh = build("mn01"), build("mn01"), build("mn01", classes=5)
    state = as_released(taught)
    load(whole, state, head=True)
    head = fresh.classifier[3].weight.clone()
    load(fresh, state)
    assert all(torch.equal(whole.state_dict()[key], value) for key, value in taught.state_dict().items())
    assert torch.equal(fresh.classifier[3].weight, head)
    assert torch.equal(fresh.classifier[0].weight, taught.classifier[0].weight)


def test_three_equal_channels_say_what_one_says() -> None:
    one, three = build("mn01", classes=5).eval(), build("mn01", classes=5, channels=3).eval()
    load(one, as_released(build("mn01")))
    load(three, rename(one.state_dict()), head=True)
    mels = torch.randn(2, 1, 128, 70)
    with torch.inference_mode():
        torch.testing.assert_close(three(mels.repeat(1, 3, 1, 1)), one(mels), rtol=1e-4, atol=1e-5)


def test_another_networks_state_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        load(build("mn02"), as_released(build("mn01")))


def test_the_features_are_what_the_head_reads_and_what_it_pools() -> None:
    model = build("mn01", classes=5).eval()
    mels = torch.randn(3, 1, 128, 90)
    with torch.inference_mode():
        found = features(model, mels)
        hidden = model.classifier[0].out_features
        assert found.shape == (3, NETWORKS["mn01"].features)
        torch.testing.assert_close(model.classifier[3](found[:, -hidden:]), model(mels))


def test_the_stages_hold_every_parameter_but_the_heads_once() -> None:
    model = build("mn01", classes=5)
    staged = [id(parameter) for stage in stages(model) for parameter in stage.parameters()]
    head = {id(parameter) for parameter in model.classifier[3].parameters()}
    assert len(stages(model)) == 18
    assert sorted(staged) == sorted(id(parameter) for parameter in model.parameters() if id(parameter) not in head)


def test_mn04s_released_file_is_the_one_on_record_and_fits(
    shared_data: Path, released: dict[str, torch.Tensor]
) -> None:
    file = shared_data / "weights" / "hub" / "checkpoints" / NETWORKS["mn04"].file
    assert hashlib.sha256(file.read_bytes()).hexdigest() == NETWORKS["mn04"].sha256
    load(build("mn04"), released, head=True)
    assert released["classifier.5.bias"].numel() == efficientat.AUDIOSET_CLASSES
