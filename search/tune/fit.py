"""What a time budget buys, and how long trainings may be so that it buys a search.

Before the first epoch each network of the space is timed on made-up inputs. What follows is arithmetic: see `purchase`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ray

from search.runs.format import duration
from search.space.sections import rungs_before
from search.space.space import Baseline, Space, scaled
from search.tune.cluster import Machines
from search.tune.estimate import expect, scored_windows, window_cost, window_frames
from trainable.config import TrialConfig
from trainable.data.dataset import Dataset
from trainable.data.split import Split
from trainable.errors import InputError
from trainable.features.frontend import mel_settings
from trainable.progress import Progress
from trainable.training.timing import mel_seconds, window_seconds

LEAST_PROPOSALS = 10  # of the sampler's own: fewer are no search
LEAST_EPOCHS = 4  # shorter trainings do not tell good configurations from bad ones
# Share of the budget that is planned for: the rest is for workers that start, checkpoints, and for what was not timed.
PLANNED = 0.8
# Shares of the space, the cheapest part, that are searched where the time does not hold all of it.
SHARES = (0.75, 0.5, 0.25, 0.1)
MOST_TIMING = 0.15  # share of the budget in which the networks are timed; what is not by then, the others stand for
READING = 2.0  # times the mel itself: a front end reads and resamples its clips too


@dataclass(frozen=True)
class Pace:
    """How fast a network is here."""

    training: float  # s for 10^9 multiply-adds of a forward pass, with the way back
    mel: float  # s for the mel of one second of audio


@dataclass(frozen=True)
class Purchase:
    """What a time budget buys."""

    epochs: int  # of a whole training
    proposals: int  # of the sampler's own, expected
    seconds: float  # that the baselines and `LEAST_PROPOSALS` would take
    order: tuple[str, ...]  # names of the baselines, the cheapest first
    baselines: int  # of them, so many fit
    share: float  # of the space: the cheapest part, whose configurations may be proposed
    limit: Limit | None  # how it is told from the others; None where it is all of the space

    @property
    def enough(self) -> bool:
        """Whether that is a search."""
        return self.proposals >= LEAST_PROPOSALS


@dataclass(frozen=True)
class Clips:
    """What the length of trials depends on, of a data set and its split."""

    train: int
    val: int
    every: int
    seconds: float  # of a clip, in the mean
    rate: int  # Hz

    @classmethod
    def of(cls, dataset: Dataset, split: Split) -> Clips:
        """Those of a data set."""
        seconds = sum(clip.seconds for clip in dataset.clips) / len(dataset.clips)
        return cls(len(split.train), len(split.val), len(dataset.clips), seconds, dataset.sample_rate)


@dataclass(frozen=True)
class Limit:
    """What a proposal may take, so that a time budget holds enough of them; goes into run.json."""

    seconds: float  # of one worker
    epochs: float  # that a searched training gets in the mean, cuts included
    clips: Clips
    paces: Mapping[str, Pace]

    def allows(self, config: TrialConfig) -> bool:
        """Whether a configuration takes no more."""
        return proposal_seconds(config, self.epochs, self.clips, self.paces) <= self.seconds

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Limit:
        """What `dataclasses.asdict` has made plain values of."""
        paces = {name: Pace(**pace) for name, pace in values["paces"].items()}
        return cls(values["seconds"], values["epochs"], Clips(**values["clips"]), paces)


def purchase(
    space: Space, samples: Sequence[TrialConfig], clips: Clips, paces: Mapping[str, Pace], at_once: int, seconds: float
) -> Purchase:
    """What `seconds` of wall time buy with `at_once` trials side by side.

    Where the baselines and `LEAST_PROPOSALS` do not fit at the length that the space gives its trainings, the dearest
    of its configurations are left out, and trainings are as long as makes the others fit, but no shorter than
    `LEAST_EPOCHS`. Where even that is too long, more of the dear ones are left out.

    Args:
        space: what is searched.
        samples: configurations that stand for those to come; none where nothing is searched.
        clips: what is learned from.
        paces: of each backbone.
        at_once: trials.
        seconds: the time budget.
    """

    timed = [(epoch_seconds(config, clips, paces), config) for config in samples]
    mels = _mel_seconds(
        [*(TrialConfig.parse(each.values, source=each.name) for each in space.baselines), *samples[:LEAST_PROPOSALS]],
        clips, paces,
    )  # fmt: skip

    def buys(epochs: int, share: float = 1.0) -> Purchase:
        return _buys(space, timed, mels, clips, paces, at_once, seconds, epochs, share)

    usual = space.max_epochs
    shortest = usual if space.epochs is not None or "epochs" in space.dimensions else min(usual, LEAST_EPOCHS)
    best = buys(usual)
    if best.enough:
        return best
    for share in SHARES:
        best = buys(shortest, share)
        if best.enough:
            break
    low, high = shortest, usual + 1  # the first is taken whatever it buys, the second does not fit
    while high - low > 1 and best.enough:
        middle = (low + high) // 2
        low, high = (middle, high) if buys(middle, best.share).enough else (low, middle)
    return buys(low, best.share)


def _buys(
    space: Space, timed: Sequence[tuple[float, TrialConfig]], mels: float, clips: Clips, paces: Mapping[str, Pace],
    at_once: int, seconds: float, epochs: int, share: float,
) -> Purchase:  # fmt: skip
    """What the time buys where a whole training has so many epochs and a share of the space is searched.

    `timed`: seconds per epoch of the samples, and `mels` those of all front ends.
    """
    room = PLANNED * seconds * at_once  # s of workers
    parsed = {each.name: TrialConfig.parse(each.values, source=each.name) for each in space.baselines}
    expected = _expected_epochs(space, len(space.baselines), epochs, at_once)

    def takes(baseline: Baseline) -> float:
        config = parsed[baseline.name]
        if baseline.cut:
            return proposal_seconds(config, expected, clips, paces)
        length = 1 if config.method == "probe" else scaled(config.epochs, epochs / space.max_epochs)
        return length * epoch_seconds(config, clips, paces)

    order = sorted(space.baselines, key=takes)
    spent = list(itertools.accumulate(map(takes, order)))
    all_of_them = spent[-1] if spent else 0.0
    times = sorted(each * _length(config, expected) for each, config in timed)
    times = times[: math.ceil(share * len(times))]
    each = sum(times) / len(times) if times else 0.0
    left = max(0, space.trials - len(order))
    return Purchase(
        epochs,
        min(left, int(max(0.0, room - all_of_them - mels) / each)) if each else left,
        (all_of_them + mels + LEAST_PROPOSALS * each) / at_once,
        tuple(baseline.name for baseline in order),
        sum(total + mels <= room for total in spent),
        share,
        Limit(times[-1], expected, clips, paces) if times and share < 1 else None,
    )


def _expected_epochs(space: Space, baselines: int, epochs: int, at_once: int) -> float:
    """How many epochs a searched training gets in the mean, cuts included."""
    grace = min(scaled(space.budget.grace_epochs, epochs / space.max_epochs), epochs)
    rungs = () if space.scheduler == "none" else rungs_before(epochs, grace, space.budget.reduction_factor)
    return _simulated(LEAST_PROPOSALS + baselines, rungs, epochs, space.budget.reduction_factor, at_once)


@lru_cache(maxsize=256)
def _simulated(trials: int, rungs: tuple[int, ...], epochs: int, factor: float, at_once: int) -> float:
    return expect(trials, rungs, epochs, factor, at_once).epochs / trials


def proposal_seconds(config: TrialConfig, epochs: float, clips: Clips, paces: Mapping[str, Pace]) -> float:
    """How long a proposal takes, s, where a training gets so many `epochs` in the mean."""
    return epoch_seconds(config, clips, paces) * _length(config, epochs)


def _length(config: TrialConfig, epochs: float) -> float:
    return 1 if config.method == "probe" else epochs


def epoch_seconds(config: TrialConfig, clips: Clips, paces: Mapping[str, Pace]) -> float:
    """How long an epoch of a configuration takes, s; of a probe all of it."""
    forward, windows = window_cost(config, clips.seconds), scored_windows(config, clips.seconds)
    if config.method == "probe":  # no way back, which is two thirds
        return paces[config.backbone].training * forward * windows * clips.every / 3
    return paces[config.backbone].training * forward * (clips.train * config.drawn_crops + clips.val * windows / 3)


def _mel_seconds(configs: Sequence[TrialConfig], clips: Clips, paces: Mapping[str, Pace]) -> float:
    """How long the front ends of some configurations take, each once, s."""
    rates = {repr(mel_settings(c, c.sample_rate or clips.rate)): paces[c.backbone].mel for c in configs}
    return READING * clips.every * clips.seconds * sum(rates.values())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def bought_in_words(bought: Purchase, space: Space, seconds: float) -> str:
    """What a time budget buys, as a sentence of the header."""
    of = f"{bought.epochs} epochs"
    if bought.epochs < space.max_epochs:
        of += f" instead of {space.max_epochs}"
    baselines = len(bought.order)
    begun = f"the {baselines} baselines" if baselines > 1 else "the baseline" if baselines else ""
    if bought.baselines < baselines:
        begun = f"about {bought.baselines} of the {baselines} baselines"
    own = f"about {bought.proposals} proposals" if space.dimensions else ""
    what = f"{duration(seconds)} hold {' and '.join(filter(None, [begun, own]))}, of up to {of}"
    if bought.share < 1:
        what += f", from the cheapest {bought.share:.0%} of the space"
    if bought.enough or not space.dimensions or space.trials - baselines < LEAST_PROPOSALS:
        return what
    return (
        f"{what}: LITTLE for a search. {duration(bought.seconds / PLANNED)} would hold {LEAST_PROPOSALS} proposals; "
        "give more time, or search fewer and smaller networks"
    )


def measure(
    space: Space, samples: Sequence[TrialConfig], clips: Clips, classes: int, seconds: float, machines: Machines,
    progress: Progress | None = None,
) -> dict[str, Pace]:  # fmt: skip
    """The pace of each backbone that the space may use.

    On this machine's processor it is timed at once, as a worker takes longer to start; on a GPU or a cluster by workers
    like those of the trials. A network that does not run, or is not timed in `MOST_TIMING` of the `seconds` of the
    budget, is as fast as the others in the mean.

    Raises:
        InputError: none could be timed.
    """
    kinds = _one_of_each(space, samples, clips)
    cpus, gpus = space.resources.cpu or 1, space.resources.gpu or 0
    jobs = {
        name: (_without_gpu(config) if not gpus else config, clips.seconds, clips.rate, classes, max(1, int(cpus)))
        for name, config in kinds.items()
    }
    until = time.monotonic() + MOST_TIMING * seconds
    here = not gpus and machines.address is None
    answers = _timed_here(jobs, until) if here else _timed_by_workers(jobs, until, cpus, gpus)
    found: dict[str, Pace] = {}
    why = "no answer in time"
    for done, (name, answer) in enumerate(answers, start=1):
        if isinstance(answer, Pace):
            found[name] = answer
        else:
            why = answer
        if progress:
            progress("Timing networks", done, len(jobs))
    if not found:
        raise InputError(f"no network could be timed ({why})")
    usual = Pace(_mean([pace.training for pace in found.values()]), _mean([pace.mel for pace in found.values()]))
    return {name: found.get(name, usual) for name in kinds}


def _timed_here(jobs: Mapping[str, tuple[Any, ...]], until: float) -> Iterator[tuple[str, Pace | str]]:
    """The pace of each backbone, or why it has none."""
    for name, job in jobs.items():
        if time.monotonic() < until:
            yield name, _pace_here(*job)


def _timed_by_workers(
    jobs: Mapping[str, tuple[Any, ...]], until: float, cpus: float, gpus: float
) -> Iterator[tuple[str, Pace | str]]:
    """The same, as many at a time as there will be trials."""
    timing = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_pace_here)
    waiting = {timing.remote(*job): name for name, job in jobs.items()}
    while waiting and time.monotonic() < until:
        for job in ray.wait(list(waiting), num_returns=1, timeout=0.5)[0]:
            name = waiting.pop(job)
            try:
                yield name, ray.get(job)
            except ray.exceptions.RayError as error:
                yield name, str(error).strip().splitlines()[-1]
    for job in waiting:
        ray.cancel(job, force=True)


def _one_of_each(space: Space, samples: Sequence[TrialConfig], clips: Clips) -> dict[str, TrialConfig]:
    """A configuration of each backbone that stands for the others: a training of the usual cost."""
    configs = [*(TrialConfig.parse(each.values, source=each.name) for each in space.baselines), *samples]
    by_backbone: dict[str, list[TrialConfig]] = {}
    for config in configs:
        by_backbone.setdefault(config.backbone, []).append(config)
    return {name: _usual(own, clips) for name, own in by_backbone.items()}


def _usual(configs: Sequence[TrialConfig], clips: Clips) -> TrialConfig:
    trained = [config for config in configs if config.method == "train"] or list(configs)
    return sorted(trained, key=lambda config: window_cost(config, clips.seconds))[len(trained) // 2]


def _without_gpu(config: TrialConfig) -> TrialConfig:
    """The configuration where trials get no GPU, though there may be one."""
    return config.model_copy(update={"device": "cpu"}) if config.device == "auto" else config


def _pace_here(config: TrialConfig, seconds: float, rate: int, classes: int, threads: int) -> Pace | str:
    """The pace of a configuration's network in this process, or why it does not run."""
    try:
        each = window_seconds(config, window_frames(config, seconds), classes, threads)
    except (InputError, RuntimeError, MemoryError) as error:  # its trials will say the same
        return f"{config.backbone}: {error}".splitlines()[0]
    return Pace(each / window_cost(config, seconds), mel_seconds(config, config.sample_rate or rate))


def within(space: Space, bought: Purchase, lengthened: Callable[[int], Space]) -> Space:
    """The space with what was bought: the length of its trainings, and its baselines in the order of their cost.

    `lengthened`: the same space with another length.
    """
    if bought.epochs != space.max_epochs:
        space = dataclasses.replace(lengthened(bought.epochs), resources=space.resources)
    place = {name: number for number, name in enumerate(bought.order)}
    return dataclasses.replace(space, baselines=tuple(sorted(space.baselines, key=lambda b: place[b.name])))
