"""What bad input is answered with."""

from __future__ import annotations

import pytest

from trainable.backbones import BACKBONES, check_backbone
from trainable.config import FIELDS
from trainable.errors import did_you_mean


@pytest.mark.parametrize(
    ("name", "known", "answer"),
    [
        ("learning_rate", FIELDS, "Did you mean lr?"),
        ("backbon", FIELDS, "Did you mean backbone?"),
        ("label", FIELDS, "Did you mean label_smoothing?"),
        ("qqq", FIELDS, "`python run_search.py fields` lists them."),
        ("q", ("adam", "sgd"), "Use one of adam, sgd."),
        ("net_b9", ("net_b0", "net_b1", "net_b2"), "Did you mean net_b0?"),
        ("net", ("net_large", "net_small_and_long"), "Did you mean net_large?"),
        ("", (), "Use one of ."),
    ],
)
def test_the_nearest_name_is_asked_for_or_a_command_that_lists_them(
    name: str, known: tuple[str, ...], answer: str
) -> None:
    assert did_you_mean(name, known) == answer


@pytest.mark.parametrize(
    ("name", "smallest"),
    [("efficientnet", "efficientnet_b0"), ("convnext", "convnext_tiny"), ("swin", "swin_t"), ("resnet", "resnet18"),
     ("regnet", "regnet_y_400mf"), ("vgg", "vgg11"), ("efficientnet_b9", "efficientnet_b0"), ("resnet1", "resnet18")],
)  # fmt: skip
def test_of_a_family_of_backbones_the_smallest_is_meant(name: str, smallest: str) -> None:
    (problem,) = check_backbone(name, 224)
    assert problem.endswith(f"got {name!r}. Did you mean {smallest}?")


def test_a_backbone_that_is_like_none_leads_to_the_list_of_them() -> None:
    assert len(BACKBONES) > 12
    (problem,) = check_backbone("qqqq", 224)
    assert problem.endswith("`python run_search.py backbones` lists them.")
