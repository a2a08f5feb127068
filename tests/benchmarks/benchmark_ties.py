"""What it saves that equal accuracies compare by their loss at a rung, and what it costs.

    python -m tests.benchmarks.benchmark_ties [--orders 400]        # about a minute

The recorded configurations of GTZAN-100 begin in a random order on one fold of 20 validation clips, four at a time, and
are cut by our scheduler; once with their losses and once with all losses alike. Then the rule for the best chooses one,
and what counts is its best accuracy on the four other folds, 80 clips.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from search.runs.journal import Journal
from search.runs.run import best_of
from search.space.load import load_space
from search.space.space import Space
from search.tune.scheduler import JournalASHA
from tests.benchmarks.curves import TABLES, Point, Table

WORKERS = 4


def cut(space: Space, table: Table, order: list[Point], losses: bool, folder: Path) -> tuple[int, Point]:
    """The epochs that all trials together train, and the configuration that is then called best."""
    journal = Journal(folder / f"events-{losses}.jsonl")
    scheduler = JournalASHA(space, journal)
    waiting = [(number, 0) for number in range(len(order))]
    running, waiting = waiting[:WORKERS], waiting[WORKERS:]
    epochs = 0
    for number in range(len(order)):
        journal.suggested("search", "", {}, {"number": number})
    while running:
        number, done = running.pop(0)
        curve = table.curves[order[number]]
        epochs += 1
        last = done + 1 == table.epochs
        result = {
            "epoch": done + 1, "val_acc": curve.accuracies[done], "val_loss": curve.losses[done] if losses else 1.0,
            "status": "finished" if last else "running",
        }  # fmt: skip
        goes_on = scheduler.on_trial_result(None, SimpleNamespace(config={"number": number}), result) == "CONTINUE"
        if goes_on:
            running.append((number, done + 1))
        elif waiting:
            running.append(waiting.pop(0))
    for trial in journal.trials.values():  # the rule for the best has the losses, whoever has been cut
        for report in trial.reports:
            report.loss = table.curves[order[trial.number]].losses[report.epoch - 1]
    best = best_of(journal.trials.values(), space.budget.grace_epochs)
    assert best is not None
    return epochs, order[best.trial.number]


def main(arguments: list[str] | None = None) -> None:
    """Prints epochs and accuracies with and without losses, for several grace periods."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=400)
    args = parser.parse_args(arguments)
    tables = [TABLES[f"gtzan100-64px-{fold}"] for fold in range(1, 6)]
    points = [point for point in tables[0].curves if all(point in table.curves for table in tables)]
    print(f"{len(points)} configurations, {args.orders} orders: mean epochs, and accuracy of the best on other folds")
    for grace in (1, 2, 4):
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "space.yaml"
            lines = "\n".join(tables[0].space_lines())
            file.write_text(f"{lines}\nbudget: {{grace_epochs: {grace}, reduction_factor: 3}}\n")
            space = load_space(file)
        for losses in (False, True):
            found = []
            for seed in range(args.orders):
                table = tables[seed % len(tables)]
                order = [points[place] for place in np.random.default_rng(seed).permutation(len(points))]
                with tempfile.TemporaryDirectory() as scratch:
                    epochs, best = cut(space, table, order, losses, Path(scratch))
                others = [max(other.curves[best].accuracies) for other in tables if other is not table]
                found.append((epochs, np.mean(others)))
            epochs_spent, accuracy = np.mean(found, axis=0)
            how = "equal accuracies by their loss" if losses else "accuracies alone"
            print(f"  grace {grace}, {how:32}{epochs_spent:8.1f} epochs{accuracy:8.1%}", flush=True)


if __name__ == "__main__":
    main()
