"""The child processes that mirror, as the driver sees them: starting, feeding, replacing; in a thread of its own.

Whatever SwanLab does, the search goes on: its thread only ever appends to a queue.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from search.mirror.experiment import INTERRUPTED, Ending, Experiment
from search.mirror.mode import ResolvedMode
from search.mirror.worker import DONE_FILE
from trainable.progress import Progress

HUNG_S = {"cloud": 180.0, "offline": 60.0, "local": 60.0}  # SwanLab itself gives a network 76 s
TRIES = 3  # per experiment and session
PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0  # after a failure, doubling: SwanLab is down, and more children do not help
HOPELESS_AFTER = 3  # experiments in a row that fail alike, where nobody's search goes on meanwhile
GOODBYE_S = 6.0  # for the children to go after the last order
TICK_S = 0.5
EXTRA_AFTER_S = 5.0  # a child costs a second of CPU time; the one before is usually done much sooner
MOST_EVENTS = 10_000  # more than any search has trials at once; beyond it a replay helps


@dataclasses.dataclass(eq=False)
class _Job:
    """One experiment to be mirrored."""

    experiment: Experiment
    ending: Ending | None = None  # None: the trial runs
    told: bool = False  # whether the child knows the ending
    tries: int = 0
    since: float = dataclasses.field(default_factory=time.monotonic)


class Pool:
    """Children for `concurrency` running trials, and one more where trials have to wait. Only `close` waits."""

    def __init__(
        self, mode: ResolvedMode, log_dir: Path, concurrency: int, wait_s: float, hung_s: float | None,
        patient: bool = True,
    ) -> None:  # fmt: skip
        """Starts the thread; children start when there is something to do.

        `wait_s`: for another process that has the same experiment; 0 leaves it to that one. `hung_s`: how long a
        child may say nothing. `patient`: whether SwanLab may come back while a search goes on; otherwise one waits for
        it, and it is given up where experiments fail alike one after the other.
        """
        self.warnings = 0
        self.last_warning = ""
        self.mirrored = 0  # experiments that were closed in good order
        self._mode, self._log_dir, self._concurrency = mode, log_dir, concurrency
        self._wait_s, self._hung_s = wait_s, hung_s or HUNG_S[mode.mode]
        self._events: deque[tuple[Experiment | None, Ending | None]] = deque()
        self._jobs: dict[str, _Job] = {}  # not yet mirrored, by key
        self._children: dict[Child, _Job | None] = {}
        self._pause_until = 0.0
        self._failures = 0  # since SwanLab last did something
        self._patient = patient
        self._alike: tuple[str, set[str]] = ("", set())  # the last failure, and who has met it in a row
        self._closing: float | None = None  # when patience ends
        self._alarm_out, self._alarm_in = os.pipe()
        os.set_blocking(self._alarm_in, False)
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many experiments are not mirrored in full yet, those of running trials included."""
        coming = {experiment.key for experiment, _ in list(self._events) if experiment is not None}
        return len(coming | set(self._jobs))

    def mirror(self, experiment: Experiment, ending: Ending | None = None) -> None:
        """Wants an experiment mirrored: live, and to its end once this is called with that, too."""
        self._tell(experiment, ending)

    def close(self, timeout: float, progress: Progress | None = None, say: Callable[[str], None] | None = None) -> None:
        """Mirrors what is left, closes what runs as interrupted, and ends the children, within `timeout` seconds.

        `say` hears of what goes wrong meanwhile.
        """
        total, said = self.waiting + self.mirrored, ""

        def tell() -> None:
            nonlocal said
            if say is not None and self.last_warning != said:
                said = self.last_warning
                say(said)

        self._closing = time.monotonic() + timeout
        self._tell(None, None)
        while self._thread.is_alive() and time.monotonic() < self._closing + GOODBYE_S:
            self._thread.join(TICK_S)
            if progress is not None:
                progress("mirroring to SwanLab", self.mirrored, max(total, self.mirrored))
            tell()
        tell()

    def warn(self, text: str) -> None:
        """Counts what went wrong, and keeps its text for the console."""
        self.warnings += 1
        self.last_warning = text

    def _tell(self, experiment: Experiment | None, ending: Ending | None) -> None:
        """Queues an experiment, or with None the end of the search."""
        if len(self._events) >= MOST_EVENTS and experiment is not None:
            self.warn("SwanLab cannot keep up: trials are left out until the run is replayed")
            return
        self._events.append((experiment, ending))
        with contextlib.suppress(BlockingIOError):  # then the thread has been woken already
            os.write(self._alarm_in, b"!")

    # From here on everything runs in the pool's own thread.

    def _work(self) -> None:
        try:
            while not self._over():
                try:
                    self._give_orders()
                    self._hear()
                    self._take_events()
                except Exception as error:  # the search must go on, and so must the mirror
                    self._failed(None, f"{type(error).__name__}: {error}")
                    time.sleep(TICK_S)
        finally:
            self._end_children()

    def _over(self) -> bool:
        if len(self._alike[1]) >= HOPELESS_AFTER:
            return True
        if self._closing is None or (self._events and time.monotonic() < self._closing):
            return False
        hope = any(self._children.values()) or any(job.tries < TRIES for job in self._jobs.values())
        return not hope or time.monotonic() > self._closing

    def _take_events(self) -> None:
        while self._events:
            experiment, ending = self._events.popleft()
            if experiment is None:
                self._pause_until = 0.0
                for job in self._jobs.values():
                    job.tries = min(job.tries, TRIES - 1)  # one more, so that nothing is left running
            elif not (self._log_dir / experiment.key / DONE_FILE).exists():
                job = self._jobs.setdefault(experiment.key, _Job(experiment))
                job.ending = ending or job.ending
        if self._closing is not None:
            self._round_off()

    def _round_off(self) -> None:
        """Closes what is open; what has not begun, of a trial that goes on another day, is left to that day."""
        for key, job in list(self._jobs.items()):
            if job.ending is None and job.tries == 0:
                del self._jobs[key]
            elif job.ending is None:
                job.ending = INTERRUPTED

    def _give_orders(self) -> None:
        for child, job in list(self._children.items()):
            if job is not None and job.ending is not None and not job.told and not child.dismissed:
                job.told = child.send({"do": "end", "ending": dataclasses.asdict(job.ending)})
                if not job.told:
                    self._fail(child, "it does not read its orders")
        for job in self._next_jobs():
            idle = self._idle_child(job)
            if idle is None:
                return
            order = {
                "do": "start", "experiment": dataclasses.asdict(job.experiment), "mode": self._mode.mode,
                "project": self._mode.project, "log_dir": str(self._log_dir), "wait_s": self._wait_s,
                "ending": dataclasses.asdict(job.ending) if job.ending else None,
            }  # fmt: skip
            self._children[idle] = job
            job.tries, job.told = job.tries + 1, job.ending is not None
            if not idle.send(order):
                self._fail(idle, "it does not read its orders")

    def _next_jobs(self) -> list[_Job]:
        """What no child has yet and may be tried now: running trials first, they are being watched."""
        if time.monotonic() < self._pause_until:
            return []
        busy = [id(job) for job in self._children.values()]
        jobs = [job for job in self._jobs.values() if id(job) not in busy and job.tries < TRIES]
        # What has failed before comes last: others may go through.
        return sorted(jobs, key=lambda job: (job.ending is not None, job.tries))

    def _idle_child(self, job: _Job) -> Child | None:
        for child, has in self._children.items():
            if has is None and not child.dismissed:
                return child
        waited = time.monotonic() - job.since
        if len(self._children) >= self._concurrency + (waited > EXTRA_AFTER_S):
            return None
        child = Child(self._log_dir / "mirror.log")
        self._children[child] = None
        return child

    def _hear(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._alarm_out, selectors.EVENT_READ)
            for child in self._children:
                selector.register(child, selectors.EVENT_READ, child)
            for key, _ in selector.select(TICK_S):
                if key.data is None:
                    os.read(self._alarm_out, 4096)
                    continue
                news, open_end = key.data.news()
                for item in news:
                    self._heed(key.data, item)
                if not open_end:
                    self._fail(key.data, None if key.data.dismissed else "its process died")
        now = time.monotonic()
        for child in [child for child in self._children if now - child.last_news > self._hung_s]:
            self._fail(child, f"it said nothing for {self._hung_s:g} s and was ended")

    def _heed(self, child: Child, news: dict[str, Any]) -> None:
        job = self._children.get(child)
        match news["say"]:
            case "started" | "epoch":
                self._failures = 0
            case "done" if job is not None:
                self._children[child] = None
                self._failures, self._alike = 0, ("", set())
                self.mirrored += 1
                self._jobs.pop(job.experiment.key, None)
            case "busy" if job is not None:
                self._children[child] = None
                if self._wait_s == 0:
                    self._jobs.pop(job.experiment.key, None)
                else:
                    self._failed(job, "another process still mirrors it")
            case "problem":
                child.dismiss()  # it closes what it can and goes; `_hear` notices
                self._failed(job, news["message"])

    def _fail(self, child: Child, why: str | None) -> None:
        """Ends a child that is of no use any more; its experiment waits for another."""
        job = self._children.pop(child)
        child.kill()
        if why is not None:
            self._failed(job, why)

    def _failed(self, job: _Job | None, why: str) -> None:
        """Warns, and waits a while before the next attempt, or gives up where nothing goes through any more."""
        self.warn(f"{job.experiment.name if job else 'the mirror to SwanLab'}: {why}")
        self._back_off()
        if job is not None and not self._patient:
            reason = why.replace(job.experiment.key, "")
            known = self._alike[1] if self._alike[0] == reason else set()
            self._alike = (reason, known | {job.experiment.key})

    def _back_off(self) -> None:
        self._failures += 1
        if self._failures > 1:  # after the first there is no pause: a child may die of chance
            longest = LONGEST_PAUSE_S if self._patient else PAUSE_S
            self._pause_until = time.monotonic() + min(longest, PAUSE_S * 2.0 ** (self._failures - 2))

    def _end_children(self) -> None:
        for child in self._children:
            child.dismiss()
        patience = time.monotonic() + GOODBYE_S / 2
        while time.monotonic() < patience and not all(child.gone() for child in self._children):
            time.sleep(0.02)
        for child in self._children:
            child.kill()
        self._children.clear()


REAP_S = 2.0  # for the system to take back a killed process; one stuck in a dead file system is left to it


class Child:
    """One running `search.mirror.worker`; nothing here ever waits for it."""

    def __init__(self, log: Path) -> None:
        """Starts the process; what SwanLab prints goes to `log` where that can be written.

        It works in the same folder as the driver, where SwanLab may keep a key, but imports nothing from there (-P).

        Raises:
            OSError: the system has no room for another process.
        """
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "search.mirror.worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(printed := _appending(log)),
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the driver, which then ends what runs here in good order
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"},
        )
        os.close(printed)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._in.fileno(), False)
        os.set_blocking(self._out.fileno(), False)
        self._buffer = b""
        self.dismissed = False
        self.last_news = time.monotonic()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def fileno(self) -> int:
        """Where news arrive, for `select`."""
        return self._out.fileno()

    def send(self, order: dict[str, Any]) -> bool:
        """Whether the order is on its way; False where the child is dead or has long stopped to read."""
        data = (json.dumps(order) + "\n").encode()
        try:
            return os.write(self._in.fileno(), data) == len(data)
        except (BlockingIOError, BrokenPipeError):
            return False

    def news(self) -> tuple[list[dict[str, Any]], bool]:
        """What the child has said since the last call, and whether it can still say more."""
        open_end = True
        try:
            chunk = os.read(self._out.fileno(), 65_536)
            open_end = bool(chunk)
            self._buffer += chunk
        except BlockingIOError:
            return [], True
        *lines, self._buffer = self._buffer.split(b"\n")
        self.last_news = time.monotonic()
        return [json.loads(line) for line in lines], open_end

    def dismiss(self) -> None:
        """Lets the child finish what it has and go; `kill` is still due."""
        self.dismissed = True
        self._in.close()

    def gone(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """Ends the process now, whatever it does, and frees what it held here."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(REAP_S)
        self._in.close()
        self._out.close()


def _appending(log: Path) -> int:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:  # a full or read-only disk; the child itself will say so
        return os.open(os.devnull, os.O_WRONLY)
