"""What `retrain` is going to do: which configurations, on which seeds, scored on which clips; nothing is done yet."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from search.runs.cost import COSTS, front_of
from search.runs.data import same_dataset
from search.runs.run import Best, RunFolder
from search.space.space import Space
from search.tune.prepare import resolve_weights, settle, try_weights
from trainable.backbones import SPOKEN
from trainable.config import RECIPES, SHARED_FIELDS, TrialConfig
from trainable.data.dataset import Dataset, absolute
from trainable.data.split import Split, fold_splits, split_dataset
from trainable.errors import InputError, did_you_mean
from trainable.files import read_mapping
from trainable.progress import Progress
from trainable.training.network import checked_config

Protocol = Literal["holdout", "folds"]
TrainOn = Literal["train", "train+val"]
SEEDS: dict[Protocol, int] = {"holdout": 5, "folds": 3}  # with folds each seed costs a training per fold
TOP: dict[Protocol, int] = {"holdout": 3, "folds": 1}  # with folds nothing is left that could choose among several


@dataclass(frozen=True)
class RetrainOptions:
    """The flags of `retrain`; None means the protocol's own."""

    top: int | None = None  # so many of the search's best configurations
    trial: int | None = None  # instead: this one
    pareto: str | None = None  # instead: the front of best trade-offs of accuracy and this cost
    config: Path | None = None  # instead: any configuration, such as best.yaml
    baseline: str | None = None  # what to compare with; None: the best of the run's baselines
    seeds: int | None = None
    epochs: int | None = None  # another horizon than the search's
    protocol: Protocol = "holdout"
    train_on: TrainOn = "train"
    save_ensemble: bool = False  # hand over the ensemble of seeds beside the single model


@dataclass(frozen=True)
class Candidate:
    """A configuration that is retrained."""

    name: str  # "trial 17", a baseline's name, or a file's
    config: TrialConfig
    searched: float | None = None  # the search's best validation accuracy of it, fraction
    trial: int | None = None  # its number in the search


@dataclass(frozen=True)
class Job:
    """One training: a candidate with one seed, on one part of the clips."""

    candidate: str
    seed: int
    config: TrialConfig

    @property
    def name(self) -> str:
        """What the journal, the console and SwanLab call it."""
        on = self.config.train_on
        part = "" if on == "train" else f", {f'fold {self.config.fold}' if on == 'other-folds' else on}"
        return f"{self.candidate}, seed {self.seed}{part}"


@dataclass(frozen=True)
class Plan:
    """All that is fixed before anything is trained."""

    options: RetrainOptions
    candidates: tuple[Candidate, ...]  # the search's order, best first
    baseline: Candidate  # may be one of the candidates
    seeds: tuple[int, ...]  # none of them was used by the search: its lucky draw is not drawn again
    dataset: Dataset
    split: Split  # the search's own
    folds: int  # 0 without the folds protocol
    weights: dict[str, str]  # backbone: imagenet or none, as far as the configurations use weights at all
    notes: tuple[str, ...]  # what a person must know before it starts

    @property
    def all_candidates(self) -> tuple[Candidate, ...]:
        """The candidates, and the baseline where it is none of them."""
        return (*self.candidates, *([] if self.baseline in self.candidates else [self.baseline]))

    def jobs(self, candidates: Iterable[Candidate], **changes: Any) -> list[Job]:
        """One job per candidate and seed, with `changes` to the configuration."""
        return [Job(each.name, seed, changed(each, seed=seed, **changes)) for each in candidates for seed in self.seeds]


def make_plan(run: RunFolder, options: RetrainOptions, progress: Progress | None = None) -> Plan:
    """The plan for a run.

    Raises:
        InputError: the flags, the run, its data or the weights do not allow it.
    """
    _check_flags(options)
    shared = _shared(run)
    candidates = _stretched(run, options, _candidates(run, options, shared))
    baseline = next(iter(_stretched(run, options, (_baseline(run, options.baseline, shared),))))
    dataset = same_dataset(run, progress)
    config = candidates[0].config
    split = split_dataset(dataset, config)
    if options.train_on == "train+val" and options.protocol == "holdout" and not len(split.test):
        raise InputError(
            "--train-on: train+val leaves no clips to measure on, because this search has no test share. "
            "Search with test_share above 0, or use --protocol folds."
        )
    folds = len(fold_splits(dataset, config)) if options.protocol == "folds" else 0
    wanted = (*candidates, baseline)
    wishes = [(each.config.backbone, each.config.weights) for each in wanted]
    try_weights(wishes, progress)
    weights, without = resolve_weights(wishes, progress)
    notes = tuple(
        f"no {SPOKEN[kind]} weights for {name}: {each.name} starts from {SPOKEN[weights[name]]} weights and is worse "
        "for it"
        for each in wanted
        for name, kind in without
        if each.config.weights == "auto" and each.config.backbone == name
    )
    *settled, baseline = (replace(each, config=settle(each.config, weights)) for each in wanted)
    candidates = tuple(settled)
    baseline = next((each for each in candidates if each.config == baseline.config), baseline)
    used = {trial.config.get("seed") for trial in run.trials}
    fresh = (seed for seed in itertools.count(1) if seed not in used)
    seeds = tuple(itertools.islice(fresh, options.seeds or SEEDS[options.protocol]))
    return Plan(options, candidates, baseline, seeds, dataset, split, folds, weights, notes)


def changed(candidate: Candidate, **changes: Any) -> TrialConfig:
    """The candidate's configuration with other values, checked."""
    return checked_config({**candidate.config.to_json(), **changes}, source=candidate.name)


def _check_flags(options: RetrainOptions) -> None:
    given = [flag for flag in ("top", "trial", "config", "pareto") if getattr(options, flag) is not None]
    problems = []
    if len(given) > 1:
        problems.append(f"--{given[1]}: cannot be used together with --{given[0]}. Leave one of them out.")
    for flag in ("top", "seeds", "epochs"):
        value = getattr(options, flag)
        if value is not None and value < 1:
            problems.append(f"--{flag}: must be at least 1, got {value}. Raise it.")
    if problems:
        raise InputError(problems)


def _shared(run: RunFolder) -> dict[str, Any]:
    """The values of the fields that all trials of the run share."""
    if not run.trials:
        raise InputError(f"{run.path}: must have trials to retrain, got none. Resume the search first.")
    first = checked_config(run.trials[0].config, source=f"{run.path}: trial 0").to_json()
    return {field: first[field] for field in SHARED_FIELDS}


def _candidates(run: RunFolder, options: RetrainOptions, shared: dict[str, Any]) -> tuple[Candidate, ...]:
    ranked = run.ranked()
    if options.config is not None:
        return (_from_file(options.config, shared),)
    if options.trial is not None:
        return (_from_trial(run, options.trial, ranked),)
    if not ranked:
        raise InputError(
            f"{run.path}: no trial has got past the grace period, so none is best. Resume the search, or name --trial."
        )
    if options.pareto is not None:
        return _front(run, options.pareto)
    top = options.top if options.top is not None else TOP[options.protocol]
    chosen: list[Candidate] = []
    for best in ranked:
        candidate = _of(best)
        # A space without conditions can propose the same values twice; one of them is enough.
        if len(chosen) < top and all(candidate.config != other.config for other in chosen):
            chosen.append(candidate)
    return tuple(chosen)


def _front(run: RunFolder, cost: str) -> tuple[Candidate, ...]:
    """The front of best trade-offs, best accuracy first."""
    if cost not in COSTS:
        raise InputError(f"--cost: must be a cost that trials note, got {cost!r}. {did_you_mean(cost, tuple(COSTS))}")
    front = front_of(run, cost)
    if not front:
        raise InputError(f"--pareto: needs trials whose {cost} is known, got none in {run.path}. Use --top instead.")
    return tuple(_of(best) for best, _ in reversed(front))


def _from_file(path: Path, shared: dict[str, Any]) -> Candidate:
    """The configuration in a file, on the clips of the search."""
    values = read_mapping(path)
    config = checked_config({**shared, **values}, source=str(path))
    config = config.model_copy(update={"data": absolute(config.data)})
    problems = [
        f"{path}: {field}: must be {value!r} as in the search, or other clips would be scored, "
        f"got {getattr(config, field)!r}. Leave it out."
        for field, value in shared.items()
        if getattr(config, field) != value
    ]
    if problems:
        raise InputError(problems)
    return Candidate(path.name, config)


def _from_trial(run: RunFolder, number: int, ranked: list[Best]) -> Candidate:
    trial = run.journal.trials.get(number)
    if trial is None:
        raise InputError(f"--trial: must be one of 0 to {len(run.trials) - 1}, got {number}. See trials.csv.")
    number = trial.first  # the same configuration
    trial = run.journal.trials[number]
    best = next((best for best in ranked if best.trial.number == number), None)
    return _of(best) if best else Candidate(_name(number, trial.name), checked_config(trial.config), None, number)


def _of(best: Best) -> Candidate:
    number = best.trial.number
    config = checked_config(best.trial.config, source=f"trial {number}")
    return Candidate(_name(number, best.trial.name), config, best.accuracy, number)


def _name(number: int, name: str) -> str:
    return name or f"trial {number}"


def _baseline(run: RunFolder, name: str | None, shared: dict[str, Any]) -> Candidate:
    """The run's baseline of that name, or the best of them; where it has none, the tutorial's simple recipe."""
    if name is not None:
        return _named_baseline(run, name)
    best = next((best for best in run.ranked() if best.trial.kind == "baseline"), None)
    if best:
        return _of(best)
    first = next((trial for trial in run.trials if trial.kind == "baseline"), None)
    if first:
        return Candidate(first.name, checked_config(first.config, source=first.name), None, first.number)
    own = checked_config(run.trials[0].config, source=f"{run.path}: trial 0").to_json()
    machine = {field: own[field] for field in ("device", "precision", "channels_last", "compile")}
    values = {**RECIPES["tutorial-simple"], "weights": "auto", **shared, **machine}
    return Candidate("tutorial-simple", checked_config(values, source="tutorial-simple"))


def _named_baseline(run: RunFolder, name: str) -> Candidate:
    baselines = {trial.name: trial for trial in run.trials if trial.kind == "baseline"}
    if name not in baselines:
        way_out = did_you_mean(name, tuple(baselines)) if baselines else "It has none: leave --baseline out."
        raise InputError(f"--baseline: must be one of the run's baselines, got {name!r}. {way_out}")
    return _from_trial(run, baselines[name].number, run.ranked())


def _stretched(run: RunFolder, options: RetrainOptions, candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """The candidates on the horizon of --epochs."""
    if options.epochs is None:
        return candidates
    space = replace(Space.from_json(run.record["space"]), epochs=options.epochs)
    return tuple(
        replace(each, config=checked_config(space.stretched(each.config.to_json()), source=each.name))
        for each in candidates
    )
