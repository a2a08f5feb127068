"""Who mirrors what, with children that do as the test says."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from search.mirror import pool as mirror_pool
from search.mirror.experiment import Ending, Experiment
from search.mirror.mode import ResolvedMode
from search.mirror.pool import HOPELESS_AFTER, TRIES, Pool
from tests.support.mirrored import until

pytestmark = [pytest.mark.process, pytest.mark.slow]

DONE = Ending("finished", "success", final=True)


class ScriptedChild:
    """Stands for a child process; `say` is what it tells."""

    made: ClassVar[list[ScriptedChild]] = []

    def __init__(self, log: Path) -> None:
        self.pid = len(self.made)
        self.orders: list[dict[str, Any]] = []
        self.dismissed = self.killed = False
        self.last_news = time.monotonic()
        self._said: list[dict[str, Any]] = []
        self._out, self._in = os.pipe()
        self.made.append(self)

    def say(self, news: str, **facts: Any) -> None:
        self._said.append({"say": news, **facts})
        os.write(self._in, b"!")

    def leave(self) -> None:
        os.close(self._in)

    def fileno(self) -> int:
        return self._out

    def send(self, order: dict[str, Any]) -> bool:
        if self.dismissed:
            raise ValueError("write to closed file")
        self.orders.append(order)
        return True

    def news(self) -> tuple[list[dict[str, Any]], bool]:
        open_end = bool(os.read(self._out, 4096))
        said, self._said = self._said, []
        return said, open_end

    def dismiss(self) -> None:
        self.dismissed = True

    def gone(self) -> bool:
        return True

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[ScriptedChild]:
    monkeypatch.setattr(ScriptedChild, "made", [])
    monkeypatch.setattr(mirror_pool, "Child", ScriptedChild)
    return ScriptedChild.made


@pytest.fixture
def pool(made: list[ScriptedChild], tmp_path: Path) -> Iterator[Pool]:
    pool = Pool(ResolvedMode("local", ""), tmp_path, concurrency=1, wait_s=1.0, hung_s=600.0)
    yield pool
    pool.close(timeout=0)


@pytest.fixture
def replaying(made: list[ScriptedChild], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """The pool of a replay, which waits for nothing."""
    monkeypatch.setattr(mirror_pool, "PAUSE_S", 0.0)
    monkeypatch.setattr(mirror_pool, "TICK_S", 0.02)
    return Pool(ResolvedMode("local", ""), tmp_path, concurrency=1, wait_s=0.0, hung_s=600.0, patient=False)


def experiment(key: str) -> Experiment:
    return Experiment(key, "", "", key, "", "", "", [], "", {})


def test_running_trials_come_before_ended_ones(pool: Pool, made: list[ScriptedChild]) -> None:
    pool.mirror(experiment("a"), DONE)
    until(lambda: made and made[0].orders)
    pool.mirror(experiment("b"), DONE)
    pool.mirror(experiment("live"))
    made[0].say("done")
    until(lambda: len(made[0].orders) == 2)
    assert made[0].orders[1]["experiment"]["key"] == "live"
    assert made[0].orders[1]["ending"] is None


def test_a_trial_that_waits_gets_a_child_of_its_own_but_only_one(
    pool: Pool, made: list[ScriptedChild], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in "abc":
        pool.mirror(experiment(key))
    until(lambda: made and made[0].orders)
    time.sleep(0.1)
    assert len(made) == 1
    monkeypatch.setattr(mirror_pool, "EXTRA_AFTER_S", 0.0)
    made[0].say("alive")
    until(lambda: len(made) == 2 and made[1].orders)
    made[0].say("alive")
    time.sleep(0.1)
    assert len(made) == 2


def test_a_child_that_reports_a_problem_gets_no_more_orders_and_its_trial_another_child(
    pool: Pool, made: list[ScriptedChild]
) -> None:
    pool.mirror(experiment("a"))
    until(lambda: made and made[0].orders)
    made[0].say("problem", message="the disk is full")
    until(lambda: made[0].dismissed)
    pool.mirror(experiment("a"), DONE)
    time.sleep(0.1)
    made[0].leave()
    until(lambda: len(made) == 2 and made[1].orders)
    assert made[0].killed
    assert made[1].orders[0]["ending"]["outcome"] == "finished"
    made[1].say("done")
    until(lambda: pool.mirrored == 1)
    assert (pool.warnings, pool.last_warning, pool.waiting) == (1, "a: the disk is full", 0)


def test_a_trial_that_fails_again_and_again_is_given_up_until_the_end_of_the_search(
    pool: Pool, made: list[ScriptedChild], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_pool, "PAUSE_S", 0.0)
    pool.mirror(experiment("a"))
    for attempt in range(TRIES):
        until(lambda: len(made) == attempt + 1 and made[attempt].orders)  # noqa: B023
        made[attempt].leave()
    until(lambda: pool.warnings == TRIES)
    time.sleep(0.1)
    assert len(made) == TRIES
    pool.mirror(experiment("b"))  # others are tried
    until(lambda: len(made) == TRIES + 1 and made[-1].orders)
    made[-1].say("done")
    pool.close(timeout=0.5)
    assert [order["experiment"]["key"] for child in made for order in child.orders] == ["a"] * TRIES + ["b", "a"]
    assert made[-1].orders[-1]["ending"]["final"] is False
    assert pool.waiting == 1


def test_a_replay_says_at_once_what_is_wrong_and_ends_where_all_fail_alike(
    replaying: Pool, made: list[ScriptedChild]
) -> None:
    keys = [f"trial_{number:04d}" for number in range(6)]
    for key in keys:
        replaying.mirror(experiment(key), DONE)
    said: list[str] = []
    closing = threading.Thread(target=replaying.close, args=(60.0, None, said.append))
    closing.start()
    for attempt in range(HOPELESS_AFTER):
        until(lambda: len(made) == attempt + 1 and made[attempt].orders)  # noqa: B023
        made[attempt].say("problem", message=f"the disk of {keys[attempt]} is read-only")
        until(lambda: len(said) == attempt + 1)  # noqa: B023
        made[attempt].leave()
    closing.join(timeout=30)
    assert not closing.is_alive()
    assert said == [f"{key}: the disk of {key} is read-only" for key in keys[:HOPELESS_AFTER]]
    assert (replaying.waiting, len(made)) == (6, HOPELESS_AFTER)


def test_a_replay_goes_on_past_experiments_that_fail_each_for_a_reason_of_its_own(
    replaying: Pool, made: list[ScriptedChild]
) -> None:
    for key in "abcde":
        replaying.mirror(experiment(key), DONE)
    for attempt in range(4):
        until(lambda: len(made) == attempt + 1 and made[attempt].orders)  # noqa: B023
        made[attempt].say("problem", message=f"line {attempt} is damaged")
        until(lambda: made[attempt].dismissed)  # noqa: B023
        made[attempt].leave()
    until(lambda: len(made) == 5 and made[4].orders)
    assert [child.orders[0]["experiment"]["key"] for child in made] == list("abcde")  # first those that have not failed
    replaying.close(timeout=0)


def test_failures_in_a_row_make_a_pause_that_grows(pool: Pool, made: list[ScriptedChild]) -> None:
    pauses = []
    for _ in range(10):
        pool._back_off()
        pauses.append(max(0.0, pool._pause_until - time.monotonic()))
    assert pauses[0] == 0
    assert pauses[1] == pytest.approx(mirror_pool.PAUSE_S, abs=0.5)
    assert pauses[2] == pytest.approx(2 * mirror_pool.PAUSE_S, abs=0.5)
    assert pauses[-1] == pytest.approx(mirror_pool.LONGEST_PAUSE_S, abs=0.5)


def test_a_trial_that_an_orphan_still_holds_is_tried_again(pool: Pool, made: list[ScriptedChild]) -> None:
    pool.mirror(experiment("a"))
    until(lambda: made and made[0].orders)
    made[0].say("busy")
    until(lambda: len(made[0].orders) == 2)
    assert "another process" in pool.last_warning


def test_what_no_thread_takes_from_the_queue_is_dropped_with_a_warning(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_pool, "MOST_EVENTS", 0)
    pool.mirror(experiment("a"))
    assert pool.waiting == 0
    assert "cannot keep up" in pool.last_warning
