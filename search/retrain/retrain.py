"""From a search to a number that one can believe and a model that one can use: `RUN/retrained/`.

The best configurations are trained again on seeds that the search never used. Which of them is "the result", which
seed's model is handed over and which models form an ensemble is decided on validation clips and written down
(`choice.json`) before a test clip is scored; each model is scored on the test clips once (`scores/`).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search.retrain.card import model_card
from search.retrain.jobs import Runner, ScoreBook, trained_by
from search.retrain.plan import Plan, RetrainOptions, make_plan
from search.retrain.protocols import Ensemble, Outcome, folds, holdout
from search.retrain.result import (
    Groups,
    by_class,
    by_group,
    calibration,
    difference,
    groups_in,
    interval,
    models_in,
    row,
    winners_curse,
)
from search.retrain.text import other_horizon, protocol_in_words, sentence
from search.retrain.trust import candidates_of
from search.runs.journal import Journal
from search.runs.record import git_commit, versions
from search.runs.run import RunFolder, result_of
from trainable.files import safe_cell, write_atomically
from trainable.inference.metrics import comparison, with_temperature
from trainable.inference.model import save_ensemble, save_trial
from trainable.progress import Progress


def retrain(
    run: RunFolder, options: RetrainOptions, runner: Runner, progress: Progress | None = None
) -> dict[str, Any]:
    """What is written to `RUN/retrained/result.json`; the models and tables beside it are written too.

    Raises:
        InputError: the flags, the run or its data do not allow it.
        TrainingFailed: nothing could be trained.
        Interrupted: the user has stopped it; the same call goes on from there.
    """
    plan = make_plan(run, options, progress)
    folder = run.path / "retrained"
    folder.mkdir(exist_ok=True)
    write_atomically(folder / "run.json", json.dumps(_record(run, plan), indent=2) + "\n")
    protocol = folds if plan.folds else holdout
    book = ScoreBook(run.path, run.record["data"]["path"], progress)
    outcome = protocol(run, plan, folder, runner, book)
    by = trained_by(Journal(folder / "events.jsonl"), book.scored)
    result = _result(run, plan, outcome, _earlier(folder), by)
    _write_models(folder, plan, outcome, result)
    write_atomically(folder / "predictions.csv", _predictions(plan, outcome))
    write_atomically(folder / "result.json", json.dumps(result, indent=2) + "\n")
    return result


def _record(run: RunFolder, plan: Plan) -> dict[str, Any]:
    """The run.json of the nested run: the search's, with what is different."""
    space = run.record["space"]
    return {
        **run.record,
        "command": _command(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "retrain": _options(plan.options),
        "seeds": list(plan.seeds),
        "weights": plan.weights,
        "notes": list(plan.notes),
        "space": {**space, "budget": {**space["budget"], "grace_epochs": 1}},  # nothing is cut here
        "versions": versions(),
        "git_commit": git_commit(),
    }


def _command() -> list[str]:
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def _options(options: RetrainOptions) -> dict[str, Any]:
    return {**dataclasses.asdict(options), "config": str(options.config) if options.config else None}


def _earlier(folder: Path) -> list[dict[str, Any]]:
    """The results that this run had before: whoever looks at the test clips often has chosen on them in the end."""
    old = result_of(folder.parent)
    if old is None:
        return []
    return [*old.get("earlier", []), {key: old.get(key) for key in ("created", "options", "measured_on", "accuracy")}]


def _result(
    run: RunFolder, plan: Plan, outcome: Outcome, earlier: list[dict[str, Any]], by: list[dict[str, Any]]
) -> dict[str, Any]:
    ours, baseline, groups = outcome.chosen, outcome.baseline, groups_in(plan.dataset)
    model = ours.measured[ours.handed_over]
    found = calibration(outcome.temperature, model)
    if outcome.ece_after is not None:
        found["ece_after"] = outcome.ece_after
    ours_row = row(ours, groups)
    stretched = other_horizon(run, plan)
    return {
        "measured_on": outcome.measured_on,
        "sentence": sentence(outcome, plan),
        "accuracy": ours.accuracy,
        "deviation": ours_row["measured"]["deviation"],
        "clips": len(model.true),
        "interval_95": ours_row["interval_95"],
        "interval_groups": groups.count(model),  # None: the intervals are over clips
        "per_seed": ours_row["per_seed"],
        "chosen": ours.candidate.name,
        "chosen_by": outcome.chosen_by,
        "candidates": [row(models, groups) for models in outcome.candidates],
        "baseline": row(baseline, groups) if baseline else None,
        "baseline_accuracy": baseline.accuracy if baseline else None,
        "difference": difference(ours, baseline, groups) if baseline else None,
        "ensemble_accuracy": outcome.seeds.measured.accuracy,
        "ensembles": {
            "seeds": _ensemble(outcome.seeds, outcome, groups),
            "greedy": _ensemble(outcome.greedy, outcome, groups) if outcome.greedy else None,
        },
        "winners_curse": None if stretched else winners_curse(outcome.searched_best, _highest_of(run, plan)),
        "model": _handed_over(outcome, groups),
        "calibration": found,
        **by_class(model),
        "groups": by_group(ours.measured, groups),
        "config": ours.candidate.config.to_json(),
        "protocol": protocol_in_words(plan),
        "options": _options(plan.options),
        "seeds": list(plan.seeds),
        "failed": [
            {"name": each.job.name, "status": each.trial.status, "message": each.trial.message}
            for each in outcome.failures
        ],
        "notes": [
            *plan.split.notes,
            *plan.notes,
            *outcome.notes,
            *groups.notes(model),
            *_diverged(outcome),
            *stretched,
            *_several_programs(by),
        ],
        "earlier": earlier,
        "run": run.name,
        "command": _command(),
        "data": run.record["data"],
        "split": run.record["split"],
        **_program(by),
        "trained_by": by,
        "scored_by": {"git_commit": git_commit(), "versions": versions()},
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _program(by: list[dict[str, Any]]) -> dict[str, Any]:
    """The commit and the versions that most of the trainings were made with, which may be those of an earlier call."""
    most = max(by, key=lambda each: int(each["trainings"]), default={})
    return {name: most.get(name) for name in ("versions", "git_commit")}


def _several_programs(by: list[dict[str, Any]]) -> list[str]:
    if len(by) < 2:
        return []
    parts = [f"{each['trainings']} by {_program_in_words(each, by)}" for each in by]
    return [f"Not all trainings were made with the same program: {', '.join(parts)}."]


def _program_in_words(one: dict[str, Any], by: list[dict[str, Any]]) -> str:
    """What tells a program from the others."""
    if one["versions"] is None:
        return "one that was not noted"
    all_versions = [each["versions"] for each in by if each["versions"]]
    differ = [name for name in one["versions"] if len({known.get(name) for known in all_versions}) > 1]
    return " ".join([f"commit {one['git_commit']}", *(f"{name} {one['versions'][name]}" for name in differ)])


def _highest_of(run: RunFolder, plan: Plan) -> int | None:
    """How many trials the first candidate was the best of; None where it is not the search's best."""
    best = run.best()
    return candidates_of(run) if best and best.trial.number == plan.candidates[0].trial else None


def _diverged(outcome: Outcome) -> list[str]:
    """A note for each configuration of which some seeds diverged."""
    baseline = [outcome.baseline] if outcome.baseline else []
    found = {each.candidate.name: each for each in (*outcome.candidates, *baseline) if each.diverged}
    return [
        f"{name}: {len(each.diverged)} of {len(each.seeds)} seeds diverged and count as guessing, in the choice, the "
        "mean, the deviation and the interval."
        for name, each in found.items()
    ]


def _ensemble(ensemble: Ensemble, outcome: Outcome, groups: Groups) -> dict[str, Any]:
    baseline = outcome.baseline
    measured = ensemble.measured
    other = baseline.measured[baseline.handed_over].right if baseline else None
    return {
        "members": list(ensemble.members),
        "validation": ensemble.validation.accuracy if ensemble.validation else None,
        "accuracy": measured.accuracy,
        "interval_95": interval([measured], groups),
        # against the baseline's model
        "p_value": None if other is None else comparison(measured.right, other, groups.of(measured)).p_value,
    }


def _handed_over(outcome: Outcome, groups: Groups) -> dict[str, Any] | None:
    """What is known of `retrained/model/`; with folds it has seen all clips and has no score of its own."""
    if outcome.handed_over is None:
        return None
    ours = outcome.chosen
    model, own = ours.measured[ours.handed_over], outcome.measured_on != "folds"
    return {
        "trial": outcome.handed_over.path.name,
        "seed": ours.seeds[ours.handed_over],
        "accuracy": model.accuracy if own else None,
        "interval_95": interval([model], groups) if own else None,
    }


def _write_models(folder: Path, plan: Plan, outcome: Outcome, result: dict[str, Any]) -> None:
    """The handed-over model, and the ensemble of seeds where it is asked for."""
    keys = (
        "run", "chosen", "measured_on", "sentence", "accuracy", "clips", "interval_95", "interval_groups", "model",
        "calibration", "data", "split", "git_commit", "created",
    )  # fmt: skip
    record = {key: result[key] for key in keys}
    with _replaced(folder / "model") as new:
        if outcome.handed_over:
            save_trial(outcome.handed_over, new, outcome.temperature, record)
            write_atomically(new / "README.md", model_card(result, outcome.handed_over.cost()))
    with _replaced(folder / "ensemble") as new:
        if plan.options.save_ensemble and outcome.members:
            names = [member.path.name for member in outcome.members]
            for name, member in zip(names, outcome.members, strict=True):
                save_trial(member, new / name)
            record["model"] = result["ensembles"]["seeds"]
            save_ensemble(new, names, plan.dataset.labels, outcome.ensemble_temperature, record)


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when it is whole; one that stays empty only removes the old one.

    A model of an earlier retraining must not lie beside a result that is not its own.
    """
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    yield new
    shutil.rmtree(folder, ignore_errors=True)
    if any(new.iterdir()):
        new.rename(folder)
    else:
        new.rmdir()


def _predictions(plan: Plan, outcome: Outcome) -> str:
    """A table of the measured clips: what the model and the ensemble of seeds say, and how many seeds are right.

    `probability` is calibrated, as `predict` gives it. With folds it is the first seed's, out of fold.
    """
    ours = outcome.chosen
    model, together = ours.measured[ours.handed_over], outcome.seeds.measured
    models = models_in(ours.measured)
    calibrated = with_temperature(model.probabilities, outcome.temperature)
    joint = with_temperature(together.probabilities, outcome.ensemble_temperature)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["path", "label", "predicted", "probability", "ensemble", "ensemble_probability", "seeds_right", "seeds"]
    )
    for position, clip in enumerate(model.clips):
        table.writerow([
            safe_cell(plan.dataset.clips[clip].place),
            safe_cell(model.labels[model.true[position]]),
            safe_cell(model.labels[model.predicted[position]]),
            f"{calibrated[position].max():.6f}",
            safe_cell(model.labels[together.predicted[position]]),
            f"{joint[position].max():.6f}",
            sum(int(scores.right[position]) for scores in models),
            len(models),
        ])  # fmt: skip
    return text.getvalue()
