"""The folds protocol: every clip is scored by models that have not seen it, and all settings are fixed beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from search.results import Run
from search.retrain_holdout import Ensemble, Outcome, freeze, no_model
from search.retrain_models import Runner, ScoreBook, Trained, TrainingFailed, train_all
from search.retrain_plan import Candidate, Job, Plan, changed
from search.retrain_stats import Models, temperature_of
from trainable.metrics import calibration_error, with_temperature
from trainable.score import Scores, joined, mean_of

BY_ORDER = "the search's order, fixed before the folds were scored"


def folds(run: Run, plan: Plan, folder: Path, runner: Runner, book: ScoreBook) -> Outcome:
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
    by_name = {each.name: _out_of_fold(each, plan, trained, book) for each in plan.all_candidates}
    candidates = tuple(by_name[each.name] for each in plan.candidates if by_name[each.name].seeds)
    if not candidates:
        raise TrainingFailed(no_model(failures))
    chosen = candidates[0]
    if chosen.candidate != plan.candidates[0]:
        last = _final_job(plan, chosen.candidate)
        more, failed = train_all(folder, [last], runner)
        trained, failures = trained + more, failures + failed
    final = next((each for each in trained if each.job == last), None)
    baseline = by_name[plan.baseline.name]
    together = mean_of(chosen.measured)
    return Outcome(
        measured_on="folds",
        candidates=candidates,
        chosen=chosen,
        chosen_by=BY_ORDER,
        baseline=baseline if baseline.seeds else None,
        searched_best=by_name[plan.candidates[0].name],
        seeds=Ensemble(tuple(f"{chosen.candidate.name}, seed {seed}" for seed in chosen.seeds), None, together),
        greedy=None,
        handed_over=final.folder if final else None,
        members=(),
        temperature=temperature_of(chosen.measured),
        ensemble_temperature=temperature_of([together]),
        ece_after=_held_out_error(chosen.measured[0], plan, trained, chosen, book),
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


def _out_of_fold(candidate: Candidate, plan: Plan, trained: Sequence[Trained], book: ScoreBook) -> Models:
    """The candidate's scores on all clips, for the seeds that were trained on all folds."""
    whole = {seed: _folds_of(candidate, seed, trained) for seed in plan.seeds}
    whole = {seed: models for seed, models in whole.items() if len(models) == plan.folds}
    return Models(
        candidate,
        tuple(whole),
        tuple(max(each.epoch for each in models) for models in whole.values()),
        (),
        tuple(joined([book.of(each.folder, "test") for each in models]) for models in whole.values()),
    )


def _held_out_error(scores: Scores, plan: Plan, trained: Sequence[Trained], chosen: Models, book: ScoreBook) -> float:
    """The calibration error of one seed when each fold's temperature is fitted on the other folds' clips."""
    parts = [book.of(each.folder, "test") for each in _folds_of(chosen.candidate, chosen.seeds[0], trained)]
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
