"""The folder of a run: a free place for it, made whole or not at all, one driver at a time, gone if nothing began."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from filelock import FileLock, Timeout

from search.runs.run import RunFolder, load_run, record_of
from trainable.commands import typed
from trainable.errors import InputError
from trainable.files import write_atomically


def free_folder(storage: str, name: str | None, space: Path) -> Path:
    """Where the run will be; the folder does not exist yet and can be made.

    Raises:
        InputError: the name is taken or unusable, or the place cannot be written to.
    """
    parsed = urlparse(storage)
    if len(parsed.scheme) > 1 and parsed.scheme != "file":  # one letter is a drive
        raise InputError(
            f"--storage: must be a folder that all nodes see, got {storage!r}. "
            "Mount it (s3fs, gcsfuse, NFS) and give the folder."
        )
    place = Path(unquote(parsed.path) if parsed.scheme == "file" else storage).expanduser().absolute()
    name = free_name(space) if name is None else name
    if name in ("", ".", "..") or len(name) > 100 or not all(letter.isalnum() or letter in "-_." for letter in name):
        raise InputError(
            "--name: must be a folder's name of at most 100 letters, digits, '-', '_' and '.', "
            f"got {name!r}. Choose another."
        )
    run = place / name
    if run.exists():
        raise InputError(_taken(run))
    parent = next(folder for folder in (place, *place.parents) if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(_not_writable(storage))
    return run


def find_run(given: Path, storage: str | Path = "runs") -> Path:
    """The folder of the run that a person means, by its path or by its name in `storage`."""
    named = Path(storage).expanduser() / given
    if (given / "run.json").exists() or given.is_absolute() or len(given.parts) != 1:
        return given
    return named if (named / "run.json").exists() or (not given.exists() and any(_runs_in(named.parent))) else given


def _runs_in(storage: Path) -> Iterator[Path]:
    return storage.glob("*/run.json")


def free_name(space: Path) -> str:
    """A name for a run that nobody has chosen: its space file's, the time, and a little chance.

    Jobs of an array start in the same second, and minutes lie between choosing a name and making its folder.
    """
    stem = re.sub(r"[^\w.-]+", "-", space.stem)
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


@contextmanager
def new_run(path: Path, content: Mapping[str, Any], storage: str) -> Iterator[RunFolder]:
    """A new run folder with `content` as its run.json, taken away again where bad input shows before the first trial.

    Raises:
        InputError: the folder, inside `storage`, cannot be made, or another search has made it meanwhile.
    """
    above = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except OSError as error:
        _remove_empty(above)
        taken = path.exists()
        raise InputError(_taken(path) if taken else _not_writable(storage, f" ({error.strerror})")) from None
    try:
        write_atomically(path / "run.json", json.dumps(content, indent=2) + "\n")
    except OSError as error:
        _take_away(path, above)
        raise InputError(_not_writable(storage, f" ({error.strerror})")) from None
    run = load_run(path)
    try:
        yield run
    except (InputError, KeyboardInterrupt):
        if not run.journal.trials:
            _take_away(path, above)
        raise


def shared_paths(run: RunFolder) -> list[Path]:
    """What every node must see: the run folder and, unless each node makes its own, the data."""
    data = run.record["data"]["path"]
    return [run.path, *([Path(data)] if data != "demo" else [])]


@contextmanager
def nested_run(path: Path) -> Iterator[None]:
    """Holds the folder of a run inside a run, made if need be; bad input before its run.json takes it away again."""
    path.mkdir(exist_ok=True)
    with only_driver(path):
        clear_temporaries(path)
        try:
            yield
        except InputError:
            if not (path / "run.json").exists():
                shutil.rmtree(path, ignore_errors=True)
            raise


@contextmanager
def only_driver(run: Path) -> Iterator[None]:
    """Holds the run folder, so that two drivers never write one journal."""
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{run}: must have one driver at a time, got another one running. Wait for it, or stop it with Ctrl-C."
        ) from None
    with lock:
        lock.release()  # the context holds it once more
        yield


@contextmanager
def sole_run(path: Path) -> Iterator[RunFolder]:
    """The run in a folder, held for as long as the context lasts, and read only once it is held.

    A driver that is still stopping adds lines to the journal, and a journal that was read before them cuts them off.

    Raises:
        InputError: it is no run folder, or another driver has it.
    """
    record_of(path)  # where it is none, this says so before a lock file is left there
    with only_driver(path):
        clear_temporaries(path)
        yield load_run(path)


def clear_temporaries(run: Path) -> None:
    """Removes the half-written files of drivers and workers that were killed; whoever calls it holds the folder."""
    for pattern in (".*.tmp[0-9]*", "trial_*/.*.tmp[0-9]*", "scores/.*.tmp[0-9]*"):
        for left in run.glob(pattern):
            with suppress(OSError):  # room is all that it would make
                left.unlink()


def _take_away(run: Path, above: list[Path]) -> None:
    """Removes the run's folder, and those above it that were made for it and hold nothing else by now."""
    shutil.rmtree(run, ignore_errors=True)
    _remove_empty(above)


def _remove_empty(above: list[Path]) -> None:
    for folder in above:
        try:
            folder.rmdir()
        except OSError:  # it was never made, or another search has put its run there
            return


def _taken(run: Path) -> str:
    return (
        f"--name: must be new, because runs are never overwritten, got {run.name!r} ({run} exists). "
        f"Choose another name, or continue it: {typed('resume', run)}"
    )


def _not_writable(storage: str, why: str = "") -> str:
    return f"--storage: must be a folder that can be written to, got {storage!r}{why}. Choose another with --storage."
