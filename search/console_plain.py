"""The search as plain lines, one per event, for a pipe, a log file or a dumb terminal."""

from __future__ import annotations

from typing import Any

from search.console_view import against, last_line, traceback_hint
from search.eta import in_words
from search.journal import Journal, Trial
from search.knobs import described, label
from search.results import validates
from search.standings import Standings


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
                text += f": val acc {event['value']:.1%}, loss {event['loss']:.3f}"
            text += _best_so_far(standings) if new_best else ""
        case "ended":
            trial = journal.trials[event["trial"]]
            over = sum(standings.counts.values())
            left = in_words(standings.time_left(event["time"])) if over < standings.plan.trials else "all done"
            text = f"{ending(trial, run)}{_best_so_far(standings) if new_best else ''}"
            text += f" [{over} of {standings.plan.trials}, {left}]"
        case "stopped":
            text = f"stopped: {event['reason']}"
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
