"""A search with simulated training in a process of its own, to be killed: python -m tests.support.driver RUN."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from search.runs.journal import Journal
from search.space.load import load_space
from search.tune.cluster import connected, start_again
from search.tune.scheduler import JournalASHA
from search.tune.searcher import StudySearch
from search.tune.stop import Stop, leave_at_once, signals_stop
from search.tune.tuner import Running, run_trials
from tests.support.simulated import slow

SPACE = """
fixed: {epochs: 9, weights: none, image_size: 64}
search:
  backbone: {choice: [resnet18, mobilenet_v3_small, squeezenet1_1]}
  lr: {loguniform: [1.0e-5, 1.0e-1]}
  mixup: {uniform: [0, 0.5]}
baselines: [{name: base, backbone: resnet18, lr: 1.0e-4}]
budget: {trials: 12, grace_epochs: 1, reduction_factor: 3}
searcher: {startup_trials: 3}
"""


def drive(run: Path, seconds: float, concurrency: int, address: str | None = None) -> str | None:
    """Runs, or runs on, the search in `run`; returns the reason of a stop that is not the budget."""
    run.mkdir(parents=True, exist_ok=True)
    space_file = run / "space.yaml"
    if not space_file.exists():
        space_file.write_text(SPACE)
    space = load_space(space_file)
    journal = Journal(run / "events.jsonl")
    with connected(address) as machines:
        journal.session()
        stop = Stop(journal, space.budget.grace_epochs)

        def give_up(why: str) -> None:
            leave_at_once(f"gave up: {why}", 130 if stop.reason == "interrupted" else 1)

        with signals_stop(stop, print, "the command"):
            run_trials(
                run, journal, lambda: StudySearch(space, journal), lambda: JournalASHA(space, journal), stop,
                Running(
                    slow(seconds), 1, 0, concurrency, lambda text: print(text, flush=True),
                    lambda: start_again(machines), give_up,
                ),
            )  # fmt: skip
    return stop.reason


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--address")
    given = parser.parse_args()
    reason = drive(given.run, given.seconds, given.concurrency, given.address)
    print(f"stopped: {reason}", flush=True)
    sys.exit(130 if reason == "interrupted" else 1 if reason else 0)
