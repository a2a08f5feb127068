"""The number at the top of the report, its interval, and the sentence that says what it was measured on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from search.report.facts import label
from search.report.page import Html, note, tag
from search.retrain.text import OPTIMISTIC
from search.runs.format import percent, percent_range
from search.runs.run import Best, Run
from trainable.inference.metrics import wilson_interval


@dataclass(frozen=True)
class Headline:
    """The number that the reader takes away; fractions in [0, 1]."""

    accuracy: float | None  # None: there is no number yet
    interval: tuple[float, float] | None  # 95%
    sentence: str
    optimistic: bool  # chosen on the same clips as measured


def retrained(run: Run) -> dict[str, Any] | None:
    """What `retrained/result.json` says, or None where nothing was retrained."""
    path = run.path / "retrained" / "result.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def validation_interval(run: Run, accuracy: float) -> tuple[float, float] | None:
    """The 95% interval of a validation accuracy in this run, or None where the record does not say how many clips."""
    clips = int(run.record.get("split", {}).get("val", 0))
    return wilson_interval(accuracy * clips, clips) if clips else None


def headline(run: Run) -> Headline:
    """The retrained accuracy where there is one, else the search's own best, called what it is."""
    result = retrained(run)
    if result is not None:
        return _of_result(result)
    best = run.best()
    if best is None:
        return Headline(None, None, "No trial has got past the grace period yet, so there is no best.", False)
    clips = run.record.get("split", {}).get("val")
    where = f"{clips} validation clips" if clips else "the validation clips"
    sentence = f"Trial {label(best.trial)} at epoch {best.epoch}, the highest of {_choices(run)} on {where}."
    return Headline(best.accuracy, validation_interval(run, best.accuracy), sentence, True)


def _of_result(result: dict[str, Any]) -> Headline:
    seeds = len(result.get("per_seed") or [])
    what = "The best configuration, retrained" + (f" on {seeds} seeds (mean)" if seeds > 1 else "")
    clips = f"{result['clips']} " if result.get("clips") else ""
    plain = {
        "test": f"{clips}test clips, on which nothing was trained or chosen",
        "folds": f"{clips}clips, each scored by models that were not trained on it",
    }.get(result["measured_on"], f"the {clips}validation clips")
    on = str(result.get("sentence") or plain).removesuffix(f": {OPTIMISTIC}")
    low_high = result.get("interval_95")
    interval = (float(low_high[0]), float(low_high[1])) if low_high else None
    return Headline(result["accuracy"], interval, f"{what}, on {on}.", result["measured_on"] not in ("test", "folds"))


def _choices(run: Run) -> str:
    reports = sum(len(trial.reports) for trial in run.trials if trial.kind != "retrain")
    return f"{reports} scores (every epoch of every trial)"


def headline_block(run: Run) -> Html:
    """The headline as it stands on the page."""
    found = headline(run)
    value = percent(found.accuracy) if found.accuracy is not None else "none"
    interval = f"95% interval {percent_range(found.interval)}" if found.interval else ""
    return tag(
        "div",
        tag("div", value, class_="value"),
        tag(
            "div",
            tag("p", interval, class_="interval") if interval else "",
            tag("p", found.sentence),
            tag("p", OPTIMISTIC, class_="optimistic") if found.optimistic else "",
            class_="about",
        ),
        class_="headline",
    )


def against_baselines(run: Run, best: Best, baselines: list[Best]) -> Html:
    """A sentence that says by how much the search beats its best baseline, and whether that could be chance."""
    if not baselines:
        return Html("")
    base = max(baselines, key=lambda other: other.accuracy)
    points = 100 * (best.accuracy - base.accuracy)
    if base.trial.number == best.trial.number:
        return note(f"No trial of the search is above the baseline {base.trial.name} ({percent(base.accuracy)}).")
    ours, theirs = validation_interval(run, best.accuracy), validation_interval(run, base.accuracy)
    overlap = ours is not None and theirs is not None and ours[0] < theirs[1]
    return note(
        f"The best trial is {points:.1f} points above the baseline {base.trial.name}. ",
        "The intervals overlap: on so few clips this may be chance. " if overlap else "",
        "The best of many trials is flattered by the choice, a baseline is not.",
    )
