"""A run as one HTML file that opens anywhere, offline, and that one can send to a colleague.

Each section is a function here, which says what is to be seen, and a template of its name, which says how. Templates
escape all that they are given. The page asks nothing of any network: styles, scripts and data are inside, and a
content security policy forbids the browser to fetch anything or to run any script but the two that belong to the page.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from search.report import figures
from search.report.facts import (
    Headline,
    as_yaml,
    configurations_of,
    differing_settings,
    headline,
    label,
    lead,
    progress,
    record,
    retrained,
    rungs,
    settings_of,
    space_of,
    spans,
    state_in_words,
    top,
    trials_of,
)
from search.report.figures import Plot
from search.report.mistakes import Card, mistakes, scored, suspect_cards
from search.report.space_figures import (
    LEAST_FOR_IMPORTANCE,
    axes_of,
    dashboard_importances,
    importance_figure,
    importances,
    parallel,
    slice_figure,
)
from search.retrain.suspects import suspects_of
from search.retrain.text import OPTIMISTIC, flattery
from search.retrain.trust import candidates_of, trust
from search.runs.cost import COSTS, CostKind, costs_of, front_of
from search.runs.format import (
    STATUS_WORDS,
    duration,
    percent,
    percent_range,
    percent_spread,
    points,
    points_range,
    short,
    status_in_words,
    status_word,
)
from search.runs.journal import BROKEN
from search.runs.run import Best, RunFolder, load_run, validates
from trainable.commands import typed
from trainable.config import TrialConfig
from trainable.errors import InputError
from trainable.files import write_atomically

CURVES = 10  # trials whose learning curves are drawn

Content = Mapping[str, Any]  # what a section's template is given


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is more than its text."""

    text: object
    value: float | None = None  # what its column is sorted by
    wrap: bool = False  # long text on several lines
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table that scrolls sideways where it is too wide, and downwards if `tall`; a click on a heading sorts by it."""

    headers: Sequence[str]
    rows: Sequence[Sequence[object]]
    numeric: frozenset[int] = frozenset()  # columns that stand on the right
    tall: bool = False
    trials: Sequence[int] = ()  # whose row each is, for what is selected in the figures
    soft: frozenset[int] = frozenset()  # rows that count less


@dataclass(frozen=True)
class Section:
    """A section of an article."""

    short: str  # its name in the navigation
    title: str
    anchor: str
    template: str
    content: Content


def write_report(runs: Sequence[RunFolder], path: Path | None = None) -> Path:
    """Writes the report of one run, or of several with a comparison on top, and returns its path.

    `path`: by default `report.html` in the folder of the first run.

    Raises:
        InputError: what a run folder holds cannot be understood.
    """
    path = path or runs[0].path / "report.html"
    articles = [_article(run, "" if len(runs) == 1 else f"run{index}-") for index, run in enumerate(runs)]
    if len(runs) == 1:
        title, comparison = runs[0].name, None
        anchors = [(section.anchor, section.short) for section in articles[0]["sections"]]
    else:
        title, comparison = f"{len(runs)} runs compared", _comparison(runs)
        anchors = [("compared", "Comparison"), *((f"run{index}-run", run.name) for index, run in enumerate(runs))]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page(title=title, anchors=anchors, comparison=comparison, articles=articles))
    return path


def page(**content: Any) -> str:
    """The whole document: `title`, `anchors` (key and name), `comparison` or None, and `articles`."""
    scripts = [get_plotlyjs().replace("</script", "<\\/script"), _asset("page.js")]
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    policy = (
        "default-src 'none'; img-src data: blob:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src {hashes}; base-uri 'none'; form-action 'none'"
    )
    return environment().get_template("page.html").render(
        policy=Markup(policy), style=Markup(_asset("page.css")), scripts=[Markup(text) for text in scripts], **content
    )  # fmt: skip


def explained(title: str, cards: Sequence[Card]) -> str:
    """A page of clips with the stretches that decide them; it has no script at all."""
    page = environment().get_template("explained.html")
    return page.render(title=title, style=Markup(_asset("page.css")), cards=cards)


@cache
def environment() -> jinja2.Environment:
    """The templates; all that they show is escaped, and a name that they lack is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("search.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"percent": percent, "percent_range": percent_range, "duration": duration, "points": points}
    made.globals["optimistic"] = OPTIMISTIC
    return made


def _asset(name: str) -> str:
    return (resources.files("search.report") / "templates" / name).read_text(encoding="utf-8")


def _article(run: RunFolder, key: str) -> Content:
    """The part of the page about one run; `key` makes the anchors its own."""
    parts: list[tuple[str, str, Callable[[RunFolder, str], Content | None]]] = [
        ("Retrained", "Retrained", _retrained),
        ("Baselines", "Baselines in the search", _baselines),
        ("Progress", "Progress", _progress),
        ("Cuts", "Who was cut where", _cuts),
        ("Settings", "Settings and accuracy", _settings),
        ("Cost", "Accuracy against cost", _cost),
        ("Curves", "Learning curves of the top ten", _curves),
        ("Mistakes", "Confusion and mistakes", _mistakes),
        ("Labels", "Labels that may be wrong", _labels),
        ("Time", "Time and resources", _time),
        ("Trials", "All trials, best first", _trials),
        ("Failed", "Failed trials", _failed),
        ("Best", "Best configuration", _best),
        ("Record", "Record", lambda run, key: {"record": record(run)}),
    ]
    sections = []
    for name, title, draw in parts:
        anchor = f"{key}{name.lower()}"
        content = draw(run, anchor)
        if content is not None:
            sections.append(Section(name, title, anchor, f"sections/{name.lower()}.html", content))
    return {
        "key": f"{key}run",
        "data": run.record.get("data", {}).get("name", "?"),
        "name": run.name,
        "state": state_in_words(run),
        "headline": headline(run),
        "summary": _summary(run),
        "sections": sections,
    }


def _summary(run: RunFolder) -> list[tuple[str, object]]:
    trials = trials_of(run)
    counts: Counter[str] = Counter(trial.status for trial in trials)
    data = run.record.get("data", {})
    ended = ", ".join(f"{counts[status]} {word}" for status, word in STATUS_WORDS.items() if counts[status])
    return [
        ("data", f"{data.get('clips', '?')} clips, {len(data.get('labels', []))} classes"),
        ("trials", f"{len(trials)} ({ended})" if trials else "none yet"),
        ("epochs trained", sum(len(trial.reports) for trial in trials)),
        ("time searching", duration(max((span.end for span in spans(run)), default=0.0))),
    ]


def _comparison(runs: Sequence[RunFolder]) -> Content:
    """Several runs side by side."""
    rows, bars, histories = [], [], []
    for run in runs:
        found, trials = headline(run), trials_of(run)
        epochs = sum(len(trial.reports) for trial in trials)
        rows.append(_compared_row(run, found, epochs))
        histories.append((run.name, progress(run), float(epochs)))
        if found.accuracy is not None:
            bars.append((run.name, found.accuracy, found.interval, not found.optimistic))
    same = len({(run.record.get("data", {}).get("hash"), run.record.get("split", {}).get("hash")) for run in runs}) == 1
    headers = ["run", "accuracy", "95% interval", "measured on", "trials", "epochs", "time", "data and split"]
    drawn = []
    if bars:
        plot = figures.intervals(bars)
        drawn.append(Plot("compared-best", plot, "Accuracy of each run", 110 + 56 * len(bars), "95% intervals."))
    if any(steps for _, steps, _ in histories):
        drawn.append(Plot("compared-history", figures.compared(histories), "Best so far over epochs spent", 340))
    return {
        "title": f"{len(runs)} runs compared", "same_clips": same,
        "table": Table(headers, rows, frozenset((1, 4, 5, 6))), "figures": drawn,
    }  # fmt: skip


def _compared_row(run: RunFolder, found: Headline, epochs: int) -> list[object]:
    split = run.record.get("split", {})
    measured_on = OPTIMISTIC if found.optimistic else found.sentence if found.accuracy is not None else ""
    return [
        Cell(run.name, strong=True), percent(found.accuracy) or "none yet",
        Cell(found.trust.removeprefix("95% interval "), wrap=True),
        Cell(measured_on, wrap=True), len(trials_of(run)), epochs,
        duration(max((span.end for span in spans(run)), default=0.0)),
        f"{run.record.get('data', {}).get('name', '')} {split.get('name', '')}",
    ]  # fmt: skip


def _retrained(run: RunFolder, key: str) -> Content | None:
    """The retrained configuration beside its baseline and its ensembles.

    Only the fields that every result has are taken for granted; what a protocol leaves out is left out here too.
    """
    result = retrained(run)
    if result is None:
        return None
    rows = _measured_models(result)
    groups = f" over {result['interval_groups']} groups" if result.get("interval_groups") else ""
    caption = f"On {result.get('sentence') or result['measured_on'] + ' clips'}. 95% intervals{groups}."
    plot = figures.intervals(rows)
    return {
        "sentences": _findings(result),
        "plot": Plot(f"{key}-plot", plot, "Retrained models on the clips that count", 100 + 56 * len(rows), caption),
        "seeds": _seeds(run, result, key),
        "calibration": _calibration(result, key),
        "candidates": _candidates(result),
        "config": as_yaml(result["config"]),
        "chosen": result.get("chosen") or "the result",
        "failed": "; ".join(
            f"{item.get('name', '')}: {item.get('message', '')}" for item in result.get("failed") or []
        ),
        "notes": result.get("notes") or [],
        "earlier": len(result.get("earlier") or []),
    }


def _seeds(run: RunFolder, result: Mapping[str, Any], key: str) -> list[Plot]:
    """The curves of the chosen configuration's seeds, and how far the seeds of every configuration lie apart."""
    drawn = []
    nested = run.path / "retrained"
    if (nested / "run.json").exists():
        again = load_run(nested)
        mine = [trial for trial in again.trials if trial.name.startswith(f"{result.get('chosen')}, seed")]
        curves = [(trial, epochs) for trial in mine if (epochs := again.epochs(trial))]
        if curves:
            validated = any(validates(trial.config) for trial, _ in curves)
            said = (
                "Solid: validation. Dotted: training." if validated else "Training: no clips were left to validate on."
            )
            drawn.append(Plot(f"{key}-seeds", figures.seed_curves(curves), f"Seeds of {result['chosen']}", 360, said))
    spread = [
        (str(item["name"]), [value for seed in item.get("per_seed") or [] if (value := _accuracy(seed)) is not None])
        for item in _with_baseline(result)
    ]
    spread = [(name, values) for name, values in spread if len(values) > 1]
    if spread:
        said = "Each mark is a seed on the clips that count, the bar their mean and deviation."
        drawn.append(
            Plot(f"{key}-spread", figures.seed_spread(spread), "Spread over seeds", 120 + 46 * len(spread), said)
        )
    return drawn


def _calibration(result: Mapping[str, Any], key: str) -> Plot | None:
    """How often the model is right when it is so sure; only results that have kept the bins can be drawn."""
    found = result.get("calibration") or {}
    if not found.get("bins_before"):
        return None
    scaled = found["temperature"] != 1
    plot = figures.reliability(found["bins_before"], found["bins_after"] if scaled else [])
    said = (
        "Ten ranges of confidence with 95% intervals; larger marks hold more clips. On the line the model is as sure "
    )
    return Plot(f"{key}-calibration", plot, "Calibration", 380, said + "as it may be.")


def _with_baseline(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The retrained configurations, and the baseline where it is none of them."""
    listed = list(result.get("candidates") or [])
    baseline = result.get("baseline")
    return [*listed, *([baseline] if baseline and all(item["name"] != baseline["name"] for item in listed) else [])]


def _measured_models(result: Mapping[str, Any]) -> list[figures.Bar]:
    """Name, accuracy, interval and whether it is the result itself, for every model that was measured."""
    seeds = len(result.get("per_seed") or [])
    mean = f", mean of {seeds} seeds" if seeds > 1 else ""
    name = result.get("chosen") or "best configuration"
    rows = [(f"{name}{mean}", result["accuracy"], _pair(result.get("interval_95")), True)]
    ensembles = result.get("ensembles") or {"seeds": {"accuracy": result.get("ensemble_accuracy")}}
    for kind, words in (("seeds", "ensemble of its seeds"), ("greedy", "greedy ensemble")):
        ensemble = ensembles.get(kind) or {}
        of_one = len(ensemble.get("members", (1, 2))) < 2  # older results do not name them
        if ensemble.get("accuracy") is not None and not of_one:
            rows.append((words, ensemble["accuracy"], _pair(ensemble.get("interval_95")), False))
    baseline = result.get("baseline") or {}
    if result.get("baseline_accuracy") is not None:
        interval = _pair(baseline.get("interval_95"))
        rows.append((f"baseline {baseline.get('name', '')}".strip(), result["baseline_accuracy"], interval, False))
    return rows


def _findings(result: Mapping[str, Any]) -> list[str]:
    found = []
    difference = result.get("difference")
    if difference:
        interval = difference["interval_95"]
        chance = "chance alone would hardly do that" if interval and interval[0] > 0 else "which may be chance"
        test = difference.get("test", "McNemar exact")
        found.append(
            f"Against the retrained baseline: {points(difference['mean'])}{points_range(interval)}, {chance}. "
            f"Test of the two models: p = {difference['p_value']:.3g} ({test})."
        )
    found += [sentence[0].upper() + sentence[1:] for sentence in flattery(result)]
    calibration = result.get("calibration")
    if calibration:
        scaled = (
            "temperature scaling would not help on clips that it is not fitted on, so it is left out"
            if calibration["temperature"] == 1
            else f"after the temperature of {calibration['temperature']:.2f}: {percent(calibration['ece_after'])}"
        )
        found.append(f"Expected calibration error {percent(calibration['ece_before'])}, {scaled}.")
    return found


def _candidates(result: Mapping[str, Any]) -> Table | None:
    """One row per retrained configuration, with its seeds."""
    listed = _with_baseline(result)
    if listed:
        headers = ["configuration", "in the search", "validation, mean", "measured, mean", "95% interval", "each seed"]
        return Table(headers, [_candidate(item) for item in listed], frozenset((1, 2, 3)))
    rows = [[_seed(item, index), percent(_accuracy(item))] for index, item in enumerate(result.get("per_seed") or [])]
    return Table(["seed", "accuracy"], rows, frozenset((1,))) if rows else None


def _candidate(item: Mapping[str, Any]) -> list[object]:
    seeds = [percent(_accuracy(seed)) for seed in item.get("per_seed") or []]
    return [
        item["name"], percent(item.get("searched")), percent_spread(item.get("validation")),
        percent_spread(item.get("measured")), percent_range(item.get("interval_95")), ", ".join(filter(None, seeds)),
    ]  # fmt: skip


def _pair(interval: Sequence[float] | None) -> tuple[float, float] | None:
    return (float(interval[0]), float(interval[1])) if interval else None


def _accuracy(seed: object) -> float | None:
    value = seed.get("accuracy") if isinstance(seed, Mapping) else seed
    return float(value) if isinstance(value, (int, float)) else None


def _seed(seed: object, index: int) -> object:
    return seed.get("seed", index) if isinstance(seed, Mapping) else index


def _baselines(run: RunFolder, key: str) -> Content | None:
    trials = [trial for trial in trials_of(run) if trial.kind == "baseline"]
    ranked = {other.trial.number: other for other in run.ranked()}
    bests = [best for trial in trials if (best := ranked.get(trial.number) or top(trial))]
    best = run.best()
    if not bests:
        return None
    rows = []
    for other in bests:
        out = "" if other.trial.number in ranked else f" ({status_in_words(other.trial)}, not ranked)"
        rows.append((f"{other.trial.name}{out}", other.accuracy, trust(run, other).interval, False))
    allows = ""
    if best and best.trial.kind != "baseline":
        found = trust(run, best, candidates_of(run))
        rows.insert(0, (f"best trial, {label(best.trial)}", best.accuracy, found.interval, True))
        allows = f"; that of the best trial allows for the choice among {found.highest_of} trials"
    caption = f"Best epoch on {run.record.get('split', {}).get('val', '?')} validation clips"
    if any(interval for _, _, interval, _ in rows):  # one group of clips gives none
        caption += f", with 95% intervals{allows}"
    plot = Plot(
        f"{key}-plot", figures.intervals(rows), "Baselines against the best trial", 90 + 56 * len(rows), f"{caption}."
    )
    return {
        "lead": lead(run),
        "baseline_is_best": best is not None and best.trial.kind == "baseline",
        "plot": plot,
    }


def _progress(run: RunFolder, key: str) -> Content | None:
    steps, times = progress(run), spans(run)
    if not times:
        return None
    if not any(top(span.trial) for span in times):
        return {"figures": []}
    total = max(span.end for span in times)
    epochs = float(sum(len(trial.reports) for trial in trials_of(run)))
    over_time = figures.history(run, steps, "seconds", times, total)
    over_epochs = figures.history(run, steps, "epochs", times, epochs)
    caption = "Each mark is a trial's own best. The line counts a trial once it is past the grace period"
    return {
        "figures": [
            Plot(f"{key}-seconds", over_time, "Best so far over time", 340, f"{caption}; interruptions are left out."),
            Plot(f"{key}-epochs", over_epochs, "Best so far over epochs spent", 340, f"{caption}."),
        ]
    }


def _cuts(run: RunFolder, key: str) -> Content | None:
    found = rungs(run)
    if not found:
        return {"plot": None} if trials_of(run) else None
    space = space_of(run)
    spent = sum(len(trial.reports) for trial in trials_of(run))
    full = sum(int(trial.config.get("epochs", len(trial.reports))) for trial in trials_of(run))
    cut = sum(len(rung.cut) for rung in found)
    saved = f" Cutting saved up to {percent(1 - spent / full, 0)} of {full} epochs." if cut and full > spent else ""
    caption = (
        f"At each rung the best 1 in {space.budget.reduction_factor:g} goes on, by its best epoch so far, among "
        f"those that have been there; who passed early is cut when it has been overtaken.{saved}"
    )
    plot = figures.rung_figure(found)
    width = max(0, 130 * len(found))
    return {"plot": Plot(f"{key}-plot", plot, "Trials at the rungs", 400, caption, width=width)}


def _settings(run: RunFolder, key: str) -> Content | None:
    space = space_of(run)
    trials = [trial for trial in configurations_of(run) if top(trial)]
    axes = axes_of(trials, space)
    if not axes:
        return None
    caption = (
        "From grey-blue to red with accuracy; baselines grey. Dotted: cut or broken. Drag along an axis to keep the "
        "trials that pass there, double-click for all."
    )
    plot, width = parallel(trials, axes, space), 92 * (len(axes) + 1)
    shares, count = importances(trials, space)
    importance = None
    if shares:
        hint = " From so few trials it is a hint." if count < 50 else ""
        about = f"fANOVA on {count} trials, by their best accuracy after {_epochs(space.budget.grace_epochs)}.{hint}"
        shown_there = dashboard_importances(run.path / "study.db")
        if shown_there:
            about += (
                " optuna-dashboard leaves out trials that were cut or broke, and "
                "uses PED-ANOVA: it says what decides among those that were left."
            )
        drawn = importance_figure(shares, shown_there)
        height = 120 + (38 if shown_there else 24) * len(shares)
        importance = Plot(f"{key}-importance", drawn, "Which settings matter", height, about)
    return {
        "parallel": Plot(f"{key}-parallel", plot, "All trials through their settings", 430, caption, width=width),
        "importance": importance,
        "too_few": f"Importances need {LEAST_FOR_IMPORTANCE} trials with {_epochs(space.budget.grace_epochs)} and "
                   f"different accuracies; there are {count}.",
        "legend": [
            (figures.STATUS_MARKS[status], figures.STATUS_COLOURS[status], word)
            for status, word in STATUS_WORDS.items() if any(trial.status == status for trial in trials)
        ],
        "slices": [
            Plot(f"{key}-slice-{index}", slice_figure(trials, axis), axis.name, 240) for index, axis in enumerate(axes)
        ],
    }  # fmt: skip


def _cost(run: RunFolder, key: str) -> Content | None:
    """Accuracy against each kind of cost, with the best trade-offs."""
    ranked = {best.trial.number for best in run.ranked()}
    tops = [best for trial in configurations_of(run) if (best := top(trial))]
    costs = {best.trial.number: costs_of(run, best.trial) for best in tops}
    drawn: list[Plot] = []
    rows: dict[int, Best] = {}
    for name, kind in COSTS.items():
        members = [
            (best, cost, best.trial.number in ranked)
            for best in tops
            if (cost := costs[best.trial.number][name]) is not None
        ]
        if not members:
            continue
        front = front_of(run, name)
        drawn.append(
            Plot(f"{key}-{name}", figures.trade_off(members, front, kind), kind.title[0].upper() + kind.title[1:], 330)
        )
        rows |= {best.trial.number: best for best, _ in front}
    if not drawn:
        return None
    ordered = sorted(rows.values(), key=lambda best: -best.accuracy)
    table = [
        [label(best.trial), percent(best.accuracy), best.trial.config.get("backbone", ""),
         *(_priced(kind, costs[best.trial.number][name]) for name, kind in COSTS.items())]
        for best in ordered
    ]  # fmt: skip
    headers = ["trial", "val. accuracy", "backbone", *(kind.title for kind in COSTS.values())]
    numbers = [best.trial.number for best in ordered]
    return {
        "figures": drawn, "front": Table(headers, table, frozenset((1, 3, 4, 5, 6)), trials=numbers),
        "command": typed("retrain", run.path, "--pareto"),
    }  # fmt: skip


def _priced(kind: CostKind, value: float | None) -> object:
    return "" if value is None else Cell(kind.said(value), value)


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' if count != 1 else ''}"


def _curves(run: RunFolder, key: str) -> Content | None:
    ranked = [best.trial for best in run.ranked() if best.trial.kind != "retrain"][:CURVES]
    rows = [(trial, epochs) for trial in ranked if (epochs := run.epochs(trial))]
    if not rows:
        return None
    loss = figures.curves(rows, "loss")
    return {
        "figures": [
            Plot(f"{key}-acc", figures.curves(rows, "acc"), "Accuracy", 420, "Solid: validation. Dotted: training."),
            Plot(f"{key}-loss", loss, "Loss", 420, "A click on a name hides or shows a trial."),
        ]
    }


def _mistakes(run: RunFolder, key: str) -> Content | None:
    """Confusion matrix, scores per class and the worst mistakes."""
    result = retrained(run)
    found = scored(run, result)
    if found is None or not found.predictions:
        return None
    best = run.best()
    values = (result or {}).get("config") or (best.trial.config if best else {})
    config = TrialConfig.parse(values, source=str(run.path))
    count = len(found.predictions)
    size = min(900, 140 + 32 * len(found.labels))
    plot = figures.confusion_figure(found.confusion(), found.labels)
    caption, width = "Colour is the share of the true class.", min(900, 100 + 24 * len(found.labels))
    headers = ["class", "clips", "recall", "95% interval", "taken for", "precision", "F1"]
    groups = found.group_rows()
    return {
        "about": found.about, "count": count, "right": count - len(found.mistakes),
        "matrix": Plot(f"{key}-confusion", plot, "Confusion matrix", size, caption, width=width),
        "beside": len(found.labels) <= 12,  # more classes need the whole width
        "classes": Table(headers, found.class_rows(), frozenset((1, 2, 5, 6)), tall=len(found.labels) > 20),
        "groups": Table(["group", "clips", "right", "95% interval"], groups, frozenset((1, 2)), tall=len(groups) > 14),
        "mistakes": mistakes(run, found, config),
    }  # fmt: skip


def _labels(run: RunFolder, key: str) -> Content | None:
    """The clips whose label is in doubt, to be listened to."""
    try:
        dataset, found = suspects_of(run)
    except InputError:  # nothing has judged any clip, or the data is gone, which the mistakes say
        return None
    if not found:
        return None
    best = run.best()
    values = (retrained(run) or {}).get("config") or (best.trial.config if best else {})
    config = TrialConfig.parse(values, source=str(run.path))
    return {
        "count": len(found), "cards": suspect_cards(dataset, found, config),
        "command": typed("data", "suspects", run.path),
    }  # fmt: skip


def _time(run: RunFolder, key: str) -> Content | None:
    """What the trials cost, when they ran and what an epoch takes."""
    times = spans(run)
    if not times:
        return None
    space = space_of(run)
    busy = sum(span.seconds for span in times)
    hardware = run.record.get("hardware", {})
    gpus = hardware.get("gpus_per_trial", space.resources.gpu)
    cpus = hardware.get("cpus_per_trial", space.resources.cpu)
    slots = max(span.slot for span in times) + 1
    pairs: list[tuple[str, object]] = [
        ("trials at the same time", slots),
        ("all trials together", duration(busy)),
        ("longest trial", duration(max(span.seconds for span in times))),
    ]
    pairs += [("GPUs per trial", f"{gpus:g}")] if gpus is not None else []
    pairs += [("CPU cores per trial", f"{cpus:g}")] if cpus is not None else []
    pairs += [("GPU time", duration(busy * gpus))] if gpus else []
    plot = figures.timeline(times)
    drawn = [Plot(f"{key}-timeline", plot, "Which trial ran when", 130 + 34 * slots, "Interruptions are left out.")]
    ran = [span.trial for span in times if span.trial.reports]
    if ran:
        varied = [name for name in ("backbone", "image_size") if len({str(t.config.get(name)) for t in ran}) > 1]
        by = varied[0] if varied else "backbone"
        groups = len({str(trial.config.get(by)) for trial in ran})
        plot = figures.epoch_times(run, ran, by)
        drawn.append(Plot(f"{key}-epochs", plot, f"Time per epoch by {by}", 110 + 36 * groups))
    return {"pairs": pairs, "figures": drawn}


def _trials(run: RunFolder, key: str) -> Content | None:
    """All trials with their settings, best first; those that may not be called best behind the others."""
    trials = trials_of(run)
    if not trials:
        return None
    space, times = space_of(run), {span.trial.number: span.seconds for span in spans(run)}
    names = [name for name in space.dimensions if any(name in settings_of(trial, space) for trial in trials)]
    ranked = run.ranked()
    order = {best.trial.number: place for place, best in enumerate(ranked)}
    means = {best.trial.number: (percent(best.accuracy, 2), len(best.folds)) for best in ranked if best.folds}
    columns = ("mean over folds", "folds") if means else ()
    tops = {trial.number: top(trial) for trial in trials}

    def place(number: int) -> tuple[float, float, int]:
        best = tops[number]
        return order.get(number, len(order)), -best.accuracy if best else 1.0, number

    rows: list[list[object]] = []
    ordered = sorted(trials, key=lambda trial: place(trial.number))
    for trial in ordered:
        best, has, seconds = tops[trial.number], settings_of(trial, space), times[trial.number]
        rows.append(
            [
                label(trial), status_in_words(trial), percent(best.accuracy if best else None, 2),
                best.epoch if best else "", *means.get(trial.number, ("",) * len(columns)), len(trial.reports),
                Cell(duration(seconds), seconds),
                *(Cell(short(has[name]), _number(has[name])) if name in has else "" for name in names),
            ]
        )  # fmt: skip
    headers = ["trial", "ended", "best val. accuracy", "at epoch", *columns, "epochs", "time", *names]
    soft = frozenset(index for index, trial in enumerate(ordered) if trial.number not in order)
    table = Table(
        headers,
        rows,
        frozenset(range(2, 6 + len(columns))),
        tall=True,
        trials=[trial.number for trial in ordered],
        soft=soft,
    )
    return {"table": table, "some_unranked": bool(soft)}


def _number(value: object) -> float | None:
    """What a setting is sorted by; None sorts it by its text."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _failed(run: RunFolder, key: str) -> Content | None:
    """The trials that broke, with their messages."""
    space = space_of(run)
    rows: list[list[object]] = []
    for trial in trials_of(run):
        if trial.status in BROKEN:
            settings = ", ".join(f"{name} {short(value)}" for name, value in settings_of(trial, space).items())
            rows.append(
                [label(trial), status_word(trial.status), len(trial.reports),
                 Cell(trial.message or "no message", wrap=True), Cell(settings, wrap=True)]
            )  # fmt: skip
    headers = ["trial", "ended", "epochs", "message", "settings"]
    return {"table": Table(headers, rows, frozenset((2,)), tall=True)} if rows else None


def _best(run: RunFolder, key: str) -> Content | None:
    best = run.best()
    if best is None:
        return None
    config = best.trial.config
    return {"trial": label(best.trial), "differing": differing_settings(config), "config": as_yaml(config)}
