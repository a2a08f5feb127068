"""The sections of the report about single clips and single trials: mistakes, time, tables."""

from __future__ import annotations

from search.report import figures
from search.report.facts import label, settings_of, space_of, spans, top, trials_of
from search.report.figures import epoch_times, timeline
from search.report.headline import retrained
from search.report.mistakes import class_table, mistake_cards, scored
from search.report.page import Html, facts, figure, join, note, table, tag
from search.runs.format import duration, percent, short, status_in_words, status_word
from search.runs.journal import BROKEN
from search.runs.run import Run
from trainable.config import TrialConfig


def mistakes_section(run: Run, key: str) -> Html:
    """Confusion matrix, scores per class and the worst mistakes."""
    result = retrained(run)
    found = scored(run, result)
    if found is None or not found.predictions:
        return Html("")
    best = run.best()
    config = TrialConfig.parse(
        (result or {}).get("config") or (best.trial.config if best else {}), source=str(run.path)
    )
    count = len(found.predictions)
    right = count - len(found.mistakes)
    size = min(900, 140 + 32 * len(found.labels))
    matrix = figure(
        f"{key}-confusion", figures.confusion_figure(found.confusion(), found.labels), "Confusion matrix", size,
        "Colour is the share of the true class.", width=min(900, 100 + 24 * len(found.labels)),
    )  # fmt: skip
    beside = "grid" if len(found.labels) <= 12 else None  # more classes need the whole width
    return join(
        [
            note(f"Of {found.about}: {right} of {count} right ({percent(right / count)})."),
            tag("div", matrix, class_table(found), class_=beside),
            tag("h3", "The surest mistakes") if found.mistakes else "",
            mistake_cards(run, found, config),
        ]
    )  # fmt: skip


def time_section(run: Run, key: str) -> Html:
    """What the trials cost, when they ran and what an epoch takes."""
    times = spans(run)
    if not times:
        return Html("")
    space = space_of(run)
    busy = sum(span.seconds for span in times)
    hardware = run.record.get("hardware", {})
    gpus = hardware.get("gpus_per_trial", space.resources.gpu)
    cpus = hardware.get("cpus_per_trial", space.resources.cpu)
    pairs: list[tuple[str, object]] = [
        ("trials at the same time", max(span.slot for span in times) + 1),
        ("all trials together", duration(busy)),
        ("longest trial", duration(max(span.seconds for span in times))),
    ]
    pairs += [("GPUs per trial", f"{gpus:g}")] if gpus is not None else []
    pairs += [("CPU cores per trial", f"{cpus:g}")] if cpus is not None else []
    pairs += [("GPU time", duration(busy * gpus))] if gpus else []
    plot = timeline(times)
    slots = max(span.slot for span in times) + 1
    parts: list[object] = [
        facts(pairs),
        figure(f"{key}-timeline", plot, "Which trial ran when", 130 + 34 * slots, "Interruptions are left out."),
    ]
    ran = [span.trial for span in times if span.trial.reports]
    varied = [name for name in ("backbone", "image_size") if len({str(t.config.get(name)) for t in ran}) > 1]
    if ran:
        by = varied[0] if varied else "backbone"
        plot = epoch_times(run, ran, by)
        groups = len({str(trial.config.get(by)) for trial in ran})
        parts.append(figure(f"{key}-epochs", plot, f"Time per epoch by {by}", 110 + 36 * groups))
    return join(parts)


def trials_section(run: Run, key: str) -> Html:
    """All trials with their settings, best first."""
    trials = trials_of(run)
    if not trials:
        return Html("")
    space, times = space_of(run), {span.trial.number: span.seconds for span in spans(run)}
    names = [name for name in space.dimensions if any(name in settings_of(trial, space) for trial in trials)]
    order = {best.trial.number: place for place, best in enumerate(run.ranked())}
    rows = []
    for trial in sorted(trials, key=lambda trial: (order.get(trial.number, len(order)), trial.number)):
        best, has = top(trial), settings_of(trial, space)
        rows.append(
            [
                label(trial), status_in_words(trial), percent(best.accuracy if best else None, 2),
                best.epoch if best else "",
                len(trial.reports), _sortable(duration(times[trial.number]), times[trial.number]),
                *(short(has[name]) if name in has else "" for name in names),
            ]
        )  # fmt: skip
    headers = ["trial", "ended", "best val. accuracy", "at epoch", "epochs", "time", *names]
    about = note("Best first by the rule of the search; a trial cut in the grace period is never called best.")
    return join([about, table(headers, rows, numeric=(2, 3, 4, 5), tall=True)])


def _sortable(shown: str, value: float) -> Html:
    return tag("span", shown, data_value=f"{value:.3f}")


def failed_section(run: Run, key: str) -> Html:
    """The trials that broke, with their messages."""
    space = space_of(run)
    rows = []
    for trial in trials_of(run):
        if trial.status in BROKEN:
            settings = ", ".join(f"{name} {short(value)}" for name, value in settings_of(trial, space).items())
            rows.append(
                [label(trial), status_word(trial.status), len(trial.reports),
                 tag("div", trial.message or "no message", class_="message"), tag("div", settings, class_="message")]
            )  # fmt: skip
    return (
        table(["trial", "ended", "epochs", "message", "settings"], rows, numeric=(2,), tall=True) if rows else Html("")
    )
