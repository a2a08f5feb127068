"""How well a search says what going on is worth, and what `budget: {gain: 0.005}` saves and costs.

    python -m tests.benchmarks.benchmark_gain [--seeds 10] [--trials 120]       # some ten minutes

A search on recorded curves goes on to so many trials. At several lengths its expected gain by as many trials again is
compared with the gain that came, and the epoch at which it would have stopped with what it would have missed.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from search.runs.gain import Gain, Prospect
from search.runs.run import best_of
from tests.benchmarks.benchmark_efficiency import Recorded, recorded_sets
from tests.benchmarks.contestants import Ours, epochs_to_target

LENGTHS = (15, 30, 60)
LEAST = 0.005


def history(searched: Recorded, seed: int) -> list[tuple[int, int, float, Gain | None]]:
    """After each trial that ended: trials over, epochs so far, the best accuracy and what going on promises."""
    with tempfile.TemporaryDirectory() as scratch:
        landscape = replace(searched.landscape(Path(scratch), seed), target=2.0)
        ours = Ours(landscape.space, Path(scratch) / "run")
        grace, found = landscape.space.budget.grace_epochs, []
        prospect = Prospect(grace)

        def look(event: dict[str, Any]) -> None:
            if event["event"] != "ended":
                return
            trials = list(ours.journal.trials.values())
            prospect.ended(ours.journal.trials[event["trial"]])
            best = best_of(trials, grace)
            epochs = sum(len(trial.reports) for trial in trials)
            over = sum(trial.over for trial in trials)
            accuracy = best.accuracy if best else 0.0
            found.append((over, epochs, accuracy, prospect.gain(accuracy)))

        ours.journal.listen(look)
        epochs_to_target(ours, landscape, workers=4)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Prints promised and actual gains, and what the stop saves and misses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=120)
    args = parser.parse_args(arguments)
    promised: dict[int, list[tuple[Gain, float]]] = {length: [] for length in LENGTHS}
    for searched in recorded_sets(args.trials):
        stops = []
        for seed in range(args.seeds):
            steps = history(searched, seed)
            bests = {over: best for over, _, best, _ in steps}
            for over, _, best, gain in steps:
                if gain and over in promised and 2 * over in bests:
                    promised[over].append((gain, bests[2 * over] - best))
            stop = next((step for step in steps if step[3] and step[3].expected < LEAST), steps[-1])
            stops.append((stop[0], stop[1] / steps[-1][1], steps[-1][2] - stop[2]))
        trials, share, missed = np.array(stops).T
        print(
            f"{searched.title}: stops after {np.median(trials):.0f} of {args.trials} trials and "
            f"{np.median(share):.0%} of the epochs (medians of {args.seeds}); too early by over half a point in "
            f"{np.mean(missed > LEAST):.0%}; misses {missed.mean():.1%} on the mean, {missed.max():.1%} at most",
            flush=True,
        )
    for length, pairs in promised.items():
        if pairs:
            inside = np.mean([gain.low <= came <= gain.high for gain, came in pairs])
            print(
                f"after {length} trials: {np.mean([gain.expected for gain, _ in pairs]):.1%} promised, "
                f"{np.mean([came for _, came in pairs]):.1%} came, {inside:.0%} inside the range "
                f"({len(pairs)} searches)"
            )


if __name__ == "__main__":
    main()
