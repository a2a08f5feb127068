from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from search.runs.gain import FEWEST
from search.runs.journal import Journal
from search.tune.stop import HOPELESS_AFTER, LITTLE_TO_GAIN, Stop, signals_stop, signals_wait
from tests.support.stepping import new_journal


def report(journal: Journal, value: float, status: str | None = None, message: str = "") -> None:
    """A trial of one epoch."""
    trial = journal.suggested("search", "", {"lr": 1e-3}, {})
    journal.reported(trial.number, 1, value, 1.0, "continue")
    if status:
        journal.ended(trial.number, status, message)  # type: ignore[arg-type]


def fail(journal: Journal, times: int) -> None:
    for _ in range(times):
        trial = journal.suggested("search", "", {"lr": 1e-3}, {})
        journal.ended(trial.number, "failed", "no such file")


def test_the_target_stops_a_search_at_the_report_that_reaches_it(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    stop = Stop(journal, grace_epochs=1, target_accuracy=0.9)
    report(journal, 0.89)
    assert not stop.stop_all()
    report(journal, 0.9)
    assert stop.reason == "target accuracy"


def test_a_trial_that_is_shorter_than_the_grace_period_reaches_the_target_when_it_ends(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    stop = Stop(journal, grace_epochs=4, target_accuracy=0.9)
    report(journal, 0.99)
    assert stop.reason is None
    journal.ended(0, "finished", "")
    assert stop.reason == "target accuracy"


def test_a_driver_killed_after_the_target_was_reached_stops_at_once_when_it_is_resumed(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    journal.session()
    report(journal, 0.9)
    assert Stop(Journal(journal.path), grace_epochs=1, target_accuracy=0.9).reason == "target accuracy"
    assert Stop(Journal(journal.path), grace_epochs=2, target_accuracy=0.9).reason is None


def test_a_search_that_ended_at_its_target_may_be_resumed(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    journal.session()
    report(journal, 0.9)
    journal.stopped("target accuracy")
    journal = Journal(journal.path)
    stop = Stop(journal, grace_epochs=1, target_accuracy=0.9)
    journal.session()
    report(journal, 0.95)
    assert stop.reason is None


def alike(journal: Journal, times: int) -> None:
    """Trials that are all over and all as good."""
    for _ in range(times):
        report(journal, 0.8, "finished")


def test_a_search_that_promises_less_than_was_asked_for_stops_when_its_best_is_over(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    stop, unasked = Stop(journal, grace_epochs=1, gain=0.005), Stop(journal, grace_epochs=1)
    alike(journal, FEWEST - 2)
    report(journal, 0.81)
    leader = len(journal.trials) - 1
    alike(journal, 3)
    assert stop.reason is None  # the best still runs, and may get better by itself
    journal.ended(leader, "finished", "")
    assert (stop.reason, stop.trouble, unasked.reason) == (LITTLE_TO_GAIN, False, None)


def test_a_search_that_still_promises_something_goes_on(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    stop = Stop(journal, grace_epochs=1, gain=0.005)
    for number in range(2 * FEWEST):
        report(journal, 0.4 + 0.02 * number, "finished")
    assert stop.reason is None


def test_a_driver_killed_after_there_was_little_to_gain_stops_when_it_is_resumed(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    journal.session()
    alike(journal, FEWEST)
    assert Stop(Journal(journal.path), grace_epochs=1, gain=0.005).reason == LITTLE_TO_GAIN


def test_a_search_that_ended_with_little_to_gain_may_be_resumed(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    journal.session()
    alike(journal, FEWEST)
    journal.stopped(LITTLE_TO_GAIN)
    journal = Journal(journal.path)
    stop = Stop(journal, grace_epochs=1, gain=0.005)
    journal.session()
    alike(journal, 3)
    assert stop.reason is None


def test_first_trials_that_all_fail_alike_stop_a_search_also_across_a_kill(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    journal.session()
    stop = Stop(journal, grace_epochs=1)
    fail(journal, HOPELESS_AFTER - 1)
    assert stop.reason is None
    fail(journal, 1)
    assert stop.reason == "5 trials in a row failed alike: no such file"
    assert Stop(Journal(journal.path), grace_epochs=1).reason == stop.reason


@pytest.mark.parametrize(
    "message",
    [
        "trial {n}: f_max: must be at most half the sample rate (4000 Hz), got 9000.0. Lower it.",
        "trial {n}: batch_size: should be a valid integer, got {n}.7{pid}e-05. Change it.",
        "OSError: [Errno 28] No space left on device: '/runs/x/trial_{n:04d}/.epochs.jsonl.tmp{pid}'",
    ],
)
def test_failures_that_differ_only_in_the_trial_they_name_are_alike(tmp_path: Path, message: str) -> None:
    journal = new_journal(tmp_path)
    stop = Stop(journal, grace_epochs=1)
    for n in range(HOPELESS_AFTER):
        journal.suggested("search", "", {}, {})
        journal.ended(n, "failed", message.format(n=n, pid=4000 + n % 2))
    assert stop.reason == f"5 trials in a row failed alike: {message.format(n=4, pid=4000)}"


def test_a_baseline_may_fail_like_the_trials_after_it(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    stop = Stop(journal, grace_epochs=1)
    for n in range(HOPELESS_AFTER):
        journal.suggested("search" if n else "baseline", "" if n else "mine", {}, {})
        journal.ended(n, "failed", f"{f'trial {n}' if n else 'mine'}: f_max: must be lower")
    assert stop.reason is not None


def test_failures_with_reasons_of_their_own_do_not_stop_a_search(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    stop = Stop(journal, grace_epochs=1)
    for n in range(HOPELESS_AFTER):
        journal.suggested("search", "", {}, {})
        journal.ended(n, "failed", f"trial {n}: f_max: must be at most {n}")
    assert stop.reason is None


def test_failures_of_an_earlier_sitting_do_not_stop_the_one_that_tries_again(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    journal.session()
    fail(journal, HOPELESS_AFTER)
    journal.stopped("5 trials in a row failed alike: no such file")
    stop = Stop(journal, grace_epochs=1)
    journal.session()
    fail(journal, HOPELESS_AFTER - 1)
    assert stop.reason is None
    fail(journal, 1)
    assert stop.reason == "5 trials in a row failed alike: no such file"


@pytest.mark.parametrize("earlier", [False, True])
def test_trials_in_a_row_that_fail_alike_stop_a_search_at_any_time(tmp_path: Path, earlier: bool) -> None:
    journal = new_journal(tmp_path)
    journal.session()
    report(journal, 0.5, "finished")
    if earlier:
        journal.stopped("budget")
        journal.session()
    stop = Stop(journal, grace_epochs=1)
    fail(journal, HOPELESS_AFTER - 1)
    report(journal, 0.5, "cut")
    fail(journal, HOPELESS_AFTER - 1)
    assert stop.reason is None
    fail(journal, 1)
    assert stop.reason == "5 trials in a row failed alike: no such file"
    assert stop.trouble


def test_values_that_do_not_go_together_stop_a_search_only_while_nothing_else_has_happened(tmp_path: Path) -> None:
    for others in (0, 1):
        journal = new_journal(tmp_path / str(others))
        stop = Stop(journal, grace_epochs=1)
        for _ in range(others):
            report(journal, 0.5, "finished")
        for n in range(others, others + HOPELESS_AFTER):
            journal.suggested("search", "", {}, {})
            journal.ended(n, "failed", f"trial {n}: f_max: must be lower", refused=True)
        assert (stop.reason is None) == bool(others)


def test_an_ordinary_end_is_no_trouble(tmp_path: Path) -> None:
    stop = Stop(new_journal(tmp_path), grace_epochs=1)
    stop.request("interrupted")
    stop.request("the disk is full", trouble=True)
    assert (stop.reason, stop.trouble) == ("interrupted", False)


def test_workers_that_die_before_any_epoch_stop_a_search_and_later_ones_do_not(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    stop = Stop(journal, grace_epochs=1)
    for _ in range(HOPELESS_AFTER):
        journal.suggested("search", "", {}, {})
    lost = dict.fromkeys(range(HOPELESS_AFTER), "the worker died")
    stop.lost({0: "the worker died"})
    assert stop.reason is None
    journal.reported(0, 1, 0.5, 1.0, "continue")
    stop.lost(lost)
    assert stop.reason is None  # one has got somewhere: it is not the setup
    bare = new_journal(tmp_path / "bare")
    stop = Stop(bare, grace_epochs=1)
    stop.lost(lost)
    assert stop.reason == "the first 5 trials all lost their workers before an epoch was done: the worker died"


def test_a_time_budget_is_counted_anew_once_it_has_been_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 50.0, 60.0, 1000.0, 1010.0])
    monkeypatch.setattr("search.runs.journal.time.time", lambda: next(clock))
    journal = new_journal(tmp_path)
    journal.session()
    report(journal, 0.5)  # two events, up to 60 s
    assert journal.seconds == journal.seconds_of_budget == 60
    journal.session()  # a kill costs nothing: the time until the next session is nobody's
    journal.stopped("time budget")
    assert (journal.seconds, journal.seconds_of_budget) == (70, 0)
    assert (Journal(journal.path).seconds, Journal(journal.path).seconds_of_budget) == (70, 0)


HANDLED = """
import os, signal, sys, time
from pathlib import Path
from search.runs.gain import FEWEST
from search.runs.journal import Journal
from search.tune.stop import Stop
from search.tune.stop import signals_stop
stop = Stop(Journal(Path(sys.argv[1])), 1)
if sys.argv[2]:
    stop.request(sys.argv[2])
with signals_stop(stop, print, "the command"):
    os.kill(os.getpid(), signal.SIGINT)
    print("reason:", stop.reason, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    print("still here", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("before", "reason"), [("", "interrupted"), ("time budget", "time budget")])
def test_the_second_signal_ends_the_process_whatever_it_is_stopping_for(
    tmp_path: Path, before: str, reason: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANDLED, str(tmp_path / "events.jsonl"), before],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 130
    assert f"reason: {reason}" in ended.stdout
    assert "Once more to stop at once." in ended.stdout
    assert "Stopped at once. To go on: the command\n" in ended.stderr
    assert "still here" not in ended.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_what_cannot_bear_to_be_interrupted(number: signal.Signals) -> None:
    before, done = signal.getsignal(number), False
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - when it comes is what matters
        with signals_wait():
            os.kill(os.getpid(), number)
            done = True
        pytest.fail("it was forgotten")
    assert done
    assert signal.getsignal(number) is before
    with signals_wait():
        pass


def test_the_handlers_of_before_are_back_afterwards(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with signals_stop(Stop(new_journal(tmp_path), 1), print, ""):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def repeat(journal: Journal, number: int, fold: int, value: float) -> None:
    """A repeat of one epoch on another fold."""
    trial = journal.suggested("repeat", "", {}, {"val_fold": fold}, repeats=number)
    journal.reported(trial.number, 1, value, 1.0, "continue")
    journal.ended(trial.number, "finished")


def test_with_folds_only_a_mean_over_all_of_them_reaches_the_target(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    stop = Stop(journal, grace_epochs=1, target_accuracy=0.9, folds=3)
    report(journal, 0.95, "finished")
    repeat(journal, 0, 2, 0.95)
    assert not stop.stop_all()
    killed = Stop(Journal(journal.path), grace_epochs=1, target_accuracy=0.9, folds=3)
    repeat(journal, 0, 3, 0.7)  # 86.7% in the mean
    assert not stop.stop_all()
    assert not killed.stop_all()
    report(journal, 0.95, "finished")
    number = max(journal.trials)
    repeat(journal, number, 2, 0.95)
    repeat(journal, number, 3, 0.95)
    assert stop.reason == "target accuracy"
