"""What earlier runs on other data teach a search: which of the samples that its sampler offers is tried next.

Accuracies of different sets do not compare, so each run teaches the standing of its trials against each other
(`search.tune.standing`), as a forest of trees over the fields that are searched here. A forest takes numbers, choices
and what is left open alike, and says nothing where all its trials had the same.

How much a run is believed is how well its forest ranks the trials of this search, as they come in: before the first
ones nothing is. The sampler draws the more samples, for the runs to vote on, the more they are believed, and where none
is believed the search is the one that has learned nothing. To rank well is not yet to know where the best is, so the
runs guide every second trial, and only while those do as well as the sampler's own.
Source: ranks of several runs as votes, after Feurer et al., Practical Transfer Learning for Bayesian Optimization,
2018 (arXiv:1802.02219).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.runs.journal import UNTRAINABLE, Trial
from search.runs.run import RunFolder, validates
from search.space.dimension import Dimension
from search.space.space import Space
from search.tune.standing import merit, standings

Floats = NDArray[np.float64]

TREES = 64
HEARD = 16  # trees of each forest that vote on one proposal, drawn anew: parallel trials then do not all agree
DOUBT = 6  # trials: after so many of its own the search believes half of the rank correlation that it sees
COMPARED = 6  # trials: the latest guided ones and the latest others, whose mean standings say whether to guide on
FEWEST_COMPARED = 3  # of both, or they say nothing
FEWEST = 6  # trials that a run must have to teach anything
DRAWN_AT_RANDOM = 256  # samples to vote on while the sampler itself draws at random; they cost next to nothing
DRAWN_BY_SAMPLER = 8  # samples to vote on later; each costs some 10 ms
LEADERS, VARIANTS = 6, 8  # of each run, also to vote on: samples that differ from a leader in two dimensions at most


@dataclass(frozen=True)
class Seen:
    """A trial as a voter knows it."""

    values: Mapping[str, Any]  # by field; a field that had no meaning in it is missing
    standing: float  # in [0, 1]
    chosen: bool = False  # of this search, and not the sampler's own draw


@dataclass(frozen=True)
class Lesson:
    """What a run on other data teaches a search."""

    run: str  # its name
    seen: tuple[Seen, ...]
    left_out: dict[str, int]  # reason: trials
    teaches: tuple[str, ...]  # the dimensions of this space in which its trials differ
    notes: tuple[str, ...]  # on the others, and on choices of this space that it has not tried


def lesson_of(space: Space, run: RunFolder) -> Lesson:
    """What the trials of another run say of this space's dimensions, whatever data they were trained on.

    A field that the other run has fixed has one value in all its trials, and so teaches nothing. Baselines outside its
    space stay out: they differ from its trials in more than its dimensions.
    """
    left_out = Counter[str]()
    compared: list[tuple[dict[str, Any], list[float]]] = []
    broken: list[dict[str, Any]] = []
    for trial in run.trials:
        reason = _unfit(trial)
        if reason:
            left_out[reason] += 1
        elif trial.status in UNTRAINABLE:
            broken.append(_values(space, trial))
        else:
            merits = [merit(report.value, report.loss) for report in trial.reports]
            compared.append((_values(space, trial), merits))
    shares = standings([merits for _, merits in compared]).tolist()
    seen = [Seen(values, share) for (values, _), share in zip(compared, shares, strict=True)]
    seen += [Seen(values, 0.0) for values in broken]
    if len(seen) < FEWEST:
        left_out["too few to compare"] += len(seen)
        seen = []
    tried = {name: {key_of({name: trial.values.get(name)}) for trial in seen} for name in space.dimensions}
    teaches = tuple(name for name in space.dimensions if len(tried[name]) > 1)
    return Lesson(run.name, tuple(seen), dict(left_out), teaches, tuple(_gaps(space, seen, teaches)) if seen else ())


def told(lesson: Lesson) -> str:
    """A lesson in a line, for the header."""
    learned = f"{len(lesson.seen)} trials teach {', '.join(lesson.teaches)}" if lesson.teaches else "it teaches nothing"
    left_out = [f"{count} left out: {why}" for why, count in lesson.left_out.items()]
    return f"learning from {lesson.run}: {'; '.join([learned, *left_out, *lesson.notes])}"


def _unfit(trial: Trial) -> str | None:
    """Why a trial teaches nothing."""
    if trial.repeats is not None:
        return "repeated on further folds"
    if trial.status == "failed":
        return "failed"
    if not trial.params:
        return "a baseline outside its space"
    if not validates(trial.config):
        return "without validation clips"
    if not trial.reports and trial.status not in UNTRAINABLE:
        return "not an epoch done"
    return None


def _values(space: Space, trial: Trial) -> dict[str, Any]:
    """A trial's values of the dimensions that have a meaning in it, inside their bounds or not.

    As they were sampled, where they were: --epochs may have changed since what is counted in epochs.
    """
    config = {**trial.config, **trial.params}
    values: dict[str, Any] = {}
    for dimension in space.dimensions.values():
        if space.active(dimension, values) and dimension.name in config:
            values[dimension.name] = config[dimension.name]
    return values


def _gaps(space: Space, seen: Sequence[Seen], teaches: Sequence[str]) -> Iterator[str]:
    """What a run leaves open."""
    silent = [name for name in space.dimensions if name not in teaches]
    if silent:
        yield f"nothing of {', '.join(silent)}, which it did not vary"
    for name in teaches:
        dimension = space.dimensions[name]
        there = [trial.values[name] for trial in seen if name in trial.values]
        if dimension.kind == "choice":
            missing = [str(choice) for choice in dimension.args if choice not in there]
            if missing:
                yield f"nothing of {name} {', '.join(missing)}, which it did not try"


class Encoder:
    """Samples of a space as rows of numbers.

    A numeric dimension is one column, in [0, 1] between its bounds, on its own scale; what has no value there is -1.
    Other choices are a column each, all 0 for a value that is none of them.
    """

    def __init__(self, space: Space) -> None:
        self._dimensions = tuple(space.dimensions.values())

    def rows(self, samples: Sequence[Mapping[str, Any]]) -> Floats:
        """[n, columns] of n samples."""
        return np.array([[x for d in self._dimensions for x in _columns(d, sample)] for sample in samples], dtype=float)


def _columns(dimension: Dimension, sample: Mapping[str, Any]) -> list[float]:
    value, numbers = sample.get(dimension.name), _numbers(dimension)
    if not numbers:
        return [float(dimension.name in sample and value == choice) for choice in dimension.args]
    if not isinstance(value, int | float):
        return [-1.0]
    low, high = min(numbers), max(numbers)
    if "log" in dimension.kind or (dimension.kind == "choice" and low > 0 and high / low > 10):
        value, low, high = (math.log(max(number, 1e-12)) for number in (value, low, high))
    # What lies outside stays outside, but not so far that it would be all that counts.
    return [min(max((value - low) / (high - low or 1), -0.5), 1.5)]


def _numbers(dimension: Dimension) -> list[float]:
    """The bounds or the numeric choices of a dimension; none where a choice is no number."""
    if dimension.kind != "choice":
        return [float(bound) for bound in dimension.bounds]
    numbers = [choice for choice in dimension.args if choice is not None]
    if not numbers or any(isinstance(choice, bool | str) for choice in numbers):
        return []
    return [float(number) for number in numbers]


class Voter:
    """A forest that has seen trials and ranks candidates."""

    def __init__(self, encoder: Encoder, seen: Sequence[Seen], seed: int) -> None:
        """Grows the forest; the same trials and seed give the same one."""
        from sklearn.ensemble import ExtraTreesRegressor  # seconds to import, and few searches learn

        rows, standings = encoder.rows([trial.values for trial in seen]), [trial.standing for trial in seen]
        self.leaders = [seen[place].values for place in np.argsort(standings, kind="stable")[::-1][:LEADERS]]
        self._forest = ExtraTreesRegressor(TREES, bootstrap=True, max_features=0.7, random_state=seed)
        self._forest.fit(rows, standings)

    def standings(self, rows: Floats) -> Floats:
        """[n] predicted standings of n candidates, by all trees."""
        return self._said(range(TREES), rows)

    def votes(self, rows: Floats, rng: np.random.Generator) -> Floats:
        """[n] ranks of n candidates in [0, 1], 1 the best, by some of the trees."""
        heard = rng.choice(TREES, HEARD, replace=False)
        return (ranks(self._said(heard.tolist(), rows)) - 0.5) / len(rows)

    def _said(self, trees: Iterable[int], rows: Floats) -> Floats:
        """The mean of what some trees say, by their inner ones: the outer ones check their input for a millisecond."""
        inner = rows.astype(np.float32)
        said = [self._forest.estimators_[tree].tree_.predict(inner)[:, 0] for tree in trees]
        return np.asarray(np.mean(said, axis=0))


def worth_it(guided: Sequence[float], others: Sequence[float]) -> bool:
    """Whether guided trials do as well as the others, by the standings of both in the order of trials."""
    if min(len(guided), len(others)) < FEWEST_COMPARED:
        return True
    return bool(np.mean(guided[-COMPARED:]) >= np.mean(others[-COMPARED:]))


def agreement(one: Floats, other: Floats) -> float:
    """Spearman's rank correlation, -1 to 1; 0 where either says nothing or there are fewer than three."""
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def ranks(values: Floats) -> Floats:
    """The rank of each value, 1 the lowest; equal ones share the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place], dtype=float)


class Lessons:
    """The earlier runs that a search learns from."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._encoder = Encoder(space)
        self._voters: dict[str, Voter] = {}  # by the run's folder

    def add(self, run: str, seen: Sequence[Seen]) -> None:
        """Learns from an earlier run."""
        self._voters[run] = Voter(self._encoder, seen, seed=len(self._voters))

    def __bool__(self) -> bool:
        return bool(self._voters)

    def beliefs(self, own: Sequence[Seen]) -> dict[str, float]:
        """How well each run's ranks agree with the search's own trials, 0 (let go) to 1."""
        rows = self._encoder.rows([trial.values for trial in own])
        standings = np.array([trial.standing for trial in own])
        found = {}
        for run, voter in self._voters.items():
            seen = agreement(voter.standings(rows), standings) if len(own) else 0.0
            found[run] = max(0.0, len(own) * seen / (DOUBT + len(own)))
        return found

    def vote(
        self, beliefs: Mapping[str, float], offers: Sequence[Mapping[str, Any]], tried: Container[str], seed: int
    ) -> dict[str, Any] | None:
        """The sample that the runs like best, each as much as it is believed; None where all have been `tried`.

        offers: what the sampler would try, a value for each dimension that it has drawn; without any the runs vote on
        samples drawn at random and on what is like their own leaders.
        """
        rng = np.random.default_rng(seed)
        believed = [(voter, beliefs[run]) for run, voter in self._voters.items() if beliefs[run] > 0]
        drawn = [self._drawn(offer, rng) for offer in offers] or self._own_offers([each for each, _ in believed], rng)
        samples = [sample for sample in drawn if key_of(sample) not in tried]
        if not samples or not believed:
            return None
        rows = self._encoder.rows(samples)
        votes = np.sum([belief**2 * voter.votes(rows, rng) for voter, belief in believed], axis=0)
        return samples[int(np.argmax(votes))]

    def _own_offers(self, voters: Sequence[Voter], rng: np.random.Generator) -> list[dict[str, Any]]:
        drawn = [self._drawn({}, rng) for _ in range(DRAWN_AT_RANDOM)]
        names = list(self._space.dimensions)
        for voter in voters:
            for leader in voter.leaders:
                for _ in range(VARIANTS):
                    changed = rng.choice(names, min(len(names), int(rng.integers(0, 3))), replace=False)
                    drawn.append(self._drawn({name: leader[name] for name in leader if name not in changed}, rng))
        return drawn

    def _drawn(self, kept: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """A sample drawn evenly, save for the values of `kept` that its dimensions can take."""
        sample: dict[str, Any] = {}
        for dimension in self._space.dimensions.values():
            if self._space.active(dimension, sample):
                name = dimension.name
                there = name in kept and dimension.contains(kept[name])
                sample[name] = dimension.as_drawn(kept[name]) if there else dimension.draw(rng)
        return sample


def key_of(sample: Mapping[str, Any]) -> str:
    """A text that equal samples share."""
    return json.dumps(sample, sort_keys=True)
