"""The two protocols of a retraining, from trained models to scores.

holdout: choose on validation clips, freeze the choice, then score the test clips once per model. folds: every clip is
scored by models that have not seen it, and all settings are fixed beforehand.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.retrain.jobs import Failure, Runner, ScoreBook, Trained, TrainingFailed, train_all
from search.retrain.plan import Candidate, Job, Plan, changed
from search.retrain.result import Models, choose, greedy_members, models_in, temperature_of
from search.runs.run import RunFolder
from trainable.data.split import Indices, fold_splits, labels_of
from trainable.files import write_atomically
from trainable.inference.metrics import calibration_error, with_temperature
from trainable.inference.scores import Part, Scores, guessing, joined, mean_of
from trainable.training.trial_folder import TrialFolder

BY_VALIDATION = "best mean validation accuracy over all seeds"
POOL = 10  # so many of the search's own best models may join the greedy ensemble


@dataclass(frozen=True)
class Ensemble:
    """Several models that vote together."""

    members: tuple[str, ...]  # names, which may repeat
    validation: Scores | None
    measured: Scores


@dataclass(frozen=True)
class Outcome:
    """What a protocol has found; `retrain` makes result.json of it."""

    measured_on: str  # "test", "folds" or "validation"
    candidates: tuple[Models, ...]  # in the search's order
    chosen: Models
    chosen_by: str
    baseline: Models | None  # None: its training failed on every seed
    searched_best: Models | None  # the search's best configuration, for the winner's curse
    seeds: Ensemble
    greedy: Ensemble | None
    handed_over: TrialFolder | None  # whose weights become `model/`
    members: tuple[TrialFolder, ...]  # whose weights become `ensemble/`
    temperature: float
    ensemble_temperature: float
    ece_after: float | None  # None: to be measured with `temperature` on the same clips
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]


def holdout(run: RunFolder, plan: Plan, folder: Path, runner: Runner, book: ScoreBook) -> Outcome:
    """Trains every candidate on every seed, chooses on validation, and only then looks at the test clips.

    With `train_on: train+val` the chosen configuration and the baseline are then trained anew on both parts, for as
    many epochs as their schedules have, and it is these models that are tested.

    Raises:
        TrainingFailed: no candidate could be trained.
        Interrupted: the user has stopped it.
    """
    trained, failures = train_all(folder, plan.jobs(plan.all_candidates), runner)
    by_name = {each.name: _validated(each, plan, trained, failures, book) for each in plan.all_candidates}
    candidates = [by_name[each.name] for each in plan.candidates if by_name[each.name].usable]
    if not candidates:
        raise TrainingFailed(no_model(failures))
    chosen = choose(candidates)
    pool = _pool(run, plan, trained, book)
    members = greedy_members(np.stack([scores.probabilities for _, _, scores in pool]), pool[0][2].true)
    finals = [*trained]
    if plan.options.train_on == "train+val":
        both = dict.fromkeys((chosen.candidate, plan.baseline))
        finals, more = train_all(folder, plan.jobs(both, train_on="train+val"), runner)
        failures += more
        if not any(each.job.candidate == chosen.candidate.name for each in finals):
            raise TrainingFailed(no_model(more))
    seed = None if chosen.refitted else chosen.seeds[chosen.handed_over]
    freeze(folder, candidate=chosen.candidate.name, seed=seed, by=BY_VALIDATION, ensemble=[pool[m][0] for m in members])

    part: Part = "test" if len(plan.split.test) else "val"
    measured = {name: _measured(models, plan, finals, failures, book, part) for name, models in by_name.items()}
    ours, baseline = measured[chosen.candidate.name], measured[plan.baseline.name]
    models = _of(chosen.candidate, finals)
    picked = [pool[member] for member in members]
    return Outcome(
        measured_on="test" if part == "test" else "validation",
        candidates=tuple(measured[models.candidate.name] for models in candidates),
        chosen=ours,
        chosen_by=BY_VALIDATION,
        baseline=baseline if baseline.measured else None,
        searched_best=measured[plan.candidates[0].name] if by_name[plan.candidates[0].name].usable else None,
        seeds=Ensemble(
            tuple(each.job.name for each in models),
            mean_of(models_in(ours.validation)),
            mean_of(models_in(ours.measured)),
        ),
        greedy=Ensemble(
            tuple(name for name, _, _ in picked),
            mean_of([scores for _, _, scores in picked]),
            mean_of([book.of(model, part) for _, model, _ in picked]),
        ),
        handed_over=next(each.folder for each in models if each.job.seed == ours.seeds[ours.handed_over]),
        members=tuple(each.folder for each in models),
        temperature=temperature_of(
            models_in(ours.validation) if ours.refitted else [ours.validation[ours.handed_over]]
        ),
        ensemble_temperature=temperature_of([mean_of(models_in(ours.validation))]),
        ece_after=None,
        failures=tuple(failures),
        notes=(),
    )


def no_model(failures: Sequence[Failure]) -> str:
    """What to say where no seed of what counts has become a model."""
    reasons = dict.fromkeys(f"{each.job.name}: {each.trial.status}: {each.trial.message}" for each in failures)
    return "no model came out of the retraining. " + "; ".join(reasons)


def _of(candidate: Candidate, trained: Sequence[Trained]) -> list[Trained]:
    return [each for each in trained if each.job.candidate == candidate.name]


Seeds = dict[int, Trained | None]  # what each seed has become, None where its training diverged


def _seeds(
    candidate: Candidate, plan: Plan, trained: Sequence[Trained], failures: Sequence[Failure], train_on: str,
    fold: int | None = None,
) -> Seeds:  # fmt: skip
    """The candidate's trainings on `train_on`, in the order of the plan's seeds.

    Those that a machine has broken, or that found no room on it, are left out: that is not the configuration's doing.
    """

    def mine(job: Job) -> bool:
        config = job.config
        return job.candidate == candidate.name and config.train_on == train_on and fold in (None, config.fold)

    found: Seeds = {each.job.seed: each for each in trained if mine(each.job)}
    found |= {each.job.seed: None for each in failures if mine(each.job) and each.trial.status == "diverged"}
    return {seed: found[seed] for seed in plan.seeds if seed in found}


def _scores(seeds: Seeds, plan: Plan, book: ScoreBook, part: Part) -> tuple[Scores, ...]:
    """What each seed says of a part of the clips; one that diverged guesses."""
    clips = plan.split.val if part == "val" else plan.split.test
    return tuple(book.of(each.folder, part) if each else _guess(plan, clips) for each in seeds.values())


def _guess(plan: Plan, clips: Indices) -> Scores:
    return guessing(plan.dataset.labels, clips, labels_of(plan.dataset)[clips])


def _epochs(seeds: Seeds) -> tuple[int | None, ...]:
    return tuple(each.epoch if each else None for each in seeds.values())


def _validated(
    candidate: Candidate, plan: Plan, trained: Sequence[Trained], failures: Sequence[Failure], book: ScoreBook
) -> Models:
    seeds = _seeds(candidate, plan, trained, failures, "train")
    return Models(candidate, tuple(seeds), _epochs(seeds), _scores(seeds, plan, book, "val"), ())


def _measured(
    models: Models, plan: Plan, finals: Sequence[Trained], failures: Sequence[Failure], book: ScoreBook, part: Part
) -> Models:
    """The candidate with the scores of its final models; what was not trained anew has none with train+val."""
    train_on = plan.options.train_on
    seeds = _seeds(models.candidate, plan, finals, failures, train_on)
    if not any(seeds.values()):
        return models
    scores = _scores(seeds, plan, book, part)
    if train_on == "train":
        return dataclasses.replace(models, measured=scores)
    return dataclasses.replace(models, seeds=tuple(seeds), epochs=_epochs(seeds), measured=scores, refitted=True)


def _pool(
    run: RunFolder, plan: Plan, trained: Sequence[Trained], book: ScoreBook
) -> list[tuple[str, TrialFolder, Scores]]:
    """Who may join the greedy ensemble, with validation scores: the retrained candidates and the search's own best."""
    names = {each.name for each in plan.candidates}
    models = [(each.job.name, each.folder) for each in trained if each.job.candidate in names]
    for best in run.ranked()[:POOL]:
        folder = run.folder(best.trial)
        if folder.checkpoint("best").exists():
            models.append((f"trial {best.trial.number} of the search", folder))
    return [(name, folder, book.of(folder, "val")) for name, folder in models]


def freeze(folder: Path, **choice: Any) -> None:
    """Writes what is chosen before any test clip is scored, so that it can be seen that the test chose nothing."""
    choice = {"created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **choice}
    write_atomically(folder / "choice.json", json.dumps(choice, indent=2) + "\n")


BY_ORDER = "the search's order, fixed before the folds were scored"


def folds(run: RunFolder, plan: Plan, folder: Path, runner: Runner, book: ScoreBook) -> Outcome:
    """Trains every candidate on every seed once per fold, on all other folds, and scores the fold that was left out.

    Nothing validates, so each training runs its schedule to the end and the last weights count. The result is about
    the search's best configuration, whatever the folds say of the others. The model that is handed over has learned
    from all clips; what the folds measured is what to expect of it.

    Raises:
        TrainingFailed: no seed of any candidate could be trained on all folds.
        Interrupted: the user has stopped it.
    """
    jobs = [
        job
        for fold in range(1, plan.folds + 1)
        for job in plan.jobs(plan.all_candidates, train_on="other-folds", fold=fold, n_folds=plan.folds)
    ]
    last = _final_job(plan, plan.candidates[0])
    freeze(folder, candidate=plan.candidates[0].name, seed=plan.seeds[0], by=BY_ORDER, ensemble=[])
    trained, failures = train_all(folder, [*jobs, last], runner)
    by_name = {each.name: _out_of_fold(each, plan, trained, failures, book) for each in plan.all_candidates}
    candidates = tuple(by_name[each.name] for each in plan.candidates if by_name[each.name].usable)
    if not candidates:
        raise TrainingFailed(no_model(failures))
    chosen = candidates[0]
    if chosen.candidate != plan.candidates[0]:
        last = _final_job(plan, chosen.candidate)
        more, failed = train_all(folder, [last], runner)
        trained, failures = trained + more, failures + failed
    final = next((each for each in trained if each.job == last), None)
    baseline = by_name[plan.baseline.name]
    together = mean_of(models_in(chosen.measured))
    return Outcome(
        measured_on="folds",
        candidates=candidates,
        chosen=chosen,
        chosen_by=BY_ORDER,
        baseline=baseline if baseline.usable else None,
        searched_best=by_name[plan.candidates[0].name] if by_name[plan.candidates[0].name].usable else None,
        seeds=Ensemble(
            tuple(f"{chosen.candidate.name}, seed {seed}" for seed in chosen.seeds if seed not in chosen.diverged),
            None,
            together,
        ),
        greedy=None,
        handed_over=final.folder if final else None,
        members=(),
        temperature=temperature_of(models_in(chosen.measured)),
        ensemble_temperature=temperature_of([together]),
        ece_after=_held_out_error(trained, chosen, book),
        failures=tuple(failures),
        notes=_notes(plan),
    )


def _final_job(plan: Plan, candidate: Candidate) -> Job:
    """The training on all clips, whose model is handed over."""
    seed = plan.seeds[0]
    return Job(candidate.name, seed, changed(candidate, seed=seed, train_on="all"))


def _folds_of(candidate: Candidate, seed: int, trained: Sequence[Trained]) -> list[Trained]:
    return [
        each
        for each in trained
        if each.job.candidate == candidate.name and each.job.seed == seed and each.job.config.train_on == "other-folds"
    ]


def _out_of_fold(
    candidate: Candidate, plan: Plan, trained: Sequence[Trained], failures: Sequence[Failure], book: ScoreBook
) -> Models:
    """The candidate's scores on all clips, for the seeds that were trained on all folds, or diverged on some."""
    folds = fold_splits(plan.dataset, plan.candidates[0].config)
    by_fold = [_seeds(candidate, plan, trained, failures, "other-folds", number) for number in range(1, len(folds) + 1)]
    whole = [seed for seed in plan.seeds if all(seed in seeds for seeds in by_fold)]
    epochs, measured = [], []
    for seed in whole:
        models = [seeds[seed] for seeds in by_fold]
        epochs.append(max((each.epoch for each in models if each), default=None))
        parts = [
            book.of(each.folder, "test") if each else _guess(plan, split.test)
            for each, split in zip(models, folds, strict=True)
        ]
        measured.append(joined(parts))
    return Models(candidate, tuple(whole), tuple(epochs), (), tuple(measured))


def _held_out_error(trained: Sequence[Trained], chosen: Models, book: ScoreBook) -> float:
    """The calibration error of one seed when each fold's temperature is fitted on the other folds' clips."""
    seed = chosen.seeds[chosen.handed_over]
    parts = [book.of(each.folder, "test") for each in _folds_of(chosen.candidate, seed, trained)]
    calibrated, true = [], []
    for position, part in enumerate(parts):
        temperature = temperature_of(parts[:position] + parts[position + 1 :])
        calibrated.append(with_temperature(part.probabilities, temperature))
        true.append(part.true)
    return calibration_error(np.concatenate(calibrated), np.concatenate(true))


def _notes(plan: Plan) -> tuple[str, ...]:
    notes = [
        f"The search chose its configurations on {len(plan.split.val)} of these clips: no weights have seen the clip "
        "that they are scored on, but the settings have seen some of them."
    ]
    if len(plan.candidates) > 1:
        notes.append("The other configurations are shown for comparison; picking the best of them now would flatter.")
    return tuple(notes)
