"""How many CPU cores this process may use, which on a shared machine are fewer than there are."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def allowed_cores() -> int:
    """The cores that this process may use: at most its affinity, its control group's quota and its SLURM task's share.

    A quota of 1.5 cores counts as 2: two threads use it up, one does not.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [float(affinity), _quota(), _slurm()]
    return max(1, min(math.ceil(limit) for limit in limits if limit < math.inf))


def _slurm() -> float:
    """The cores of a SLURM task, or of its job on this machine where none were asked for it; infinity without SLURM."""
    said = (os.environ.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"))
    return next((int(number) for number in said if number.isdecimal() and int(number)), math.inf)


def _quota() -> float:
    """The cores' worth of time that the tightest control group above this process allows; infinity without one."""
    tightest = math.inf
    for folder in _groups():
        tightest = min(tightest, _quota_of(folder))
    return tightest


def _groups() -> list[Path]:
    """The folders of this process's control groups and of all above them, for versions 2 and 1."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux, or none that shows it
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUPS / controllers if controllers else _CGROUPS
        group = root / path.lstrip("/")
        folders += [group, *(parent for parent in group.parents if parent.is_relative_to(root))]
    return folders


def _quota_of(folder: Path) -> float:
    """The quota that one folder sets, in cores; infinity where it sets none or is not shown to this process."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )  # version 1
        return float(quota) / float(period) if quota not in ("max", "-1") else math.inf
    except (OSError, ValueError):
        return math.inf
