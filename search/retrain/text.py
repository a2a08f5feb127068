"""The result of a retraining in words: what its numbers were measured on, and the table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from search.console.table import Column, fact, fit
from search.retrain.plan import Plan
from search.retrain.protocols import Outcome
from search.runs.format import interval_in_words, percent, percent_range, percent_spread, points, points_range
from search.runs.run import RunFolder
from trainable.commands import typed
from trainable.data.split import fold_splits

OPTIMISTIC = "validation, chosen by the search: optimistic"


def other_horizon(run: RunFolder, plan: Plan) -> list[str]:
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
    splits = fold_splits(plan.dataset, plan.candidates[0].config) if plan.folds else [plan.split]
    copied = sum(split.copied for split in splits)
    match outcome.measured_on:
        case "test" | "folds" if copied:
            return (
                f"{clips} clips, of which {copied} have an exact copy among those that were trained or chosen on: the "
                "score flatters"
            )
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


_CLIPS = {"test": "on the test clips", "folds": "out of fold", "validation": "on the same validation clips"}
_MEASURED = {"test": "test", "folds": "out of fold", "validation": "validation"}
SAME = 0.05  # points: a smaller gap rounds to none
GROUPS_SHOWN = 8
_NAME = 32  # characters of a configuration's name


def view(result: Mapping[str, Any], folder: str, width: int | None) -> list[Text]:
    """Lines of `width` characters (None: no terminal): configurations, ensembles, baseline, and what they mean.

    `result` is what `retrain` returns, `folder` where it lies.
    """
    lines = [*_table(result, width), Text()]
    for name, text in _facts(result):
        lines += fact(name, text, width)
    if result["model"]:
        lines += fact("next", typed("predict", f"{folder}/model", "FILE..."), None)  # whole, to be copied
    return lines


def _table(result: Mapping[str, Any], width: int | None) -> list[Text]:
    """One row per configuration, the chosen one in bold, then the ensembles."""
    rows = [*result["candidates"]]
    baseline = result["baseline"]["name"] if result["baseline"] else None
    if baseline and all(row["name"] != baseline for row in rows):
        rows.append(result["baseline"])
    ensembles = [
        (title.format(len(ensemble["members"])), ensemble)
        for title, ensemble in (
            ("ensemble of {} seeds", result["ensembles"]["seeds"]),
            ("greedy ensemble of {}", result["ensembles"]["greedy"]),
        )
        if ensemble and len(ensemble["members"]) > 1
    ]
    names = [row["name"] + (" (baseline)" if row["name"] == baseline else "") for row in rows]
    names += [name for name, _ in ensembles]
    measured = [percent_spread(row["measured"]) for row in rows] + [percent(each["accuracy"]) for _, each in ensembles]
    intervals = [percent_range(each["interval_95"]) for each in [*rows, *(each for _, each in ensembles)]]
    validation = [percent_spread(row["validation"]) for row in rows] + [
        percent(each["validation"]) for _, each in ensembles
    ]
    columns = [
        Column("", names, right=False, widest=_NAME),
        Column(_MEASURED[result["measured_on"]], measured),
        Column("95% interval", intervals),
        Column("search", [percent(row["searched"]) for row in rows] + [""] * len(ensembles)),
    ]
    if result["measured_on"] == "test":
        columns.insert(3, Column("validation", validation))
    fitted = fit(columns, width, ["bold" if row["name"] == result["chosen"] else "" for row in rows])
    left_out = f"no room for {', '.join(fitted.left_out)}: widen the terminal, or see result.json"
    return [*fitted.header, *fitted.rows, *(fact("", left_out, width, "dim") if fitted.left_out else [])]


def flattery(result: Mapping[str, Any]) -> list[str]:
    """A sentence on how far the search's score of a configuration was from what fresh seeds of it score.

    Both are told where both are known: on the clips that the search chose on, and on those that count. Nothing where
    the search has no score of that configuration.
    """
    curse = result.get("winners_curse")
    if not curse:
        return []
    of = curse.get("highest_of")
    best = f", the best of {of} trials," if of else ""
    where = {"validation": "on the same validation clips", "measured": _CLIPS[result["measured_on"]]}
    # Without a test both are the same clips.
    parts = ["validation"] if result["measured_on"] == "validation" else ["validation", "measured"]
    told = [_off(curse[f"points_{part}"], where[part]) for part in parts if curse.get(f"points_{part}") is not None]
    if not told:
        return []
    scored = f"{curse.get('name', 'its best')}{best} scored {percent(curse['searched'])} in the search"
    return [f"{scored}; fresh seeds of it score {' and '.join(told)}."]


def _off(points_too_high: float, where: str) -> str:
    """How fresh seeds fare beside the search's score, in which a gap that rounds to none is none."""
    if abs(points_too_high) < SAME:
        return f"the same {where}"
    return f"{abs(points_too_high):.1f} points {'less' if points_too_high > 0 else 'more'} {where}"


def _groups(groups: Sequence[Mapping[str, Any]]) -> str:
    """The accuracy on each group, the hardest first; of many only those at both ends."""
    said = [f"{each['group']} {percent(each['accuracy'])}" for each in groups]
    if len(said) > GROUPS_SHOWN:
        return f"{', '.join(said[: GROUPS_SHOWN - 1])}, ..., {said[-1]} ({len(said)} groups)"
    return ", ".join(said)


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    seeds = len(result["per_seed"])
    facts = [
        (
            "result",
            f"{result['chosen']}: {percent(result['accuracy'])} "
            f"({interval_in_words(result['interval_95'], result['interval_groups'])})"
            + (f", mean of {seeds} seeds." if seeds > 1 else "."),
        ),
        ("on", f"{result['sentence']}."),
        ("how", f"{result['protocol']}."),
    ]
    if len(result["candidates"]) > 1:
        facts.append(("chosen", f"by {result['chosen_by']}."))
    gap = result["difference"]
    if gap and result["chosen"] != result["baseline"]["name"]:
        facts.append((
            "against",
            f"{result['baseline']['name']}: {points(gap['mean'])}{points_range(gap['interval_95'])}; "
            f"p = {gap['p_value']:.2g} ({gap['test']}).",
        ))  # fmt: skip
    facts += [("groups", f"{_groups(result['groups'])}.")] if result["groups"] else []
    facts += [("search", sentence) for sentence in flattery(result)]
    before, after = result["calibration"]["ece_before"], result["calibration"]["ece_after"]
    facts.append(("sure", f"calibration error {percent(before)}, after temperature scaling {percent(after)}."))
    facts += [("failed", f"{each['name']}: {each['status']}: {each['message']}") for each in result["failed"]]
    facts += [("note", note) for note in result["notes"]]
    if result["earlier"]:
        facts.append(("note", f"results of this run before this one: {len(result['earlier'])}."))
    return facts
