from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trainable.errors import InputError
from trainable.features.disk_cache import ABOUT, Store

KB = 1000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    folder = tmp_path / "mels"
    folder.mkdir()
    return Store(folder, limit=10 * KB)


def fill(size: int = KB) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "values").write_bytes(bytes(size))
        (folder / ABOUT).write_text("{}")

    return make


def build(store: Store, key: str, size: int = KB) -> None:
    store.build(key, size, fill(size), lambda: None).close()


def keys(store: Store) -> set[str]:
    return {entry.key for entry in store.entries()}


def age(store: Store, key: str, seconds: float) -> None:
    os.utime(store.folder / key / ABOUT, (time.time() - seconds, time.time() - seconds))


def test_files_that_are_no_entries_are_left_alone(store: Store) -> None:
    (store.folder / "notes.txt").write_text("mine")
    (store.folder / "folder").mkdir()
    assert store.entries() == []
    assert store.clear() == (0, 0)
    assert (store.folder / "notes.txt").exists()


def test_what_was_never_built_cannot_be_held(store: Store) -> None:
    assert store.hold("a") is None


def test_a_built_entry_is_held_and_listed_with_its_size(store: Store) -> None:
    holder = store.build("a", KB, fill(), lambda: None)
    (entry,) = store.entries()
    assert (entry.key, entry.bytes, entry.in_use) == ("a", KB + 2, True)
    holder.close()
    assert not store.entries()[0].in_use


def test_the_least_recently_used_entry_makes_room(store: Store) -> None:
    for place, key in enumerate("abc"):
        build(store, key, 3 * KB)
        age(store, key, 100 - place)
    held = store.hold("a")  # using it makes it the newest
    assert held
    held.close()
    build(store, "d", 3 * KB)
    assert keys(store) == {"a", "c", "d"}


def test_an_entry_in_use_is_never_removed(store: Store) -> None:
    holder = store.build("a", 6 * KB, fill(6 * KB), lambda: None)
    age(store, "a", 100)
    build(store, "b", 6 * KB)
    assert "a" in keys(store)
    store.clear()
    assert keys(store) == {"a"}
    holder.close()
    assert store.clear() == (1, 6 * KB + 2)
    assert keys(store) == set()


def test_an_entry_that_another_process_uses_stays_until_that_process_is_killed(store: Store) -> None:
    build(store, "a")
    code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_SH); print(flush=True); input()"
    path = str(store.folder / "a" / ABOUT)
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout
        user.stdout.readline()
        assert store.entries()[0].in_use
        assert store.clear() == (0, 0)
        user.kill()
        user.wait()
    assert store.clear()[0] == 1


def test_an_entry_larger_than_the_limit_is_built_all_the_same(store: Store) -> None:
    build(store, "a")
    holder = store.build("b", 20 * KB, fill(20 * KB), lambda: None)
    assert keys(store) == {"b"}
    holder.close()


def test_two_builders_of_one_entry_build_once(store: Store) -> None:
    made, waited, start = [], [], threading.Barrier(2)

    def make(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.8)
        fill()(folder)

    def run() -> None:
        start.wait()
        store.build("a", KB, make, lambda: waited.append(1)).close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert waited


def test_a_failed_build_leaves_nothing(store: Store) -> None:
    def fail(folder: Path) -> None:
        (folder / "values").write_bytes(bytes(KB))
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        store.build("a", KB, fail, lambda: None)
    assert list(store.folder.iterdir()) == []
    build(store, "a")  # and its lock is free


def test_leftovers_of_killed_builders_go_at_the_next_build_but_not_those_of_living_ones(store: Store) -> None:
    for key in ("a", "b", "alive"):
        (store.folder / f".building-{key}").mkdir()
        (store.folder / f".building-{key}" / "values").write_bytes(bytes(KB))
    lock = store._lock("alive")
    lock.acquire()
    build(store, "a")
    lock.release()
    assert {path.name for path in store.folder.iterdir()} == {"a", ".building-alive"}


def test_a_full_disk_is_said_before_anything_is_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "trainable.features.disk_cache.shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10**8})
    )
    with pytest.raises(InputError) as error:
        store.build("a", 3 * 10**9, fill(), lambda: None)
    assert str(error.value) == (
        f"{store.folder}: must have room for 3.0 GB, got 0.1 GB of free disk. "
        "Free some, or set AUDIO_SEARCH_CACHE to a folder on a larger disk."
    )
