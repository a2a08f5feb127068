"""What the shipped space files promise of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.space.load import load_space, shipped_spaces
from search.space.space import Space
from search.tune.estimate import sample_configs
from search.tune.prepare import with_weights_at_hand
from trainable.backbones import backbone
from trainable.backbones.efficientat import FRONT_END
from trainable.config import TrialConfig
from trainable.features.frontend import mel_settings


def shipped(name: str) -> Space:
    return load_space(shipped_spaces() / f"{name}.yaml")


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small-data", "wide"])
def test_probes_of_audiosets_networks_come_first_with_the_front_end_of_their_weights(name: str) -> None:
    space = shipped(name)
    probes = [each for each in space.baselines if each.values["method"] == "probe"]
    assert space.baselines[: len(probes)] == tuple(probes)
    known = {value for value in space.dimensions["backbone"].corners() if backbone(value).native}
    assert {each.values["backbone"] for each in probes} == known
    front_end = mel_settings(TrialConfig.parse({**FRONT_END, "backbone": "mn04", "weights": "none"}), 32_000)
    for each in probes:
        config = TrialConfig.parse(each.values)
        assert mel_settings(config, 32_000) == front_end
        assert (config.normalise, config.fixed_mean, config.crop_seconds) == ("fixed", -4.5, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small-data", "wide"])
def test_networks_keep_their_own_front_end_in_what_is_proposed(name: str) -> None:
    seen = set()
    for config in sample_configs(shipped(name)):
        native = bool(backbone(config.backbone).native)
        seen.add(config.backbone)
        assert config.mel_scale == ("kaldi" if native else "htk")
        assert config.normalise == ("fixed" if native else "train")
        assert (config.image_size is None) == native
    assert seen == set(shipped(name).dimensions["backbone"].corners())


@pytest.mark.slow
@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("name", ["small-data", "wide"])
def test_without_any_weights_what_is_left_starts_from_random_ones(name: str) -> None:
    space, notes = with_weights_at_hand(shipped(name))
    assert not any(backbone(value).native for value in space.dimensions["backbone"].corners())
    assert not any(each.values["method"] == "probe" for each in space.baselines)
    assert any(each.name.startswith("tutorial-simple") for each in space.baselines)
    assert all("AudioSet" in note for note in notes)
    assert sample_configs(space)


@pytest.mark.slow
def test_a_probe_of_the_small_space_has_nothing_that_only_training_asks_for() -> None:
    space = shipped("small-data")
    for dimension in space.dimensions.values():
        if ("method", ("train",)) in dimension.when:
            assert not space.active(dimension, {"method": "probe", "backbone": "mn04", "crop_seconds": 1.0})
    assert "lr" not in next(each.params or {} for each in space.baselines if each.values["method"] == "probe")
    assert {"lr", "batch_norm", "head_start", "layer_decay", "freq_shift"} <= {
        each.name for each in space.dimensions.values() if ("method", ("train",)) in each.when
    }


def test_the_default_space_asks_for_no_network() -> None:
    assert {wish for _, wish in shipped("quick").weights_by_backbone()} == {"none"}
