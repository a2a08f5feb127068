from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainable.backbones.head import first_convolution, head_of, stages
from trainable.config import TrialConfig
from trainable.errors import Diverged
from trainable.training import device
from trainable.training.device import Precision, choose_precision
from trainable.training.loop import Tally
from trainable.training.network import build_network
from trainable.training.optim import Ema, Loss, make_optimizer, parameter_groups, set_learning_rate

CPU = torch.device("cpu")


def config(**values: object) -> TrialConfig:
    return TrialConfig.parse({"backbone": "mobilenet_v3_small", "image_size": 32, "weights": "none", **values})


def stepped(**values: object) -> tuple[torch.optim.Optimizer, nn.Module]:
    torch.manual_seed(0)
    settings = config(**values)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = make_optimizer(model, settings)
    for _ in range(3):
        set_learning_rate(optimizer, 0.1)
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer, model


@pytest.mark.parametrize(
    ("values", "reference"),
    [
        ({"optimizer": "adam", "weight_decay": 0.1}, lambda groups: torch.optim.Adam(groups, lr=0.1)),
        ({"optimizer": "adamw", "weight_decay": 0.1}, lambda groups: torch.optim.AdamW(groups, lr=0.1)),
        ({"optimizer": "sgd", "momentum": 0.8}, lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.8)),
    ],
)
def test_optimisers_are_torchs_with_the_configurations_values(values: dict[str, object], reference: object) -> None:
    _, model = stepped(**values)
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    decay = values.get("weight_decay", 0.0)
    groups = [
        {"params": [p for p in expected.parameters() if p.ndim == 2], "weight_decay": decay},
        {"params": [p for p in expected.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = reference(groups)  # type: ignore[operator]
    for _ in range(3):
        optimizer.zero_grad()
        expected(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
    for mine, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_heads_rate_is_a_multiple_of_the_bodys() -> None:
    optimizer, model = stepped(head_lr_multiple=10.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in model.parameters()] == pytest.approx([0.1, 0.1, 1.0, 1.0])


def test_the_loss_is_cross_entropy_against_distributions() -> None:
    logits = torch.randn(4, 3)
    labels = torch.tensor([0, 2, 1, 1])
    loss = Loss(config(), torch.tensor([5, 5, 5]))(logits, F.one_hot(labels, 3).float())
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))


def test_label_smoothing_takes_its_share_from_the_true_class() -> None:
    logits = torch.randn(4, 3)
    labels = torch.tensor([0, 2, 1, 1])
    loss = Loss(config(label_smoothing=0.3), torch.tensor([5, 5, 5]))(logits, F.one_hot(labels, 3).float())
    smooth = F.one_hot(labels, 3) * 0.7 + 0.1
    torch.testing.assert_close(loss, -(smooth * logits.log_softmax(1)).sum(1).mean())


def test_balanced_classes_count_the_same_and_a_clip_counts_one_on_average() -> None:
    counts = torch.tensor([8, 1, 1])
    labels = torch.tensor([0] * 8 + [1, 2])
    logits = torch.randn(10, 3)
    loss = Loss(config(class_balanced=True), counts)(logits, F.one_hot(labels, 3).float())
    each = F.cross_entropy(logits, labels, reduction="none")
    by_class = torch.stack([each[labels == label].mean() for label in range(3)])
    torch.testing.assert_close(loss, by_class.mean())


def test_the_average_follows_weights_and_batch_statistics_and_forgets_its_start_fast() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = Ema(model, decay=0.99)
    expected = {name: value.clone().double() for name, value in model.state_dict().items()}
    for step in range(1, 6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        model.train()(torch.randn(4, 2))
        ema.update()
        decay = min(0.99, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    for name, value in ema.model.state_dict().items():
        if name == "1.num_batches_tracked":
            assert value == 5
        else:
            torch.testing.assert_close(value, expected[name].float())
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())


@pytest.mark.parametrize(
    ("backbone", "able", "expected"),
    [
        ("resnet18", True, torch.bfloat16),
        ("resnet18", False, torch.float32),
        ("mobilenet_v3_small", True, torch.float32),
    ],
)
def test_auto_is_bf16_on_a_cpu_with_amx_and_fp32_for_depthwise_models(
    backbone: str, able: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "has_amx", lambda: able)
    settings = config(backbone=backbone)
    assert choose_precision(settings, build_network(settings, 2), CPU).dtype == expected


@pytest.mark.parametrize(("major", "expected"), [(9, torch.bfloat16), (7, torch.float16), (6, torch.float32)])
def test_auto_on_a_gpu_follows_its_generation(
    major: int, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
    settings = config()
    assert choose_precision(settings, build_network(settings, 2), torch.device("cuda")).dtype == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.half)]
)
def test_a_named_precision_is_used_for_products_and_nothing_else(name: str, expected: torch.dtype) -> None:
    settings = config(precision=name)
    model = build_network(settings, 2)
    precision = choose_precision(settings, model, CPU)
    seen = []
    model.features[-1][0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        logits = precision.forward(model.eval(), torch.randn(2, 1, 32, 32).expand(-1, 3, -1, -1))
    assert seen == [expected]
    assert logits.dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert precision.scaler().is_enabled() is (name == "fp16")


@pytest.mark.parametrize("able", [{}, {"avx512_bf16": True}, {"avx512_bf16": True, "amx_bf16": True}])
def test_only_amx_makes_bf16_fast(able: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert device.has_amx() is able.get("amx_bf16", False)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small"])
def test_the_power_of_a_loud_clip_does_not_overflow_in_fp16(backbone: str) -> None:
    settings = config(backbone=backbone, precision="fp16")
    torch.manual_seed(0)
    model = build_network(settings, 2)
    precision = choose_precision(settings, model, CPU)
    averaged = copy.deepcopy(model)  # as the average of the weights is
    loud = 1e6 * torch.rand(4, 1, 64, 64).expand(-1, 3, -1, -1)  # fp16 ends at 65,504
    for each in (model, averaged):
        assert precision.forward(each.train(), loud).isfinite().all()
    with torch.no_grad():
        model.get_submodule(first_convolution(model)[0]).weight.zero_()
    assert averaged.get_submodule(first_convolution(averaged)[0]).weight.abs().sum() > 0


def test_what_overflows_in_fp16_says_so_and_how_to_go_on() -> None:
    hint = Precision(CPU, torch.float16, torch.channels_last).hint
    tally = Tally(3, hint)
    tally.add(torch.tensor(float("nan")), torch.zeros(1, 2), torch.zeros(1, 2), 1e-3)
    with pytest.raises(Diverged, match=r"fp16 holds no number above 65,504\. Use precision: bf16"):
        tally.means()
    assert Precision(CPU, torch.float32, torch.channels_last).hint == ""


@pytest.mark.parametrize("wanted", [True, False])
def test_images_are_channels_last_where_asked_for(wanted: bool) -> None:
    settings = config(channels_last=wanted)
    precision = choose_precision(settings, build_network(settings, 2), CPU)
    seen = []
    model = nn.Conv2d(3, 2, 1)
    model.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    precision.forward(model, torch.randn(2, 3, 8, 8))
    assert seen[0].is_contiguous(memory_format=torch.channels_last) is wanted


def test_precision_changes_answers_by_rounding_only() -> None:
    settings = config(backbone="squeezenet1_1")
    torch.manual_seed(0)
    model = build_network(settings, 4).eval()
    images = torch.randn(2, 3, 32, 32)
    exact = Precision(CPU, torch.float32, torch.contiguous_format).forward(model, images)
    rounded = Precision(CPU, torch.bfloat16, torch.channels_last).forward(model, images)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
    assert not torch.equal(rounded, exact)


def test_each_stage_learns_slower_than_the_one_after_it() -> None:
    settings = config(layer_decay=0.5, head_lr_multiple=3.0)
    model = build_network(settings, 2)
    multiple = {id(p): group["lr_multiple"] for group in parameter_groups(model, settings) for p in group["params"]}
    parts = stages(model)
    for place, part in enumerate(parts):
        assert {multiple[id(parameter)] for parameter in part} == {0.5 ** (len(parts) - place)}
    assert {multiple[id(parameter)] for parameter in head_of(model)[1].parameters()} == {3.0}
