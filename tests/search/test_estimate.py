from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from search.estimate import cost, estimate, render, sample_configs
from search.expected import Expected, expect
from tests.search.spaces import space_of
from tests.search.stepping import new_journal, step_through
from trainable.config import TrialConfig
from trainable.errors import OutOfMemory, TrialEnded

SPACE = """
    fixed: {epochs: 9, weights: none}
    search:
      backbone: {choice: [mobilenet_v3_small, resnet18, resnet50]}
      image_size: {choice: [64, 128]}
      lr: {loguniform: [1e-4, 1e-2]}
    baselines: [{name: mine, recipe: tutorial-simple, image_size: 64, epochs: 5}]
    budget: {trials: 31, grace_epochs: 1, reduction_factor: 3}
"""


def by_cost(config: TrialConfig) -> float:
    """Seconds per epoch on a machine that does nothing but multiply."""
    return 10 * cost(config)


def test_without_asha_every_trial_reaches_the_last_epoch(tmp_path: Path) -> None:
    result = estimate(space_of(tmp_path, SPACE + "    scheduler: none"))
    assert result.rungs == ((9, 30.0),)
    assert result.epochs == 30 * 9 + 5
    assert result.seconds is None


def test_fewer_trials_reach_each_rung_but_more_than_the_textbook_says(tmp_path: Path) -> None:
    result = estimate(space_of(tmp_path, SPACE))
    epochs, trials = zip(*result.rungs, strict=True)
    assert epochs == (1, 3, 9)
    assert trials[0] == 30
    assert 30 / 3 < trials[1] < 30 / 2
    assert trials[1] / 3 < trials[2] < trials[1]
    assert result.epochs == pytest.approx(1 * trials[0] + 2 * trials[1] + 6 * trials[2] + 5)  # one at a time


def test_what_is_expected_is_what_the_scheduler_does(tmp_path: Path) -> None:
    """Twenty searches of 30 random trials, six at a time."""
    space = space_of(tmp_path, SPACE)
    rng = np.random.default_rng(1)
    at_rungs, epochs = np.zeros(3), 0

    def values(config: TrialConfig) -> list[float | TrialEnded]:
        grace, second = np.maximum.accumulate(rng.normal() + rng.normal(size=2))
        return [float(grace)] * 2 + [float(second)] * (config.epochs - 2)

    for number in range(20):
        journal = new_journal(tmp_path / f"run{number}")
        random = replace(space, searcher=space.searcher.model_copy(update={"kind": "random"}))
        step_through(random, journal, workers=6, train=values)
        lengths = np.array([len(trial.reports) for trial in journal.trials.values() if trial.kind == "search"])
        at_rungs += [(lengths >= rung).sum() for rung in (1, 3, 9)]
        epochs += lengths.sum()
    expected = expect(30, [1, 3], 9, 3, at_once=6)
    assert [count for _, count in expected.rungs] == pytest.approx(list(at_rungs / 20), rel=0.15)
    assert expected.epochs == pytest.approx(epochs / 20, rel=0.1)


@pytest.mark.parametrize("trials", [0, 1])
def test_nobody_is_cut_where_there_is_nobody_to_compare_with(trials: int) -> None:
    assert expect(trials, [1, 3], 9, 3) == Expected(((1, trials), (3, trials), (9, trials)), 9 * trials)


def test_time_lies_between_all_small_and_all_large_and_grows_with_the_cost(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    result = estimate(space, 2, by_cost)
    assert result.seconds is not None
    low, middle, high = result.seconds
    assert low < middle < high
    small, large = (timing.config for timing in result.timings)
    assert (small.backbone, small.image_size) == ("mobilenet_v3_small", 64)
    assert (large.backbone, large.image_size) == ("resnet50", 128)
    searched = result.epochs - 5
    mean = np.mean([by_cost(config) for config in sample_configs(space)])
    own = 5 * by_cost(TrialConfig.parse(space.baselines[0].values))
    assert middle == pytest.approx((searched * mean + own) / 2)
    assert high == pytest.approx((searched * by_cost(large) + own) / 2)


def test_several_crops_of_a_clip_cost_as_many_clips() -> None:
    one = TrialConfig(backbone="resnet18", crop_seconds=3.0)
    assert cost(one.model_copy(update={"train_crops": 3})) == 3 * cost(one)
    assert cost(TrialConfig(train_crops=3)) == cost(TrialConfig())  # whole clips are seen once


def test_more_trials_at_a_time_take_less_time_but_not_less_than_the_longest_trial(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    one, two, many = (estimate(space, workers, by_cost).seconds for workers in (1, 2, 1000))
    assert one is not None
    assert two is not None
    assert many is not None
    assert one[1] == pytest.approx(2 * two[1], rel=0.05)  # a few epochs more: who is overtaken trains on less
    assert many[1] >= 9 * np.mean([by_cost(config) for config in sample_configs(space)])


def test_a_configuration_that_does_not_fit_is_said_and_not_guessed(tmp_path: Path) -> None:
    def measure(config: TrialConfig) -> float:
        if config.image_size == 128:
            raise OutOfMemory("no room for 128 px")
        return 2.0

    result = estimate(space_of(tmp_path, SPACE), 1, measure)
    assert result.timings[0].seconds == 2.0
    assert result.timings[1].seconds is None
    assert result.timings[1].problem == "out_of_memory: no room for 128 px"


def test_the_budget_may_end_before_the_baselines_and_a_small_space_before_the_budget(tmp_path: Path) -> None:
    assert estimate(space_of(tmp_path, SPACE, trials=1)).epochs == 5
    tiny = space_of(tmp_path, "search: {mixup: {choice: [0.0, 0.2]}}\nbudget: {trials: 50}\nscheduler: none")
    assert estimate(tiny).trials == 2


def test_the_terminal_shows_the_space_and_what_it_costs(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    console = Console(width=120, file=io.StringIO())
    with console.capture() as captured:
        console.print(render(space, estimate(space, 2, by_cost)))
    text = captured.get()
    for words in ("loguniform", "baseline mine: 5 epochs", "31 trials, 1 of them baselines", "2 at a time",
                  "resnet50 at 128 px:", "expected time:"):  # fmt: skip
        assert words in text


def test_a_time_budget_that_may_end_the_search_first_is_named(tmp_path: Path) -> None:
    def said(budget: str) -> str:
        space = space_of(tmp_path, SPACE.replace("trials: 31,", f"trials: 31, time: {budget},"))
        console = Console(file=io.StringIO(), width=100)
        console.print(render(space, estimate(space, 2, by_cost)))
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    assert "the time budget ends it after 30 s at the latest" in said("30s")
    assert "time budget" not in said("30d")
