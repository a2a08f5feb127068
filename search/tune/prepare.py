"""From flags and a space file to everything that a search needs, with every check before anything is spent."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.runs.cost import COSTS
from search.runs.folder import find_run, free_folder
from search.runs.record import git_commit, versions
from search.space.load import load_space
from search.space.space import Space
from search.tune.estimate import sample_configs
from search.tune.study import check_cmaes
from trainable.backbones import (
    KINDS,
    SPOKEN,
    backbone,
    best_weights,
    fetch_weights,
    pretraining,
    source_hash,
    weights_here,
)
from trainable.config import TrialConfig
from trainable.data.dataset import Dataset, absolute, load_dataset
from trainable.data.duplicates import near_copies_across
from trainable.data.split import Split, split_dataset
from trainable.errors import InputError
from trainable.features.mel_cache import check_front_end
from trainable.files import plain_cell, safe_cell, write_atomically
from trainable.progress import Progress
from trainable.training.cost import cost_of, shown_frames
from trainable.training.network import check_shape, input_shape

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
    at_once: int | None = None
    seed: int | None = None
    swanlab: str = "auto"
    project: str = "audio-search"
    storage: str = "runs"
    address: str | None = None
    warm_start: tuple[Path, ...] = ()
    learn_from: tuple[Path, ...] = ()  # runs on other data
    dry_run: bool = False
    without: Path | None = None  # a CSV whose column path names clips to leave out
    settings: tuple[str, ...] = ()  # FIELD=VALUE


@dataclass(frozen=True)
class Prepared:
    """A search that is ready to start: nothing written yet, every input checked."""

    run: Path
    space: Space
    dataset: Dataset
    split: Split
    weights: dict[
        str, str
    ]  # backbone: audioset, imagenet, none or a path; what auto means, and else the best asked for
    notes: tuple[str, ...]  # what a person must know before it starts


def prepare(options: Options, progress: Progress | None = None) -> Prepared:
    """Checks everything that can be checked before a search starts.

    Raises:
        InputError: the space file, the data, the weights or the run's place are not as they must be.
    """
    space = _load(options, options.epochs)
    check_cmaes(space)
    check_learning(space, options.learn_from)
    run = free_folder(options.storage, options.name, options.space)
    data, notes = choose_data(options.data, space.fixed.get("data"))
    dataset = load_dataset(data, progress, space.fixed.get("group_column"))
    if options.without is not None:
        data, left_out = leave_out(dataset, options.without, space.fixed.get("group_column"))
        dataset = load_dataset(data, progress, space.fixed.get("group_column"))
        notes += (f"{left_out} clips are left out by {options.without}; the list of the others is {data}",)
    space = space.with_fixed(data=absolute(data))  # workers start in other folders
    split = split_dataset(dataset, space.default_config())
    check_folds(space, dataset)
    near = near_copies_across(dataset, split, progress) if data != "demo" else ()  # a test holds that it has none
    check_front_ends(space, dataset)
    check_constraints(space, dataset)
    try_weights(space.weights_by_backbone(), progress)
    space, weightless = with_weights_at_hand(space)
    check_networks(space, dataset)
    weights, missing = resolve_weights(space.weights_by_backbone(), progress)
    notes += (*weightless, *without_weights(missing))
    return Prepared(run, space, dataset, split, weights, (*notes, *silent_defaults(space, split), *near))


def _load(options: Options, epochs: int | None) -> Space:
    return load_space(
        options.space, trials=options.trials, epochs=epochs, time_budget=options.time_budget,
        gpus_per_trial=options.gpus_per_trial, cpus_per_trial=options.cpus_per_trial, at_once=options.at_once,
        seed=options.seed, settings=options.settings,
    )  # fmt: skip


def lengthened(prepared: Prepared, options: Options, epochs: int) -> Space:
    """The prepared space as if --epochs had been given."""
    return with_weights_at_hand(_load(options, epochs).with_fixed(data=prepared.space.fixed["data"]))[0]


def affordable(space: Space, dataset: Dataset) -> Callable[[TrialConfig], bool]:
    """A function that says whether a configuration keeps the space's constraints on this machine."""
    limits = space.constraints.limits
    timed = "latency_ms" in limits

    def keeps(config: TrialConfig) -> bool:
        cost = dataclasses.asdict(cost_of(config, dataset, timed))
        return all(cost[name] <= limit for name, limit in limits.items())

    return keeps


def check_constraints(space: Space, dataset: Dataset) -> None:
    """Refuses constraints that hardly anything in the space keeps.

    Raises:
        InputError: no configuration of those drawn at random keeps them; with the cheapest that was met.
    """
    limits = space.constraints.limits
    if not limits or not space.dimensions:
        return
    configs = {(config.backbone, config.image_size): config for config in sample_configs(space)}
    keeps = affordable(space, dataset)
    if any(keeps(config) for config in configs.values()):
        return
    costs = [dataclasses.asdict(cost_of(config, dataset, "latency_ms" in limits)) for config in configs.values()]
    least = ", ".join(f"{name} {COSTS[name].said(min(cost[name] for cost in costs))}" for name in limits)
    raise InputError(
        f"{space.source}: constraints: must allow some configuration of the space, got none among "
        f"{len(configs)} of its networks (the least that they need: {least}). Raise a limit, or search smaller ones."
    )


def check_folds(space: Space, dataset: Dataset) -> None:
    """Refuses more folds than the clips that are not tested make.

    Raises:
        InputError: with what the first fold that cannot be needs.
    """
    config = space.default_config()
    for fold in range(1, (space.budget.folds or 1) + 1):
        try:
            split_dataset(dataset, config.model_copy(update={"val_fold": fold}))
        except InputError as error:
            raise InputError([f"{space.source}: budget.folds: {problem}" for problem in error.problems]) from None


def silent_defaults(space: Space, split: Split) -> tuple[str, ...]:
    """What a space of one's own leaves to defaults that few would choose, a sentence each.

    The defaults are the tutorial's simple recipe, which has no test clips and a mel without a logarithm.
    """
    said = {*space.fixed, *space.dimensions}
    if not space.dimensions:  # baselines alone say all of it themselves
        return ()
    notes = []
    if not len(split.test) and "test_share" not in said:
        notes.append(
            "no clips are set aside for a test, so the result can only be called optimistic: put test_share: 0.2 under "
            "fixed, or retrain with --protocol folds"
        )
    if "scale" not in said and space.default_config().scale == "power":  # a network with a front end has its own
        notes.append(
            "scale is left at power, the tutorial's mel without a logarithm: put scale: log under fixed, or search it"
        )
    return tuple(notes)


def leave_out(dataset: Dataset, without: Path, group_column: str | None = None) -> tuple[str, int]:
    """A CSV beside `without` that lists the data set's clips but those that it names, and how many those are.

    Raises:
        InputError: it cannot be read, has no column path, or names what the data set does not hold.
    """
    try:
        with without.open(newline="", encoding="utf-8-sig") as file:
            rows = [
                {name: plain_cell(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--without: must be a CSV in UTF-8, got {without} ({error}). Check the path.") from None
    if rows and "path" not in rows[0]:
        raise InputError(
            f"--without: {without} must have a column path, got {', '.join(map(str, rows[0]))}. Name it so."
        )
    names = {clip.name: clip for clip in dataset.clips} | {clip.place: clip for clip in dataset.clips}
    unknown = [row["path"] for row in rows if row["path"] not in names]
    if unknown:
        raise InputError(
            f"--without: {without} must name clips of {dataset.name}, got {len(unknown)} that it does not hold, "
            f"such as {unknown[0]!r}. Give the list of this data set."
        )
    gone = {names[row["path"]].name for row in rows}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    kept = [clip for clip in dataset.clips if clip.name not in gone]
    columns = [name for name in ("group", "split", "fold") if any(getattr(clip, name) is not None for clip in kept)]
    stretches = ["start", "end"] if any(clip.stretch for clip in kept) else []
    table.writerow(
        ["path", "label", *(group_column or "group" if name == "group" else name for name in columns), *stretches]
    )
    for clip in kept:
        values = (*(getattr(clip, name) for name in columns), *((clip.stretch or (None, None)) if stretches else ()))
        cells = [clip.path, dataset.labels[clip.label], *("" if value is None else value for value in values)]
        table.writerow(map(safe_cell, cells))
    target = without.with_name(f"{without.stem}.kept.csv")
    write_atomically(target, text.getvalue())
    return str(target), len(gone)


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


def check_networks(space: Space, dataset: Dataset) -> None:
    """Tries somebody's own networks, and timm's, on inputs as the shortest and the longest clip give them.

    torchvision's and the AudioSet networks are known to take what their records say.

    Raises:
        InputError: one does not take them, or answers with something else than a logit per class.
    """
    order = sorted(range(len(dataset.clips)), key=lambda index: dataset.clips[index].seconds)
    tried: set[tuple[Any, ...]] = set()
    problems: dict[str, None] = {}
    for config in first_configs(space):
        if ":" not in config.backbone:
            continue
        for frames in dict.fromkeys(shown_frames(dataset, clip, config) for clip in (order[0], order[-1])):
            shape = (config.backbone, config.input_channels, *input_shape(config, frames))
            if shape in tried:
                continue
            tried.add(shape)
            try:
                check_shape(config, len(dataset.labels), frames)
            except InputError as error:
                problems.update(dict.fromkeys(f"{space.source}: {problem}" for problem in error.problems))
    if problems:
        raise InputError(list(problems))


def try_weights(wanted: Iterable[tuple[str, str]], progress: Progress | None) -> None:
    """Downloads what `wanted`, pairs of a backbone and its wish, may start from, as far as it can be had.

    In one call, which waits for a dead network only once. What is missing then, the others here deal with.
    """
    with suppress(InputError):
        fetch_weights(
            [(name, kind) for name, wish in wanted if (kind := _hoped_for(name) if wish == "auto" else wish) in KINDS],
            progress,
        )


def _hoped_for(name: str) -> str:
    """The kind of weights that `auto` would like best for a backbone."""
    published = backbone(name).weights
    return published[0].kind if published else "none"


def with_weights_at_hand(space: Space) -> tuple[Space, tuple[str, ...]]:
    """The space without what has no point for want of weights, and a sentence for each kind of them.

    That is a baseline whose weights cannot be had, be it by name or because only AudioSet has taught its network, and
    such a network among the choices of a space. Where nothing else is left, all of it stays: it is an error by name,
    and random weights otherwise.
    """
    gone: dict[tuple[str, str], list[str]] = {}
    for baseline in space.baselines:
        name, wish = baseline.values["backbone"], baseline.values["weights"]
        if lacking := _lacks(name, wish):
            gone.setdefault((name, lacking), []).append(baseline.name)
    searched = [name for name, wish in space.searched_weights() if wish == "auto" and _lacks(name, wish)]
    choices = space.dimensions["backbone"].corners() if "backbone" in space.dimensions else ()
    searched = list(dict.fromkeys(searched)) if set(choices) - set(searched) else []
    reduced = space.without(searched, [name for names in gone.values() for name in names])
    if not (reduced.dimensions or reduced.baselines):
        return space, ()
    notes = []
    for name, kind in dict.fromkeys([*gone, *((name, _hoped_for(name)) for name in searched)]):
        lost = ["it is not searched"] if name in searched else []
        lost += [f"the baseline {each} is left out" for each in gone.get((name, kind), [])]
        notes.append(f"no {SPOKEN[kind]} weights for {name}, so {' and '.join(lost)}")
    return reduced, tuple(notes)


def _lacks(name: str, wish: str) -> str:
    """The kind of weights that a backbone needs for this wish and that is not here; "" where there is none."""
    kind = _hoped_for(name) if wish == "auto" else wish
    needed = kind in KINDS if wish != "auto" else kind == "audioset"
    return kind if needed and not weights_here(name, kind) else ""


def resolve_weights(
    wanted: Iterable[tuple[str, str]], progress: Progress | None
) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """What `weights: auto` means for each backbone, or else the best that is asked for; and what auto cannot have.

    The latter are pairs of a backbone and the kind that is missing. `wanted` are pairs of a backbone and its wish;
    `try_weights` has fetched what they hope for.

    Raises:
        InputError: what is asked for by name cannot be had.
    """
    wanted = tuple(wanted)
    fetch_weights(sorted((name, kind) for name, kind in wanted if kind in KINDS), progress)
    hopeful = sorted({name for name, wish in wanted if wish == "auto"})
    resolved = {}
    for name in dict.fromkeys(name for name, _ in wanted):
        wishes = [wish for other, wish in wanted if other == name]
        resolved[name] = best_weights(name) if "auto" in wishes else min(wishes, key=_strength)
    first = {name: kind for name in hopeful if (kind := _hoped_for(name)) in KINDS}
    return resolved, tuple((name, kind) for name, kind in first.items() if resolved[name] != kind)


def _strength(weights: str) -> int:
    """The place of a kind of weights among all, the best first; one's own come before published ones."""
    order = ("", *KINDS, "none")
    return order.index(weights) if weights in order else 0


def without_weights(missing: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """What a person must know of the weights that `auto` could not have, a sentence for each kind."""
    by_kind: dict[str, list[str]] = {}
    for name, kind in missing:
        by_kind.setdefault(kind, []).append(name)
    return tuple(
        f"no {SPOKEN[kind]} weights for {', '.join(names)}: these start from random weights, which costs accuracy"
        for kind, names in by_kind.items()
    )


def settle(config: TrialConfig, weights: Mapping[str, str]) -> TrialConfig:
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


def own_sources(backbones: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of the file of each backbone that somebody has written."""
    return {name: digest for name in backbones if (digest := source_hash(name))}


def hash_of(file: Path) -> str:
    """The start of a file's SHA-256."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def record(prepared: Prepared, options: Options, mirror: dict[str, Any], hardware: dict[str, Any]) -> dict[str, Any]:
    """What goes into run.json: all that someone needs to repeat the search."""
    dataset, split = prepared.dataset, prepared.split
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "space_file": str(options.space),
        "space": prepared.space.to_json(),
        "space_hash": hash_of(Path(prepared.space.source)),
        "data": {
            "path": prepared.space.fixed["data"], "group_column": prepared.space.fixed.get("group_column"),
            "name": dataset.name, "hash": dataset.hash,
            "clips": len(dataset.clips), "labels": list(dataset.labels), "rejected": len(dataset.rejected),
            "groups": len({clip.group for clip in dataset.clips if clip.group is not None}),
        },
        "split": {
            "name": split.name, "hash": split.hash, "train": len(split.train), "val": len(split.val),
            "test": len(split.test), "notes": list(split.notes),
        },
        "seed": prepared.space.searcher.seed,
        "weights": prepared.weights,
        "pretraining": {name: ", ".join(pretraining(name, kind)) for name, kind in prepared.weights.items()},
        "own_backbones": own_sources(prepared.weights),
        "mirror": mirror,
        "warm_start": [str(find_run(path, options.storage).resolve()) for path in options.warm_start],
        "learn_from": [str(find_run(path, options.storage).resolve()) for path in options.learn_from],
        "notes": list(prepared.notes),
        "versions": versions(),
        "git_commit": git_commit(),
        "hardware": hardware,
    }  # fmt: skip
