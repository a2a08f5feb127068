"""The Tuner: trials from a searcher onto workers until the budget is spent, whatever breaks on the way."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.runs.journal import Journal, Status
from search.runs.run import trial_folder
from search.tune.actor import STOP_FILE, TrainFunction, TrialActor, in_words
from search.tune.cluster import Pulse
from search.tune.stop import Stop
from trainable.errors import InputError, Unavailable

# A worker or a node can be lost at any time and through no fault of the trial: three more attempts, from its
# checkpoint. What a configuration does wrong never gets here, see TrialActor.step.
WORKER_RETRIES = 3
# A node that dies while its worker is being reset leaves the trial in error whatever the retries say. Such a trial is
# taken up again in a further round; one that loses its workers in so many rounds is given up.
ROUNDS_PER_TRIAL = 2
# What lies outside of all configurations (data, disk, network, memory that another program has taken, Ray itself) is
# waited for so long before each new round, s. Where so many rounds in a row have brought nothing, the search ends, and
# is resumed once the cause is gone. A trial that is stopped so in as many rounds, while others go on, is set aside.
PAUSES = (2.0, 10.0, 30.0)
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
    start_again: Callable[[], None] = field(default=lambda: None)  # Ray, after it was lost
    give_up: Callable[[str], None] = field(default=lambda why: None)  # a lost Ray does not let go of the main thread


def run_trials(run: Path, journal: Journal, make_searcher: Callable[[], Searcher],
               make_scheduler: Callable[[], TrialScheduler], stop: Stop, running: Running) -> None:  # fmt: skip
    """Runs trials until the searcher has no more or `stop` has a reason; the journal says what became of them.

    A searcher and a scheduler are made anew from the journal for every round. Most searches have one round; a further
    one takes up the trials that something outside of them has ended in the one before.

    Raises:
        Exception: whatever goes wrong in the searcher, the scheduler or the journal themselves.
    """
    with suppress(OSError):  # the folder is not there, or not writable: whoever writes there next says so
        (run / STOP_FILE).unlink(missing_ok=True)
    _drop_last_checkpoints(run, journal)
    lost, lacking, fruitless = Counter[int](), Counter[int](), 0
    while True:
        steps, watch = journal.steps, _Watch(run, journal, stop, running.warn)
        _round(run, make_searcher, make_scheduler, stop, running, watch)
        if stop.reason is not None:
            return
        lost.update(watch.errors.keys())
        for number in watch.errors:
            if lost[number] >= ROUNDS_PER_TRIAL:
                # The sampler learns from a trial that was too large, and nothing from one that only failed.
                status: Status = "out_of_memory" if number in watch.out_of_memory else "failed"
                journal.ended(number, status, watch.errors[number])
        if watch.trouble:
            fruitless = fruitless + 1 if journal.steps == steps else 0
            if fruitless == len(PAUSES):
                stop.request(watch.trouble, trouble=True)
                return
            if not fruitless:
                lacking.update(watch.unavailable.keys())
                journal.set_aside |= {number for number in watch.unavailable if lacking[number] >= len(PAUSES)}
            if watch.low_on_memory and running.concurrency > 1:
                running = replace(running, concurrency=running.concurrency // 2)
                running.warn(f"from now on trials run at most {running.concurrency} at a time, for their memory")
            if not _wait(watch, PAUSES[fruitless], stop, running):
                return
        elif not journal.waiting:
            if journal.unfinished:
                numbers = ", ".join(str(trial.number) for trial in journal.unfinished)
                stop.request(f"what these trials need could not be had, while others went on: {numbers}", trouble=True)
            return


def _wait(watch: _Watch, seconds: float, stop: Stop, running: Running) -> bool:
    """Whether a new round can begin: after a while, with Ray as it must be."""
    running.warn(f"{watch.trouble}. A new round begins in {seconds:g} s")
    until = time.monotonic() + seconds
    while time.monotonic() < until and not stop.stop_all():
        time.sleep(0.1)
    if watch.ray_is_lost and not stop.stop_all():
        try:
            running.start_again()
        except (InputError, OSError, RuntimeError, RayError) as error:
            stop.request(f"{watch.trouble}, and could not be started again: {error}", trouble=True)
    return not stop.stop_all()


class _RayIsLost(BaseException):
    """Ray does not answer any more. No Exception: Tune would first clean up, for which it waits for Ray."""


def _round(run: Path, make_searcher: Callable[[], Searcher], make_scheduler: Callable[[], TrialScheduler],
           stop: Stop, running: Running, watch: _Watch) -> None:  # fmt: skip
    """Runs trials until there are no more for now; `watch` says what has come in between."""
    scratch = run / ".ray"
    try:
        with Pulse(running.give_up) as watch.pulse:
            searcher, scheduler = watch.over(make_searcher(), make_scheduler())
            _fit(scratch, searcher, scheduler, stop, running, watch)
    except _RayIsLost:
        watch.ray_is_lost = True
        watch.note(watch.pulse.lost)
    except Exception as error:  # Tune passes on what comes up, some of it only as text
        if watch.own is None and not watch.pulse.lost:
            watch.note(f"Ray: {_last_line(error)}")  # for all that Ray raises: the journal is the truth, not Tune
        elif watch.own is None:
            watch.ray_is_lost = True
            watch.note(watch.pulse.lost)
        elif isinstance(watch.own, OSError | Unavailable):  # the journal's disk
            watch.note(in_words(watch.own))
        else:
            raise watch.own from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # Tune's own notes; the journal has all that matters
    if watch.unavailable:
        messages = dict.fromkeys(watch.unavailable.values())
        numbers = ", ".join(map(str, watch.unavailable))
        what = f"trial {numbers} has" if len(watch.unavailable) == 1 else f"trials {numbers} have"
        watch.note(f"{'; '.join(messages)} ({what} to wait for it)")


def _last_line(error: Exception) -> str:
    """What an error comes down to: Ray and Tune put whole tracebacks into their messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if any(_LOW_ON_MEMORY in line for line in lines):
        return "a worker was killed because this machine ran low on memory"
    return lines[-1][:300] if lines else type(error).__name__


def _drop_last_checkpoints(run: Path, journal: Journal) -> None:
    """Removes what nobody will resume from, now and whenever a trial ends: it is four times the weights themselves."""

    def drop(number: int) -> None:
        with suppress(OSError):  # room is all that it would make
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
    """What comes between the trials of one round and their ends; passes a stop on to the running trials."""

    def __init__(self, run: Path, journal: Journal, stop: Stop, warn: Callable[[str], None]) -> None:
        self.errors: dict[int, str] = {}  # trials that Tune has given up, and why
        self.out_of_memory: set[int] = set()  # those of them whose own worker took the node's memory
        self.unavailable: dict[int, str] = {}  # trials that lack something which no configuration decides, and what
        self.low_on_memory = False
        self.trouble = ""  # why this round could not do all that it should have
        self.ray_is_lost = False
        self.own: Exception | None = None  # what the searcher or the scheduler themselves have raised
        self.pulse: Pulse
        self._stop_file = run / STOP_FILE
        self._journal = journal
        self._stop = stop
        self._warn = warn

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks beside its results and we never read them

    def note(self, trouble: str) -> None:
        """Takes down why another round is needed; the first reason stays."""
        self.trouble = self.trouble or trouble

    def over(self, searcher: Searcher, scheduler: TrialScheduler) -> tuple[Searcher, TrialScheduler]:
        """Both, such that what they raise is kept, and that nothing new begins while something is not available.

        Tune makes text of their errors.
        """
        suggest = self._kept(searcher.suggest)

        def next_trial(trial_id: str) -> Any:
            found = Searcher.FINISHED if self.unavailable else suggest(trial_id)
            if not self.pulse.beats():  # what Tune does with it next would wait
                raise _RayIsLost
            return found

        searcher.suggest = next_trial
        scheduler.on_trial_result = self._kept(scheduler.on_trial_result)
        return searcher, scheduler

    def _kept(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def kept(*given: Any) -> Any:
            try:
                return call(*given)
            except Exception as error:
                self.own = self.own or error
                raise

        return kept

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if not self.pulse.beats():
            raise _RayIsLost
        if self._stop.stop_all() and not self._stop_file.exists():
            with suppress(OSError):  # the trials end with Ray then, at their last checkpoint
                self._stop_file.touch()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if result.get("status") == "unavailable":
            self.unavailable[trial.config["number"]] = result["message"]
        for name in set(result) - KEPT_BY_TUNE:
            del result[name]

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if not self._stop.stop_all():
            self._warn(f"trial {trial.config['number']} lost its worker and starts again from its last epoch")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self._stop.stop_all():
            return  # whoever stops the search may have ended its workers as well
        number, why = trial.config["number"], _last_failure(trial)
        if _LOW_ON_MEMORY in why and not _took_the_memory(why):
            self.unavailable[number] = "the machine ran low on memory, most of which this trial did not have"
            self.low_on_memory = True
            return
        self.errors[number] = "its worker was lost again and again"
        if _LOW_ON_MEMORY in why:
            self.out_of_memory.add(number)
            self.errors[number] = (
                "Ray killed its worker again and again because the node ran low on memory; "
                "with more --cpus-per-trial fewer trials run at a time"
            )
        self._warn(f"trial {number} lost its worker for good: {self.errors[number]}")
        self._stop.lost(self.errors)


# What Ray says where its memory monitor has killed a worker; its type is lost on the way through Tune. A worker that
# the kernel has killed looks like any other lost one.
_LOW_ON_MEMORY = "killed due to the node running low on memory"


def _took_the_memory(why: str) -> bool:
    """Whether a killed worker had itself at least half of the memory that was in use, from Ray's words on it.

    Where they do not say, it did not: the trial is then tried again.
    """
    used = re.search(r"was ([\d.]+)GB used", why)
    own = re.search(r"actual memory used=([\d.]+)GB", why)
    return bool(used and own) and float(own[1]) >= float(used[1]) / 2  # type: ignore[index]


def _last_failure(trial: Any) -> str:
    """Why a trial has lost its last worker, as Ray has it; "" where nobody knows.

    Not by `trial.get_error`, which looks where Tune copies its notes only later.
    """
    noted = trial.error_file
    if noted is None or not Path(noted).exists():
        return ""
    return Path(noted).read_text().rpartition("\nFailure # ")[2]
