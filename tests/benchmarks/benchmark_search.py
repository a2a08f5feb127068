"""What a search costs over its training: 16 trials of about 10 s whose workers import torch, two at a time.

    python -m tests.benchmarks.benchmark_search [--trials 16] [--seconds 10] [--concurrency 2] [--quick]   # 2 minutes

The trials sleep, so that nothing but the search itself can make it longer than its epochs. The aims: a wall time of at
most 1.25 times the epochs' time over the concurrency, with Ray's start and its end in it; and at most 0.3 s from the
end of one trial to the start of the next on the same worker. On a machine that others use, too, both are upper bounds.

Measured on two cores: 1.10 times the epochs' time; 12 ms between two trials on a worker.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from search.runs.journal import Journal
from search.runs.run import trial_folder
from search.space.load import load_space
from search.space.space import Space
from search.tune.cluster import connected
from search.tune.scheduler import JournalASHA
from search.tune.searcher import StudySearch
from search.tune.stop import Stop
from search.tune.tuner import Running, run_trials
from tests.support import simulated
from trainable.config import TrialConfig
from trainable.training.trial_folder import EpochResult

EPOCHS = 10


def train(config: TrialConfig, folder: Path, seconds: float, **options: Any) -> Iterator[EpochResult]:
    """Simulated training in a process that has torch, as a real one does; `seconds` per epoch, s."""
    import torch

    torch.set_num_threads(1)
    yield from simulated.train(config, folder, seconds=seconds, **options)


def make_space(folder: Path, trials: int) -> Space:
    """A search in which every trial trains to its end."""
    file = folder / "space.yaml"
    file.write_text(f"""
        fixed: {{epochs: {EPOCHS}, weights: none}}
        search: {{lr: {{loguniform: [1.0e-5, 1.0e-2]}}}}
        budget: {{trials: {trials}}}
        scheduler: none
    """)
    return load_space(file)


def search(run: Path, trials: int, seconds: float, concurrency: int) -> Journal:
    """Runs the search from Ray's start to its end and returns its journal."""
    space, journal = make_space(run, trials), Journal(run / "events.jsonl")
    with connected(None):
        journal.session()
        run_trials(
            run, journal, lambda: StudySearch(space, journal), lambda: JournalASHA(space, journal),
            Stop(journal, space.budget.grace_epochs),
            Running(partial(train, seconds=seconds / EPOCHS), 1, 0, concurrency),
        )  # fmt: skip
    return journal


def gaps(run: Path, journal: Journal, concurrency: int) -> list[float]:
    """From the end of a trial to the start of the next on the same worker, s.

    A start is the first report less that epoch's time. A worker that is free takes the next trial, so the ends and the
    starts go together in the order of their times.
    """
    trials = list(journal.trials.values())
    ends = sorted(trial.ended for trial in trials if trial.ended is not None)
    starts = sorted(trial.reports[0].time - trial_folder(run, trial.number).epochs()[0].seconds for trial in trials)
    return [start - end for end, start in zip(ends, starts[concurrency:], strict=False)]


def main(arguments: list[str] | None = None) -> None:
    """Runs the search and prints the ratio and the gaps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a trial")
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="see that it works: 4 trials of 1 s")
    args = parser.parse_args(arguments)
    if args.quick:
        args.trials, args.seconds = 4, 1.0
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch)
        began = time.time()
        journal = search(run, args.trials, args.seconds, args.concurrency)
        wall = time.time() - began
        trained = sum(epoch.seconds for number in journal.trials for epoch in trial_folder(run, number).epochs())
        between = gaps(run, journal, args.concurrency)
        first = min(trial.reports[0].time for trial in journal.trials.values()) - began - args.seconds / EPOCHS
        last = began + wall - max(trial.ended or 0.0 for trial in journal.trials.values())
    at_best = trained / args.concurrency
    print(f"{len(journal.trials)} trials of {args.seconds:g} s, {args.concurrency} at a time, load before: {load:.1f}")
    print(f"wall time {wall:.1f} s, of which {first:.1f} s before the first epoch and {last:.1f} s after the last")
    print(f"wall time / (epochs' time / concurrency): {wall / at_best:.3f} (aim: at most 1.25)")
    print(f"gap between trials on a worker: median {statistics.median(between):.3f} s, "
          f"largest {max(between):.3f} s (aim: at most 0.3 s)")  # fmt: skip


if __name__ == "__main__":
    main()
