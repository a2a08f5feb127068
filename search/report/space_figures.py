"""The figures of the report that show the searched space: which settings went with which accuracy.

optuna.visualization draws finished trials only; with ASHA most trials are cut, so these figures show both and mark the
cut ones. Settings that a trial does not have, because a condition switched them off, are shown as "not used".
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial
from plotly.colors import sample_colorscale
from sqlalchemy.engine import URL

from search.report.facts import label, settings_of, top
from search.report.figures import BASELINE_COLOUR, STATUS_COLOURS, STATUS_SYMBOLS, log_ticks, plain, scatter
from search.runs.format import STATUS_WORDS, percent, short, status_word
from search.runs.journal import Trial
from search.runs.run import Best
from search.space.space import Space

# Fewer trials than this say nothing about what matters.
LEAST_FOR_IMPORTANCE = 10
LEAST_FOR_CONDITIONAL = 20  # with 12, noise explains as much as the setting
UNUSED = "not used"
UNUSED_PLACE = -0.2  # below the axis
# For accuracy on lines: the best stand out on light and on dark paper.
_VALUES = ["#8496a8", "#5f97c0", "#3aa39a", "#e0a030", "#d8502e"]


@dataclass(frozen=True)
class Axis:
    """A dimension of the space, laid out from 0 to 1."""

    name: str
    choices: tuple[Any, ...] | None  # of a categorical dimension
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def place(self, value: Any) -> float:
        """Where `value` lies between 0 and 1; outside where a baseline leaves the space."""
        if self.choices is not None:
            return (self.choices.index(value) + 0.5) / len(self.choices) if value in self.choices else 1.06
        if value is None or (self.log and value <= 0):  # a baseline's "off"
            return -0.06
        low, high, value = (math.log(x) if self.log else float(x) for x in (self.low, self.high, value))
        return min(1.06, max(-0.06, (value - low) / (high - low))) if high > low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Places and names of the marks."""
        if self.choices is not None:
            return [(self.place(choice), plain(short(choice))) for choice in self.choices]
        return [(self.place(value), short(float(value))) for value in dict.fromkeys((self.low, self.high))]


def axes_of(trials: Sequence[Trial], space: Space) -> list[Axis]:
    """The dimensions that have more than one value and that some trial has used, in the order of the space."""
    used = {name for trial in trials for name in trial.params}
    axes = []
    for name, dimension in space.dimensions.items():
        if name not in used or dimension.size == 1:
            continue
        if dimension.kind == "choice":
            axes.append(Axis(name, dimension.args))
        else:
            axes.append(Axis(name, None, *dimension.bounds, log="log" in dimension.kind))
    return axes


def parallel(trials: Sequence[Trial], axes: Sequence[Axis], space: Space) -> Any:
    """One line per trial through its settings to its accuracy; cut and broken trials dotted, baselines grey.

    Lines carry their trial's number in `meta`, the figure how many axes there are.
    """
    shown = sorted(((trial, best) for trial in trials if (best := top(trial))), key=lambda pair: pair[1].accuracy)
    values = [best.accuracy for _, best in shown]
    low, high = min(values), max(values)
    settings = {trial.number: settings_of(trial, space) for trial, _ in shown}
    unused = any(axis.name not in settings[trial.number] for trial, _ in shown for axis in axes)
    plot = go.Figure()
    for trial, best in shown:
        has, whole = settings[trial.number], trial.status in ("finished", "running")
        share = (best.accuracy - low) / (high - low) if high > low else 1.0
        colour = BASELINE_COLOUR if trial.kind == "baseline" else sample_colorscale(_VALUES, [share])[0]
        places = [axis.place(has[axis.name]) if axis.name in has else UNUSED_PLACE for axis in axes]
        plot.add_scatter(
            x=list(range(len(axes) + 1)), y=[*places, share], mode="lines+markers", showlegend=False, hoverinfo="text",
            hovertext=[_hover(best, has, axes)] * (len(axes) + 1),
            opacity=(opacity := 0.45 + 0.5 * share if whole else 0.6), marker={"size": 4, "color": colour},
            line={"color": colour, "width": (thick := 1.2 + 1.2 * share if whole else 1.5),
                  "dash": "solid" if whole else "dot"},
            meta={"trial": trial.number, "opacity": opacity, "width": thick},
        )  # fmt: skip
    for name, dash in (("finished", "solid"), ("cut or broken", "dot")):
        plot.add_scatter(x=[None], y=[None], mode="lines", name=name, hoverinfo="skip",
                         line={"color": BASELINE_COLOUR, "dash": dash, "width": 2})  # fmt: skip
    marks = [(index, place, name) for index, axis in enumerate(axes) for place, name in axis.ticks()]
    marks += [(len(axes), 0.0, percent(low)), (len(axes), 1.0, percent(high))] if high > low else []
    notes = [
        {"x": index, "y": place, "text": _short(name), "showarrow": False, "xanchor": "left", "xshift": 5}
        for index, place, name in marks
    ]
    if unused:
        last = {"x": 0, "y": UNUSED_PLACE, "text": UNUSED, "showarrow": False, "xanchor": "right", "xshift": -6}
        notes.append(last)
    plot.update_layout(
        xaxis={"tickvals": list(range(len(axes) + 1)), "ticktext": [*(_short(plain(a.name)) for a in axes), "accuracy"],
               "range": [-0.55, len(axes) + 0.55], "showgrid": False, "zeroline": False, "fixedrange": True},
        yaxis={"range": [-0.3 if unused else -0.12, 1.14], "visible": False, "fixedrange": True},
        shapes=[{"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "layer": "below",
                 "line": {"color": "#8a8f94", "width": 1}} for x in range(len(axes) + 1)],
        annotations=notes, hovermode="closest", dragmode=False, meta={"axes": len(axes) + 1},
        legend={"y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
    )  # fmt: skip
    return plot


def slice_figure(trials: Sequence[Trial], axis: Axis) -> Any:
    """Accuracy against one setting, by how each trial ended; baselines and trials without the setting left out."""
    plot = go.Figure()
    for status, word in STATUS_WORDS.items():
        members = [
            (trial, best) for trial in trials
            if trial.status == status and axis.name in trial.params and (best := top(trial))
        ]  # fmt: skip
        if not members:
            continue
        if axis.choices is None:
            xs = [float(trial.params[axis.name]) for trial, _ in members]
        else:
            xs = [
                axis.place(trial.params[axis.name]) * len(axis.choices) - 0.5 + 0.28 * scatter(trial.number)
                for trial, _ in members
            ]
        plot.add_scatter(
            x=xs, y=[100 * best.accuracy for _, best in members], mode="markers", name=word, showlegend=False,
            hoverinfo="text", hovertext=[_hover(best, trial.params, [axis]) for trial, best in members],
            customdata=[trial.number for trial, _ in members],
            marker={"size": 7, "opacity": 0.75, "color": STATUS_COLOURS[status], "symbol": STATUS_SYMBOLS[status]},
        )  # fmt: skip
    if axis.choices is None:
        low, high = (math.log10(x) if axis.log else float(x) for x in (axis.low, axis.high))
        room = 0.06 * (high - low)  # marks at the ends are not cut off
        xaxis: dict[str, Any] = {"type": "linear", "nticks": 5, "range": [low - room, high + room]}
        if axis.log:
            ticks = log_ticks(axis.low, axis.high)
            xaxis |= {"type": "log", "tickvals": ticks, "ticktext": [short(tick) for tick in ticks]}
    else:
        names = [_short(plain(short(choice))) for choice in axis.choices]
        xaxis = {"tickvals": list(range(len(names))), "ticktext": names, "range": [-0.6, len(names) - 0.4],
                 "showgrid": False, "zeroline": False}  # fmt: skip
    plot.update_layout(xaxis=xaxis, yaxis={"title": "accuracy, %", "nticks": 6}, hovermode="closest")
    return plot


@dataclass(frozen=True)
class Importance:
    """How much of the differences in accuracy one setting explains."""

    name: str
    share: float  # fraction
    trials: int  # that it was found from: all, or those in which the setting was active
    conditional: bool


def importances(trials: Sequence[Trial], space: Space) -> tuple[list[Importance], int]:
    """How much each setting decides about the accuracy after the grace period, and how many trials say so.

    Trials are compared at the epoch that all of them got: later, only those that ASHA let live are left, and they
    resemble each other. A conditional setting is judged among the trials in which it was active.

    fANOVA, not Optuna's own choice of PED-ANOVA: on 20 random searches of 12, 30 and 60 trials over nine dimensions of
    which two counted, that one put another dimension first 14, 9 and 1 times, fANOVA 7, 0 and 0 times.

    Source: Hutter et al. 2014, "An efficient approach for assessing hyperparameter importance".
    """
    grace = space.budget.grace_epochs
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # or it announces the study
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        values = [report.value for report in trial.reports[:grace]]
        if trial.kind == "search" and len(values) == grace and math.isfinite(max(values)):
            distributions = {name: space.dimensions[name].shown_distribution for name in trial.params}
            study.add_trial(create_trial(params=trial.params, distributions=distributions, value=max(values)))
    counts = Counter(name for trial in study.trials for name in trial.params)
    count = len(study.trials)
    if count < LEAST_FOR_IMPORTANCE or len({trial.value for trial in study.trials}) < 2:
        return [], count
    free = [axis.name for axis in axes_of(trials, space) if counts[axis.name] == count]
    found = [Importance(name, share, count, False) for name, share in _fanova(study, free).items()]
    for axis in axes_of(trials, space):
        few = counts[axis.name] < LEAST_FOR_CONDITIONAL
        if axis.name not in free and not few:
            share = _fanova(study, [*free, axis.name])[axis.name]
            found.append(Importance(axis.name, share, counts[axis.name], True))
    return sorted(found, key=lambda item: -item.share), count


def _fanova(study: optuna.Study, names: list[str]) -> dict[str, float]:
    if not names:
        return {}
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0), params=names)
    return {name: float(share) for name, share in shares.items()}


def dashboard_importances(study_file: Path) -> dict[str, float]:
    """What optuna-dashboard shows of the same search: PED-ANOVA on the finished trials alone; empty where it cannot.

    It knows nothing of trials that were cut, or broke before they were worth anything. So it may well name other
    settings: what decides among the survivors.

    Source: `optuna_dashboard/_importance.py`; Watanabe et al. 2023, "PED-ANOVA".
    """
    if not study_file.exists():
        return {}
    url = URL.create("sqlite", database=str(study_file.resolve())).render_as_string()
    storage = optuna.storages.RDBStorage(url)
    try:
        study = optuna.load_study(study_name=None, storage=storage)
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(trials) < 3 or len({trial.value for trial in trials}) < 2 or not any(trial.params for trial in trials):
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Conditional settings that few trials have: a line for each of them, which the dashboard does not show.
            warnings.filterwarnings("ignore", "Some regimes for parameter", UserWarning)
            found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
        return {name: float(share) for name, share in found.items()}
    finally:
        storage.engine.dispose()


def importance_figure(found: Sequence[Importance], dashboard: Mapping[str, float]) -> Any:
    """Bars, the most important setting on top; conditional settings lighter; what the dashboard shows below in grey."""
    ordered = sorted(found, key=lambda item: item.share)
    plot = go.Figure()
    width, up = (0.36, 0.19) if dashboard else (0.75, 0.0)
    if dashboard:
        known = [(place, dashboard[item.name]) for place, item in enumerate(ordered) if item.name in dashboard]
        _bars(plot, "finished trials alone, as optuna-dashboard", BASELINE_COLOUR, [
            (place - up, value, f"{plain(ordered[place].name)}: {percent(value)} in optuna-dashboard")
            for place, value in known
        ], width)  # fmt: skip
    for conditional, name in ((True, "only trials that have the setting"), (False, "all trials")):
        bars = [
            (place + up, item.share, f"{plain(item.name)}: {percent(item.share)} from {item.trials} trials")
            for place, item in enumerate(ordered)
            if item.conditional == conditional
        ]
        if bars:
            _bars(plot, name, STATUS_COLOURS["running" if conditional else "finished"], bars, width)
    plot.update_layout(
        xaxis={"title": "share of the differences that it explains", "tickformat": ".0%", "rangemode": "tozero"},
        yaxis={"tickvals": list(range(len(ordered))), "ticktext": [plain(item.name) for item in ordered],
               "showgrid": False},
        margin={"r": 44}, showlegend=bool(dashboard) or any(item.conditional for item in ordered), barmode="overlay",
        legend={"traceorder": "reversed"},
    )  # fmt: skip
    return plot


def _bars(plot: Any, name: str, colour: str, bars: Sequence[tuple[float, float, str]], width: float) -> None:
    plot.add_bar(
        x=[value for _, value, _ in bars], y=[place for place, _, _ in bars], orientation="h", name=name, width=width,
        text=[percent(value, 0) for _, value, _ in bars], textposition="outside", cliponaxis=False, hoverinfo="text",
        hovertext=[text for _, _, text in bars], marker={"color": colour},
    )  # fmt: skip


def _hover(best: Best, settings: Mapping[str, Any], axes: Sequence[Axis]) -> str:
    trial = best.trial
    lines = [f"<b>{plain(label(trial))}</b>, {status_word(trial.status)}"]
    lines.append(f"{percent(best.accuracy)} at epoch {best.epoch}")
    names = [axis.name for axis in axes if axis.name in settings]
    return "<br>".join(lines + [f"{plain(name)}: {plain(short(settings[name]))}" for name in names])


def _short(name: str, most: int = 16) -> str:
    """`name` cut to `most` characters, never within an entity."""
    return name if len(name) <= most or "&" in name else name[: most - 1] + "…"
