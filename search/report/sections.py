"""The sections of one run in the report, in the order in which they stand there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from search.report import figures
from search.report.facts import label, progress, rungs, space_of, spans, top, trials_of
from search.report.headline import against_baselines, headline_block, validation_interval
from search.report.page import Html, facts, figure, join, note, section, tag
from search.report.record import best_settings, record
from search.report.retrained import retrained_section
from search.report.space_figures import (
    LEAST_FOR_IMPORTANCE,
    axes_of,
    importance_figure,
    importances,
    parallel,
    slice_figure,
)
from search.report.tables import failed_section, mistakes_section, time_section, trials_section
from search.runs.format import STATUS_WORDS, duration, percent
from search.runs.journal import Trial
from search.runs.run import Best, Run, best_epoch

CURVES = 10  # trials whose learning curves are drawn


def run_article(run: Run, key: str) -> tuple[Html, list[tuple[str, str]]]:
    """The part of the page about one run, and the anchors in it; `key` makes the anchors its own."""
    parts: list[tuple[str, str, Callable[[Run, str], Html]]] = [
        ("Retrained", "Retrained", retrained_section),
        ("Baselines", "Baselines in the search", _baselines),
        ("Progress", "Progress", _progress),
        ("Cuts", "Who was cut where", _rungs),
        ("Settings", "Settings and accuracy", _space),
        ("Curves", "Learning curves of the top ten", _curves),
        ("Mistakes", "Confusion and mistakes", mistakes_section),
        ("Time", "Time and resources", time_section),
        ("Trials", "All trials", trials_section),
        ("Failed", "Failed trials", failed_section),
        ("Best", "Best configuration", _best),
        ("Record", "Record", _record),
    ]
    sections = [(short, title, f"{key}{short.lower()}") for short, title, _ in parts]
    contents = [draw(run, anchor) for (_, _, draw), (_, _, anchor) in zip(parts, sections, strict=True)]
    found = [(*names, content) for names, content in zip(sections, contents, strict=True) if content]
    anchors = [(anchor, short) for short, _, anchor, _ in found]
    body = [section(anchor, title, content) for _, title, anchor, content in found]
    return tag("article", _head(run), headline_block(run), _summary(run), *body, class_="run", id=f"{key}run"), anchors


def _head(run: Run) -> Html:
    data = run.record.get("data", {})
    state = run.journal.stop_reason
    over = not run.journal.unfinished
    words = "search ended" if over and not state else f"search ended ({state})" if state else "search not finished"
    return join(
        [
            tag("p", f"Search for an audio classifier on {data.get('name', '?')}", class_="eyebrow"),
            tag("h1", run.name),
            tag("p", f"{words}, {run.record.get('created', '')[:16].replace('T', ' ')}", class_="note"),
        ]
    )


def _summary(run: Run) -> Html:
    trials = trials_of(run)
    counts: Counter[str] = Counter(trial.status for trial in trials)
    data = run.record.get("data", {})
    ended = ", ".join(f"{counts[status]} {word}" for status, word in STATUS_WORDS.items() if counts[status])
    return facts(
        [
            ("data", f"{data.get('clips', '?')} clips, {len(data.get('labels', []))} classes"),
            ("trials", f"{len(trials)} ({ended})" if trials else "none yet"),
            ("epochs trained", sum(len(trial.reports) for trial in trials)),
            ("time searching", duration(max((span.end for span in spans(run)), default=0.0))),
        ]
    )


def _baselines(run: Run, key: str) -> Html:
    trials = [trial for trial in trials_of(run) if trial.kind == "baseline"]
    bests = [best for trial in trials if (best := best_epoch(trial, run.grace_epochs) or top(trial))]
    best = run.best()
    if not bests:
        return Html("")
    rows = [(f"{other.trial.name}", other.accuracy, validation_interval(run, other.accuracy), False) for other in bests]
    if best and best.trial.kind != "baseline":
        rows.insert(
            0, (f"best trial, {label(best.trial)}", best.accuracy, validation_interval(run, best.accuracy), True)
        )
    clips = run.record.get("split", {}).get("val", "?")
    plot = figures.intervals(rows)
    return join(
        [
            against_baselines(run, best, bests) if best else "",
            figure(f"{key}-plot", plot, "Baselines against the best trial", 90 + 56 * len(rows),
                   f"Best epoch on {clips} validation clips, with 95% Wilson intervals."),
        ]
    )  # fmt: skip


def _progress(run: Run, key: str) -> Html:
    steps, times = progress(run), spans(run)
    if not any(top(span.trial) for span in times):
        return note("No trial has finished an epoch yet.") if times else Html("")
    total = max(span.end for span in times)
    epochs = float(sum(len(trial.reports) for trial in trials_of(run)))
    over_time = figures.history(run, steps, "seconds", times, total)
    over_epochs = figures.history(run, steps, "epochs", times, epochs)
    caption = "Each mark is a trial's own best. The line counts a trial once it is past the grace period"
    return tag(
        "div",
        figure(f"{key}-seconds", over_time, "Best so far over time", 340, f"{caption}; interruptions are left out."),
        figure(f"{key}-epochs", over_epochs, "Best so far over epochs spent", 340, f"{caption}."),
        class_="grid",
    )


def _rungs(run: Run, key: str) -> Html:
    found = rungs(run)
    if not found:
        return note("Nothing was cut: every trial ran to its end.") if trials_of(run) else Html("")
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
    return figure(f"{key}-plot", plot, "Trials at the rungs", 400, caption, width=max(0, 130 * len(found)))


def _space(run: Run, key: str) -> Html:
    space = space_of(run)
    trials = [trial for trial in trials_of(run) if top(trial)]
    axes = axes_of(trials, space)
    if not axes:
        return Html("")
    caption = (
        "From grey-blue to red with accuracy; baselines grey. Dotted: cut or broken. Drag along an axis to keep the "
        "trials that pass there, double-click for all."
    )
    plot, width = parallel(trials, axes, space), 92 * (len(axes) + 1)
    parts: list[object] = [
        figure(f"{key}-parallel", plot, "All trials through their settings", 430, caption, width=width)
    ]
    shares, count = importances(trials, space)
    if shares:
        hint = " From so few trials it is a hint." if count < 50 else ""
        epochs = f"{space.budget.grace_epochs} epoch{'s' if space.budget.grace_epochs > 1 else ''}"
        caption = f"fANOVA on {count} trials, by their best accuracy after {epochs}.{hint}"
        plot = importance_figure(shares)
        parts.append(figure(f"{key}-importance", plot, "Which settings matter", 110 + 24 * len(shares), caption))
    else:
        least = f"Importances need {LEAST_FOR_IMPORTANCE} trials with {space.budget.grace_epochs} epochs"
        parts.append(note(f"{least} and different accuracies; there are {count}."))
    slices = [
        figure(f"{key}-slice-{index}", slice_figure(trials, axis), axis.name, 240) for index, axis in enumerate(axes)
    ]
    parts += [tag("h3", "One setting at a time"), _legend(trials), tag("div", *slices, class_="grid small")]
    return join(parts)


def _legend(trials: list[Trial]) -> Html:
    marks = {"finished": "●", "cut": "✕", "running": "○", "diverged": "▼", "out_of_memory": "■", "failed": "✚"}
    found = [status for status in STATUS_WORDS if any(trial.status == status for trial in trials)]
    colours = figures.STATUS_COLOURS
    entries = [
        tag("span", tag("span", marks[status], style=f"color:{colours[status]}"), f" {STATUS_WORDS[status]}")
        for status in found
    ]
    return note(join(entries, "   "))


def _curves(run: Run, key: str) -> Html:
    ranked = [best.trial for best in run.ranked() if best.trial.kind != "retrain"][:CURVES]
    rows = [(trial, epochs) for trial in ranked if (epochs := run.epochs(trial))]
    if not rows:
        return Html("")
    return tag(
        "div",
        figure(f"{key}-acc", figures.curves(rows, "acc"), "Accuracy", 420, "Solid: validation. Dotted: training."),
        figure(f"{key}-loss", figures.curves(rows, "loss"), "Loss", 420, "A click on a name hides or shows a trial."),
        class_="grid",
    )


def _best(run: Run, key: str) -> Html:
    best: Best | None = run.best()
    return best_settings(best) if best else Html("")


def _record(run: Run, key: str) -> Html:
    return record(run)
