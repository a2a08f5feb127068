from __future__ import annotations

import sys

import pytest
import torch

from trainable.backbones import backbone, matching, native_values
from trainable.errors import InputError
from trainable.training.network import build_network, checked_config


@pytest.fixture(autouse=True)
def _timm() -> None:
    pytest.importorskip("timm", reason="timm is optional and not installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "values", "shape"),
    [
        ("timm:resnet10t", {"channels": "one", "image_size": None}, (1, 40, 70)),
        ("timm:resnet10t", {"image_size": 64}, (3, 64, 64)),
        ("timm:vit_tiny_patch16_224", {}, (3, 224, 224)),
    ],
)
def test_any_model_takes_one_or_three_channels(name: str, values: dict[str, object], shape: tuple[int, ...]) -> None:
    settings = checked_config({"backbone": name, "weights": "none", "n_mels": 40, **values})
    with torch.inference_mode():
        assert build_network(settings, 5).eval()(torch.randn(2, *shape)).shape == (2, 5)


@pytest.mark.slow
def test_its_own_size_and_scale_are_taken_unless_the_configuration_says_otherwise() -> None:
    assert native_values("timm:vit_tiny_patch16_224", "none") == {"image_size": 224, "normalise": "train"}
    assert checked_config({"backbone": "timm:efficientnet_b1", "weights": "none"}).image_size == 240
    with pytest.raises(InputError, match="image_size: must be a multiple of 224 px for timm:vit_tiny_patch16_224"):
        checked_config({"backbone": "timm:vit_tiny_patch16_224", "weights": "none", "image_size": 256})


def test_its_weights_have_an_address_and_a_name_of_their_own_in_the_cache() -> None:
    [weights] = backbone("timm:resnet10t").weights
    assert weights.url.startswith("https://huggingface.co/timm/resnet10t")
    assert weights.file.name.startswith("timm-resnet10t")


def test_an_unknown_model_gets_the_nearest_name_and_a_pattern_lists_some() -> None:
    with pytest.raises(InputError, match="Did you mean timm:resnet10t"):
        checked_config({"backbone": "timm:resnet10tt"})
    assert "timm:resnet10t" in matching("timm:resnet10")


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainable.backbones import timm as source

    monkeypatch.setattr(source, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "timm", None)
    source.find.cache_clear()
    with pytest.raises(InputError, match=r"needs the package timm.*pip install -e '.\[timm\]'"):
        checked_config({"backbone": "timm:resnet10t"})
