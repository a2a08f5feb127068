"""Whether a configuration that was chosen on several folds is better on others than one that was chosen on one.

python -m tests.benchmarks.benchmark_folds [--searches 400]        # about two minutes
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from search.runs.journal import Journal, Trial
from search.runs.run import best_of, next_repeat
from search.space.load import load_space
from search.space.space import Space
from search.tune.scheduler import JournalASHA
from tests.benchmarks.curves import TABLES, Point, Table

WORKERS = 4
LEFT_OUT = 2  # folds that no search sees


def search(
    space: Space, tables: Sequence[Table], order: Sequence[Point], folds: int, folder: Path
) -> tuple[int, Point, float]:
    """The epochs that all trials together train, what is then called best, and the accuracy that is claimed for it.

    tables: of each fold the curves; the first one's decide who is cut. order: the configurations to try.
    """
    journal = Journal(folder / "events.jsonl")
    scheduler, grace = JournalASHA(space, journal), space.budget.grace_epochs
    waiting, running, epochs = list(range(len(order))), [], 0

    def begin() -> Trial | None:
        over = sum(trial.over and trial.repeats is None for trial in journal.trials.values())
        enough = not waiting or over >= space.searcher.startup_trials
        found = next_repeat(journal.trials.values(), grace, folds) if enough else None
        if found:
            trial, fold = found
            return journal.suggested("repeat", "", {}, {**trial.config, "val_fold": fold}, repeats=trial.number)
        return journal.suggested("search", "", {}, {"point": waiting.pop(0)}) if waiting else None

    while True:
        while len(running) < WORKERS and (trial := begin()):
            running.append(trial)
        if not running:
            break
        trial = running.pop(0)
        curve = tables[trial.fold - 1].curves[order[trial.config["point"]]]
        done, epochs = len(trial.reports), epochs + 1
        result = {
            "epoch": done + 1, "val_acc": curve.accuracies[done], "val_loss": curve.losses[done],
            "status": "finished" if done + 1 == len(curve.accuracies) else "running",
        }  # fmt: skip
        told = SimpleNamespace(config={"number": trial.number})
        if scheduler.on_trial_result(None, told, result) == "CONTINUE":
            running.append(trial)
    best = best_of(journal.trials.values(), grace)
    assert best is not None
    return epochs, order[best.trial.config["point"]], best.accuracy


def one_search(space: Space, tables: Sequence[Table], points: Sequence[Point], seed: int, trials: int, folds: int) \
        -> tuple[float, float, float]:  # fmt: skip
    """Epochs, the accuracy that is claimed, and that of the last epoch on the folds that were left out."""
    rng = np.random.default_rng(seed)
    dealt = [tables[place] for place in rng.permutation(len(tables))]
    order = [points[place] for place in rng.permutation(len(points))[:trials]]
    with tempfile.TemporaryDirectory() as scratch:
        epochs, chosen, claimed = search(space, dealt[:-LEFT_OUT], order, folds, Path(scratch))
    return epochs, claimed, float(np.mean([table.curves[chosen].accuracies[-1] for table in dealt[-LEFT_OUT:]]))


def main(arguments: list[str] | None = None) -> None:
    """Prints what searches on one fold and on several spend, claim and find."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=400)
    args = parser.parse_args(arguments)
    tables = [TABLES[f"gtzan100-64px-{fold}"] for fold in range(1, 6)]
    whole = [
        point for point in tables[0].curves
        if all(len(table.curves.get(point, SimpleNamespace(accuracies=())).accuracies) == table.epochs
               for table in tables)
    ]  # fmt: skip
    worth = [np.mean([table.curves[point].accuracies[-1] for table in tables]) for point in whole]
    print(
        f"{len(whole)} configurations, mean {np.mean(worth):.1%}, best {max(worth):.1%}; {args.searches} searches each"
    )
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "space.yaml"
        file.write_text("\n".join([*tables[0].space_lines(), "budget: {grace_epochs: 2, reduction_factor: 3}"]))
        space = load_space(file)
    for trials in (12, len(whole)):
        single: np.ndarray | None = None
        for folds in (1, 2, 3):
            found = np.array([one_search(space, tables, whole, seed, trials, folds) for seed in range(args.searches)])
            single = found if single is None else single
            ahead = found[:, 2] - single[:, 2]
            epochs, claimed, measured = found.mean(axis=0)
            five = " ".join(f"{value:.0%}" for value in found[:5, 2])
            print(
                f"  {trials} trials, folds {folds}: {epochs:6.1f} epochs, claims {claimed:.1%}, is {measured:.1%} on "
                f"other folds ({100 * ahead.mean():+.1f} +- {100 * ahead.std() / len(ahead) ** 0.5:.1f} points; better "
                f"in {np.mean(ahead > 0):.0%}, worse in {np.mean(ahead < 0):.0%}); the first five {five}",
                flush=True,
            )


if __name__ == "__main__":
    main()
