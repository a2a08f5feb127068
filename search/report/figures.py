"""The figures of the report that follow from the journal and the trials' epochs; each function draws one."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from search.report.facts import Progress, Rung, Span, label, top, trials_of
from search.runs.cost import CostKind
from search.runs.format import STATUS_WORDS, duration, percent, percent_spread, status_in_words
from search.runs.journal import Trial
from search.runs.run import Best, RunFolder, validates
from trainable.inference.metrics import spread, wilson_interval
from trainable.training.trial_folder import EpochResult

# Colours that stay apart for colour-blind readers and on light and dark paper. Source: Okabe and Ito 2008.
SERIES = ("#2486c6", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6BB1", "#A6761D", "#66A61E", "#999999")
STATUS_COLOURS = {
    "finished": "#2486c6", "cut": "#E69F00", "running": "#56B4E9",
    "diverged": "#D55E00", "out_of_memory": "#CC79A7", "failed": "#7A1F1F",
}  # fmt: skip
STATUS_SYMBOLS = {
    "finished": "circle", "cut": "x", "running": "circle-open",
    "diverged": "triangle-down", "out_of_memory": "square", "failed": "cross",
}  # fmt: skip
STATUS_MARKS = {"finished": "●", "cut": "✕", "running": "○", "diverged": "▼", "out_of_memory": "■", "failed": "✚"}
BASELINE_COLOUR = "#8a8f94"
BEST_COLOUR = "#0f8f85"


Bar = tuple[str, float, tuple[float, float] | None, bool]  # name, accuracy, its interval, whether it stands out


@dataclass(frozen=True)
class Plot:
    """A plotly figure that fills its column; where that is narrower than `width` px it scrolls."""

    key: str  # its anchor, one of its own on the page
    figure: Any  # a `plotly.graph_objects.Figure`; its texts must have gone through `plain`
    title: str
    height: int  # px
    caption: str = ""
    width: int = 0  # px

    def data(self) -> Markup:
        """The figure as JSON in which "<" never stands, so no text in it can end its block or begin another."""
        data = self.figure.to_plotly_json()
        data["layout"].pop("template", None)  # the page has its own, which follows the reader's light or dark mode
        content = json.dumps(_jsonable(data), separators=(",", ":"), allow_nan=False)
        return Markup(content.replace("<", "\\u003c"))


def plain(value: object) -> str:
    """`value` as text inside a plotly figure, which reads a few tags and these three entities."""
    return html.escape(str(value), quote=False)


def _jsonable(value: Any) -> Any:
    """`value` with tuples as lists and numbers that are not finite as null, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def hours(seconds: float) -> tuple[float, str]:
    """How many seconds the unit has that suits a span of so many `seconds`, and its name."""
    return (3600.0, "h") if seconds > 2 * 3600 else (60.0, "min") if seconds > 120 else (1.0, "s")


def scatter(index: int) -> float:
    """A place in [-1, 1] for the mark `index` of many that would hide each other; the same every time."""
    return 2 * (index * 0.618034 % 1.0) - 1  # multiples of the golden ratio leave no gaps and no rows


def intervals(rows: Sequence[Bar]) -> Any:
    """Accuracies with their intervals, one row each: name, accuracy, interval (fractions), whether it stands out."""
    names = [plain(name) for name, *_ in rows]
    places = list(range(len(rows)))[::-1]
    values = [100 * value for _, value, _, _ in rows]
    ranges = [interval or (value, value) for _, value, interval, _ in rows]
    low = [value - 100 * lower for value, (lower, _) in zip(values, ranges, strict=True)]
    high = [100 * upper - value for value, (_, upper) in zip(values, ranges, strict=True)]
    texts = [
        f"{name}<br>{value:.1f}%" + (f" ({100 * lower:.1f} to {100 * upper:.1f})" if upper > lower else "")
        for name, value, (lower, upper) in zip(names, values, ranges, strict=True)
    ]
    colours = [BEST_COLOUR if strong else BASELINE_COLOUR for *_, strong in rows]
    plot = go.Figure()
    for index, place in enumerate(places):  # one trace each: an error bar has one colour per trace
        plot.add_scatter(
            x=[values[index]], y=[place], mode="markers+text", showlegend=False, hoverinfo="text",
            hovertext=[texts[index]], text=[f"{values[index]:.1f}%"], textposition="top center", cliponaxis=False,
            marker={"size": 11, "color": colours[index]},
            error_x={"type": "data", "array": [high[index]], "arrayminus": [low[index]], "symmetric": False,
                     "color": colours[index], "thickness": 2, "width": 5},
        )  # fmt: skip
    plot.update_layout(
        xaxis={"title": "accuracy, %", "ticksuffix": ""},
        yaxis={"tickvals": places, "ticktext": names, "range": [-0.6, len(rows) - 0.3], "showgrid": False,
               "zeroline": False},
    )  # fmt: skip
    return plot


def history(run: RunFolder, steps: Sequence[Progress], against: str, spans: Sequence[Span], total: float) -> Any:
    """The best so far as a staircase over "seconds" or "epochs" (`against`), up to `total`.

    Every trial's own best is a mark at the place where the trial ended, as `spans` says.
    """
    unit, name = hours(total) if against == "seconds" else (1.0, "")
    axis = f"time searching, {name}" if against == "seconds" else "epochs trained by all trials together"
    plot = go.Figure()
    for status in STATUS_WORDS:
        found = [(span, best) for span in spans if span.trial.status == status and (best := top(span.trial))]
        if not found:
            continue
        moments = [span.end if against == "seconds" else _epochs_until(run, span.trial) for span, _ in found]
        plot.add_scatter(
            x=[moment / unit for moment in moments], y=[100 * best.accuracy for _, best in found], mode="markers",
            name=STATUS_WORDS[status], hoverinfo="text",
            hovertext=[f"{plain(label(best.trial))}, {STATUS_WORDS[status]}<br>"
                       f"{percent(best.accuracy)} at epoch {best.epoch}" for _, best in found],
            customdata=[best.trial.number for _, best in found],
            marker={"size": 7, "opacity": 0.75, "color": STATUS_COLOURS[status], "symbol": STATUS_SYMBOLS[status]},
        )  # fmt: skip
    if steps:
        ends = [step.seconds if against == "seconds" else float(step.epochs) for step in steps]
        last = [step.accuracy for step in steps]
        plot.add_scatter(
            x=[end / unit for end in [*ends, max(total, ends[-1])]], y=[100 * value for value in [*last, last[-1]]],
            mode="lines", line={"shape": "hv", "width": 2.5, "color": BEST_COLOUR}, name="best so far",
            hoverinfo="text",
            hovertext=[f"best so far: {percent(step.accuracy)}<br>{plain(label(step.trial))}"
                       for step in [*steps, steps[-1]]],
        )  # fmt: skip
    plot.update_layout(
        xaxis={"title": axis, "rangemode": "tozero"}, yaxis={"title": "validation accuracy, %"}, hovermode="closest"
    )
    return plot


def _epochs_until(run: RunFolder, trial: Trial) -> float:
    """Epochs that all trials had trained when `trial` reported its last one."""
    last = trial.reports[-1].time
    return float(sum(report.time <= last for other in trials_of(run) for report in other.reports))


def rung_figure(rungs: Sequence[Rung]) -> Any:
    """Every trial at every rung: who passed and who was cut, by its accuracy there."""
    plot = go.Figure()
    for passed, name in ((True, "went on"), (False, "cut here")):
        colour, symbol = ("#2486c6", "circle") if passed else ("#E69F00", "x")
        xs: list[float] = []
        ys: list[float] = []
        texts: list[str] = []
        numbers: list[int] = []
        for place, rung in enumerate(rungs):
            members = sorted(rung.passed if passed else rung.cut, key=lambda member: member[1])
            for index, (trial, value) in enumerate(members):
                # The two kinds stand side by side, each spread a little so that equal values do not hide each other.
                xs.append(place + (0.2 if passed else -0.2) + 0.15 * scatter(index))
                ys.append(100 * value)
                numbers.append(trial.number)
                texts.append(f"{plain(label(trial))}: {percent(value)} at epoch {rung.epoch}, {name}")
        plot.add_scatter(
            x=xs, y=ys, mode="markers", name=name, hoverinfo="text", hovertext=texts, customdata=numbers,
            marker={"size": 8, "color": colour, "symbol": symbol, "opacity": 0.8},
        )  # fmt: skip
    ticks = [f"epoch {rung.epoch}<br>{len(rung.passed) + len(rung.cut)} in, {len(rung.cut)} cut" for rung in rungs]
    plot.update_layout(
        xaxis={"tickvals": list(range(len(rungs))), "ticktext": ticks, "range": [-0.6, len(rungs) - 0.4],
               "showgrid": False, "zeroline": False},
        yaxis={"title": "validation accuracy, %"}, hovermode="closest",
    )  # fmt: skip
    return plot


def curves(trials: Sequence[tuple[Trial, Sequence[EpochResult]]], quantity: str) -> Any:
    """Learning curves of a few trials: validation solid, training dotted; `quantity` is "acc" or "loss"."""
    factor = 100 if quantity == "acc" else 1
    plot = go.Figure()
    for index, (trial, epochs) in enumerate(trials):
        for kind, dash, width in (("val", "solid", 2.2), ("train", "dot", 1.1)):
            plot.add_scatter(
                x=[epoch.epoch for epoch in epochs],
                y=[factor * getattr(epoch, f"{kind}_{quantity}") for epoch in epochs],
                mode="lines+markers" if len(epochs) < 4 and kind == "val" else "lines",
                line={"dash": dash, "width": width, "color": SERIES[index % len(SERIES)]},
                name=plain(label(trial)), legendgroup=str(trial.number), showlegend=kind == "val",
                meta={"trial": trial.number},
                hoverinfo="text",
                hovertext=[f"{plain(label(trial))}, {kind}<br>epoch {epoch.epoch}: "
                           f"{factor * getattr(epoch, f'{kind}_{quantity}'):.4g}" for epoch in epochs],
            )  # fmt: skip
    title = "accuracy, %" if quantity == "acc" else "cross-entropy, nats"
    plot.update_layout(xaxis={"title": "epoch"}, yaxis={"title": title}, hovermode="closest")
    return plot


def seed_curves(trials: Sequence[tuple[Trial, Sequence[EpochResult]]]) -> Any:
    """Accuracy over epochs of one configuration's seeds, one colour each; a seed's folds share it."""
    plot = go.Figure()
    colours: dict[str, str] = {}
    for trial, epochs in trials:
        name = plain(trial.name.partition(", ")[2] or trial.name)  # "seed 1, fold 2"
        seed = name.partition(", ")[0]
        first = seed not in colours
        colour = colours.setdefault(seed, SERIES[len(colours) % len(SERIES)])
        kinds = (("val", "solid", 2.0), ("train", "dot", 1.1))[0 if validates(trial.config) else 1 :]
        for place, (kind, dash, width) in enumerate(kinds):
            values = [100 * getattr(epoch, f"{kind}_acc") for epoch in epochs]
            plot.add_scatter(
                x=[epoch.epoch for epoch in epochs], y=values, mode="lines", name=seed, legendgroup=seed,
                showlegend=first and place == 0, hoverinfo="text", line={"dash": dash, "width": width, "color": colour},
                hovertext=[f"{name}, {kind}<br>epoch {epoch.epoch}: {value:.1f}%"
                           for epoch, value in zip(epochs, values, strict=True)],
            )  # fmt: skip
    plot.update_layout(xaxis={"title": "epoch"}, yaxis={"title": "accuracy, %"}, hovermode="closest")
    return plot


def seed_spread(rows: Sequence[tuple[str, Sequence[float]]]) -> Any:
    """The accuracies (fractions) of each configuration's seeds, with mean and deviation."""
    plot = go.Figure()
    places = list(range(len(rows)))[::-1]
    for place, (name, values) in zip(places, rows, strict=True):
        found = spread(values)
        plot.add_scatter(
            x=[100 * value for value in values], y=[place + 0.12 * scatter(index) for index in range(len(values))],
            mode="markers", showlegend=False, hoverinfo="text", hovertext=[percent(value) for value in values],
            marker={"size": 8, "opacity": 0.7, "color": SERIES[0]},
        )  # fmt: skip
        plot.add_scatter(
            x=[100 * found.mean], y=[place + 0.3], mode="markers", showlegend=False, hoverinfo="text",
            hovertext=[f"{plain(name)}: {percent_spread({'mean': found.mean, 'deviation': found.deviation})}"],
            marker={"size": 8, "color": BEST_COLOUR},
            error_x={"type": "constant", "value": 100 * found.deviation, "color": BEST_COLOUR, "thickness": 2,
                     "width": 4},
        )  # fmt: skip
    plot.update_layout(
        xaxis={"title": "accuracy, %"}, hovermode="closest",
        yaxis={"tickvals": places, "ticktext": [wrapped(name) for name, _ in rows], "range": [-0.5, len(rows) - 0.3],
               "showgrid": False, "zeroline": False},
    )  # fmt: skip
    return plot


def wrapped(name: str, most: int = 22) -> str:
    """A name as text of a figure, on lines of about `most` characters, broken after hyphens and spaces."""
    lines = [""]
    for part in re.split(r"(?<=[- ])", name):
        if lines[-1] and len(lines[-1]) + len(part) > most:
            lines.append("")
        lines[-1] += part
    return "<br>".join(map(plain, lines))


def reliability(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> Any:
    """Confidence beside accuracy in bins, as the model is and after temperature scaling (empty: it is left out)."""
    plot = go.Figure()
    plot.add_scatter(x=[0, 100], y=[0, 100], mode="lines", hoverinfo="skip", showlegend=False,
                     line={"color": BASELINE_COLOUR, "dash": "dot", "width": 1.5})  # fmt: skip
    named = [("as the model says", before, BASELINE_COLOUR), ("after temperature scaling", after, BEST_COLOUR)]
    for name, bins, colour in named if after else [("as the model says", before, BEST_COLOUR)]:
        most = max(each["clips"] for each in bins)
        ranges = [wilson_interval(each["accuracy"] * each["clips"], int(each["clips"])) for each in bins]
        plot.add_scatter(
            x=[100 * each["confidence"] for each in bins], y=[100 * each["accuracy"] for each in bins],
            mode="lines+markers", name=name, hoverinfo="text", line={"color": colour, "width": 1.5},
            hovertext=[f"{name}<br>{each['clips']} clips from {percent(each['low'], 0)} to {percent(each['high'], 0)} "
                       f"sure<br>{percent(each['accuracy'])} right, {percent(each['confidence'])} sure"
                       for each in bins],
            marker={"color": colour, "size": [6 + 10 * math.sqrt(each["clips"] / most) for each in bins]},
            error_y={"type": "data", "symmetric": False, "color": colour, "thickness": 1, "width": 3,
                     "array": [100 * (high - each["accuracy"]) for each, (_, high) in zip(bins, ranges, strict=True)],
                     "arrayminus": [100 * (each["accuracy"] - low)
                                    for each, (low, _) in zip(bins, ranges, strict=True)]},
        )  # fmt: skip
    plot.update_layout(
        xaxis={"title": "how sure the model is, %", "range": [-3, 103]}, hovermode="closest",
        yaxis={"title": "how often it is right, %", "range": [-3, 103]},
    )  # fmt: skip
    return plot


def confusion_figure(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> Any:
    """The confusion matrix: rows are true classes, columns predictions; colour is the share of the row."""
    names = [plain(name) for name in labels]
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    places = list(range(len(names)))
    hover = [
        [f"{true} taken for {said}: {count} of {sum(row)}" for said, count in zip(names, row, strict=True)]
        for true, row in zip(names, counts, strict=True)
    ]
    few = len(names) <= 25  # beyond, numbers do not fit
    plot = go.Figure(
        go.Heatmap(
            z=shares, x=places, y=places, zmin=0, zmax=1, showscale=False, xgap=1, ygap=1,
            text=[[str(count) if count else "" for count in row] for row in counts] if few else None,
            texttemplate="%{text}" if few else None, hoverinfo="text", hovertext=hover,
        )
    )  # fmt: skip
    step = max(1, len(names) // 50)
    ticks = {"tickvals": places[::step], "ticktext": names[::step], "showgrid": False, "zeroline": False}
    plot.update_layout(
        xaxis={"title": "predicted", "side": "bottom", "tickangle": -45, **ticks},
        yaxis={"title": "true", "autorange": "reversed", **ticks},
    )
    return plot


def compared(histories: Sequence[tuple[str, Sequence[Progress], float]]) -> Any:
    """The best so far of several runs over the epochs that they have spent: name, steps, epochs in all."""
    plot = go.Figure()
    for index, (name, steps, total) in enumerate(histories):
        if steps:
            values = [100 * step.accuracy for step in steps]
            plot.add_scatter(
                x=[*(step.epochs for step in steps), max(total, steps[-1].epochs)], y=[*values, values[-1]],
                mode="lines", line={"shape": "hv", "width": 2.4, "color": SERIES[index % len(SERIES)]},
                name=plain(name), hoverinfo="text",
                hovertext=[f"{plain(name)}<br>{percent(step.accuracy)} after {step.epochs} epochs"
                           for step in [*steps, steps[-1]]],
            )  # fmt: skip
    plot.update_layout(
        xaxis={"title": "epochs trained by all trials together", "rangemode": "tozero"},
        yaxis={"title": "validation accuracy, %"}, hovermode="closest",
    )  # fmt: skip
    return plot


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
                customdata=[span.trial.number for span in members],
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


def trade_off(members: Sequence[tuple[Best, float, bool]], front: Sequence[tuple[Best, float]], kind: CostKind) -> Any:
    """Accuracy against one cost: trials with that cost and whether they may be called best, and the front through them.

    The cost is on a logarithmic axis where it spans more than a factor of three.
    """
    plot = go.Figure()
    for status, word in STATUS_WORDS.items():
        shown = [member for member in members if member[0].trial.status == status]
        if shown:
            plot.add_scatter(
                x=[cost for _, cost, _ in shown], y=[100 * best.accuracy for best, _, _ in shown], mode="markers",
                name=word, hoverinfo="text", customdata=[best.trial.number for best, _, _ in shown],
                hovertext=[f"{plain(label(best.trial))}, {status_in_words(best.trial)}<br>{percent(best.accuracy)}, "
                           f"{kind.said(cost)}" for best, cost, _ in shown],
                marker={"size": 8, "opacity": [0.8 if may else 0.45 for _, _, may in shown],
                        "color": STATUS_COLOURS[status], "symbol": STATUS_SYMBOLS[status]},
            )  # fmt: skip
    if front:
        plot.add_scatter(
            x=[cost for _, cost in front], y=[100 * best.accuracy for best, _ in front], mode="lines+markers",
            name="best trade-offs", hoverinfo="text", customdata=[best.trial.number for best, _ in front],
            hovertext=[f"{plain(label(best.trial))}: {percent(best.accuracy)}, {kind.said(cost)}<br>"
                       "no trial is both cheaper and better" for best, cost in front],
            line={"shape": "hv", "width": 2, "color": BEST_COLOUR},
            marker={"size": 12, "color": "rgba(0,0,0,0)", "line": {"width": 2, "color": BEST_COLOUR}},
        )  # fmt: skip
    costs = [cost for _, cost, _ in members]
    xaxis: dict[str, Any] = {"title": kind.title}
    if min(costs) > 0 and max(costs) > 3 * min(costs):
        ticks = log_ticks(min(costs), max(costs))
        room = 0.08 * math.log10(max(costs) / min(costs))
        xaxis |= {
            "type": "log", "tickvals": ticks, "ticktext": [kind.said(tick) for tick in ticks],
            "range": [math.log10(min(costs)) - room, math.log10(max(costs)) + room],
        }  # fmt: skip
    else:
        xaxis |= {"nticks": 5, "ticksuffix": f" {kind.unit}" if kind.unit else ""}
    plot.update_layout(xaxis=xaxis, yaxis={"title": "validation accuracy, %"}, hovermode="closest")
    return plot


def log_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` round values from `low` to `high`, about evenly spaced on a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
        inside = [step * 10.0**decade for decade in decades for step in steps]
        inside = [value for value in inside if low * 0.999 <= value <= high * 1.001]
        if len(inside) > most:
            return found if len(found) > 1 else inside[:: math.ceil(len(inside) / most)]
        found = inside
    return found or [low, high]


def epoch_times(run: RunFolder, trials: Sequence[Trial], by: str) -> Any:
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
            customdata=[trial.number for trial, _ in members],
            marker={"size": 8, "opacity": 0.7, "color": SERIES[0]},
        )  # fmt: skip
    plot.update_layout(
        xaxis={"title": "seconds per epoch (median of the trial)", "rangemode": "tozero"}, hovermode="closest",
        yaxis={"tickvals": list(range(len(names))), "ticktext": names, "range": [-0.6, len(names) - 0.4],
               "zeroline": False},
    )  # fmt: skip
    return plot
