from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torchvision import models

from trainable.backbones import backbone, check_backbone
from trainable.backbones.head import is_depthwise, stages, train_mode
from trainable.backbones.torchvision import NAMES
from trainable.config import TrialConfig
from trainable.errors import InputError
from trainable.training.network import build_network, checked_config
from trainable.training.optim import parameter_groups

CLASSES = 5


def config(**values: object) -> TrialConfig:
    return checked_config({"backbone": "mobilenet_v3_small", "image_size": 32, "weights": "none", **values})


@pytest.fixture
def without_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Parameters of new models have a shape and no numbers: `torch.device("meta")` does not do for every model."""
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(self, name, None if parameter is None else nn.Parameter(parameter.to("meta")))

    monkeypatch.setattr(nn.Module, "register_parameter", on_meta)
    return


def run_on_meta(config: TrialConfig) -> tuple[nn.Module, torch.Size]:
    model = build_network(config, CLASSES).to("meta")
    return model, model.train()(torch.empty(2, 3, config.image_size, config.image_size, device="meta")).shape


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("without_memory")
def test_every_backbone_is_built_and_runs_at_its_smallest_size(name: str) -> None:
    size = backbone(name).smallest
    assert check_backbone(name, size) == []
    settings = config(backbone=name, image_size=size, dropout=0.1, head_lr_multiple=2.0)
    model, shape = run_on_meta(settings)
    assert shape == (2, CLASSES)

    found = stages(model)
    head = parameter_groups(model, settings)
    heads = {id(p) for group in head if group["lr_multiple"] == 2.0 for p in group["params"]}
    staged = [id(parameter) for part in found for parameter in part]
    assert len(found) >= 4
    assert sorted(staged + list(heads)) == sorted(id(parameter) for parameter in model.parameters())
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    assert id(first.weight) in {id(parameter) for parameter in found[0]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "convnext_tiny",
        "densenet121",
        "inception_v3",
        "squeezenet1_0",
        "squeezenet1_1",
        "vgg11",
        "vit_b_16",
        "vit_h_14",
        "maxvit_t",
    ],
)
@pytest.mark.usefixtures("without_memory")
def test_below_its_smallest_size_a_backbone_is_refused_and_would_fail(name: str) -> None:
    size = backbone(name).smallest - (16 if name == "maxvit_t" else 1)
    assert check_backbone(name, size) != []
    unchecked = config(backbone=name, image_size=224).model_copy(update={"image_size": size})
    with pytest.raises((RuntimeError, ZeroDivisionError, ValueError, AssertionError)):
        run_on_meta(unchecked)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "swin_t", "googlenet"])
def test_all_layers_but_the_head_are_torchvisions_and_all_of_them_learn(name: str) -> None:
    torch.manual_seed(0)
    model = build_network(config(backbone=name), CLASSES)
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    original = models.get_model(name, weights=None, **options).state_dict()
    changed = [key for key, value in model.state_dict().items() if value.shape != original[key].shape]
    assert {key.rpartition(".")[2] for key in changed} <= {"weight", "bias"}
    assert len({key.rpartition(".")[0] for key in changed}) == 1
    assert list(model.state_dict()) == list(original)

    logits = model.train()(torch.randn(4, 3, 32, 32))
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
def test_batch_statistics_follow_at_least_as_fast_as_torchs_default() -> None:
    def momenta(name: str) -> set[float | None]:
        model = build_network(config(backbone=name), CLASSES)
        return {module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)}

    assert momenta("mobilenet_v3_small") == momenta("mnasnet0_5") == momenta("resnet18") == {0.1}


def test_an_unknown_backbone_gets_the_nearest_name() -> None:
    with pytest.raises(InputError) as error:
        config(backbone="resnet81")
    assert str(error.value) == (
        "configuration: backbone: must be the name of a network (torchvision's, mn01 to mn40, timm:NAME) or a function "
        "of your own, file.py:make, got 'resnet81'. "
        "Did you mean resnet18?"
    )


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("alexnet", 32, "image_size: must be at least 63 px for alexnet, got 32. Raise it."),
        ("inception_v3", 64, "image_size: must be at least 75 px for inception_v3, got 64. Raise it."),
        ("vit_b_16", 100, "image_size: must be a multiple of 16 px for vit_b_16, got 100. Use 96 or 112."),
        ("maxvit_t", 256, "image_size: must be a multiple of 224 px for maxvit_t, got 256. Use 224 or 448."),
    ],
)
def test_an_image_that_a_backbone_does_not_take_is_refused(name: str, size: int, message: str) -> None:
    assert check_backbone(name, size) == [message]


def test_dropout_comes_before_the_new_head_and_only_there() -> None:
    def dropouts(**values: float) -> list[float]:
        return [m.p for m in build_network(config(**values), CLASSES).modules() if isinstance(m, nn.Dropout)]

    assert dropouts(dropout=0.4) == [*dropouts(), 0.4]


def test_norms_and_biases_have_no_weight_decay_and_the_head_its_own_rate() -> None:
    settings = config(weight_decay=0.1, head_lr_multiple=10.0)
    model = build_network(settings, CLASSES)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    norms = {
        id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()
    }  # fmt: skip
    seen = []
    for group in parameter_groups(model, settings):
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.append(name)
            spared = id(parameter) in norms or name.endswith("bias")
            assert group["weight_decay"] == (0.0 if spared else 0.1), name
            assert group["lr_multiple"] == (10.0 if name.startswith("classifier.3.") else 1.0), name
    assert sorted(seen) == sorted(names.values())


@pytest.mark.slow
def test_frozen_stages_keep_weights_and_batch_statistics() -> None:
    torch.manual_seed(0)
    settings = config(backbone="resnet18", freeze_stages=2)
    model = build_network(settings, CLASSES)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(parameter_groups(model, settings), lr=0.1)
    train_mode(model)
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"layer2", "layer3", "layer4", "fc"}


def test_freezing_more_stages_than_there_are_leaves_the_head() -> None:
    model = build_network(config(freeze_stages=99), CLASSES)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "classifier.3.weight",
        "classifier.3.bias",
    ]


@pytest.mark.parametrize(
    ("name", "depthwise"),
    [("mobilenet_v3_small", True), ("shufflenet_v2_x0_5", True), ("resnet18", False), ("squeezenet1_1", False)],
)
def test_depthwise_models_are_told_apart(name: str, depthwise: bool) -> None:
    assert is_depthwise(build_network(config(backbone=name), CLASSES)) is depthwise
