"""One session of a retraining: its jobs through Ray, mirrored and resumable, like a search without a sampler."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher
from rich.console import Console as Terminal

from search.commands.session import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Ending,
    Session,
    check_every_node,
    exit_code,
    note_stop,
    shown_path,
)
from search.console.console import Console
from search.console.steps import Steps
from search.console.time_left import Plan
from search.mirror.mode import ResolvedMode, resolve_again
from search.report.report import write_report
from search.retrain.jobs import Interrupted, TrainingFailed, missing
from search.retrain.plan import Job, RetrainOptions
from search.retrain.retrain import retrain
from search.retrain.text import view
from search.runs.data import move_data
from search.runs.folder import nested_run, sole_run
from search.runs.journal import Journal, Trial
from search.runs.run import RunFolder, load_run, need_whole, trial_folder
from search.space.load import given
from search.space.sections import Resources, Scheduler
from search.space.space import Space
from search.tune.cluster import Machines, check_device, connected, fit_resources, hide_gpus
from search.tune.scheduler import JournalASHA
from search.tune.stop import Stop
from trainable.commands import typed


class JobSearch(Searcher):  # type: ignore[misc]  # Ray has no types
    """Hands out the jobs of a retraining: unfinished ones of the journal first, then those that are `missing` in it."""

    def __init__(self, journal: Journal, jobs: Sequence[Job], session: int) -> None:
        super().__init__(metric="val_acc", mode="max")
        self._journal = journal
        self._waiting: list[Trial | Job] = [*journal.waiting, *missing(journal, jobs, session)]

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial for Tune, or `Searcher.FINISHED`."""
        if not self._waiting:
            return str(Searcher.FINISHED)
        following = self._waiting.pop(0)
        if isinstance(following, Job):
            following = self._journal.suggested("retrain", following.name, {}, following.config.to_json())
        folder = trial_folder(self._journal.path.parent.resolve(), following.number).path
        return {"number": following.number, "folder": str(folder), "config": following.config}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: how a trial ended is what the journal says."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is all that a resumed retraining needs."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher beside its results and we never read it


def retrain_run(
    path: Path, options: RetrainOptions, swanlab: str | None, address: str | None, data: str | None = None,
    at_once: int | None = None,
) -> int:  # fmt: skip
    """Retrains from a run, prints the result and returns the exit code. `data`: where the data set lies by now.

    Raises:
        InputError: the run, its data or the flags do not allow it.
    """
    if data is not None:
        with sole_run(path) as held, Steps() as progress:
            need_whole(held)
            move_data(held, data, progress)
    run = load_run(path)
    need_whole(run)
    mode = resolve_again(swanlab, run.record["mirror"], run.path / "retrained")
    wanted = Resources.model_validate(
        {**Space.from_json(run.record["space"]).resources.model_dump(), **given(at_once=at_once)}
    )
    with nested_run(run.path / "retrained"), connected(address) as machines:
        resources, notes = fit_resources(wanted, machines)
        if not resources.gpu:
            hide_gpus()  # scoring here does without it as well
        steps = Steps()

        def runner(folder: Path, jobs: Sequence[Job]) -> Journal:
            for job in jobs:
                check_device(job.config.device, f"{run.path}: {job.candidate}: device", machines, resources.gpu or 0)
            nested = load_run(folder)
            check_every_node(nested, machines)  # its weights may be others than the search's
            with steps.paused():  # trainings have a view of their own
                return _run_jobs(nested, jobs, resources, machines, mode, notes)

        try:
            with steps:
                result = retrain(run, options, runner, steps)
        except Interrupted:
            print(f"Stopped. To go on from here: {typed(*sys.argv[1:])}")
            return EXIT_INTERRUPTED
        except TrainingFailed as error:
            print(f"{error}\nTo try again: {typed(*sys.argv[1:])}", file=sys.stderr)
            return EXIT_FAILED
    page = write_report([load_run(path)])
    terminal = Terminal()
    width = terminal.width if terminal.is_terminal else None
    terminal.print(*view(result, str(shown_path(run.path / "retrained")), width), sep="\n", soft_wrap=True)
    terminal.print(f"report  {shown_path(page)}", soft_wrap=True, highlight=False)
    return EXIT_DONE


def _run_jobs(
    run: RunFolder, jobs: Sequence[Job], resources: Resources, machines: Machines, mode: ResolvedMode,
    notes: tuple[str, ...],
) -> Journal:  # fmt: skip
    """The journal of the nested run, with every job in it ended unless the user has interrupted."""
    journal = run.journal
    session_number = len(journal.sessions) + 1
    new = len(missing(journal, jobs, session_number))
    if not new and not journal.unfinished:
        return journal
    epochs = max(job.config.epochs for job in jobs)
    searched = Space.from_json(run.record["space"])
    space = replace(searched, scheduling=Scheduler(kind="none"), epochs=epochs)  # every training runs to its end
    stop = Stop(journal, grace_epochs=1)
    task = f"{len(jobs)} trainings of up to {epochs} epochs"
    session = Session(run, task, resources, machines, mode, notes, go_on="give the same command again")
    plan = Plan(len(journal.trials) + new, session.at_once, epochs, 1, None)

    def conclude(console: Console) -> int:
        if stop.trouble:
            console.warn(f"stopped: {stop.reason}")
        note_stop(run, stop.reason or "budget", console.warn)
        return exit_code(stop, good=True)

    with session.at_work(plan, stop) as console:
        session.train(
            lambda: JobSearch(journal, jobs, session_number), lambda: JournalASHA(space, journal), stop,
            Ending(console, conclude, Console.repeat_warnings),
        )  # fmt: skip
        conclude(console)
    console.repeat_warnings()
    return journal
