"""What a search will cost, before it starts: trials per rung, epochs, and time from two timed configurations.

How many trials ASHA lets through is found by simulating it.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import optuna
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from search.runs.format import duration
from search.space.dimension import Dimension
from search.space.space import Space
from trainable.config import TrialConfig
from trainable.errors import InputError, TrialEnded
from trainable.training.cost import giga_operations
from trainable.training.network import input_in_words, input_shape

# Samples of the space that stand for what the sampler will propose; enough to meet each of 50 choices.
_SAMPLES = 500


@dataclass(frozen=True)
class Timing:
    """How long one configuration takes on this machine."""

    config: TrialConfig
    seconds: float | None  # per epoch; None: it does not run here
    problem: str = ""  # why not


@dataclass(frozen=True)
class Estimate:
    """What a search is expected to take."""

    trials: int  # in all, baselines included
    baselines: int
    rungs: tuple[tuple[int, float], ...]  # (epoch, trials expected to get there), ASHA's rungs and the last epoch
    epochs: float  # of all trials, baselines included
    concurrency: int  # trials at the same time
    timings: tuple[Timing, ...] = ()  # the smallest and the largest configuration, where they were timed
    seconds: tuple[float, float, float] | None = None  # all small, expected, all large; s of wall time


def estimate(
    space: Space, concurrency: int = 1, seconds_per_epoch: Callable[[TrialConfig], float] | None = None
) -> Estimate:
    """What `space` will take; time only where `seconds_per_epoch` measures a configuration on this machine.

    Trials are taken to come in random order. A sampler that learns brings better trials later, which are cut less.
    """
    baselines = [
        each for each in space.baselines[: space.budget.trials] if not each.cut
    ]  # others are like searched ones
    searched = space.trials - len(baselines)
    configs = sample_configs(space) if searched else []
    own = tuple(float(baseline.values["epochs"]) for baseline in baselines)
    competing = [int(epochs) for epochs in own] if space.scheduling.cut_baselines else []
    expected = expect(
        searched, space.rungs, space.max_epochs, space.budget.reduction_factor, concurrency,
        horizons=[config.epochs for config in configs], first=competing,
    )  # fmt: skip
    own = expected.first or own
    result = Estimate(
        searched + len(baselines), len(baselines), expected.rungs, expected.epochs + sum(own), concurrency
    )
    if seconds_per_epoch is None:
        return result
    parsed = [TrialConfig.parse(baseline.values, source=baseline.name) for baseline in baselines]
    timings = _time_ends([*configs, *parsed], seconds_per_epoch)
    seconds = _wall_time(result, expected.epochs, timings, configs, list(zip(parsed, own, strict=True)))
    return replace(result, timings=timings, seconds=seconds)


def sample_configs(space: Space) -> list[TrialConfig]:
    """Configurations drawn at random from the space, always the same; those that cannot be trained are left out.

    Raises:
        InputError: none of them can.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = []
    samples = _SAMPLES if space.dimensions else 1
    for _ in range(samples):
        try:
            found.append(space.config(space.suggest(study.ask())))
        except InputError as error:
            why = error.problems[0]
    if not found:
        raise InputError(
            f"{space.source}: search: must hold configurations that can be trained, got none in {samples} drawn at "
            f"random. The last one: {why}"
        )
    return found


def cost(config: TrialConfig, clip_seconds: float = 10.0) -> float:
    """The work of one clip in an epoch, in units of 10^9 multiplications of the backbone, forwards and backwards.

    Good for comparing, not for timing. `clip_seconds`: of the usual clip.
    """
    forward = window_cost(config, clip_seconds)
    if config.method == "probe":  # no way back, and once for each window that is scored
        return forward * scored_windows(config, clip_seconds) / 3
    return forward * config.drawn_crops


def window_cost(config: TrialConfig, clip_seconds: float) -> float:
    """10^9 multiply-adds of the backbone for one input, forwards."""
    return giga_operations(config, *input_shape(config, window_frames(config, clip_seconds)))


def window_frames(config: TrialConfig, clip_seconds: float) -> int:
    """The frames that an input shows of a clip of that length."""
    rate = config.sample_rate or 22_050
    hop = config.hop_length if config.hop_ms is None else config.hop_ms * rate / 1000
    return max(1, round((config.crop_seconds or clip_seconds) * rate / hop))


def scored_windows(config: TrialConfig, clip_seconds: float) -> int:
    """How many inputs score a clip of that length."""
    return min(config.scored_crops, max(1, math.ceil(clip_seconds / (config.crop_seconds or clip_seconds))))


def _time_ends(configs: Sequence[TrialConfig], measure: Callable[[TrialConfig], float]) -> tuple[Timing, ...]:
    """The cheapest and the dearest configuration, timed."""
    by_cost = sorted(configs, key=cost)
    ends = [by_cost[0]] if cost(by_cost[0]) == cost(by_cost[-1]) else [by_cost[0], by_cost[-1]]
    timings = []
    for config in ends:
        try:
            timings.append(Timing(config, measure(config)))
        except TrialEnded as error:
            timings.append(Timing(config, None, f"{error.status}: {error}"))
    return tuple(timings)


def _wall_time(
    result: Estimate,
    epochs: float,
    timings: Sequence[Timing],
    searched: Sequence[TrialConfig],
    baselines: Sequence[tuple[TrialConfig, float]],
) -> tuple[float, float, float] | None:
    """Wall time with all trials small, as expected, and with all large; seconds between the two timings go by cost.

    `epochs`: of the searched trials; those of each baseline are beside it.
    """
    known = [(cost(timing.config), timing.seconds) for timing in timings if timing.seconds is not None]
    if not known:
        return None
    (low_cost, low), (high_cost, high) = known[0], known[-1]
    slope = (high - low) / (high_cost - low_cost) if high_cost > low_cost else 0.0

    def seconds(config: TrialConfig) -> float:
        return low + slope * (cost(config) - low_cost)

    mean = sum(map(seconds, searched)) / len(searched) if searched else 0.0
    own = [its_epochs * seconds(config) for config, its_epochs in baselines]
    longest = max([0.0, *own, (result.rungs[-1][0] * mean if searched else 0.0)])
    ends = sorted(seconds(config) for config in searched) or [0.0]
    return (
        max(longest if not searched else 0.0, (epochs * ends[0] + sum(own)) / result.concurrency),
        max(longest, (epochs * mean + sum(own)) / result.concurrency),
        max(longest, (epochs * ends[-1] + sum(own)) / result.concurrency),
    )


def render(space: Space, result: Estimate) -> RenderableType:
    """The resolved space and its estimate, for the terminal."""
    parts: list[RenderableType] = [_dimension_table(space)]
    parts += [
        Text(f"baseline {baseline.name}: {baseline.values['epochs']} epochs. {baseline.note}".rstrip())
        for baseline in space.baselines
    ]
    if result.trials > result.baselines or space.scheduling.cut_baselines:
        of = "" if space.scheduling.cut_baselines else ", of those that are not baselines"
        table = Table("epoch", f"trials expected to get there{of}", box=None)
        for epoch, trials in result.rungs:
            table.add_row(str(epoch), f"{trials:.1f}")
        parts.append(table)
    parts += [
        Text(
            f"{result.trials} trials, {result.baselines} of them baselines; about {result.epochs:.0f} epochs, "
            f"{result.concurrency} at a time"
        ),
    ]
    for timing in result.timings:
        what = f"{timing.config.backbone} at {input_in_words(timing.config)}"
        parts.append(
            Text(
                f"{what}: {timing.seconds:.1f} s per epoch"
                if timing.seconds is not None
                else f"{what}: {timing.problem}"
            )
        )
    if result.seconds:
        low, middle, high = map(duration, result.seconds)
        parts.append(Text(f"expected time: {middle} ({low} if all trials were the smallest, {high} the largest)"))
    if space.budget.time is not None and (result.seconds is None or space.budget.time < result.seconds[2]):
        parts.append(Text(f"the time budget ends it after {duration(space.budget.time)} at the latest"))
    return Group(*parts)


def _dimension_table(space: Space) -> Table:
    table = Table("field", "values", "only where", box=None)
    for name, value in space.stretched(space.fixed).items():
        table.add_row(name, str(value), "")
    for dimension in space.dimensions.values():
        when = " and ".join(f"{parent} is {' or '.join(map(str, values))}" for parent, values in dimension.when)
        table.add_row(dimension.name, f"{dimension.kind} {list(dimension.args)}{_stretched(space, dimension)}", when)
    return table


def _stretched(space: Space, dimension: Dimension) -> str:
    """What --epochs makes of a dimension that is counted in epochs; nothing of any other."""
    as_written = dimension.corners()
    made = [space.stretched({**space.fixed, dimension.name: value})[dimension.name] for value in as_written]
    if made == list(as_written):
        return ""
    joint = ", " if dimension.kind == "choice" else " to "
    return f", {joint.join(map(str, dict.fromkeys(made)))} with --epochs"


@dataclass(frozen=True)
class Expected:
    """What becomes of the trials, in the mean of seeded simulations."""

    rungs: tuple[tuple[int, float], ...]  # (epoch, trials that get there), ASHA's rungs and the last epoch
    epochs: float  # of all searched ones
    first: tuple[float, ...] = ()  # of each trial before them


def expect(
    trials: int, rungs: Sequence[int], last: int, reduction_factor: float, at_once: int = 1,
    *, horizons: Sequence[int] = (), first: Sequence[int] = (),
) -> Expected:  # fmt: skip
    """How many trials reach each of `rungs` and epoch `last` where `at_once` train at the same time.

    More get through than the textbook's 1 in `reduction_factor`: early ones pass easily, and those at a later rung are
    the better half of what comes. A trial's value at a rung is half its own quality, half the luck of that epoch, and
    never below what it had before.

    `horizons`: epochs of which each of the `trials` draws its own end, where that is not `last` for all. `first`: the
    ends of trials that come and compete before them.
    """
    rng, draw = np.random.default_rng(0), np.random.default_rng(1)
    count = len(first) + trials
    repeats = max(5, 10_000 // max(count, 1))
    reached, epochs = np.zeros(len(rungs) + 1), np.zeros(count)
    for _ in range(repeats):
        luck = rng.normal(size=(count, 1)) + rng.normal(size=(count, len(rungs)))
        values = np.maximum.accumulate(luck, axis=1).tolist()
        ends = [*first, *draw.choice(horizons or [last], size=trials).tolist()]
        recorded: list[list[float]] = [[] for _ in rungs]
        waiting, running = iter(enumerate(zip(values, ends, strict=True))), deque[_Imagined]()
        while True:
            new = itertools.islice(waiting, at_once - len(running))
            running.extend(_Imagined(number, value, end) for number, (value, end) in new)
            if not running:
                break
            trial = running.popleft()
            if trial.goes_on(rungs, recorded, reduction_factor) and trial.epoch < trial.end:
                running.append(trial)
            else:
                epochs[trial.number] += trial.epoch
                reached[: trial.passed] += 1
                reached[-1] += trial.epoch >= last
    shares, each = (reached / repeats).tolist(), (epochs / repeats).tolist()
    return Expected(tuple(zip((*rungs, last), shares, strict=True)), sum(each[len(first) :]), tuple(each[: len(first)]))


@dataclass
class _Imagined:
    """A simulated trial."""

    number: int
    values: list[float]  # what it has reached at each rung
    end: int  # its last epoch if nobody cuts it
    epoch: int = 0
    passed: int = 0  # rungs that it has come to

    def goes_on(self, rungs: Sequence[int], recorded: Sequence[list[float]], factor: float) -> bool:
        """Whether it goes on after one more epoch; `recorded` holds the sorted values of all who came to each rung."""
        self.epoch += 1
        arrives = self.passed < len(rungs) and self.epoch == rungs[self.passed]
        if arrives:
            bisect.insort(recorded[self.passed], self.values[self.passed])
            self.passed += 1
        if not self.passed:
            return True
        there, own = recorded[self.passed - 1], self.values[self.passed - 1]
        enough = 2 if arrives else factor
        return len(there) < enough or own >= _percentile_without(there, own, 1 - 1 / factor)


def _percentile_without(ordered: Sequence[float], own: float, share: float) -> float:
    """The value below which `share` of the sorted values but `own` lie, interpolated as `numpy.percentile` does."""
    mine = bisect.bisect_left(ordered, own)

    def other(index: int) -> float:
        return ordered[index + (index >= mine)]

    place = share * (len(ordered) - 2)
    below = int(place)
    above = min(below + 1, len(ordered) - 2)
    return other(below) + (place - below) * (other(above) - other(below))
