"""A child process that mirrors one trial at a time to SwanLab: `python -m search.mirror.worker PID_OF_THE_DRIVER`.

SwanLab allows one run per process, may hang on a network or a disk, and hides its own errors; here it can do all that
without touching the search. Orders come as JSON lines on standard input, news go out on standard output, what SwanLab
prints goes to standard error. When standard input ends, the search is gone, by a kill too: what runs is closed as
interrupted, so that nothing counts as running for ever. Its locks die with it.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import select
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, ClassVar

from search.mirror.confusion import confusion_picture
from search.mirror.experiment import INTERRUPTED, Ending, Experiment
from search.mirror.lines import ending_lines, epoch_line, starting_lines
from search.mirror.stores import Store, open_store
from search.runs.run import validates
from trainable.files import write_atomically
from trainable.training.trial_folder import EpochResult, TrialFolder

POLL_S = 0.5  # how often epochs.jsonl is looked at; a live view needs no more
NICENESS = 10  # training comes first
ORPHAN_S = 60.0  # to close what runs after the driver's death
MEL_CAPTION = "left: as scored, right: as learned from, augmented; the first training clip"
DONE_FILE = "mirrored"  # in SwanLab's folder of an experiment: it is complete
DATABASE_LOCK = "database"  # who creates rows in the local database; SwanLab itself loses some when two do


def main(driver: int) -> None:
    """Obeys the driver, a process's id, until it is gone."""
    os.nice(NICENESS)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a batch system sends it to all; the driver says what comes next
    threading.Thread(target=_leave_with, args=(driver,), daemon=True).start()
    link = Link()
    recorder: Recorder | None = None
    try:
        while True:
            try:
                order = link.receive(POLL_S)
            except EOFError:
                break
            link.alive()
            if order is not None and order["do"] == "start":
                recorder = Recorder(link, order)
                if order["ending"]:
                    recorder.replay(Ending(**order["ending"]))
                    recorder = None
                elif not recorder.begin():
                    recorder = None
            elif recorder is not None:
                recorder.look()
                if order is not None:
                    recorder.end(Ending(**order["ending"]))
                    recorder = None
        if recorder is not None:
            recorder.end(INTERRUPTED)
    except Exception as error:  # whatever SwanLab does: tell, leave nothing running, make room for a fresh process
        link.say("problem", message=f"{type(error).__name__}: {error}")
        if recorder is not None:
            recorder.abandon()
        raise


def _leave_with(driver: int) -> None:
    """Ends this process some time after the driver's death, even where SwanLab hangs and nobody reads the orders."""
    while os.getppid() == driver:
        time.sleep(1.0)
    time.sleep(ORPHAN_S)
    os._exit(1)


class Recorder:
    """One trial's way into SwanLab."""

    def __init__(self, link: Link, order: dict[str, Any]) -> None:
        self._link = link
        self._experiment = Experiment(**order["experiment"])
        self._mode: str = order["mode"]
        self._project: str = order["project"]
        self._log_dir = Path(order["log_dir"])
        self._wait_s: float = order["wait_s"]  # for another process that mirrors the same trial
        self._locks = Locks(self._log_dir)
        self._store: Store = open_store(self._mode, self._log_dir)
        self._store.load()  # takes a second, so not while others wait for a lock
        self._folder = TrialFolder(Path(self._experiment.folder))
        self._seen: tuple[int, int, int] | None = None  # what epochs.jsonl looked like
        self._epochs = 0  # logged
        self._run: Any = None
        self._owner = False  # of this experiment, against other processes

    @property
    def _run_dir(self) -> Path:
        return self._log_dir / self._experiment.key

    def begin(self) -> bool:
        """Opens the experiment; False where there is nothing to do for this trial."""
        if not self._claim():
            return False
        with self._database():
            self._open()
        return True

    def replay(self, ending: Ending) -> None:
        """Mirrors an experiment whose end is known, all at once."""
        if self._claim():  # before the database: who has the trial may need that to let it go
            with self._database():
                self._open()
                self.look()
                self.end(ending)

    def look(self) -> None:
        """Logs the epochs that have been finished since the last look."""
        try:
            state = self._folder.epochs_file.stat()
        except FileNotFoundError:
            return
        seen = (state.st_ino, state.st_size, state.st_mtime_ns)
        if seen == self._seen:
            return
        self._seen = seen
        validated = validates(self._experiment.config)
        for epoch in self._folder.epochs()[self._epochs :]:
            first = self._mel() if self._epochs == 0 else {}
            self._log({**metrics(epoch, validated), **first}, epoch.epoch)
            print(epoch_line(epoch, validated))
            self._epochs += 1
            self._link.say("epoch")

    def end(self, ending: Ending) -> None:
        """Closes the experiment, and marks it as complete where the trial is over and SwanLab has kept everything."""
        self._run.config.update(ending.config)
        print("\n".join(ending_lines(self._experiment, ending)))
        with self._database():
            self._log_confusion(ending)
            self._run.finish(state=ending.state, error=ending.error)
        self._run = None
        missing = self._store.missing(self._experiment.key, self._epochs)
        if missing:
            raise OSError(missing)
        if ending.final:
            write_atomically(self._run_dir / DONE_FILE, f"{self._epochs} epochs, {ending.outcome}\n")
        self._give_back()
        self._link.say("done")

    def abandon(self) -> None:
        """Leaves nothing behind that counts as running, as far as SwanLab still works."""
        if not self._owner:
            return
        with self._database():
            if self._run is not None and self._run.alive:
                self._run.finish(state="aborted", error="SwanLab failed; the trial itself goes on")
            elif self._run is None:  # it broke while it was opened or after it was closed
                self._remove()

    def _claim(self) -> bool:
        """Whether this process may mirror the trial, and there is something to mirror."""
        if not self._locks.acquire(self._experiment.key, self._wait_s, self._link.alive):
            self._link.say("busy")
            return False
        self._owner = True
        if not (self._run_dir / DONE_FILE).exists():
            return True
        self._give_back()
        self._link.say("done")
        return False

    def _give_back(self) -> None:
        self._locks.release(self._experiment.key)
        self._owner = False

    def _database(self) -> AbstractContextManager[None]:
        """While this is held no other process makes rows in the local database."""
        return self._locks.held(DATABASE_LOCK, self._link.alive) if self._store.shared_rows else nullcontext()

    def _open(self) -> None:
        import swanlab

        self._remove()  # what a killed process left: an experiment cannot be taken up again in place
        self._run = swanlab.init(**init_arguments(self._experiment, self._mode, self._project, self._log_dir))
        print("\n".join(starting_lines(self._experiment)))  # to SwanLab's console of the experiment
        self._link.say("started")

    def _mel(self) -> dict[str, Any]:
        """A clip as the network sees it; nothing where a version before 0.2 has trained it."""
        import swanlab

        file = self._folder.mel_file
        with self._shown(file):
            return {"mel": swanlab.Image(str(file), caption=MEL_CAPTION)} if file.exists() else {}
        return {}

    def _log_confusion(self, ending: Ending) -> None:
        """Logs the confusion matrix of the best epoch, where the trial has one and cannot go on another day.

        At step 0 for all: the pages compare pictures of one step, and in the cloud a step is written once.
        """
        import swanlab

        with self._shown(self._folder.answers_file):
            answers = self._folder.answers()
            if answers is not None and ending.state == "success":
                caption = f"epoch {answers.epoch}, the best; rows: true classes, columns: predicted; validation clips"
                self._run.log({"confusion": swanlab.Image(confusion_picture(answers), caption=caption)}, step=0)

    @contextmanager
    def _shown(self, file: Path) -> Iterator[None]:
        """Where the picture in `file` is logged: if that fails the experiment's console says so, and curves go on."""
        try:
            yield
        except Exception as error:  # whatever libraries run into in a damaged file
            print(f"{file} cannot be shown: {type(error).__name__}: {error}")

    def _remove(self) -> None:
        self._store.remove(self._experiment.key)

    def _log(self, values: dict[str, Any], epoch: int) -> None:
        if self._epochs > 0 or not self._store.shared_rows or self._locks.holds(DATABASE_LOCK):
            self._run.log(values, step=epoch)
            return
        with self._database():  # the first values create the comparison charts, in another thread
            self._run.log(values, step=epoch)
            logs, patience = self._run_dir / "logs", time.monotonic() + 5
            while sum(1 for _ in logs.glob("*/*.log")) < len(values) and time.monotonic() < patience:
                self._link.alive()
                time.sleep(0.05)


def init_arguments(experiment: Experiment, mode: str, project: str, log_dir: Path) -> dict[str, Any]:
    """The arguments of `swanlab.init`, which ignores silently what it does not know: a test checks each name."""
    from swanlab import Settings

    settings = Settings(
        interactive=False,
        # Off: all that is the same for every trial and costs 0.2 to 0.8 s each; run.json has it once.
        probe=Settings.Probe(hardware=False, runtime=False, requirements=False, conda=False, git=False, swanlab=False,
                             monitor=False),
        terminal=Settings.Terminal(proxy_type="stdout"),  # of this process, which prints the trial's lines
        run=Settings.Run(dir=experiment.key),  # a known name: a second attempt finds what the first one left
    )  # fmt: skip
    arguments: dict[str, Any] = {
        "mode": open_store(mode, log_dir).sdk_mode, "project": project, "log_dir": str(log_dir),
        "name": experiment.name,
        "description": experiment.description, "group": experiment.group, "job_type": experiment.job_type,
        "tags": experiment.tags, "color": experiment.color, "config": experiment.config, "settings": settings,
    }  # fmt: skip
    if mode == "cloud":  # ids work there only; the server drops the epochs that it already has
        arguments |= {"id": experiment.id, "resume": "allow"}
    return arguments


def metrics(epoch: EpochResult, with_validation: bool) -> dict[str, float]:
    """An epoch under the tutorial's names, so that its dashboards work; the charts come in this order.

    A training that keeps no clips back to validate on has no such curves: its values there stand for nothing.
    """
    validation = {"val/acc": epoch.val_acc, "val/loss": epoch.val_loss} if with_validation else {}
    return finite(
        {
            **validation,
            "train/acc": epoch.train_acc, "train/loss": epoch.train_loss,
            "train/lr": epoch.lr, "train/epoch": float(epoch.epoch), "epoch/seconds": epoch.seconds,
        }
    )  # fmt: skip


def finite(values: dict[str, float]) -> dict[str, float]:
    """The values that a chart can draw: one NaN in its file and the local page shows no curve at all."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


ALIVE_EVERY_S = 1.0
LOCK_FILE = ".lock"
LOCK_POLL_S = 0.05


class Link:
    """Orders from the driver as JSON lines on standard input, news to it on what was standard output."""

    def __init__(self) -> None:
        self._in = 0
        self._out = os.dup(1)
        os.dup2(2, 1)  # what SwanLab prints must not get between the news
        self._buffer = b""
        self._last_news = 0.0

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """The next order, or None where none came in `timeout` seconds.

        Raises:
            EOFError: none can come any more: the driver is gone, or wants this process to go.
        """
        while b"\n" not in self._buffer:
            if not select.select([self._in], [], [], timeout)[0]:
                return None
            chunk = os.read(self._in, 65_536)
            if not chunk:
                raise EOFError
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        order: dict[str, Any] = json.loads(line)
        return order

    def say(self, news: str, **facts: Any) -> None:
        """Tells the driver; a driver that is gone is noticed by `receive`."""
        self._last_news = time.monotonic()
        with suppress(BrokenPipeError):
            os.write(self._out, (json.dumps({"say": news, **facts}) + "\n").encode())

    def alive(self) -> None:
        """Says so, at most once a second: a child that says nothing for long is taken for hung."""
        if time.monotonic() - self._last_news >= ALIVE_EVERY_S:
            self.say("alive")


class Locks:
    """Named locks of one SwanLab folder, all in one file; the system takes them back from a process that dies."""

    _file: IO[bytes] | None = None  # one per process: closing any handle of the file would drop all its locks
    _path: Path | None = None
    _held: ClassVar[set[str]] = set()

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_FILE
        if Locks._path != path:
            folder.mkdir(parents=True, exist_ok=True)
            Locks._file, Locks._path = path.open("ab"), path

    def acquire(self, name: str, timeout: float, waiting: Callable[[], None]) -> bool:
        """Whether the lock could be had within `timeout` seconds; `waiting` is called in between."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, zlib.crc32(name.encode()))
                return True
            except (BlockingIOError, PermissionError):  # POSIX lets systems choose between the two
                if time.monotonic() >= deadline:
                    return False
            waiting()
            time.sleep(LOCK_POLL_S)

    def release(self, name: str) -> None:
        """Gives the lock back."""
        fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, zlib.crc32(name.encode()))

    @contextmanager
    def held(self, name: str, waiting: Callable[[], None], timeout: float = 300.0) -> Iterator[None]:
        """Holds the lock for a while; who has it already may hold it again.

        Raises:
            TimeoutError: another process has held it for `timeout` seconds.
        """
        if name in Locks._held:
            yield
            return
        if not self.acquire(name, timeout, waiting):
            raise TimeoutError(f"another process has held SwanLab's {name} for {timeout:g} s")
        Locks._held.add(name)
        try:
            yield
        finally:
            Locks._held.discard(name)
            self.release(name)

    def holds(self, name: str) -> bool:
        """Whether this process is within `held`."""
        return name in Locks._held

    @property
    def _handle(self) -> IO[bytes]:
        assert Locks._file is not None
        return Locks._file


if __name__ == "__main__":
    main(int(sys.argv[1]))
