"""A model's card says what somebody must know who has nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from search.retrain.card import model_card
from trainable.config import TrialConfig
from trainable.training.trial_folder import Cost

RESULT: dict[str, Any] = {
    "measured_on": "test", "accuracy": 0.8125, "deviation": 0.0177, "clips": 40, "interval_95": [0.66, 0.91],
    "sentence": "40 test clips, on which nothing was trained or chosen", "labels": ["blues", "jazz"],
    "per_seed": [{"seed": 1}, {"seed": 2}], "baseline_accuracy": 0.7, "baseline": {"name": "tutorial-simple"},
    "calibration": {"ece_after": 0.031}, "model": {"seed": 1, "accuracy": 0.8}, "seeds": [1, 2],
    "config": TrialConfig().to_json(), "data": {"name": "GTZAN", "path": "x", "hash": "d47a", "clips": 999,
    "labels": ["blues", "jazz"]}, "split": {"name": "stratified", "hash": "5b17"},
    "protocol": "stratified: trained on train",
    "chosen": "trial 7", "chosen_by": "validation", "run": "wide", "git_commit": "0123abcd", "notes": ["a note"],
}  # fmt: skip


def test_the_card_holds_data_split_number_interval_weights_licence_and_how_to_load_it() -> None:
    card = model_card(RESULT, Cost(11_181_642, 1_814_000_000, 20.3, 900.0))
    for said in (
        "# resnet18 on GTZAN", "**81.2% ± 1.8** on 40 test clips", "95% interval 66.0% to 91.0%", "hash d47a",
        "stratified (hash 5b17)", "trial 7", "ImageNet: weights of torchvision's resnet18", "non-commercial",
        "baseline tutorial-simple: 70.0%", "this very model (seed 1): 80.0%", "commit 0123abcd", "- a note",
        "11.2M parameters, 1.81G multiply-adds per clip, 20.3 ms per clip", "blues, jazz",
    ):  # fmt: skip
        assert said in card, said
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    assert len(code[1].splitlines()) == 3
    compile(code[1], "card", "exec")


def test_the_header_is_what_a_hub_reads() -> None:
    _, header, body = model_card(RESULT, None).split("---\n", 2)
    assert yaml.safe_load(header)["pipeline_tag"] == "audio-classification"
    assert "What it costs" not in body


@pytest.mark.parametrize(("measured_on", "said"), [("folds", "clips out of fold"), ("validation", "validation clips")])
def test_the_number_is_called_what_it_is(measured_on: str, said: str) -> None:
    assert said in model_card({**RESULT, "measured_on": measured_on, "model": None}, None)


def test_random_weights_have_no_licence() -> None:
    config = {**RESULT["config"], "weights": "none"}
    card = model_card({**RESULT, "config": config}, None)
    assert "nothing: random weights" in card
    assert "ImageNet" not in card


def test_the_card_names_the_networks_own_source_and_licence() -> None:
    config = {**RESULT["config"], "backbone": "mn04", "weights": "audioset"}
    card = model_card({**RESULT, "config": config}, None)
    assert "- pretrained with: AudioSet: weights of EfficientAT's mn04\n- licence of those weights: MIT\n" in card
    assert "ImageNet" not in card
