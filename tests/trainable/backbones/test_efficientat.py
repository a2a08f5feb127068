from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from trainable.backbones import backbone, build_backbone
from trainable.backbones.efficientat import AUDIOSET_CLASSES, FRONT_END, NETWORKS, build, rename
from trainable.backbones.head import head_of, stages
from trainable.backbones.weights import fill, read_state
from trainable.config import TrialConfig


@pytest.fixture
def released(shared_data: Path) -> Path:
    return shared_data / "weights" / "hub" / "checkpoints" / "mn04_as_mAP_432.pt"


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
    assert sum(parameter.numel() for parameter in model.parameters()) == backbone(name).parameters


@pytest.mark.parametrize("name", NETWORKS)
def test_every_record_names_the_releases_file_and_licence(name: str) -> None:
    [weights] = backbone(name).weights
    precision = round(1000 * NETWORKS[name].mean_average_precision)
    assert weights.url == (
        f"https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/{name}_as_mAP_{precision}.pt"
    )
    assert (weights.kind, weights.licence) == ("audioset", "MIT")
    assert weights.file.name == f"{name}_as_mAP_{precision}.pt"


@pytest.mark.parametrize("frames", [1, 15, 32, 101, 1000])
def test_any_number_of_frames_fits(frames: int) -> None:
    model = build("mn01", classes=5).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, 1, 128, frames)).shape == (2, 5)


@pytest.mark.slow
def test_a_released_state_comes_back_whole_but_for_the_head() -> None:
    taught, fresh = build("mn01"), build("mn01", classes=5)
    head = fresh.classifier[3].weight.clone()
    fill(fresh, backbone("mn01"), as_released(taught), None)
    assert torch.equal(fresh.classifier[3].weight, head)
    for key, value in taught.state_dict().items():
        assert key.startswith("classifier.3.") or torch.equal(fresh.state_dict()[key], value), key


@pytest.mark.slow
def test_three_equal_channels_say_what_one_says() -> None:
    state = as_released(build("mn01"))
    torch.manual_seed(0)
    one, three = build("mn01", classes=5).eval(), build("mn01", classes=5, channels=3).eval()
    for model in (one, three):
        fill(model, backbone("mn01"), state, None)
        model.classifier[3] = one.classifier[3]
    mels = torch.randn(2, 1, 128, 70)
    with torch.inference_mode():
        torch.testing.assert_close(three(mels.repeat(1, 3, 1, 1)), one(mels), rtol=1e-4, atol=1e-5)


def test_another_networks_state_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        fill(build("mn02"), backbone("mn02"), as_released(build("mn01")), None)


def test_the_stages_hold_every_parameter_but_the_heads_once() -> None:
    model = build("mn01", classes=5)
    staged = [id(parameter) for stage in stages(model) for parameter in stage]
    head = {id(parameter) for parameter in head_of(model)[1].parameters()}
    assert len(stages(model)) == 18
    assert sorted(staged) == sorted(id(parameter) for parameter in model.parameters() if id(parameter) not in head)


def test_its_front_end_is_one_that_a_configuration_can_say() -> None:
    settings = TrialConfig.parse({"backbone": "mn04", "weights": "audioset", **FRONT_END})
    assert {name: getattr(settings, name) for name in FRONT_END} == FRONT_END


def test_mn04s_released_file_is_the_one_on_record_and_fits(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hashlib.sha256(released.read_bytes()).hexdigest() == backbone("mn04").weights[0].sha256
    assert released.stat().st_size == backbone("mn04").weights[0].bytes
    monkeypatch.setattr(torch.hub, "_hub_dir", str(released.parents[1]))
    model = build_backbone("mn04", AUDIOSET_CLASSES, image_size=None, channels=1, weights="audioset")
    state = rename(read_state(released))
    assert torch.equal(model.state_dict()["features.0.0.weight"], state["features.0.0.weight"])
    model.load_state_dict(state)  # its own head too
