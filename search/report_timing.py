"""The figures of the report about time: when each trial ran, and what an epoch costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from search.journal import Trial
from search.report_facts import STATUS_WORDS, Span, label
from search.report_figures import SERIES, STATUS_COLOURS, duration, hours, scatter
from search.report_page import plain
from search.results import Run


def timeline(spans: Sequence[Span]) -> Any:
    """Which trial ran when, one line per place that trials ran in at the same time."""
    total = max((span.end for span in spans), default=0.0)
    unit, name = hours(total)
    plot = go.Figure()
    for status, word in STATUS_WORDS.items():
        members = [span for span in spans if span.trial.status == status]
        if members:
            plot.add_bar(
                base=[span.start / unit for span in members], x=[span.seconds / unit for span in members],
                y=[span.slot for span in members], orientation="h", name=word, width=0.72, textposition="none",
                hoverinfo="text",
                hovertext=[f"{plain(label(span.trial))}, {word}<br>{duration(span.seconds)}, "
                           f"{len(span.trial.reports)} epochs" for span in members],
                marker={"color": STATUS_COLOURS[status], "line": {"width": 1, "color": "rgba(255,255,255,.7)"}},
            )  # fmt: skip
    slots = max((span.slot for span in spans), default=0) + 1
    plot.update_layout(
        barmode="overlay", xaxis={"title": f"time searching, {name}", "rangemode": "tozero"},
        yaxis={"title": "at the same time", "tickvals": list(range(slots)),
               "ticktext": [str(slot + 1) for slot in range(slots)],
               "range": [slots - 0.4, -0.6], "showgrid": False, "zeroline": False},
    )  # fmt: skip
    return plot


def epoch_times(run: Run, trials: Sequence[Trial], by: str) -> Any:
    """Seconds per epoch of every trial, in groups by the configuration's `by`."""
    groups: dict[str, list[tuple[Trial, float]]] = {}
    for trial in trials:
        seconds = sorted(epoch.seconds for epoch in run.epochs(trial))
        if seconds:
            median = seconds[len(seconds) // 2]
            groups.setdefault(plain(trial.config.get(by, "")), []).append((trial, median))
    plot = go.Figure()
    names = sorted(groups, key=lambda name: sum(value for _, value in groups[name]) / len(groups[name]))
    for place, name in enumerate(names):
        members = groups[name]
        plot.add_scatter(
            x=[value for _, value in members], y=[place + 0.2 * scatter(index) for index in range(len(members))],
            mode="markers", showlegend=False, hoverinfo="text",
            hovertext=[f"{plain(label(trial))}: {value:.3g} s per epoch" for trial, value in members],
            marker={"size": 8, "opacity": 0.7, "color": SERIES[0]},
        )  # fmt: skip
    plot.update_layout(
        xaxis={"title": "seconds per epoch (median of the trial)", "rangemode": "tozero"}, hovermode="closest",
        yaxis={"tickvals": list(range(len(names))), "ticktext": names, "range": [-0.6, len(names) - 0.4],
               "zeroline": False},
    )  # fmt: skip
    return plot
