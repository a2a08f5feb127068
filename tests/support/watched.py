"""A search without training for a real terminal: `python -m tests.support.watched FOLDER`.

Half of it is played at once; then it waits until FOLDER/go is there, plays the rest and ends.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from search.console.console import Console, Header
from search.console.time_left import Plan
from search.runs.journal import Journal
from tests.support.simulated_search import simulate

PLAN = Plan(trials=12, concurrency=2, epochs=9, grace_epochs=2, reduction_factor=3.0)


def main(folder: Path) -> None:
    """Plays the search into FOLDER/events.jsonl under the console that a search has."""
    journal = Journal(folder / "events.jsonl")
    header = Header(run="runs/watched", data="demo: 400 clips", space="spaces/quick.yaml: 2 dimensions", mirror="off")
    events = simulate(PLAN, seed=1)
    console = Console(journal, header, PLAN)
    journal.session(command=[])
    journal.listen(console.on_event)
    with console:
        for index, event in enumerate(events):
            if index == len(events) // 2:
                while not (folder / "go").exists():
                    time.sleep(0.05)
            values = event.values
            if values["event"] == "suggested":
                journal.suggested(values["kind"], values["name"], values["params"], values["config"])
            elif values["event"] == "reported":
                journal.reported(*(values[key] for key in ("trial", "epoch", "value", "loss", "decision")))
            else:
                journal.ended(values["trial"], values["status"], values["message"])
    console.finish(validation_clips=200)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
