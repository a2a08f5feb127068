"""The section of the report on `retrained/result.json`: the number that counts, and what it is compared with.

Only the fields that every result has are taken for granted; what a protocol leaves out is left out here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.report.figures import intervals
from search.report.headline import retrained
from search.report.page import Html, figure, join, note, table, tag
from search.report.record import whole
from search.retrain.text import SAME
from search.runs.format import percent, percent_range, percent_spread, points
from search.runs.run import Run


def retrained_section(run: Run, key: str) -> Html:
    """The retrained configuration beside its baseline and its ensembles; nothing where nothing was retrained."""
    result = retrained(run)
    if result is None:
        return Html("")
    rows = _rows(result)
    plot = intervals(rows)
    caption = f"On {result.get('sentence') or result['measured_on'] + ' clips'}. 95% intervals."
    parts: list[object] = [
        *(note(sentence) for sentence in _sentences(result)),
        figure(f"{key}-plot", plot, "Retrained models on the clips that count", 100 + 56 * len(rows), caption),
        _candidates(result),
        whole(result["config"], f"the configuration of {result.get('chosen') or 'the result'}"),
    ]
    failed = [f"{item.get('name', '')}: {item.get('message', '')}" for item in result.get("failed") or []]
    parts += [note("Did not become a model: ", "; ".join(failed))] if failed else []
    parts += [note(tag("b", "Note. "), text) for text in result.get("notes") or []]
    if result.get("earlier"):
        times = len(result["earlier"])
        parts.append(
            note(
                tag("b", f"These clips were scored {times} time{'s' if times > 1 else ''} before. "),
                "Whoever looks often chooses on them in the end.",
            )
        )
    return join(parts)


def _rows(result: Mapping[str, Any]) -> list[tuple[str, float, tuple[float, float] | None, bool]]:
    """Name, accuracy, interval and whether it is the result itself, for every model that was measured."""
    seeds = len(result.get("per_seed") or [])
    mean = f", mean of {seeds} seeds" if seeds > 1 else ""
    name = result.get("chosen") or "best configuration"
    rows = [(f"{name}{mean}", result["accuracy"], _pair(result.get("interval_95")), True)]
    ensembles = result.get("ensembles") or {"seeds": {"accuracy": result.get("ensemble_accuracy")}}
    for kind, words in (("seeds", "ensemble of its seeds"), ("greedy", "greedy ensemble")):
        ensemble = ensembles.get(kind) or {}
        if ensemble.get("accuracy") is not None:
            rows.append((words, ensemble["accuracy"], _pair(ensemble.get("interval_95")), False))
    baseline = result.get("baseline") or {}
    if result.get("baseline_accuracy") is not None:
        interval = _pair(baseline.get("interval_95"))
        rows.append((f"baseline {baseline.get('name', '')}".strip(), result["baseline_accuracy"], interval, False))
    return rows


def _sentences(result: Mapping[str, Any]) -> list[str]:
    found = []
    difference = result.get("difference")
    if difference:
        low, high = difference["interval_95"]
        chance = "chance alone would hardly do that" if low > 0 else "which may be chance"
        found.append(
            f"Against the retrained baseline: {points(difference['mean'])} (95% interval {100 * low:+.1f} to "
            f"{100 * high:+.1f}), {chance}. McNemar's exact test of the two models: p = {difference['p_value']:.3g}."
        )
    curse = result.get("winners_curse") or {}
    gap = curse.get("points_measured")
    gap = curse.get("points_validation") if gap is None else gap
    if gap is not None:
        above = f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}"
        flattered = above if abs(gap) >= SAME else "just"
        found.append(
            f"The search's own best score, {percent(curse['searched'])}, is {flattered} what fresh seeds of the same "
            "configuration reach."
        )
    calibration = result.get("calibration")
    if calibration:
        found.append(
            f"Expected calibration error {percent(calibration['ece_before'])}, after the temperature of "
            f"{calibration['temperature']:.2f}: {percent(calibration['ece_after'])}."
        )
    return found


def _candidates(result: Mapping[str, Any]) -> Html:
    """One row per retrained configuration, with its seeds."""
    listed = list(result.get("candidates") or [])
    baseline = result.get("baseline")
    if baseline and all(item["name"] != baseline["name"] for item in listed):
        listed.append(baseline)
    if not listed:
        rows = [
            [_seed(item, index), percent(_accuracy(item))] for index, item in enumerate(result.get("per_seed") or [])
        ]
        return table(["seed", "accuracy"], rows, numeric=(1,)) if rows else Html("")
    headers = ["configuration", "in the search", "validation, mean", "measured, mean", "95% interval", "each seed"]
    return table(headers, [_candidate(item) for item in listed], numeric=(1, 2, 3))


def _candidate(item: Mapping[str, Any]) -> Sequence[object]:
    interval = _pair(item.get("interval_95"))
    seeds = [percent(_accuracy(seed)) for seed in item.get("per_seed") or []]
    return [
        item["name"],
        percent(item.get("searched")),
        percent_spread(item.get("validation")),
        percent_spread(item.get("measured")),
        percent_range(interval),
        ", ".join(filter(None, seeds)),
    ]


def _pair(interval: Sequence[float] | None) -> tuple[float, float] | None:
    return (float(interval[0]), float(interval[1])) if interval else None


def _accuracy(seed: object) -> float | None:
    value = seed.get("accuracy") if isinstance(seed, Mapping) else seed
    return float(value) if isinstance(value, (int, float)) else None


def _seed(seed: object, index: int) -> object:
    return seed.get("seed", index) if isinstance(seed, Mapping) else index
