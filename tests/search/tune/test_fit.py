"""What a time budget buys: shorter trainings, cheaper ones, and an honest sentence where that is not enough."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from search.space.space import Space
from search.tune import fit
from search.tune.cluster import Machines
from search.tune.estimate import sample_configs
from search.tune.fit import (
    LEAST_EPOCHS,
    LEAST_PROPOSALS,
    PLANNED,
    Clips,
    Limit,
    Pace,
    Purchase,
    bought_in_words,
    epoch_seconds,
    measure,
    purchase,
    within,
)
from tests.support.spaces import space_of
from trainable.config import TrialConfig
from trainable.errors import InputError

SPACE = """
fixed: {epochs: 30, weights: none, scale: log}
search:
  backbone: {choice: [mn04, resnet18]}
  method: {choice: [train, probe]}
  image_size: {choice: [96, 160], when: {backbone: resnet18}}
  crop_seconds: {choice: [1.0, 5.0, null]}
  lr: {loguniform: [1.0e-4, 1.0e-2], when: {method: train}}
baselines:
  - {name: dear, recipe: tutorial-simple, image_size: 96}
  - {name: start, cut: true, backbone: mn04, crop_seconds: 1.0, lr: 1.0e-3}
  - {name: probe, backbone: mn04, method: probe}
budget: {trials: 40, grace_epochs: 4, reduction_factor: 3}
"""
CLIPS = Clips(train=240, val=80, every=400, seconds=5.0, rate=44_100)
PACES = {"mn04": Pace(0.5, 0.0005), "resnet18": Pace(0.1, 0.0005)}  # two idle cores


def bought(space: Space, seconds: float, at_once: int = 2, clips: Clips = CLIPS) -> Purchase:
    return purchase(space, sample_configs(space), clips, PACES, at_once, seconds)


@pytest.mark.slow
def test_enough_time_changes_nothing_but_the_order_of_the_baselines(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    found = bought(space, 100_000)
    assert (found.epochs, found.limit, found.proposals) == (30, None, 37)
    assert found.order == ("probe", "start", "dear")
    fitting = within(space, found, lambda epochs: pytest.fail("nothing is shortened"))
    assert [baseline.name for baseline in fitting.baselines] == ["probe", "start", "dear"]
    assert dataclasses.replace(fitting, baselines=space.baselines) == space


@pytest.mark.slow
def test_less_time_leaves_out_the_dearest_and_shortens_trainings_until_ten_proposals_fit(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    found = [bought(space, seconds) for seconds in (3600, 1200, 900, 600, 300)]
    epochs = [each.epochs for each in found]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] < 30
    for each, seconds in zip(found, (3600, 1200, 900, 600, 300), strict=True):
        assert each.proposals >= LEAST_PROPOSALS
        assert each.seconds <= PLANNED * seconds * 1.01
        assert each.baselines == 3
        assert (each.limit is None) == (each.share == 1)
        assert "LITTLE" not in bought_in_words(each, space, seconds)


@pytest.mark.slow
def test_what_is_too_dear_is_refused_after_a_resume_too(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    limit = bought(space, 300).limit
    assert limit is not None
    again = Limit.from_json(json.loads(json.dumps(dataclasses.asdict(limit))))
    assert again == limit
    samples = sample_configs(space)
    allowed = [config for config in samples if limit.allows(config)]
    assert bought(space, 300).share <= len(allowed) / len(samples) < 1  # more where several take equally long
    assert {config.method for config in allowed} == {"train", "probe"}
    kept, gone = (
        max(epoch_seconds(c, CLIPS, PACES) for c in some if c.method == "train") for some in (allowed, samples)
    )
    assert kept < gone


@pytest.mark.slow
def test_a_budget_that_buys_little_says_what_it_buys_and_what_would_be_enough(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    found = bought(space, 30, at_once=1)
    assert found.epochs == LEAST_EPOCHS
    said = bought_in_words(found, space, 30)
    assert said.startswith("30 s hold about ")
    assert " of the 3 baselines" in said
    assert "of up to 4 epochs instead of 30" in said
    assert "LITTLE for a search." in said
    enough = bought(space, found.seconds / PLANNED * 1.05, at_once=1)
    assert enough.proposals >= LEAST_PROPOSALS  # what it names as enough is enough
    assert f"would hold {LEAST_PROPOSALS} proposals" in said


@pytest.mark.slow
def test_a_length_that_somebody_has_named_stays(tmp_path: Path) -> None:
    assert bought(space_of(tmp_path, SPACE, epochs=20), 60).epochs == 20
    searched = SPACE.replace("fixed: {epochs: 30,", "fixed: {").replace(
        "search:", "search:\n  epochs: {choice: [8, 16]}"
    )
    assert bought(space_of(tmp_path, searched), 60).epochs == 16


@pytest.mark.slow
def test_trainings_that_are_shortened_are_as_with_the_flag(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    found = bought(space, 300)
    fitting = within(space, found, lambda epochs: space_of(tmp_path, SPACE, epochs=epochs))
    assert fitting.max_epochs == found.epochs
    assert fitting.budget.grace_epochs <= 4
    lengths = {baseline.name: baseline.values["epochs"] for baseline in fitting.baselines}
    assert lengths["probe"] == 1
    assert lengths["start"] == found.epochs
    assert fitting.to_json() == Space.from_json(json.loads(json.dumps(fitting.to_json()))).to_json()


def test_a_probe_costs_a_forward_pass_of_all_clips_and_a_training_three_of_those_that_it_learns_from() -> None:
    probe = TrialConfig.parse({"backbone": "mn04", "weights": "none", "method": "probe", "image_size": None,
                               "channels": "one", "hop_length": 320, "sample_rate": 32_000})  # fmt: skip
    train = probe.model_copy(update={"method": "train"})
    one = epoch_seconds(probe, CLIPS, PACES)
    assert one == pytest.approx(0.5 * 0.111 * 0.5 * 400 / 3, rel=0.01)  # 5 s are half of what the operations are for
    assert epoch_seconds(train, CLIPS, PACES) == pytest.approx(one * (3 * 240 + 80) / 400)


def test_each_network_is_timed_and_one_that_does_not_run_is_as_fast_as_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def window_seconds(config: TrialConfig, frames: int, classes: int, threads: int) -> float:
        asked.append((config.backbone, config.method, config.device, classes, threads))
        if config.backbone == "resnet18":
            raise RuntimeError("no room\nand a long story")
        return 0.02

    monkeypatch.setattr(fit, "window_seconds", window_seconds)
    monkeypatch.setattr(fit, "mel_seconds", lambda config, rate: 0.001)
    space = space_of(tmp_path, SPACE + "resources: {cpu: 1, gpu: 0}")
    samples = sample_configs(space)
    paces = measure(space, samples, CLIPS, 7, 60.0, Machines(1, 2.0, 0.0))
    assert sorted(asked) == [("mn04", "train", "cpu", 7, 1), ("resnet18", "train", "cpu", 7, 1)]
    assert paces["mn04"] == paces["resnet18"]
    assert paces["mn04"].mel == 0.001
    monkeypatch.setattr(fit, "_timed_here", lambda jobs, until: ((name, "no room") for name in jobs))
    with pytest.raises(InputError, match=r"no network could be timed \(no room\)"):
        measure(space, samples, CLIPS, 7, 60.0, Machines(1, 2.0, 0.0))
    monkeypatch.setattr(fit, "_timed_here", lambda jobs, until: iter(()))
    with pytest.raises(InputError, match="no answer in time"):
        measure(space, samples, CLIPS, 7, 60.0, Machines(1, 2.0, 0.0))
