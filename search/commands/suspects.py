"""The command `data suspects`."""

from __future__ import annotations

import sys
from pathlib import Path

from search.console.steps import Steps
from search.console.table import Column, fit, terminal
from search.retrain.suspects import suspects_of, write_suspects
from search.runs.format import percent
from search.runs.run import load_run
from trainable.commands import typed

SHOWN = 20


def suspects(path: Path, target: Path | None) -> int:
    """Writes the list of a run's doubtful labels, and shows its beginning."""
    run = load_run(path)
    with Steps(sys.stderr) as progress:
        dataset, found = suspects_of(run, progress)
    target = target or run.path / "suspects.csv"
    write_suspects(dataset, found, target)
    if not found:
        print(f"No label is in doubt; {target} is empty.")
        return 0
    screen, shown = terminal(), found[:SHOWN]
    columns = [
        Column("clip", [dataset.clips[each.clip].name for each in shown], right=False, widest=None),
        Column("label", [each.label for each in shown], right=False),
        Column("seems", [each.suggested for each in shown], right=False),
        Column("label's share", [percent(each.of_label, 0) for each in shown]),
        Column("other's share", [percent(each.of_suggested, 0) for each in shown]),
    ]
    fitted = fit([*columns[1:], columns[0]], screen.width if screen.is_terminal else None)
    for line in (*fitted.header, *fitted.rows):
        screen.print(line, soft_wrap=True)
    if len(found) > SHOWN:
        print(f"and {len(found) - SHOWN} more in {target}")
    # Which of them are wrong only ears can tell: lines of clips that are right have to go.
    print("Listen to them, delete the lines of those that are right, and search again without the rest:")
    print(typed("--data", run.record["data"]["path"], "--without", target))
    return 0
