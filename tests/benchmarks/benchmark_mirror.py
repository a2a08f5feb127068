"""What mirroring costs a search: 16 trials of about 10 s each, with SwanLab on and off, in turns.

    python -m tests.benchmarks.benchmark_mirror [--trials 16] [--seconds 10] [--rounds 2] [--mode local]

A trial is a process that does a fixed amount of work on one core, so that whatever the mirror takes makes it longer.
The aim is a ratio of at most 1.05 in wall time, closing included. On a machine that others use, too, the share of CPU
time is the steadier figure.

Measured on two cores: 70.6 s without SwanLab and 67.5 s with it, so its cost is within the noise.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from search.mirror.mirror import Mirror
from search.mirror.mode import ResolvedMode
from search.runs.run import RunFolder
from tests.support.mirrored import epoch_result, folder, make_run, suggest
from trainable.training.trial_folder import TrialFolder

EPOCHS = 10


def work(amount: int) -> int:
    """Something that keeps one core busy."""
    total = 0
    for number in range(amount):
        total = (total * 31 + number) % 1_000_003
    return total


def trial(path: Path, number: int, amount: int) -> None:
    """One trial: work, and a line in epochs.jsonl after each tenth of it."""
    for epoch in range(1, EPOCHS + 1):
        work(amount // EPOCHS)
        TrialFolder(path).append(epoch_result(number, epoch))


def amount_for(seconds: float) -> int:
    """How much work takes so long on an idle core of this machine."""
    probe = 3_000_000
    start = time.process_time()
    work(probe)
    return int(probe * seconds / (time.process_time() - start))


def search(path: Path, mode: str, trials: int, at_once: int, amount: int) -> tuple[float, Mirror]:
    """Wall seconds of a search, and its mirror."""
    run = make_run(path)
    start = time.monotonic()
    mirror = Mirror(run, ResolvedMode(mode, ""), at_once)  # type: ignore[arg-type]
    run.journal.listen(mirror.on_event)
    running: dict[int, subprocess.Popen[bytes]] = {}
    while len(run.trials) < trials or running:
        while len(running) < at_once and len(run.trials) < trials:
            number = suggest(run)
            command = [sys.executable, "-m", __spec__.name, "--as-trial", str(folder(run, number).path)]
            running[number] = subprocess.Popen([*command, str(number), str(amount)])
        for number in [number for number, process in running.items() if process.poll() is not None]:
            del running[number]
            end(run, number)
        time.sleep(0.02)
    mirror.close(timeout=120)
    return time.monotonic() - start, mirror


def end(run: RunFolder, number: int) -> None:
    """Tells the journal what a trial has done."""
    for epoch in folder(run, number).epochs():
        run.journal.reported(number, epoch.epoch, epoch.val_acc, epoch.val_loss, "continue")
    run.journal.ended(number, "finished")


def main() -> None:
    """Runs both kinds in turns and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mode", default="local", choices=["local", "offline"])
    parser.add_argument("--as-trial", nargs=3, metavar=("FOLDER", "NUMBER", "AMOUNT"))
    args = parser.parse_args()
    if args.as_trial:
        trial(Path(args.as_trial[0]), int(args.as_trial[1]), int(args.as_trial[2]))
        return
    amount = amount_for(args.seconds)
    walls: dict[str, list[float]] = {"off": [], args.mode: []}
    cpus: dict[str, list[float]] = {"off": [], args.mode: []}
    for round_ in range(args.rounds):
        for mode in ("off", args.mode) if round_ % 2 == 0 else (args.mode, "off"):
            with tempfile.TemporaryDirectory() as scratch:
                before = cpu_seconds()
                wall, mirror = search(Path(scratch) / "run", mode, args.trials, args.at_once, amount)
                walls[mode].append(wall)
                cpus[mode].append(cpu_seconds() - before)
                print(
                    f"{mode:8} wall {wall:7.1f} s  cpu {cpus[mode][-1]:7.1f} s  warnings {mirror.warnings}", flush=True
                )
    for what, values in (("wall time", walls), ("CPU time", cpus)):
        ratio = statistics.median(values[args.mode]) / statistics.median(values["off"])
        print(f"{what}, {args.mode} against off, median of {args.rounds}: {ratio:.3f}")


def cpu_seconds() -> float:
    """CPU seconds of this process and all children that have ended, s."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
