"""One driver at work on a run folder: its trials on Ray, shown in the terminal, mirrored, stopped by a signal.

A search and a retraining are both such sessions; what they propose and what they make of the result is their own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.console.console import Console, Header, dashboard_command, split_parts
from search.console.time_left import Plan
from search.mirror.mirror import Mirror
from search.mirror.mode import ResolvedMode
from search.runs.folder import shared_paths
from search.runs.record import git_commit, versions
from search.runs.run import RunFolder
from search.space.sections import Resources
from search.tune.actor import in_words
from search.tune.cluster import Machines, check_nodes, concurrency, start_again
from search.tune.stop import Stop, leave_at_once, signals_stop
from search.tune.tuner import Running, run_trials
from trainable.backbones import KINDS, SPOKEN
from trainable.training.loop import train

EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130


@dataclass(frozen=True)
class Ending:
    """What a session does after its last trial."""

    console: Console
    conclude: Callable[[Console], int]  # writes what the run folder is to hold at the end; returns the exit code
    finish: Callable[[Console], None]  # the last words, once the mirror is closed


@dataclass
class Session:
    """What a driver needs to know to train on what it has."""

    run: RunFolder
    task: str  # what is trained, for the header: "4 dimensions, 32 trials of up to 20 epochs"
    resources: Resources  # of each trial, both known by now
    machines: Machines
    mode: ResolvedMode
    notes: tuple[str, ...] = ()  # what a person must know about these machines
    go_on: str = ""  # the command that goes on after a stop; left out: `resume` of the run
    _mirror: Mirror | None = None

    @property
    def command(self) -> str:
        """The command that goes on after a stop."""
        return self.go_on or self.header.command("resume")

    @property
    def at_once(self) -> int:
        """How many trials run at the same time."""
        return trials_at_once(self.machines, self.resources)

    @property
    def header(self) -> Header:
        """The facts that a person wants to see before anything starts."""
        record, shown = self.run.record, shown_path(self.run.path)
        data, split, mode = record["data"], record["split"], self.mode
        loud = [note for note in split["notes"] if note.startswith("WARNING")]
        left_out = f", {data['rejected']} files left out" if data["rejected"] else ""
        return Header(
            run=str(shown),
            data=f"{data['path']}: {data['clips']} clips, {len(data['labels'])} classes{left_out}",
            space=self.task,
            split="; ".join([split_parts(split), *(note for note in split["notes"] if note not in loud)]),
            devices=self.machines.describe(self.resources, self.at_once),
            weights=_weights_in_words(record["weights"]),
            address=self.machines.address,
            mirror=mode.mode,
            how_to_watch=mode.how.replace(str(self.run.path), str(shown)) if mode.mode != "off" else "",
            # A retraining has no study: Optuna proposes nothing there.
            dashboard="" if "retrain" in record else dashboard_command(str(shown)),
            notes=(*record["notes"], *loud, *self.notes, *filter(None, [mode.warning])),
        )

    @contextmanager
    def at_work(self, plan: Plan, stop: Stop, retry: Sequence[int] = (), **noted: Any) -> Iterator[Console]:
        """The console that shows what happens, for the time of the context; `noted` goes into the journal.

        `retry`: the numbers of trials that have failed and are to go on.
        Within it signals ask for a stop. At its end the mirror is closed, and what SwanLab could not do is a warning.
        """
        journal, header = self.run.journal, self.header
        by = {"git_commit": git_commit(), "versions": versions()}  # a later session may be another program's
        journal.session(host=socket.gethostname(), pid=os.getpid(), concurrency=self.at_once, **by, **noted)
        for number in retry:
            journal.retried(number)
        console = Console(journal, header, plan)
        mirror = self._mirror = Mirror(self.run, self.mode, self.at_once)
        journal.listen(without_harm(console.on_event, console.warn))
        journal.listen(without_harm(mirror.on_event, console.warn))
        try:
            with console, signals_stop(stop, console.notice, self.command):
                yield console
        finally:
            mirror.close()
        if mirror.summary:
            console.warn(mirror.summary)

    def train(
        self, make_searcher: Callable[[], Searcher], make_scheduler: Callable[[], TrialScheduler], stop: Stop,
        ending: Ending,
    ) -> None:  # fmt: skip
        """Runs the searcher's trials until it has no more or `stop` has a reason.

        What comes afterwards, `ending`, is the caller's to do. It is done here, in another thread, only where Ray is
        lost and does not let go of this one; the process ends with it.
        """
        console = ending.console

        def give_up(why: str) -> None:
            stop.request(why, trouble=True)
            code = EXIT_FAILED
            with suppress(Exception):  # the last words come in any case
                code = ending.conclude(console)
                if self._mirror is not None:
                    self._mirror.close()
                ending.finish(console)
            leave_at_once(f"{why}. Nothing that was finished is lost. To go on: {self.command}", code)

        run_trials(
            self.run.path, self.run.journal, make_searcher, make_scheduler, stop,
            Running(
                partial(train, data_hash=self.run.record["data"]["hash"]), self.resources.cpu or 1,
                self.resources.gpu or 0, self.at_once, console.warn, lambda: start_again(self.machines), give_up,
            ),
        )  # fmt: skip


def trials_at_once(machines: Machines, resources: Resources) -> int:
    """How many trials run at the same time with these resources for each."""
    fit = concurrency(machines, resources.cpu or 0, resources.gpu or 0)
    return min(fit, resources.at_once or fit)


def without_harm(listener: Callable[[dict[str, Any]], None], warn: Callable[[str], None]) -> Callable[..., None]:
    """The listener for `Journal.listen` of something that is made from the journal and can be made again from it.

    What goes wrong there never ends a search. It is told once for each reason.
    """
    told: set[str] = set()

    def listen(event: dict[str, Any]) -> None:
        try:
            listener(event)
        except Exception as error:
            reason = why(error)
            if reason not in told:
                told.add(reason)
                warn(f"{reason}. The search goes on: what is missing is made from the journal at its end")

    return listen


def why(error: Exception) -> str:
    """What went wrong with a file that can be made again, on one line."""
    if isinstance(error, OSError):
        return in_words(error)
    database = getattr(error, "orig", None)  # what SQLAlchemy has of it, which adds the whole statement
    return f"{type(error).__name__}: {' '.join(str(database or error).split())}"


def exit_code(stop: Stop, good: bool) -> int:
    """The exit code of a session that has ended: `good`, whether it has brought what it is for."""
    if stop.reason == "interrupted":
        return EXIT_INTERRUPTED
    return EXIT_DONE if good and not stop.trouble else EXIT_FAILED


def note_stop(run: RunFolder, reason: str, warn: Callable[[str], None]) -> None:
    """Notes in the journal why the session ends; a disk that is still full only leaves that out."""
    try:
        run.journal.stopped(reason)
    except OSError as error:
        warn(f"stopped: {reason} (which could not be noted: {in_words(error)})")


def check_every_node(run: RunFolder, machines: Machines) -> None:
    """Raises InputError unless every machine of a cluster has what trials of the run need there."""
    if machines.address is not None:
        weights = run.record["weights"]
        check_nodes(shared_paths(run), dict(weights))


def shown_path(path: Path) -> Path:
    """The path as a person here would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _weights_in_words(weights: dict[str, str]) -> str:
    kinds = (*KINDS, *sorted({kind for kind in weights.values() if kind not in SPOKEN}), "none")
    named = {kind: sorted(name for name, own in weights.items() if own == kind) for kind in kinds}
    return "; ".join(f"{SPOKEN.get(kind, kind)} for {', '.join(names)}" for kind, names in named.items() if names)
