"""How well a search says what going on is worth, and what `budget: {gain: 0.005}` saves and costs.

    python -m tests.benchmarks.benchmark_gain [--seeds 10] [--trials 120]       # some ten minutes

A search on recorded curves goes on to so many trials. At several lengths its expected gain by as many trials again is
compared with the gain that came, and the epoch at which it would have stopped with what it would have missed.

Measured with `--seeds 3 --trials 60`, 15 searches on the five sets: after 15 trials 1.8 points were promised and 1.7
came, 80% within the range of four in five; after 30 trials 1.0 were promised and 0.2 came, 53% within it (most of the
others gained nothing where a little was promised). It stopped the search on the 12-epoch table after 57 trials, and on
the four sets of 24 configurations after 15 or 16, with 30% of the epochs. Too early by over half a point was one search
in three on either table of the demo set and none on the others; on the mean it missed 0.8 points on the first, 0.3 at
most elsewhere, and 2.5 in the worst case. A threshold exceeded by an exponential, without an end, had promised 3.4
points after 30 trials where 0.1 came.
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
            inside = np.mean([gain.low - 1e-9 <= came <= gain.high + 1e-9 for gain, came in pairs])
            print(
                f"after {length} trials: {np.mean([gain.expected for gain, _ in pairs]):.1%} promised, "
                f"{np.mean([came for _, came in pairs]):.1%} came, {inside:.0%} inside the range "
                f"({len(pairs)} searches)"
            )


if __name__ == "__main__":
    main()
