"""SwanLab's three stores, each as the mirror needs it: imported once, cleared of an old attempt, asked what it kept.

A child process makes a thousand runs in a row, which SwanLab does not foresee, and SwanLab hides its own write errors.
Written against swanlab 0.10.3 and the swanboard that belongs to it; the tests notice a version that differs.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

DATABASE = "runs.swanlab"
RUNNING = 0  # as the column `status` of the table `experiment` has it
BUSY_S = 30.0  # for the pages, which may be reading
ALWAYS_LOGGED = "train/epoch"  # the one metric that is never NaN
STILL_RUNNING = "the experiment still counts as running"


class Store(Protocol):
    """Where experiments are kept; the key is that of an experiment, and its folder's name."""

    sdk_mode: ClassVar[str]  # what `swanlab.init` calls it
    shared_rows: ClassVar[bool]  # whether two processes that make an experiment at once lose some of it

    def load(self) -> None:
        """Imports SwanLab, fixes what is in the way of many runs in one process, and begins a new experiment."""

    def remove(self, key: str) -> None:
        """Takes away what an earlier attempt has left of an experiment, which cannot be taken up again in place."""

    def missing(self, key: str, epochs: int) -> str | None:
        """A sentence about what the store lacks of a finished experiment of so many epochs; None where it has all."""


def open_store(mode: str, log_dir: Path) -> Store:
    """The store of a mode: cloud, offline or local."""
    stores: dict[str, type[Cloud | Offline | Local]] = {"cloud": Cloud, "offline": Offline, "local": Local}
    return stores[mode](log_dir)


def _load_sdk() -> None:
    """Imports SwanLab without its watcher.

    Every run makes a watcher for files given to `swanlab.save`, which is not used here, and never ends it: a thread
    and an inotify instance are lost each time, of which Linux grants a user 128 in all.
    """
    import swanlab  # noqa: F401
    from swanlab.sdk.internal.core_python import core
    from swanlab.sdk.internal.core_python.watcher import NullFileWatcher

    core.FileWatcher = lambda *arguments, **options: NullFileWatcher()


def _remove_folder(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


class Cloud:
    """SwanLab's server.

    The SDK prints an upload that the server refuses for good, drops it and calls the run finished; nothing else tells.
    """

    sdk_mode: ClassVar[str] = "online"
    shared_rows: ClassVar[bool] = False
    _http: ClassVar[re.Pattern[str]] = re.compile(r"\[HTTP\] (.*)-> (\d{3})")
    _try_again: ClassVar[tuple[int, ...]] = (408, 429)  # and all from 500 up: the SDK repeats these itself
    _errors: ClassVar[list[str]] = []  # that the SDK has printed of the current experiment

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir

    def load(self) -> None:
        """Begins to note the errors that the SDK prints."""
        from swanlab.sdk.internal.pkg import console

        _load_sdk()
        Cloud._errors.clear()
        if hasattr(console, "noted_for_the_mirror"):
            return
        printed = console.error

        def error(*parts: Any, **options: Any) -> Any:
            Cloud._errors.append(" ".join(str(part) for part in parts))
            return printed(*parts, **options)

        console.error = error
        console.noted_for_the_mirror = True

    def remove(self, key: str) -> None:
        """Takes away the SDK's own folder; the server knows the experiment by its id and goes on."""
        _remove_folder(self._log_dir / key)

    def missing(self, key: str, epochs: int) -> str | None:
        """What the server has refused since `load`; None where all went through, if not at the first attempt."""
        for text in Cloud._errors:
            request = Cloud._http.search(text)
            if request is None:
                return text
            status = int(request.group(2))
            if status < 500 and status not in Cloud._try_again:
                return f"the server refuses data (HTTP {status})"
        return None


class Offline:
    """A folder of records that `swanlab sync` uploads later."""

    sdk_mode: ClassVar[str] = "offline"
    shared_rows: ClassVar[bool] = False

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir

    def load(self) -> None:
        """Imports SwanLab."""
        _load_sdk()

    def remove(self, key: str) -> None:
        """Takes away the experiment's folder."""
        _remove_folder(self._log_dir / key)

    def missing(self, key: str, epochs: int) -> str | None:
        """What the record lacks; a full disk shows only here."""
        from swanlab.proto.swanlab.record.v1.record_pb2 import Record
        from swanlab.sdk.internal.core_python.store import DataStoreReader

        files = list((self._log_dir / key).glob("run-*.swanlab"))
        if len(files) != 1:
            return f"SwanLab wrote {len(files)} record files instead of 1"
        kept, finished = 0, False
        reader = DataStoreReader()
        reader.open(files[0])
        try:
            for data in reader:
                record = Record()
                record.ParseFromString(data)
                kept += record.HasField("scalar") and record.scalar.key == ALWAYS_LOGGED
                finished = finished or record.HasField("finish")
        finally:
            reader.close()
        if kept != epochs:
            return f"SwanLab kept {kept} of {epochs} epochs"
        return None if finished else STILL_RUNNING


class Local:
    """The local pages with their database, in which SwanLab loses rows where two processes make some at once."""

    sdk_mode: ClassVar[str] = "local"
    shared_rows: ClassVar[bool] = True

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir

    def load(self) -> None:
        """Imports the local store, and fixes two things in it."""
        from swanboard.db.models import Tag
        from swanlab.deprecated import local

        _load_sdk()
        if hasattr(local.LocalCallbacker, "numbered_from_zero"):
            return

        # The page's table looks for a metric's last value in a folder named by the metric's rank, counted from 0, but
        # SwanLab numbers the folders from 1: `train/loss` would show the last `val/acc`.
        class NumberedFromZero(local.LocalCallbacker):  # type: ignore[misc]
            numbered_from_zero = True

            def __init__(self) -> None:
                super().__init__()
                self._next_kid = 0

        local.LocalCallbacker = NumberedFromZero

        # To see whether a column exists, swanboard reads the whole table and three more rows for each of its rows,
        # once per experiment: at 1,000 trials that would be half a minute each.
        def field_exists(cls: Any, field: str) -> bool:
            return any(column.name == field for column in cls._meta.database.get_columns(cls._meta.table_name))

        Tag.field_exists = classmethod(field_exists)

    def remove(self, key: str) -> None:
        """Takes an experiment out of the pages, with its files, as the page's own delete button would.

        The project's counter of experiments stays as it is: it gives each one its place, and a place given twice would
        rename the second experiment.
        """
        if (self._log_dir / DATABASE).exists():
            with self._database() as database:
                database.execute("PRAGMA foreign_keys = ON")  # its metrics and charts go with it
                database.execute("DELETE FROM experiment WHERE run_id = ?", (key,))
                database.execute(  # comparison charts in which nobody draws any more
                    "DELETE FROM chart WHERE project_id IS NOT NULL AND id NOT IN (SELECT chart_id FROM source)"
                )
        _remove_folder(self._log_dir / key)

    def missing(self, key: str, epochs: int) -> str | None:
        """What the database or the metrics' files lack; a full disk shows only here."""
        with self._database() as database:
            experiment = database.execute("SELECT id, status FROM experiment WHERE run_id = ?", (key,)).fetchone()
            if experiment is None:
                return "the experiment is not in SwanLab's database"
            ident, status = experiment
            if status == RUNNING:
                return STILL_RUNNING
            folder = database.execute(
                "SELECT folder FROM tag WHERE experiment_id = ? AND name = ?", (ident, ALWAYS_LOGGED)
            ).fetchone()
        files = (self._log_dir / key / "logs" / folder[0]).glob("*.log") if folder else ()
        kept = sum(file.read_bytes().count(b"\n") for file in files)
        return None if kept == epochs else f"SwanLab kept {kept} of {epochs} epochs"

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._log_dir / DATABASE, timeout=BUSY_S)) as database, database:
            yield database
