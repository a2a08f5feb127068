from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainable import cores
from trainable.cores import allowed_cores


@pytest.fixture(autouse=True)
def eight_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight cores without limits, whose control groups are in the folder that comes back."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_without_limits_all_cores_of_the_affinity_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert allowed_cores() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert allowed_cores() == 1


@pytest.mark.parametrize(("said", "counted"), [("4", 4), ("16", 8), ("", 8), ("many", 8), ("0", 8)])
def test_a_slurm_task_uses_its_own_cores(monkeypatch: pytest.MonkeyPatch, said: str, counted: int) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", said)
    assert allowed_cores() == counted


def test_a_slurm_job_that_asked_for_none_per_task_has_its_own_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4")
    assert allowed_cores() == 4
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert allowed_cores() == 2


@pytest.mark.parametrize(
    ("text", "counted"), [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("max 100000", 8), ("?", 8)]
)
def test_the_quota_of_a_control_group_counts(eight_cores: Path, text: str, counted: int) -> None:
    (eight_cores / "cpu.max").write_text(text)
    assert allowed_cores() == counted


def test_a_quota_of_the_first_version_counts(eight_cores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_groups", lambda: [eight_cores])
    (eight_cores / "cpu.cfs_quota_us").write_text("300000\n")
    (eight_cores / "cpu.cfs_period_us").write_text("100000\n")
    assert allowed_cores() == 3
    (eight_cores / "cpu.cfs_quota_us").write_text("-1\n")
    assert allowed_cores() == 8


def test_the_tightest_of_all_limits_counts(eight_cores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (eight_cores / "cpu.max").write_text("500000 100000")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert allowed_cores() == 3
