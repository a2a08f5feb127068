"""The command `report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from search.report.report import write_report
from search.runs.run import load_run


def report(paths: Sequence[Path]) -> int:
    """Writes the report of one run, or of several compared, into the first one's folder."""
    print(write_report([load_run(path) for path in paths]))
    return 0
