"""From flags and a space file to everything that a search needs, with every check before anything is spent."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.runs.folder import free_folder
from search.runs.record import git_commit, versions
from search.space.load import load_space
from search.space.space import Space
from search.tune.study import check_cmaes
from trainable.backbones.weights import fetch_weights, weights_available
from trainable.config import TrialConfig
from trainable.data.dataset import Dataset, absolute, load_dataset
from trainable.data.split import Split, split_dataset
from trainable.errors import InputError
from trainable.features.mel_cache import check_front_end
from trainable.progress import Progress

GTZAN_FOLDER = "GTZAN/genres_original"  # where `data gtzan GTZAN` puts it


@dataclass(frozen=True)
class Options:
    """The flags of a search; None means "not given"."""

    space: Path
    data: str | None = None
    name: str | None = None
    trials: int | None = None
    epochs: int | None = None
    time_budget: str | None = None
    gpus_per_trial: float | None = None
    cpus_per_trial: float | None = None
    seed: int | None = None
    swanlab: str = "auto"
    project: str = "audio-search"
    storage: str = "runs"
    address: str | None = None
    warm_start: tuple[Path, ...] = ()
    learn_from: tuple[Path, ...] = ()  # runs on other data
    dry_run: bool = False
    settings: tuple[str, ...] = ()  # FIELD=VALUE


@dataclass(frozen=True)
class Prepared:
    """A search that is ready to start: nothing written yet, every input checked."""

    run: Path
    space: Space
    dataset: Dataset
    split: Split
    weights: dict[str, str]  # backbone: imagenet or none, as far as the space uses weights at all
    notes: tuple[str, ...]  # what a person must know before it starts


def prepare(options: Options, progress: Progress | None = None) -> Prepared:
    """Checks everything that can be checked before a search starts.

    Raises:
        InputError: the space file, the data, the weights or the run's place are not as they must be.
    """
    space = load_space(
        options.space, trials=options.trials, epochs=options.epochs, time_budget=options.time_budget,
        gpus_per_trial=options.gpus_per_trial, cpus_per_trial=options.cpus_per_trial, seed=options.seed,
        settings=options.settings,
    )  # fmt: skip
    check_cmaes(space)
    check_learning(space, options.learn_from)
    run = free_folder(options.storage, options.name, options.space)
    data, notes = choose_data(options.data, space.fixed.get("data"))
    dataset = load_dataset(data, progress)
    space = space.with_fixed(data=absolute(data))  # workers start in other folders
    split = split_dataset(dataset, space.default_config())
    check_front_ends(space, dataset)
    weights, missing = resolve_weights(space.weights_by_backbone(), progress)
    if missing:
        notes += (
            f"no ImageNet weights for {', '.join(missing)}: these start from random weights, which costs accuracy",
        )
    return Prepared(run, space, dataset, split, weights, notes)


def check_learning(space: Space, runs: Sequence[Path]) -> None:
    """Refuses to learn from earlier runs where nobody would listen.

    Raises:
        InputError: the space draws at random or by CMA-ES, or there is nothing to search.
    """
    if not runs:
        return
    if space.searcher.kind != "tpe":
        raise InputError(
            f"--learn-from: needs searcher.kind tpe, got {space.searcher.kind} in {space.source}. Leave one out."
        )
    if not space.dimensions:
        raise InputError(f"--learn-from: needs something to search, got none in {space.source}. Leave it out.")


def choose_data(given: str | None, fixed: str | None) -> tuple[str, tuple[str, ...]]:
    """The data set to use, and what to say where nobody named one."""
    if given or fixed:
        return str(given or fixed), ()
    if Path(GTZAN_FOLDER).is_dir():
        return GTZAN_FOLDER, (f"no --data given: using {GTZAN_FOLDER}",)
    return "demo", ("no --data given and no GTZAN here: using the built-in DEMO set of synthetic clips",)


def check_front_ends(space: Space, dataset: Dataset) -> None:
    """Refuses front ends that the space may suggest and these clips do not allow.

    Raises:
        InputError: with every problem once.
    """
    problems: dict[str, None] = {}
    for config in first_configs(space):
        try:
            check_front_end(dataset, config)
        except InputError as error:
            problems.update(dict.fromkeys(f"{space.source}: {problem}" for problem in error.problems))
    if problems:
        raise InputError(list(problems))


def resolve_weights(wanted: Mapping[str, str], progress: Progress | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """What the `weights` that each backbone wants come down to, and those that `auto` leaves without ImageNet's.

    Raises:
        InputError: `imagenet` is asked for and cannot be had.
    """
    fetch_weights(sorted(name for name, weights in wanted.items() if weights == "imagenet"), progress)
    # "auto" means exactly this: without, and said in the header. In one call, which waits for a dead network only once.
    with suppress(InputError):
        fetch_weights(sorted(name for name, weights in wanted.items() if weights == "auto"), progress)
    resolved = {
        name: "none" if weights == "none" or not weights_available(name) else "imagenet"
        for name, weights in wanted.items()
    }
    return resolved, tuple(sorted(n for n, w in wanted.items() if w == "auto" and resolved[n] == "none"))


def settle(config: TrialConfig, weights: dict[str, str]) -> TrialConfig:
    """The configuration with `weights: auto` replaced by what this search has."""
    if config.weights != "auto":
        return config
    return config.model_copy(update={"weights": weights[config.backbone]})


def first_configs(space: Space) -> list[TrialConfig]:
    """The baselines' configurations, and those in which one dimension at a time leaves its usual value."""
    configs = [TrialConfig.parse(baseline.values, source=baseline.name) for baseline in space.baselines]
    usual = space.usual_sample()
    for dimension in space.dimensions.values():
        for value in dimension.corners() if dimension.name in usual else ():
            try:
                configs.append(space.config({**usual, dimension.name: value}))
            except InputError:  # this value asks for others than the usual ones beside it
                continue
    return configs


def record(prepared: Prepared, options: Options, mirror: dict[str, Any], hardware: dict[str, Any]) -> dict[str, Any]:
    """What goes into run.json: all that someone needs to repeat the search."""
    dataset, split = prepared.dataset, prepared.split
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "space_file": str(options.space),
        "space": prepared.space.to_json(),
        "data": {
            "path": prepared.space.fixed["data"], "name": dataset.name, "hash": dataset.hash,
            "clips": len(dataset.clips), "labels": list(dataset.labels), "rejected": len(dataset.rejected),
        },
        "split": {
            "name": split.name, "hash": split.hash, "train": len(split.train), "val": len(split.val),
            "test": len(split.test), "notes": list(split.notes),
        },
        "seed": prepared.space.searcher.seed,
        "weights": prepared.weights,
        "mirror": mirror,
        "warm_start": [str(path.resolve()) for path in options.warm_start],
        "learn_from": [str(path.resolve()) for path in options.learn_from],
        "notes": list(prepared.notes),
        "versions": versions(),
        "git_commit": git_commit(),
        "hardware": hardware,
    }  # fmt: skip
