"""Whether a configuration that was chosen on several folds is better on others than one that was chosen on one.

    python -m tests.benchmarks.benchmark_folds [--searches 200]        # about three minutes
    TORCH_HOME=FOLDER python -m tests.benchmarks.benchmark_folds --record GTZAN100/genres_original

Both parts replay recorded configurations of GTZAN-100 in random orders by the rules for repeats and for the best
(`search.runs.run`): three of five folds, 20 clips each, are the search's, and what it chooses is measured on the two
others. "Claims" is the accuracy that the search would show for it.

Probes: 48 of mn04, a logistic regression on the means of its features, in the front ends and strengths of
`tables/gtzan100-probes.csv`; which clips are right out of fold in six partitions, and measured in the mean of all six.
Trainings from random weights: 27 configurations at 64 px, 24 epochs, cut by ASHA; measured at their last epoch.

200 searches each; points against the same searches on one fold, with the standard error:

|                        | trials | epochs | claims | is    | points      | better, worse |
|------------------------|--------|--------|--------|-------|-------------|---------------|
| 12 probes, 1 fold      | 12.0   | 12     | 88.6%  | 82.9% |             |               |
| 12 probes, 3 folds     | 15.7   | 15.7   | 85.8%  | 84.5% | +1.6 +- 0.3 | 26%, 8%       |
| 24 probes, 1 fold      | 24.0   | 24     | 90.1%  | 82.9% |             |               |
| 24 probes, 2 folds     | 26.9   | 26.9   | 87.7%  | 83.9% | +1.1 +- 0.3 | 30%, 13%      |
| 24 probes, 3 folds     | 29.5   | 29.5   | 86.8%  | 84.9% | +2.0 +- 0.4 | 38%, 12%      |
| 48 probes, 1 fold      | 48.0   | 48     | 91.3%  | 82.8% |             |               |
| 48 probes, 3 folds     | 56.7   | 56.7   | 87.6%  | 85.1% | +2.3 +- 0.3 | 46%, 11%      |
| 12 trainings, 1 fold   | 12.0   | 75     | 80.8%  | 74.6% |             |               |
| 12 trainings, 3 folds  | 14.4   | 133    | 80.2%  | 74.8% | +0.3 +- 0.2 | 5%, 4%        |
| 27 trainings, 1 fold   | 27.0   | 155    | 83.2%  | 75.8% |             |               |
| 27 trainings, 3 folds  | 30.6   | 241    | 82.0%  | 75.9% | +0.1 +- 0.2 | 16%, 20%      |

So 12 probes with repeats are better chosen than 48 without. Among the trainings four configurations stand out by ten
points and are level with each other, and ASHA has cut most of the rest before anything is repeated: there is nothing
to be found out by repeats, and they cost most of what a search without them does. Of the first five searches of 24
probes those on one fold have 88, 82, 81, 80 and 80%, those on three 88, 86, 87, 84 and 85%.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from search.runs.journal import Journal, Trial
from search.runs.run import best_of, next_repeat
from search.space.load import load_space
from search.space.space import Space
from search.tune.scheduler import JournalASHA
from tests.benchmarks.curves import FOLDER, TABLES, Curve
from trainable.config import TrialConfig
from trainable.data.dataset import load_dataset
from trainable.data.split import deal_folds, labels_of, split_dataset
from trainable.training.loop import Learner
from trainable.training.probe import compute

WORKERS = 4
FOLDS, LEFT_OUT = 5, 2  # folds, and how many of them no search sees
PARTITIONS = 6
PROBES = FOLDER / "gtzan100-probes.csv"
LABELS = np.repeat(np.arange(10), 10)  # GTZAN-100 is sorted by genre

Curves = Mapping[Any, Curve]  # of a fold, by configuration


def search(space: Space, folds: Sequence[Curves], order: Sequence[Any], asked: int, file: Path) \
        -> tuple[int, int, Any, float]:  # fmt: skip
    """Epochs and trials in all, what is then called best, and the accuracy that is claimed for it.

    folds: the curves of each; those of the first decide who is cut. order: the configurations to try. asked: folds of
    the budget.
    """
    journal = Journal(file)
    scheduler, grace = JournalASHA(space, journal), space.budget.grace_epochs
    waiting, running, epochs = list(range(len(order))), [], 0

    def begin() -> Trial | None:
        over = sum(trial.over and trial.repeats is None for trial in journal.trials.values())
        enough = not waiting or over >= space.searcher.startup_trials
        found = next_repeat(journal.trials.values(), grace, asked) if enough else None
        if found:
            trial, fold = found
            return journal.suggested("repeat", "", {}, {**trial.config, "val_fold": fold}, repeats=trial.number)
        return journal.suggested("search", "", {}, {"place": waiting.pop(0)}) if waiting else None

    while True:
        while len(running) < WORKERS and (trial := begin()):
            running.append(trial)
        if not running:
            break
        trial = running.pop(0)
        curve = folds[trial.fold - 1][order[trial.config["place"]]]
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
    return epochs, len(journal.trials), order[best.trial.config["place"]], best.accuracy


Deal = Callable[[np.random.Generator], tuple[Sequence[Curves], Callable[[Any], float]]]


def compare(text: str, deal: Deal, points: Sequence[Any], trials: int, searches: int) -> None:
    """Prints what so many searches on one fold and on several spend, claim and find.

    text: the space file. deal: the folds of a search, and what a configuration is worth on the others.
    """
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "space.yaml").write_text(text)
        space = load_space(Path(scratch) / "space.yaml")
        single = np.zeros((0, 4))
        for asked in (1, 2, 3):
            rows = []
            for seed in range(searches):
                rng = np.random.default_rng(seed)
                folds, worth = deal(rng)
                order = [points[place] for place in rng.permutation(len(points))[:trials]]
                file = Path(scratch) / f"{asked}-{seed}.jsonl"
                epochs, begun, chosen, claimed = search(space, folds, order, asked, file)
                rows.append((epochs, begun, claimed, worth(chosen)))
            found = np.array(rows)
            single = single if len(single) else found
            ahead = found[:, 3] - single[:, 3]
            epochs, begun, claimed, worth_it = found.mean(axis=0)
            five = " ".join(f"{value:.0%}" for value in found[:5, 3])
            print(
                f"  {trials} configurations, folds {asked}: {begun:5.1f} trials, {epochs:6.1f} epochs, claims "
                f"{claimed:.1%}, is {worth_it:.1%} ({100 * ahead.mean():+.1f} +- "
                f"{100 * ahead.std() / len(ahead) ** 0.5:.1f} points, better in {np.mean(ahead > 0):.0%}, worse in "
                f"{np.mean(ahead < 0):.0%}); the first five: {five}",
                flush=True,
            )


def of_probes(searches: int) -> None:
    """Compares on the recorded probes."""
    with PROBES.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    # [configurations, partitions, clips]
    right = np.array([[[int(bit) for bit in row[f"right_{p}"]] for p in range(PARTITIONS)] for row in rows])
    dealt = [deal_folds(LABELS, None, FOLDS, partition) for partition in range(PARTITIONS)]

    def deal(rng: np.random.Generator) -> tuple[Sequence[Curves], Callable[[int], float]]:
        partition, folds = rng.integers(PARTITIONS), rng.permutation(FOLDS)
        seen = [right[:, partition, dealt[partition] == fold].mean(axis=1) for fold in folds[:-LEFT_OUT]]
        left_out = np.isin(dealt[partition], folds[-LEFT_OUT:])
        curves = [{n: Curve((value,), (1 - value,)) for n, value in enumerate(fold.tolist())} for fold in seen]
        return curves, lambda number: float(right[number][:, left_out].mean())

    worth = right.mean(axis=(1, 2))
    print(f"probes: {len(rows)}, out of fold {worth.mean():.1%} in the mean, at best {worth.max():.1%}")
    text = "fixed: {epochs: 1}\nsearch: {lr: {loguniform: [1.0e-4, 1.0e-2]}}\nbudget: {grace_epochs: 1}"
    for trials in (12, 24, len(rows)):
        compare(text, deal, range(len(rows)), trials, searches)


def of_trainings(searches: int) -> None:
    """Compares on the recorded curves."""
    tables = [TABLES[f"gtzan100-64px-{fold}"] for fold in range(1, FOLDS + 1)]
    points = [point for point in tables[0].curves if all(point in table.curves for table in tables)]

    def deal(rng: np.random.Generator) -> tuple[Sequence[Curves], Callable[[Any], float]]:
        dealt = [tables[place].curves for place in rng.permutation(FOLDS)]
        return dealt[:-LEFT_OUT], lambda point: float(np.mean([c[point].accuracies[-1] for c in dealt[-LEFT_OUT:]]))

    worth = [np.mean([table.curves[point].accuracies[-1] for table in tables]) for point in points]
    print(f"trainings: {len(points)}, out of fold {np.mean(worth):.1%} in the mean, at best {max(worth):.1%}")
    text = "\n".join([*tables[0].space_lines(), "budget: {grace_epochs: 2, reduction_factor: 3}"])
    for trials in (12, len(points)):
        compare(text, deal, points, trials, searches)


def record(data: str) -> None:
    """Writes which clips of GTZAN-100 each probe has right out of fold, in each partition: about ten minutes."""
    dataset = load_dataset(data)
    labels = labels_of(dataset)
    with PROBES.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["n_mels", "hop_ms", "f_max", "probe_c", *(f"right_{p}" for p in range(PARTITIONS))])
        for n_mels, hop_ms, f_max in itertools.product((128, 64), (10.0, 20.0), (None, 8000.0)):
            config = TrialConfig.parse({
                "data": data, "backbone": "mn04", "weights": "audioset", "method": "probe", "sample_rate": 32_000,
                "scale": "log", "n_mels": n_mels, "hop_ms": hop_ms, "f_max": f_max, "normalise": "clip",
                "channels": "one", "image_size": None, "crop_seconds": 5.0, "eval_crops": 3, "batch_size": 8,
            })  # fmt: skip
            learner = Learner(config, split_dataset(dataset, config), None)
            found = compute(learner.model, learner.inputs, len(dataset.clips), config, learner.precision)
            means = np.zeros((len(labels), found.values.shape[1]))  # [clips, features]
            np.add.at(means, found.owner.numpy(), found.values.double().numpy())
            means /= np.bincount(found.owner.numpy())[:, None]
            for probe_c in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0):
                right = [_right(means, labels, probe_c, partition) for partition in range(PARTITIONS)]
                rows.writerow([n_mels, hop_ms, "null" if f_max is None else f_max, probe_c, *right])
                file.flush()


def _right(features: Any, labels: Any, probe_c: float, partition: int) -> str:
    """A 1 for each clip that is right out of fold, else a 0."""
    folds, right = deal_folds(labels, None, FOLDS, partition), np.zeros(len(labels), dtype=int)
    for fold in range(FOLDS):
        held = folds == fold
        scaler = StandardScaler().fit(features[~held])
        with threadpool_limits(1):
            solver = LogisticRegression(C=probe_c, max_iter=300).fit(scaler.transform(features[~held]), labels[~held])
        right[held] = solver.predict(scaler.transform(features[held])) == labels[held]
    return "".join(map(str, right))


def main(arguments: list[str] | None = None) -> None:
    """Prints both comparisons, or records the probes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--record", metavar="DATA", help="GTZAN-100, to record the probes anew")
    args = parser.parse_args(arguments)
    if args.record:
        record(args.record)
        return
    of_probes(args.searches)
    of_trainings(args.searches)


if __name__ == "__main__":
    main()
