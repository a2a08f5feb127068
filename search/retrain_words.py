"""What a retraining's numbers were measured on, in words."""

from __future__ import annotations

from search.results import Run
from search.retrain_holdout import Outcome
from search.retrain_plan import Plan

OPTIMISTIC = "validation, chosen by the search: optimistic"


def other_horizon(run: Run, plan: Plan) -> list[str]:
    """A note where --epochs makes another training of the search's best configuration, so that nothing is compared."""
    first = plan.candidates[0]
    searched = first.config.epochs if first.trial is None else run.journal.trials[first.trial].config["epochs"]
    if searched == first.config.epochs:
        return []
    return [
        f"Trained for {first.config.epochs} epochs where the search trained for {searched}: by how much the search "
        "flattered itself cannot be said."
    ]


def sentence(outcome: Outcome, plan: Plan) -> str:
    """What the number was measured on, for whoever reads nothing else."""
    clips = len(outcome.chosen.measured[0].true)
    match outcome.measured_on:
        case "test":
            return f"{clips} test clips, on which nothing was trained or chosen; each model was scored on them once"
        case "folds":
            return f"all {clips} clips, each scored by models that were not trained on it; epochs fixed beforehand"
        case _:
            return f"{clips} validation clips: {OPTIMISTIC}"


def protocol_in_words(plan: Plan) -> str:
    """The protocol in words; the tutorial's is named, because its numbers are compared with."""
    config = plan.candidates[0].config
    if plan.folds:
        return f"out of fold, {plan.folds} folds"
    tutorial = plan.split.name == "stratified" and (config.val_share, config.test_share, config.split_seed) == (
        0.2,
        0.0,
        42,
    )
    if tutorial:
        return "the tutorial's: 80/20 per class, seed 42, no test clips, best epoch of the clips that are scored"
    return f"{plan.split.name}: trained on {plan.options.train_on}"
