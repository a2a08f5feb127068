"""A search from flags or from an old run folder to its summary and exit code, and what it leaves behind."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from search.commands.session import (
    EXIT_DONE,
    Ending,
    Session,
    check_every_node,
    exit_code,
    note_stop,
    trials_at_once,
    why,
    without_harm,
)
from search.console.console import Console
from search.console.steps import Steps
from search.console.table import terminal
from search.console.time_left import Plan
from search.mirror.mode import ResolvedMode, resolve_again, resolve_mode
from search.report.report import write_report
from search.retrain.trust import candidates_of, margin_on_folds, trust
from search.runs.data import move_data, same_dataset
from search.runs.folder import find_run, new_run, only_driver, sole_run
from search.runs.format import conditions_of, folds_in_words
from search.runs.gain import Prospect
from search.runs.journal import Journal
from search.runs.run import RunFolder, load_run, need_whole, next_repeat
from search.runs.tables import TrialsTable, write_trials_csv
from search.space.load import Flags, given, with_flags
from search.space.space import Space
from search.tune.cluster import Machines, check_device, connected, fit_resources, hide_gpus
from search.tune.estimate import estimate, render, sample_configs
from search.tune.fit import Clips, Limit, bought_in_words, measure, purchase, within
from search.tune.lessons import told
from search.tune.prepare import (
    Options,
    Prepared,
    affordable,
    first_configs,
    hash_of,
    lengthened,
    prepare,
    record,
    settle,
)
from search.tune.scheduler import JournalASHA
from search.tune.searcher import StudySearch
from search.tune.stop import Stop
from search.tune.study_file import StudyFile, write_study
from trainable.commands import typed
from trainable.config import TrialConfig
from trainable.data.dataset import load_dataset
from trainable.errors import InputError
from trainable.features.mel_cache import mel_key, mels_of
from trainable.files import write_atomically
from trainable.progress import Progress
from trainable.training.timing import seconds_per_epoch

_USED_UP = "every configuration of the space has been tried"
LEFT_AT_THE_END = ("trials.csv", "study.db", "report.html")


@dataclass(frozen=True)
class Searching:
    """What a driver needs to know to run, or run on, a search."""

    run: RunFolder
    space: Space
    machines: Machines
    mode: ResolvedMode
    warm_start: tuple[RunFolder, ...] = ()
    learn_from: tuple[RunFolder, ...] = ()
    retry: tuple[int, ...] = ()  # trials that have failed and are to go on
    time_left: float | None = None  # s
    notes: tuple[str, ...] = ()
    new_time_budget: float | None = None  # s, from now on

    @property
    def session(self) -> Session:
        """The driver's session, with what it trains in words."""
        space = self.space
        task = f"{len(space.dimensions)} dimensions, {space.trials} trials of up to {space.max_epochs} epochs"
        if space.trials < space.budget.trials:
            task += f" (the space has no more, of {space.budget.trials} asked for)"
        if space.budget.folds:
            task += f", and repeats of the leaders on up to {space.budget.folds} folds"
        return Session(
            self.run, f"{self.run.record['space_file']}: {task}", space.resources, self.machines, self.mode, self.notes
        )


def search(options: Options) -> int:
    """Runs a new search and returns the exit code.

    Raises:
        InputError: an input is wrong; then nothing has been written.
    """
    warm_start, learn_from = (_each_once(paths, options.storage) for paths in (options.warm_start, options.learn_from))
    with Steps() as progress:
        prepared = prepare(options, progress)
    mode = resolve_mode(options.swanlab, prepared.run, options.project)
    with connected(options.address) as machines:
        resources, notes = fit_resources(
            prepared.space.resources, machines, options.gpus_per_trial, options.cpus_per_trial
        )
        space = replace(prepared.space, resources=resources)
        _check_devices(space, machines)
        started = time.monotonic()
        space, limit, bought = _within_budget(space, prepared, options, machines)
        prepared = replace(prepared, space=replace(space, resources=prepared.space.resources),
                           notes=(*prepared.notes, *bought))  # fmt: skip
        # The resources as they are wished for: whoever resumes or retrains elsewhere gets what is there.
        content = record(prepared, options, mode.to_json(), machines.to_json(resources))
        content["time_limit"] = limit and asdict(limit)
        if options.dry_run:
            run = RunFolder(prepared.run, content, Journal(prepared.run / "events.jsonl"))
            return _dry_run(Searching(run, space, machines, mode, notes=notes))
        with new_run(prepared.run, content, options.storage) as run, only_driver(run.path):
            check_every_node(run, machines)
            left = space.budget.time and max(1.0, space.budget.time - (time.monotonic() - started))
            return _search(Searching(run, space, machines, mode, warm_start, learn_from, (), left, notes))


def _within_budget(
    space: Space, prepared: Prepared, options: Options, machines: Machines
) -> tuple[Space, Limit | None, tuple[str, ...]]:
    """The space as its time budget can hold it, what a proposal may take, and what a person must know of both."""
    seconds, at_once = space.budget.time, trials_at_once(machines, space.resources)
    if seconds is None:
        return space, None, ()
    clips = Clips.of(prepared.dataset, prepared.split)
    samples = sample_configs(space) if space.dimensions else []
    try:
        with Steps() as progress:
            paces = measure(space, samples, clips, len(prepared.dataset.labels), seconds, machines, progress)
    except InputError as error:
        return space, None, (f"what the time budget buys is not known: {error}",)
    bought = purchase(space, samples, clips, paces, at_once, seconds)
    fitting = within(space, bought, lambda epochs: lengthened(prepared, options, epochs))
    return fitting, bought.limit, (bought_in_words(bought, space, seconds),)


def _each_once(paths: Iterable[Path], storage: str = "runs") -> tuple[RunFolder, ...]:
    found = [find_run(path, storage) for path in paths]
    return tuple(load_run(path) for path in {path.resolve(): path for path in found}.values())


@dataclass(frozen=True)
class ResumeOptions:
    """The flags of `resume`; None means "as before"."""

    trials: int | None = None  # the new total
    data: str | None = None  # where the data set lies by now
    time_budget: str | None = None  # from now on
    gpus_per_trial: float | None = None
    cpus_per_trial: float | None = None
    swanlab: str | None = None
    address: str | None = None
    retry_failed: bool = False  # takes up again what has failed, too, but for values that do not go together
    at_once: int | None = None  # trials at a time, at most


def resume(path: Path, options: ResumeOptions) -> int:
    """Runs an interrupted or finished search on and returns the exit code.

    Raises:
        InputError: there is no such run, another driver has it, its data has changed, or there is nothing left to do.
    """
    with sole_run(path) as run:
        return _resume(run, options)


def _resume(run: RunFolder, options: ResumeOptions) -> int:
    need_whole(run)
    space, trials = Space.from_json(run.record["space"]), options.trials
    if trials is None:  # an extension that was interrupted is still one
        trials = run.journal.sessions[-1].get("trials") if run.journal.sessions else None
    elif trials < run.journal.configurations:
        raise InputError(
            f"--trials: is the new total and must be at least what there is ({run.journal.configurations}), "
            f"got {trials}. "
            "Raise it."
        )
    gpus, cpus = options.gpus_per_trial, options.cpus_per_trial
    space = with_flags(
        space, Flags(trials=trials, time_budget=options.time_budget, gpus_per_trial=gpus, cpus_per_trial=cpus)
    )
    # What a search leaves at its end is made by whoever comes next, where it was killed before or its disk was full.
    closed = run.journal.stop_reason is not None and all((run.path / name).exists() for name in LEFT_AT_THE_END)
    failed = tuple(trial.number for trial in run.trials if trial.status == "failed" and not trial.refused)
    retry = failed if options.retry_failed else ()
    used_up = run.journal.stop_reason == _USED_UP
    done = run.journal.configurations >= space.trials or used_up
    folds = space.budget.folds
    confirmed = folds is None or next_repeat(run.trials, run.grace_epochs, folds) is None
    if not run.journal.unfinished and not retry and done and confirmed and closed:
        raise InputError(_nothing_left(run, space, len(failed)))
    with Steps() as progress:
        if options.data is None:
            same_dataset(run, progress)
        else:
            run = move_data(run, options.data, progress)
            space = space.with_fixed(data=run.record["data"]["path"])
    mode = resolve_again(options.swanlab, run.record["mirror"], run.path)
    with connected(options.address) as machines:
        wanted = space.resources.model_copy(update=given(at_once=options.at_once))
        resources, notes = fit_resources(wanted, machines, gpus, cpus)
        notes += _edited(run)
        space = replace(space, resources=resources)
        _check_devices(space, machines)
        time_left = _time_left(run.journal, space.budget.time, anew=options.time_budget is not None)
        check_every_node(run, machines)
        # A driver that was killed before its first trial may not have come to learn from the others.
        warm, lessons = (
            _not_known_yet(run, key, events)
            for key, events in (("warm_start", run.journal.warm), ("learn_from", run.journal.lessons))
        )
        budget = space.budget.time if options.time_budget is not None else None
        return _search(Searching(run, space, machines, mode, warm, lessons, retry, time_left, notes, budget))


def _nothing_left(run: RunFolder, space: Space, failed: int) -> str:
    """Why there is nothing to resume, and what else can be done."""
    over = f"all {len(run.trials)} trials finished" + (f" or failed ({failed})" if failed else "")
    if space.trials == space.budget.trials and run.journal.stop_reason != _USED_UP:
        gain = Prospect(run.grace_epochs, run.trials).gain()
        promise = f" ({gain})" if gain is not None else ""
        way_out = f". To extend it: {typed('resume', run.path, '--trials', 2 * run.journal.configurations)}{promise}"
    else:
        way_out = f", and {_USED_UP}. Widen it."
    again = f"\nTo try again what failed: {typed('resume', run.path, '--retry-failed')}" if failed else ""
    return f"{run.path}: must have something left to do, got {over}{way_out}{again}"


def _edited(run: RunFolder) -> tuple[str, ...]:
    """What to say where somebody has changed the space file since the search began."""
    source = Path(run.record["space"]["source"])
    known = run.record.get("space_hash")
    if known is None or not source.is_file() or hash_of(source) == known:
        return ()
    return (
        f"{source} has been edited since this search began, which goes on with the space that it began with (space in "
        f"{run.path / 'run.json'}): to search the new one, begin a new search, with --warm-start {run.path}",
    )


def _not_known_yet(run: RunFolder, key: str, events: list[dict[str, Any]]) -> tuple[RunFolder, ...]:
    """The runs under `key` of run.json that the journal has nothing of yet; none once there are trials."""
    known = {event["run"] for event in events}
    others = [] if run.journal.trials else [other for other in run.record.get(key, []) if other not in known]
    return _each_once(Path(other) for other in others)


def _check_devices(space: Space, machines: Machines) -> None:
    """Checks that trials can have the device that the space fixes, and those that its baselines name themselves."""
    named = {space.device: "fixed.device"}
    for baseline in space.baselines:
        named.setdefault(baseline.values["device"], f"baselines.{baseline.name}.device")
    for device, key in named.items():
        check_device(device, f"{space.source}: {key}", machines, space.resources.gpu or 0)


def _dry_run(searching: Searching) -> int:
    """Prints what the search would do and what it would cost; nothing is written but caches."""
    space, weights, session = searching.space, searching.run.record["weights"], searching.session
    if not space.resources.gpu:
        hide_gpus()
    os.environ["OMP_NUM_THREADS"] = str(max(1, int(space.resources.cpu or 1)))  # as Ray will for each trial
    with Steps() as progress:
        result = estimate(space, session.at_once, lambda config: seconds_per_epoch(settle(config, weights), progress))
    screen = terminal()
    for line in session.header.lines(screen.width if screen.is_terminal else None):
        screen.print(line, soft_wrap=True)
    screen.print()
    screen.print(render(space, result))
    return EXIT_DONE


def _search(searching: Searching) -> int:
    run, space, journal, session = searching.run, searching.space, searching.run.journal, searching.session
    plan = Plan(
        space.trials, session.at_once, space.max_epochs, space.budget.grace_epochs,
        space.budget.reduction_factor if space.scheduler == "asha" else None,
        time.time() + searching.time_left if searching.time_left is not None else None, space.budget.target_accuracy,
        space.scheduling.cut_baselines, conditions_of(space.to_json()["search"]),
    )  # fmt: skip
    budget = space.budget
    stop = Stop(journal, budget.grace_epochs, searching.time_left, budget.target_accuracy, budget.gain, budget.folds)
    weights = run.record["weights"]

    refused = _refused(run, space)

    def make_searcher() -> StudySearch:
        return StudySearch(space, journal, settle=lambda config: settle(config, weights), refused=refused)

    def conclude(console: Console) -> int:
        spent = journal.configurations >= space.budget.trials
        note_stop(run, stop.reason or ("budget" if spent else _USED_UP), console.warn)
        close_run(run, space, console.warn)
        return exit_code(stop, good=run.best() is not None)

    def finish(console: Console) -> None:
        best = run.best()
        trusted = trust(run, best, candidates_of(run)).in_words() if best else ""
        margin = margin_on_folds(run)
        interrupted = stop.reason == "interrupted" or stop.trouble
        console.finish(
            run.record["split"]["val"],
            interrupted=interrupted,
            trust=trusted,
            margin=margin.in_words() if margin else "",
        )

    anew = {} if searching.new_time_budget is None else {"time_budget": searching.new_time_budget}
    with session.at_work(plan, stop, searching.retry, trials=space.budget.trials, **anew) as console:
        journal.listen(without_harm(TrialsTable(run).on_event, console.warn))
        journal.listen(without_harm(_study_file(run, space), console.warn))
        for warm in searching.warm_start:
            learned = make_searcher().add_warm(warm, run.record["split"]["hash"])
            console.warn(
                f"warm start from {learned.run}: {learned.added} trials added"
                + "".join(f"; {count} {why}" for why, count in learned.left_out.items())
                + "".join(f"; {note}" for note in learned.notes)
            )
        for earlier in searching.learn_from:
            console.warn(told(make_searcher().add_lessons(earlier)))
        with suppress(_Stopped):
            _prepare_caches(space, session.at_once, _unless(stop, console.progress))
        if not stop.stop_all():
            session.train(make_searcher, lambda: JournalASHA(space, journal), stop, Ending(console, conclude, finish))
        code = conclude(console)
    finish(console)
    return code


def _refused(run: RunFolder, space: Space) -> Callable[[TrialConfig], bool] | None:
    """Whether a configuration costs more than the constraints or the time budget allow; None where neither does."""
    limit = Limit.from_json(found) if (found := run.record.get("time_limit")) else None
    if not space.constraints.limits and limit is None:
        return None
    keeps: Callable[[TrialConfig], bool] = lambda config: True  # noqa: E731
    if space.constraints.limits:  # the data is read from the cache: the search has just looked at it
        keeps = affordable(space, load_dataset(space.fixed["data"], group_column=space.fixed.get("group_column")))
    return lambda config: not keeps(config) or (limit is not None and not limit.allows(config))


def _study_file(run: RunFolder, space: Space) -> Callable[[dict[str, Any]], None]:
    """A listener that keeps study.db up to date, opened with the first event: what fails then is a warning."""
    opened: list[StudyFile] = []

    def listen(event: dict[str, Any]) -> None:
        if not opened:
            file = StudyFile(space, run.journal, run.path / "study.db")
            opened.append(file)
            file.write()
        opened[0].on_event(event)

    return listen


def _time_left(journal: Journal, budget: float | None, anew: bool = False) -> float | None:
    """Seconds left of the time budget: what an earlier driver had left, nothing if it was killed at its end.

    All of it where it is a new one (`anew`), or was used up in an earlier session that had come to its end.
    """
    if anew:
        return budget
    budget = journal.time_budget if journal.time_budget is not None else budget
    return None if budget is None else max(budget - journal.seconds_of_budget, 0.0)


class _Stopped(Exception):
    """The search is over before its first trial."""


def _unless(stop: Stop, progress: Progress) -> Progress:
    """The progress of a step that ends with `_Stopped` when the search is over; what it has cached stays."""

    def stoppable(description: str, done: int, total: int) -> None:
        if stop.stop_all():
            raise _Stopped
        progress(description, done, total)

    return stoppable


def _prepare_caches(space: Space, trials: int, progress: Progress) -> None:
    """Builds the mels that the first so many trials want, so that a person sees what is being waited for.

    Not those of later ones, which make theirs as they come: the first number is what a person waits for.
    """
    dataset = load_dataset(space.fixed["data"], progress, space.fixed.get("group_column"))
    wanted: dict[str, TrialConfig] = {}
    for config in first_configs(space)[:trials]:
        wanted.setdefault(mel_key(dataset, config), config)
    for number, config in enumerate(wanted.values(), start=1):
        mels_of(dataset, config, _numbered(progress, number, len(wanted)))


def _numbered(progress: Progress, number: int, total: int) -> Progress:
    """The progress of one step of several of the same kind."""
    of = f", {number} of {total}" if total > 1 else ""
    return lambda description, done, clips: progress(f"{description}{of}", done, clips)


def close_run(run: RunFolder, space: Space, warn: Callable[[str], None]) -> None:
    """Writes everything in the run folder that is made from the journal and the trial folders.

    Hours of training must not end in a traceback over what can be made again: whatever fails is a warning.
    """
    steps: dict[str, Callable[[], object]] = {
        "trials.csv": lambda: write_trials_csv(run),
        "best.yaml": lambda: write_best(run),
        "study.db": lambda: write_study(space, run.journal, run.path / "study.db"),
        "report.html": lambda: write_report([run]),
    }
    reasons: dict[str, str] = {}  # by the name of what could not be written
    for name, write in steps.items():
        try:
            write()
        except Exception as error:
            reasons[name] = why(error)
    if reasons:
        said = "; ".join(dict.fromkeys(reasons.values()))
        again = typed("resume", run.path)
        warn(f"{run.path}: {', '.join(reasons)} could not be written ({said}). To try again: {again}")


def write_best(run: RunFolder) -> None:
    """Writes best.yaml: the best trial's whole configuration, ready for `python -m trainable --config`."""
    best = run.best()
    if best is None:
        return
    head = (
        f"# Trial {best.trial.number} of {run.name}: validation accuracy {best.accuracy:.4f} "
        f"{folds_in_words(best.folds) or f'at epoch {best.epoch}'}, chosen by the search: optimistic.\n"
        f"# python -m trainable --config {shlex.quote(str(run.path / 'best.yaml'))}\n"
    )
    write_atomically(run.path / "best.yaml", head + yaml.safe_dump(best.trial.config, sort_keys=False))
