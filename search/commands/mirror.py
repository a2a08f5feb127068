"""The command `mirror`."""

from __future__ import annotations

import sys
from pathlib import Path

from search.console.steps import Steps
from search.mirror.mirror import replay
from search.mirror.mode import resolve_mode
from search.runs.run import load_run


def mirror(path: Path, swanlab: str, project: str | None) -> int:
    """Mirrors what SwanLab does not have of a run; 1 where some of it could not be."""
    run = load_run(path)
    mode = resolve_mode(swanlab, run.path, project or run.record.get("mirror", {}).get("project", "audio-search"))
    if mode.warning:
        print(mode.warning, file=sys.stderr)
        if mode.mode == "off":
            return 1
    steps = Steps(sys.stderr)

    def say(problem: str) -> None:
        with steps.paused():
            print(problem, file=sys.stderr)

    with steps:
        done = replay(run.path, mode, steps, say)
    print(f"{done.mirrored} trials mirrored now, {done.before} before, {done.failed} failed. {mode.how}")
    return 1 if done.failed else 0
