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
    with Steps(sys.stderr) as progress:
        done = replay(run.path, mode, progress=progress)
    print(f"{done.mirrored} trials mirrored now, {done.before} before, {done.failed} failed. {mode.how}")
    if done.problem:
        print(done.problem, file=sys.stderr)
    return 1 if done.failed else 0
