from __future__ import annotations

import itertools
import math

import pytest
import torch

from trainable.config import RECIPES, TrialConfig
from trainable.training.optim import learning_rate


def config(**values: object) -> TrialConfig:
    return TrialConfig.parse({"epochs": 10, **values})


def by_epoch(config: TrialConfig, steps: int = 4) -> list[float]:
    return [learning_rate(config, epoch, steps - 1, steps) for epoch in range(config.epochs)]


def rates_as_the_tutorial_runs_them(base: float, epochs: int) -> list[float]:
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=base)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.1)
    rates = []
    for epoch in range(epochs):
        if epoch < 5:
            for group in optimizer.param_groups:
                group["lr"] = base * (epoch + 1) / 5
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        if epoch >= 5:
            scheduler.step()
    return rates


def test_the_strong_recipe_has_the_tutorials_rate_in_every_epoch() -> None:
    strong = TrialConfig.parse(RECIPES["tutorial-strong"])
    ours = [strong.lr * learning_rate(strong, epoch, step, 50) for epoch in range(30) for step in (0, 49)]
    theirs = [rate for rate in rates_as_the_tutorial_runs_them(1e-4, 30) for _ in range(2)]
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_the_simple_recipe_keeps_its_rate() -> None:
    assert by_epoch(TrialConfig.parse(RECIPES["tutorial-simple"])) == [1.0] * 20


def test_step_without_warmup_is_torchs_step_lr() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    expected = []
    for _ in range(10):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert by_epoch(config(schedule="step", step_size=3, gamma=0.5)) == pytest.approx(expected)


def test_linear_warmup_rises_by_the_same_amount_at_every_step_and_ends_at_the_full_rate() -> None:
    warming = config(warmup_epochs=2, warmup="linear")
    rates = [learning_rate(warming, step // 4, step % 4, 4) for step in range(12)]
    assert rates == pytest.approx([1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1, 1, 1, 1, 1])


def test_cosine_falls_by_the_step_from_the_end_of_the_warmup_to_the_horizon() -> None:
    falling = config(schedule="cosine", warmup_epochs=2, warmup="linear")
    assert learning_rate(falling, 2, 0, 4) == 1.0
    assert learning_rate(falling, 6, 0, 4) == pytest.approx(0.5)
    assert learning_rate(falling, 9, 3, 4) == pytest.approx(0.5 * (1 + math.cos(math.pi * 31 / 32)))
    every_step = [learning_rate(falling, 2 + step // 4, step % 4, 4) for step in range(32)]
    assert all(later < earlier for earlier, later in itertools.pairwise(every_step))


def test_the_horizon_is_the_configurations_whatever_has_been_trained() -> None:
    assert learning_rate(config(schedule="cosine", epochs=20), 5, 0, 4) > learning_rate(
        config(schedule="cosine", epochs=10), 5, 0, 4
    )


def test_warmup_over_all_epochs_leaves_nothing_to_decay() -> None:
    assert by_epoch(config(schedule="cosine", warmup_epochs=10))[-1] == 1.0
