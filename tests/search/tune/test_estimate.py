from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from search.space.space import Space
from search.tune.estimate import Expected, cost, estimate, expect, render, sample_configs
from tests.support.spaces import space_of
from tests.support.stepping import new_journal, step_through
from trainable.config import TrialConfig
from trainable.errors import InputError, OutOfMemory, TrialEnded

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


def test_a_space_without_a_trainable_configuration_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Space, sample: object, name: str = "") -> TrialConfig:
        raise InputError("x: image_size: too small")

    monkeypatch.setattr(Space, "config", refused)
    with pytest.raises(InputError, match=r"got none in 500 drawn at random. The last one: x: image_size: too small"):
        estimate(space_of(tmp_path, SPACE))


@pytest.mark.slow
def test_without_asha_every_trial_reaches_the_last_epoch(tmp_path: Path) -> None:
    result = estimate(space_of(tmp_path, SPACE + "    scheduler: none"))
    assert result.rungs == ((9, 30.0),)
    assert result.epochs == 30 * 9 + 5
    assert result.seconds is None


@pytest.mark.slow
def test_fewer_trials_reach_each_rung_but_more_than_the_textbook_says(tmp_path: Path) -> None:
    result = estimate(space_of(tmp_path, SPACE))
    epochs, trials = zip(*result.rungs, strict=True)
    assert epochs == (1, 3, 9)
    assert trials[0] == 30
    assert 30 / 3 < trials[1] < 30 / 2
    assert trials[1] / 3 < trials[2] < trials[1]
    assert result.epochs == pytest.approx(1 * trials[0] + 2 * trials[1] + 6 * trials[2] + 5)  # one at a time


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "rungs"),
    [
        ({}, (1, 3, 9)),
        # Short trials are judged at their rungs and not after.
        ({"epochs: 9, ": "", "search:": "search:\n      epochs: {choice: [5, 20]}"}, (1, 3, 9, 20)),
        ({"baselines:": "scheduler: {cut_baselines: true}\n    baselines:"}, (1, 3, 9)),
    ],
)
def test_what_is_expected_is_what_the_scheduler_does(
    tmp_path: Path, changes: dict[str, str], rungs: tuple[int, ...]
) -> None:
    """Thirty searches of 31 random trials, six at a time."""
    text = SPACE
    for old, new in changes.items():
        text = text.replace(old, new, 1)
    space = space_of(tmp_path, text)
    rng = np.random.default_rng(1)
    at_rungs, epochs = np.zeros(len(rungs)), 0

    def values(config: TrialConfig) -> list[float | TrialEnded]:
        luck = np.maximum.accumulate(rng.normal() + rng.normal(size=len(space.rungs)))
        rung = np.searchsorted(space.rungs, np.arange(1, config.epochs + 1), side="right") - 1
        return [float(value) for value in luck[rung]]

    for number in range(30):
        journal = new_journal(tmp_path / f"run{number}")
        random = replace(space, searcher=space.searcher.model_copy(update={"kind": "random", "seed": number}))
        step_through(random, journal, workers=6, train=values)
        trials = list(journal.trials.values())
        competing = [trial for trial in trials if trial.kind == "search" or space.scheduling.cut_baselines]
        at_rungs += [sum(len(trial.reports) >= rung for trial in competing) for rung in rungs]
        epochs += sum(len(trial.reports) for trial in trials)
    result = estimate(space, 6)
    assert [epoch for epoch, _ in result.rungs] == list(rungs)
    assert [count for _, count in result.rungs] == pytest.approx(list(at_rungs / 30), rel=0.15)
    assert result.epochs == pytest.approx(epochs / 30, rel=0.1)


@pytest.mark.slow
def test_each_trial_counts_to_its_own_last_epoch(tmp_path: Path) -> None:
    space = space_of(
        tmp_path, "search: {epochs: {randint: [2, 41]}}\nscheduler: none\nbudget: {trials: 39}\nfixed: {weights: none}"
    )
    result = estimate(space, 1, lambda config: 2.0)
    assert result.epochs == pytest.approx(39 * 21, rel=0.05)
    assert result.seconds is not None
    assert result.seconds[1] == pytest.approx(2 * result.epochs)


@pytest.mark.slow
def test_a_baseline_that_may_be_cut_takes_what_it_is_expected_to(tmp_path: Path) -> None:
    two = "{name: a, recipe: tutorial-simple, epochs: 9}, {name: b, recipe: tutorial-simple, lr: 2.0e-4, epochs: 9}"
    text = SPACE.replace("{name: mine, recipe: tutorial-simple, image_size: 64, epochs: 5}", two)
    never = estimate(space_of(tmp_path, text), 1, by_cost)
    competing = estimate(space_of(tmp_path, text + "    scheduler: {cut_baselines: true}"), 1, by_cost)
    assert (never.rungs[0], competing.rungs[0]) == ((1, 29), (1, 31))
    assert competing.epochs < never.epochs
    assert never.seconds is not None
    assert competing.seconds is not None
    assert competing.seconds[1] < never.seconds[1]


@pytest.mark.slow
@pytest.mark.parametrize("trials", [0, 1])
def test_nobody_is_cut_where_there_is_nobody_to_compare_with(trials: int) -> None:
    assert expect(trials, [1, 3], 9, 3) == Expected(((1, trials), (3, trials), (9, trials)), 9 * trials)


@pytest.mark.slow
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


@pytest.mark.slow
def test_more_trials_at_a_time_take_less_time_but_not_less_than_the_longest_trial(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    one, two, many = (estimate(space, workers, by_cost).seconds for workers in (1, 2, 1000))
    assert one is not None
    assert two is not None
    assert many is not None
    assert one[1] == pytest.approx(2 * two[1], rel=0.05)  # a few epochs more: who is overtaken trains on less
    assert many[1] >= 9 * np.mean([by_cost(config) for config in sample_configs(space)])


@pytest.mark.slow
def test_a_configuration_that_does_not_fit_is_said_and_not_guessed(tmp_path: Path) -> None:
    def measure(config: TrialConfig) -> float:
        if config.image_size == 128:
            raise OutOfMemory("no room for 128 px")
        return 2.0

    result = estimate(space_of(tmp_path, SPACE), 1, measure)
    assert result.timings[0].seconds == 2.0
    assert result.timings[1].seconds is None
    assert result.timings[1].problem == "out_of_memory: no room for 128 px"


@pytest.mark.slow
def test_the_budget_may_end_before_the_baselines_and_a_small_space_before_the_budget(tmp_path: Path) -> None:
    assert estimate(space_of(tmp_path, SPACE, trials=1)).epochs == 5
    tiny = space_of(tmp_path, "search: {mixup: {choice: [0.0, 0.2]}}\nbudget: {trials: 50}\nscheduler: none")
    assert estimate(tiny).trials == 2


@pytest.mark.slow
def test_points_that_baselines_have_tried_are_not_proposed_again(tmp_path: Path) -> None:
    text = """
        fixed: {epochs: 5, weights: none}
        search: {lr: {choice: [0.1, 0.2]}}
        baselines: [{lr: 0.1}, {name: same, lr: 0.1, dropout: 0.0, seed: 7}, {name: outside, lr: 0.2, dropout: 0.5}]
        budget: {trials: 10}
    """
    space = space_of(tmp_path, text)
    step_through(space, journal := new_journal(tmp_path / "run"))
    assert estimate(space).trials == len(journal.trials) == 4


@pytest.mark.slow
def test_the_terminal_shows_the_space_and_what_it_costs(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    console = Console(width=120, file=io.StringIO())
    with console.capture() as captured:
        console.print(render(space, estimate(space, 2, by_cost)))
    text = captured.get()
    for words in ("loguniform", "baseline mine: 5 epochs", "31 trials, 1 of them baselines", "2 at a time",
                  "resnet50 at 128 px:", "expected time:"):  # fmt: skip
        assert words in text


@pytest.mark.slow
def test_the_terminal_shows_what_epochs_makes_of_the_space(tmp_path: Path) -> None:
    text = """
        fixed: {epochs: 30, warmup_epochs: 6, weights: none}
        search:
          schedule: {choice: [step, cosine]}
          step_size: {randint: [6, 16], when: {schedule: step}}
          patience: {choice: [0, 3, 9]}
          lr: {loguniform: [1e-4, 1e-2]}
    """

    def shown(**flags: int) -> list[str]:
        space = space_of(tmp_path, text, **flags)
        console = Console(file=io.StringIO(), width=100)
        console.print(render(space, estimate(space)))
        return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]

    as_written = {"epochs 30", "warmup_epochs 6", "step_size randint [6, 16] schedule is step",
                  "patience choice [0, 3, 9]"}  # fmt: skip
    stretched = {"epochs 10", "warmup_epochs 2", "step_size randint [6, 16], 2 to 5 with --epochs schedule is step",
                 "patience choice [0, 3, 9], 0, 1, 3 with --epochs"}  # fmt: skip
    assert as_written < set(shown())
    assert stretched | {"lr loguniform [0.0001, 0.01]"} < set(shown(epochs=10))


@pytest.mark.slow
def test_a_time_budget_that_may_end_the_search_first_is_named(tmp_path: Path) -> None:
    def said(budget: str) -> str:
        space = space_of(tmp_path, SPACE.replace("trials: 31,", f"trials: 31, time: {budget},"))
        console = Console(file=io.StringIO(), width=100)
        console.print(render(space, estimate(space, 2, by_cost)))
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    assert "the time budget ends it after 30 s at the latest" in said("30s")
    assert "time budget" not in said("30d")
