"""The Tuner: trials from a searcher onto workers until the budget is spent, whatever breaks on the way."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.runs.journal import Journal, Status
from search.runs.run import trial_folder
from search.tune.actor import STOP_FILE, TrainFunction, TrialActor
from search.tune.stop import Stop

# A worker or a node can be lost at any time and through no fault of the trial: three more attempts, from its
# checkpoint. What a configuration does wrong never gets here, see TrialActor.step.
WORKER_RETRIES = 3
# A node that dies while its worker is being reset leaves the trial in error whatever the retries say. Such a trial is
# taken up again in a further round; one that loses its workers in so many rounds is given up.
ROUNDS_PER_TRIAL = 2
# What Ray says where its memory monitor has killed a worker; its type is lost on the way through Tune. A worker that
# the kernel has killed looks like any other lost one.
_LOW_ON_MEMORY = "killed due to the node running low on memory"
# All that Tune needs of an epoch. It keeps running averages of every further number, for every trial there ever was.
KEPT_BY_TUNE = frozenset({"done", "trial_id", "training_iteration"})


@dataclass
class Running:
    """How trials are to be run: what each gets, how many at once, and who wants to know."""

    train: TrainFunction
    cpus: float  # per trial; also its torch threads
    gpus: float  # per trial; may be a fraction
    concurrency: int
    warn: Callable[[str], None] = field(default=lambda text: None)


def run_trials(run: Path, journal: Journal, make_searcher: Callable[[], Searcher],
               make_scheduler: Callable[[], TrialScheduler], stop: Stop, running: Running) -> None:  # fmt: skip
    """Runs trials until the searcher has no more or `stop` has a reason; the journal says what became of them.

    A searcher and a scheduler are made anew from the journal for every round. Most searches have one round; a further
    one takes up trials whose workers were lost for good in the one before.
    """
    (run / STOP_FILE).unlink(missing_ok=True)
    _drop_last_checkpoints(run, journal)
    lost: Counter[int] = Counter()
    while True:
        watch = _Watch(run, journal, stop, running.warn)
        scratch = run / ".ray"
        try:
            _fit(scratch, make_searcher(), make_scheduler(), stop, running, watch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)  # Tune's own notes; the journal has all that matters
        if stop.reason is not None:
            return
        lost.update(watch.errors.keys())
        for number in watch.errors:
            if lost[number] >= ROUNDS_PER_TRIAL:
                # The sampler learns from a trial that was too large, and nothing from one that only failed.
                status: Status = "out_of_memory" if number in watch.out_of_memory else "failed"
                journal.ended(number, status, watch.errors[number])
        if not journal.unfinished:
            return


def _drop_last_checkpoints(run: Path, journal: Journal) -> None:
    """Removes what nobody will resume from, now and whenever a trial ends: it is four times the weights themselves."""

    def drop(number: int) -> None:
        trial_folder(run, number).checkpoint("last").unlink(missing_ok=True)

    for trial in journal.trials.values():
        if trial.over:
            drop(trial.number)
    journal.listen(lambda event: drop(event["trial"]) if event["event"] == "ended" else None)


def _fit(scratch: Path, searcher: Searcher, scheduler: TrialScheduler, stop: Stop, running: Running,
         watch: _Watch) -> None:  # fmt: skip
    trainable = tune.with_resources(
        tune.with_parameters(TrialActor, train=running.train, without_gpu=not running.gpus),
        {"cpu": running.cpus, "gpu": running.gpus},
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,  # the searcher says when it is done
            max_concurrent_trials=running.concurrency,
            reuse_actors=True,  # importing torch anew for each trial costs more than a short trial
            trial_dirname_creator=lambda trial: f"{trial.config['number']:04d}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch.resolve()),
            stop=stop,
            failure_config=tune.FailureConfig(max_failures=WORKER_RETRIES),
            callbacks=[watch],
            # Tune would call save() on every trial that ends; a trial saves itself, after every epoch.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    tuner.fit()


class _Watch(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Notes lost workers, and passes a stop on to the running trials."""

    def __init__(self, run: Path, journal: Journal, stop: Stop, warn: Callable[[str], None]) -> None:
        self.errors: dict[int, str] = {}  # trials that Tune has given up, and why
        self.out_of_memory: set[int] = set()  # those of them whose last worker was killed for the node's memory
        self._stop_file = run / STOP_FILE
        self._journal = journal
        self._stop = stop
        self._warn = warn

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._stop.stop_all() and not self._stop_file.exists():
            self._stop_file.touch()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        for name in set(result) - KEPT_BY_TUNE:
            del result[name]

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._warn(f"trial {trial.config['number']} lost its worker and starts again from its last epoch")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        self.errors[number] = "its worker was lost again and again"
        if _LOW_ON_MEMORY in _last_failure(trial):
            self.out_of_memory.add(number)
            self.errors[number] = (
                "Ray killed its worker again and again because the node ran low on memory; "
                "with more --cpus-per-trial fewer trials run at a time"
            )
        self._warn(f"trial {number} lost its worker for good: {self.errors[number]}")
        self._stop.lost(self.errors)


def _last_failure(trial: Any) -> str:
    """Why a trial has lost its last worker, as Ray has it; "" where nobody knows.

    Not by `trial.get_error`, which looks where Tune copies its notes only later.
    """
    noted = trial.error_file
    if noted is None or not Path(noted).exists():
        return ""
    return Path(noted).read_text().rpartition("\nFailure # ")[2]
