"""What the terminal shows, drawn from `Standings`: a live view that fits its window, or one plain line per event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from search.console.state import Standings
from search.console.table import Column, Fitted, fit, one_line
from search.console.time_left import in_words
from search.runs.format import (
    described,
    differing,
    duration,
    folds_in_words,
    label,
    percent,
    points,
    short,
    status_in_words,
    status_word,
    stop_in_words,
    value_of,
)
from search.runs.journal import Journal, Trial
from search.runs.run import Best, trial_folder, validates

RUNNING = 12  # more running trials than this are folded, however tall the window
STATUS_STYLES = {"running": "cyan", "cut": "yellow", "failed": "red", "diverged": "red", "out_of_memory": "red"}


@dataclass(frozen=True)
class Window:
    """The terminal: its size in characters, and whether it shows more than ASCII."""

    width: int
    height: int
    unicode: bool = True


@dataclass(frozen=True)
class Frame:
    """What the live view shows around the standings."""

    run: str  # the run folder, as people type it
    how_to_watch: str = ""  # the mirror's line
    notices: Sequence[str] = ()  # warnings, oldest first
    steps: Mapping[str, tuple[int, int]] | None = None  # preparation: description to (done, total)


def live_lines(standings: Standings, frame: Frame, window: Window, now: float) -> list[Text]:
    """The whole live view: at least two lines less than the window has, for the cursor and for the line after it."""
    room = max(window.height - 2, 1)
    lines = [_title(standings, frame, window, now)]
    lines += [one_line(f"! {notice}", window.width, "bold yellow") for notice in list(frame.notices)[-2:]]
    if frame.steps and not standings.suggested:
        return [*lines, *step_lines(frame.steps, window)][:room]
    unfinished = {name: (done, total) for name, (done, total) in (frame.steps or {}).items() if done < total}
    lines += step_lines(unfinished, window)
    lines += status_lines(standings, frame.run, window, now)
    if frame.how_to_watch and window.height >= 20:
        lines.append(one_line(f"Watch   {frame.how_to_watch}", window.width))
    # The table of the best is what people look for: it keeps half of what is left, more where little runs.
    running = running_lines(
        standings, window, max((room - len(lines)) // 2, room - len(lines) - len(standings.top) - 4)
    )
    top = top_lines(standings, window, room - len(lines) - len(running))
    lines = [*lines, *running, *top][:room]
    for line in lines:
        line.truncate(window.width, overflow="ellipsis")  # tables need a few characters, however narrow the window
    return lines


def status_lines(standings: Standings, run: str, window: Window, now: float) -> list[Text]:
    """Counts, best, speed with time left, what going on promises, and the last failure where there is one."""
    counts = counts_in_words(standings)
    over, total = sum(standings.counts.values()), standings.planned
    bar = _bar(over, total, max(min(24, window.width - 10 - len(counts)), 4), window)
    speed = standings.epochs_per_minute(now)
    pace = [f"{speed:,.{0 if speed >= 10 else 1}f} epochs per minute"] if speed else []
    target = [f"sooner at {percent(standings.plan.target)}"] if standings.plan.target else []
    lines = [
        Text("Trials  ").append_text(bar).append(f"  {counts}"),
        one_line(f"Best    {best_in_words(standings)}", window.width, "bold green" if standings.top else ""),
        one_line(f"Speed   {', '.join([*pace, in_words(standings.time_left(now)), *target])}", window.width),
    ]
    if standings.gain is not None and window.height >= 20:
        lines.append(one_line(f"Gain    {standings.gain}", window.width))
    if standings.failed:
        failed = standings.failed[-1]
        text = f"Failed  {label(failed)}: {last_line(failed.message)}{traceback_hint(failed, run)}"
        lines.append(one_line(text, window.width, "red"))
    return lines


def running_lines(standings: Standings, window: Window, room: int) -> list[Text]:
    """The running trials with a bar of epochs each, oldest first; those without room are only counted."""
    trials = list(standings.running.values())
    folded = 0
    if len(trials) > min(room - 2, RUNNING):  # an empty line and the header take two
        shown = max(min(room - 3, RUNNING), 0)
        trials, folded = trials[:shown], len(trials) - shown
    if not trials:
        return []
    keys = differing(trials, standings.keys, standings.plan.conditions) or list(standings.keys)
    bar = 18 if window.width >= 100 else 10
    horizons = [int(trial.config.get("epochs", standings.plan.epochs)) for trial in trials]
    done = [len(trial.reports) for trial in trials]
    columns = [
        Column("trial", [str(trial.number) for trial in trials]),
        Column("running", [_bar(d, h, bar, window) for d, h in zip(done, horizons, strict=True)], right=False),
        Column("epoch", [f"{d}/{h}" for d, h in zip(done, horizons, strict=True)]),
        Column("val acc", [_last_value(trial) for trial in trials]),
    ]
    settings = [trial.name or described(trial, keys, standings.plan.conditions) for trial in trials]
    table = fit([*columns, Column("settings", settings, right=False, widest=None)], window.width)
    lines = [Text(), *table.header, *table.rows]
    return [*lines, one_line(f"and {folded} more", window.width, "dim")] if folded else lines


def top_lines(standings: Standings, window: Window, room: int) -> list[Text]:
    """The best trials with the dimensions in which they differ, as many as there is room for, and what there is not."""
    if not standings.top:
        return []
    table = top_table(standings, standings.top, window.width)
    rows = room - 1 - len(table.header)
    if rows < 1:
        return []
    if len(table.rows) <= rows and not table.left_out:
        return [Text(), *table.header, *table.rows]
    shown = table.rows[: max(rows - 1, 1)]
    said = [f"and {len(table.rows) - len(shown)} more"] if len(shown) < len(table.rows) else []
    said += [f"no room for {', '.join(table.left_out)}"] if table.left_out else []
    return [Text(), *table.header, *shown, one_line("; ".join(said), window.width, "dim")][:room]


def top_table(standings: Standings, bests: Sequence[Best], width: int | None) -> Fitted:
    """The table of some best trials, best first."""
    trials = [best.trial for best in bests]
    columns = [
        Column("trial", [str(trial.number) for trial in trials]),
        Column("val acc", [percent(best.accuracy) for best in bests]),
        Column("epoch", [f"{best.epoch}" for best in bests]),
        Column("status", [status_in_words(trial, live=True) for trial in trials], right=False),
    ]
    if any(best.folds for best in bests):
        columns.insert(2, Column("folds", [str(len(best.folds) or 1) for best in bests]))
    if any(trial.name for trial in trials):
        columns.append(Column("name", [trial.name for trial in trials], right=False))
    conditions = standings.plan.conditions
    for key in differing(trials, standings.keys, conditions):
        values = [value_of(trial, key, conditions) for trial in trials]
        words = any(isinstance(value, str) for value in values)
        columns.append(Column(key, [short(value) for value in values], right=not words))
    return fit(columns, width, [STATUS_STYLES.get(trial.status, "") for trial in trials])


def step_lines(steps: Mapping[str, tuple[int, int]], window: Window) -> list[Text]:
    """A bar for each step of the preparation."""
    lines = []
    for description, (done, total) in steps.items():
        count = f"{done} of {total}" if total else f"{done}"
        words = one_line(description, max(window.width - 24 - len(count), 10))
        lines.append(_bar(done, total, 18, window).append("  ").append_text(words).append(f"  {count}"))
    return lines


def counts_in_words(standings: Standings) -> str:
    """`14 of 64: 4 running, 9 finished, 5 cut`; what has not occurred is left out."""
    parts = [f"{len(standings.running)} running"] if standings.running else []
    order = ("finished", "cut", "failed", "diverged", "out_of_memory")
    parts += [f"{standings.counts[key]} {status_word(key)}" for key in order if standings.counts[key]]
    return f"{sum(standings.counts.values())} of {standings.planned}: {', '.join(parts) or 'none yet'}"


def best_in_words(standings: Standings) -> str:
    """The best epoch so far, and how far it is above each baseline, in points."""
    if not standings.top:
        return f"none yet: a trial counts once it has got past epoch {standings.plan.grace_epochs}"
    best = standings.top[0]
    where = folds_in_words(best.folds) or f"at epoch {best.epoch}"
    parts = [f"{percent(best.accuracy)}, trial {best.trial.number} {where}"]
    if best.trial.kind == "baseline":
        parts.append(f"the baseline {best.trial.name}")
    others = [baseline for baseline in standings.baselines if baseline.trial is not best.trial]
    return ", ".join([*parts, *(against(best, baseline) for baseline in others)])


def against(best: Best, baseline: Best) -> str:
    """`+2.1 points on tutorial-strong`."""
    return f"{points(best.accuracy - baseline.accuracy)} on {baseline.trial.name}"


def last_line(message: str) -> str:
    """The last line of a message that says something."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def traceback_hint(trial: Trial, run: str) -> str:
    """Where the traceback of a failed trial is, in brackets; "" where it left none, as a lost worker does."""
    path = trial_folder(Path(run), trial.number).error_file
    return f" (traceback in {path})" if path.exists() else ""


def _last_value(trial: Trial) -> str:
    return percent(trial.reports[-1].value) if trial.reports and validates(trial.config) else "-"


def _title(standings: Standings, frame: Frame, window: Window, now: float) -> Text:
    """The run and how long it has been searching, on a rule."""
    since = f" {duration(now - standings.started)}" if standings.started else ""
    title = one_line(f"{frame.run} ", max(window.width - len(since) - 1, 1), "bold")
    rule = ("─" if window.unicode else "-") * max(window.width - title.cell_len - len(since), 0)
    return title.append(rule, "dim").append(since, "not bold")


def _bar(done: int, total: int, width: int, window: Window) -> Text:
    """A bar of `width` characters."""
    full = min(width * done // total, width) if total else 0
    if not window.unicode:
        return Text("#" * full + "-" * (width - full))
    return Text("━" * full, "green" if full == width else "cyan").append("─" * (width - full), "bright_black")


def event_line(event: dict[str, Any], run: str, journal: Journal, standings: Standings, new_best: bool) -> str | None:
    """The line for an event that journal and standings have taken in; None for those that only machines need.

    `run`: the run folder, as people type it.
    """
    since = event["time"] - (standings.started or event["time"])
    clock = f"{int(since // 3600):02d}:{int(since // 60) % 60:02d}:{int(since) % 60:02d}"
    match event["event"]:
        case "suggested":
            trial = journal.trials[event["trial"]]
            settings = described(trial, trial.params or ())
            text = f"{label(trial)} starts" + (f": {settings}" if settings else "")
        case "reported":
            trial = journal.trials[event["trial"]]
            horizon = trial.config.get("epochs", standings.plan.epochs)
            text = f"{label(trial)} epoch {event['epoch']}/{horizon}"
            if validates(trial.config):
                text += f": val acc {percent(event['value'])}, loss {event['loss']:.3f}"
            text += _best_so_far(standings) if new_best else ""
        case "ended":
            trial = journal.trials[event["trial"]]
            over = sum(standings.counts.values())
            left = in_words(standings.time_left(event["time"])) if over < standings.planned else "all done"
            text = f"{ending(trial, run)}{_best_so_far(standings) if new_best else ''}"
            text += f" [{over} of {standings.planned}, {left}]"
        case "stopped":
            text = stop_in_words(event["reason"]) if event["reason"] == "budget" else f"stopped: {event['reason']}"
        case _:
            return None
    return f"{clock} {text}"


def ending(trial: Trial, run: str) -> str:
    """How a trial ended, as a sentence without its full stop."""
    epochs = len(trial.reports)
    match trial.status:
        case "finished":
            return f"{label(trial)} finished after epoch {epochs}"
        case "cut":
            return f"{label(trial)} cut at epoch {epochs}"
        case "diverged":
            return f"{label(trial)} diverged: {last_line(trial.message)}"
        case "out_of_memory":
            return f"{label(trial)} ran out of memory: {last_line(trial.message)}"
        case "failed":
            return f"{label(trial)} failed: {last_line(trial.message)}{traceback_hint(trial, run)}"
        case _:
            return f"{label(trial)} is {trial.status} after epoch {epochs}"


def _best_so_far(standings: Standings) -> str:
    best = standings.top[0]
    parts = [against(best, baseline) for baseline in standings.baselines if baseline.trial is not best.trial]
    return ", ".join([", the best so far", *parts])
