"""A run as one HTML file that opens anywhere, offline, and that one can send to a colleague."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from search.report import figures
from search.report.facts import progress, spans, trials_of
from search.report.headline import headline
from search.report.page import Html, figure, note, page, table, tag
from search.report.sections import run_article
from search.retrain.text import OPTIMISTIC
from search.runs.format import duration, percent, percent_range
from search.runs.run import Run
from trainable.files import write_atomically


def write_report(runs: Sequence[Run], path: Path | None = None) -> Path:
    """Writes the report of one run, or of several with a comparison on top, and returns its path.

    `path`: by default `report.html` in the folder of the first run.

    Raises:
        InputError: what a run folder holds cannot be understood.
    """
    path = path or runs[0].path / "report.html"
    parts: list[Html] = []
    anchors: list[tuple[str, str]] = []
    if len(runs) > 1:
        parts.append(_comparison(runs))
        anchors.append(("compared", "Comparison"))
    for index, run in enumerate(runs):
        article, sections = run_article(run, "" if len(runs) == 1 else f"run{index}-")
        parts.append(article)
        anchors += sections if len(runs) == 1 else [(f"run{index}-run", run.name)]
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page(title, anchors, *parts))
    return path


def _comparison(runs: Sequence[Run]) -> Html:
    """Several runs side by side."""
    rows, bars, histories = [], [], []
    for run in runs:
        found, trials = headline(run), trials_of(run)
        epochs = sum(len(trial.reports) for trial in trials)
        times = spans(run)
        interval = percent_range(found.interval)
        split = run.record.get("split", {})
        measured_on = OPTIMISTIC if found.optimistic else found.sentence if found.accuracy is not None else ""
        rows.append(
            [
                tag("b", run.name), percent(found.accuracy) if found.accuracy is not None else "none yet", interval,
                tag("div", measured_on, class_="message"),
                len(trials), epochs, duration(max((span.end for span in times), default=0.0)),
                f"{run.record.get('data', {}).get('name', '')} {split.get('name', '')}",
            ]
        )  # fmt: skip
        histories.append((run.name, progress(run), float(epochs)))
        if found.accuracy is not None:
            bars.append((run.name, found.accuracy, found.interval, not found.optimistic))
    same = len({(run.record.get("data", {}).get("hash"), run.record.get("split", {}).get("hash")) for run in runs}) == 1
    warning = "" if same else note(tag("b", "These runs were scored on different clips: "), "compare with care.")
    headers = ["run", "accuracy", "95% interval", "measured on", "trials", "epochs", "time", "data and split"]
    parts: list[object] = [warning, table(headers, rows, numeric=(1, 4, 5, 6))]
    drawn = []
    if bars:
        plot = figures.intervals(bars)
        drawn.append(figure("compared-best", plot, "Accuracy of each run", 110 + 56 * len(bars), "95% intervals."))
    if any(steps for _, steps, _ in histories):
        drawn.append(figure("compared-history", figures.compared(histories), "Best so far over epochs spent", 340))
    title = tag("h1", f"{len(runs)} runs compared")
    return tag("section", title, *parts, tag("div", *drawn, class_="grid"), id="compared", class_="compared")
