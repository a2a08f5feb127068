"""Every trial as one SwanLab experiment, live, without ever slowing or stopping the search.

The run folder is the queue. A trial's curve is its `epochs.jsonl`, and its end is in the journal; children read the
one and are told the other, so whatever is lost on the way can be made again from the folder, in full and only once:
an experiment that is not marked as complete is removed and mirrored anew, on a resume and by `replay`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.mirror.experiment import home, trial_ending, trial_experiment
from search.mirror.mode import Mode, ResolvedMode
from search.mirror.pool import Pool
from search.mirror.worker import DONE_FILE
from search.runs.run import RunFolder, load_run
from trainable.commands import typed
from trainable.errors import InputError
from trainable.progress import Progress

WAIT_FOR_OTHER_S = 30.0  # the orphan of a killed driver needs a moment to close its experiment
CLOUD_REPLAYS = 4  # at once
LONGEST_REPLAY_S = 86_400.0  # a child that hangs is ended long before


class Mirror:
    """Mirrors the trials of a run. All methods return at once, but `close`."""

    def __init__(
        self, run: RunFolder, mode: ResolvedMode, concurrency: int = 1, *, hung_s: float | None = None
    ) -> None:
        """Takes up what the run has and SwanLab has not: on a resume, the trials of earlier sessions, too.

        `concurrency`: as many children as trials run at once. `hung_s`: how long SwanLab may do nothing, s.
        """
        self._run = run
        self._pool: Pool | None = None
        if mode.mode != "off":
            self._pool = Pool(mode, log_dir(run.path, mode.mode), concurrency, WAIT_FOR_OTHER_S, hung_s)
            for trial in run.trials:
                if not trial.over:  # it has failed before and is tried again
                    with suppress(OSError):
                        (log_dir(run.path, mode.mode) / trial_experiment(run, trial).key / DONE_FILE).unlink()
                self._mirror(self._pool, trial.number)

    @property
    def warnings(self) -> int:
        """How often SwanLab has failed so far."""
        return self._pool.warnings if self._pool else 0

    @property
    def last_warning(self) -> str:
        """What went wrong last; "" where nothing has."""
        return self._pool.last_warning if self._pool else ""

    @property
    def summary(self) -> str:
        """What has to be said of all that at the end; "" where there is nothing to say."""
        if not self.last_warning:
            return ""
        counted = "" if self.warnings == 1 else f"{self.warnings} warnings, the last: "
        return f"SwanLab: {counted}{self.last_warning}"

    def on_event(self, event: dict[str, Any]) -> None:
        """Notes what the journal has to say of a trial's start or end; a listener for `Journal.listen`."""
        if self._pool is not None and event["event"] in ("suggested", "ended"):
            self._mirror(self._pool, event["trial"])

    def close(self, timeout: float = 30.0) -> None:
        """Mirrors what is left, closes what runs as interrupted, and ends the children, within `timeout` seconds."""
        if self._pool is not None:
            self._pool.close(timeout)
            if left := self._pool.waiting:
                again = typed("mirror", self._run.path)
                self._pool.warn(f"{left} trials are not mirrored in full: {again}")

    def _mirror(self, pool: Pool, number: int) -> None:
        try:
            trial = self._run.journal.trials[number]
            ending = trial_ending(self._run, trial) if trial.over else None
            pool.mirror(trial_experiment(self._run, trial), ending)
        except Exception as error:  # a trial that cannot be described must not stop the search
            pool.warn(f"trial {number} cannot be mirrored: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class Replayed:
    """What `replay` did."""

    mirrored: int  # experiments made now
    before: int  # experiments that were complete already
    failed: int
    problem: str = ""  # the last thing that went wrong


def replay(
    path: str | Path, mode: ResolvedMode, progress: Progress | None = None, say: Callable[[str], None] | None = None
) -> Replayed:
    """Mirrors what SwanLab has not of a run and its retraining, as often as one likes, and beside a running search.

    A trial that has not ended is shown as interrupted, unless the search that runs it mirrors it at this moment. `say`
    hears of what goes wrong at once. Where experiment after experiment fails alike it ends: SwanLab is down.

    Raises:
        InputError: there is no run, or nothing to mirror to.
    """
    if mode.mode == "off":
        raise InputError("--swanlab: must name where to mirror to, got off. Use local, offline or cloud.")
    run = load_run(path)
    runs = [run, *([load_run(run.path / "retrained")] if (run.path / "retrained" / "events.jsonl").exists() else [])]
    folder = log_dir(run.path, mode.mode)
    subjects = [(trial_experiment(each, trial), trial_ending(each, trial)) for each in runs for trial in each.trials]
    before = sum((folder / experiment.key / DONE_FILE).exists() for experiment, _ in subjects)
    # One child for the local pages, which list experiments as they were made; several where a network makes one wait.
    pool = Pool(mode, folder, CLOUD_REPLAYS if mode.mode == "cloud" else 1, wait_s=0.0, hung_s=None, patient=False)
    for experiment, ending in subjects:
        pool.mirror(experiment, ending)
    pool.close(LONGEST_REPLAY_S, progress, say)
    return Replayed(pool.mirrored, before, pool.waiting, pool.last_warning)


def log_dir(run: Path, mode: Mode) -> Path:
    """SwanLab's folder of a run: `swanlog` itself for the local pages, a folder in it for each other mode; absolute."""
    folder = home(run).resolve() / "swanlog"
    return folder if mode == "local" else folder / mode
