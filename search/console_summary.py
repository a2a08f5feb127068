"""The last thing that a search says: what came out, how sure it is, and what to do with it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.text import Text

from search.console_header import Header
from search.console_plain import ending
from search.console_view import best_in_words, counts_in_words, duration, top_table
from search.knobs import ABSENT, short, value_of
from search.standings import Standings
from search.table import fact
from trainable.metrics import wilson_interval

FAILURES_SHOWN = 3


def summary_lines(
    standings: Standings,
    header: Header,
    validation_clips: int,
    warnings: Sequence[str],
    resumable: bool,
    width: int | None,
) -> list[Text]:
    """The summary for a terminal of `width` characters (None: no terminal); commands stay whole, to be copied."""
    lines = [Text()]
    if standings.top:
        table = top_table(standings, standings.top, width)
        lines += [*table.header, *table.rows]
        if table.left_out:
            lines += fact("", f"no room for {', '.join(table.left_out)}", width, "dim")
        lines.append(Text())
    lines += warning_lines(warnings, width)
    for failure in _failures(standings, header.run):
        lines += fact("!", failure, width, "red")
    if standings.stop_reason not in (None, "budget"):
        lines += fact("Ended", str(standings.stop_reason), width)
    lines += fact("Trials", _counts(standings), width)
    lines += fact("Best", best_in_words(standings), width, "bold green" if standings.top else "")
    for text in _behind_the_best(standings, validation_clips):
        lines += fact("", text, width)
    return [*lines, *fact("Run", header.run, width), Text(), *_next_steps(header, resumable, bool(standings.top))]


def warning_lines(warnings: Sequence[str], width: int | None) -> list[Text]:
    """What must not be overlooked, each on as many lines of `width` characters as it needs."""
    return [line for warning in warnings for line in fact("!", warning, width, "bold yellow")]


def _counts(standings: Standings) -> str:
    since = f" in {duration(standings.last_event - standings.started)}" if standings.started else ""
    return f"{counts_in_words(standings)}; {standings.epochs} epoch{'s' if standings.epochs != 1 else ''}{since}"


def _behind_the_best(standings: Standings, clips: int) -> list[str]:
    """How far the best number can be trusted, and the settings that made it."""
    if not standings.top:
        return []
    best = standings.top[0]
    lines = []
    if clips > 0:
        correct = round(best.accuracy * clips)
        low, high = wilson_interval(correct, clips)
        lines.append(f"{correct} of {clips} validation clips, 95% interval {low:.1%} to {high:.1%}")
    values = [(key, value_of(best.trial, key)) for key in standings.keys]
    settings = ", ".join(f"{key} {short(value)}" for key, value in values if value is not ABSENT)
    return [*lines, settings] if settings else lines


def _failures(standings: Standings, run: str) -> list[str]:
    lines = [ending(trial, run) for trial in standings.failed[:FAILURES_SHOWN]]
    more = len(standings.failed) - FAILURES_SHOWN
    if more > 0:
        which = f"compare {shlex.quote(run)} --where \"status == 'failed'\""
        lines.append(f"{more} more failed: python run_search.py {which}")
    return lines


def _next_steps(header: Header, resumable: bool, has_best: bool) -> list[Text]:
    """The commands that people want next, each after what it does."""
    steps = []
    if resumable:
        steps.append(("go on", header.command("resume")))
    if header.how_to_watch:
        steps.append(("compare", header.how_to_watch))
    if has_best:
        steps.append(("retrain", header.command("retrain")))
    steps.append(("report", header.command("report")))
    return [Text("Next", "bold"), *(Text(f"  {what:<8}").append(step, "cyan") for what, step in steps)]
