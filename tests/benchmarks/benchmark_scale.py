"""A big search on a simulated cluster: 1,000 trials on 8 nodes of 8 GPUs, and an eighth of them on one node.

    python -m tests.benchmarks.benchmark_scale [--trials 1000] [--seconds 1] [--quick]     # 10 minutes, 16 GB

Nodes are Ray's own processes on this machine, GPUs are numbers, an epoch sleeps, and workers import no torch: what is
measured is the driver, and what becomes of its trials' pace. The figures come from the stretch in which all workers are
at work: from the first report of the last worker to the last proposal. The aims: at most 20 ms of the driver per
report, a flat memory, and at least 6 times the epochs per second on 8 nodes that one node makes.

The driver's time is the CPU time of the thread in which Tune, searcher, scheduler and journal work; waiting is not in
it. On a machine with few cores, 64 workers and 8 nodes compete with the driver: the pace is a lower bound.

Measured on two cores: 4.1 ms of the driver per report, its memory grows from 853 to 890 MB, and 8 nodes make 7.8 times
the epochs per second of one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from search.runs.journal import Journal
from search.space.load import load_space
from search.space.space import Space
from search.tune.cluster import connected
from search.tune.scheduler import JournalASHA
from search.tune.searcher import StudySearch
from search.tune.stop import Stop
from search.tune.tuner import Running, run_trials
from tests.support.simulated import slow

GPUS_PER_NODE = 8


@dataclass
class Meter:
    """What the driver spends; samples at each report."""

    reports: list[tuple[float, float, float]] = field(default_factory=list)  # s since 1970, CPU s of the thread, MB
    first_of_trial: list[float] = field(default_factory=list)  # s since 1970, of each trial's first report
    suggested: list[float] = field(default_factory=list)
    parts: Counter[str] = field(default_factory=Counter)  # wall s by part
    calls: Counter[str] = field(default_factory=Counter)

    def on_event(self, event: dict[str, Any]) -> None:
        """Takes a sample."""
        if event["event"] == "suggested":
            self.suggested.append(event["time"])
        if event["event"] == "reported":
            self.reports.append((event["time"], time.thread_time(), resident_mb()))
            if event["epoch"] == 1:
                self.first_of_trial.append(event["time"])

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, with its wall time added to `part`."""

        def measured(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                self.parts[part] += time.perf_counter() - began
                self.calls[part] += 1

        return measured

    def steady(self, workers: int) -> list[tuple[float, float, float]]:
        """The samples of the stretch in which all workers are at work."""
        begin, end = sorted(self.first_of_trial)[workers - 1], self.suggested[-1]
        return [sample for sample in self.reports if begin <= sample[0] <= end]


def resident_mb() -> float:
    """Memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def cluster_of(nodes: int) -> Iterator[str]:
    """The address of a cluster with a head without CPUs, as a login node is, and so many nodes."""
    ray.shutdown()
    # A worker that starts beside 63 others on a few cores takes minutes; one at a time and node is gentle.
    patience = {"worker_register_timeout_seconds": 900, "worker_maximum_startup_concurrency": 1}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": patience},
    )
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=GPUS_PER_NODE, num_gpus=GPUS_PER_NODE)
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def make_space(folder: Path, trials: int, epochs: int) -> Space:
    """A space with the default budget."""
    file = folder / "space.yaml"
    file.write_text(f"""
        fixed: {{epochs: {epochs}, weights: none, image_size: 64}}
        search:
          backbone: {{choice: [resnet18, mobilenet_v3_small, squeezenet1_1]}}
          lr: {{loguniform: [1.0e-5, 1.0e-1]}}
          mixup: {{uniform: [0, 0.5]}}
        budget: {{trials: {trials}}}
    """)
    return load_space(file)


def search(nodes: int, trials: int, epochs: int, seconds: float) -> float:
    """Runs a search, prints what it took and returns its epochs per second while all workers were at work."""
    workers = nodes * GPUS_PER_NODE
    with tempfile.TemporaryDirectory() as scratch, cluster_of(nodes) as address, connected(address):
        run = Path(scratch)
        space, journal, meter = make_space(run, trials, epochs), Journal(run / "events.jsonl"), Meter()

        def make_searcher() -> StudySearch:
            searcher = StudySearch(space, journal)
            searcher.suggest = meter.timed("searcher", searcher.suggest)  # type: ignore[method-assign]
            return searcher

        def make_scheduler() -> JournalASHA:
            scheduler = JournalASHA(space, journal)
            # The journal is written in here, and whatever listens to it is told.
            scheduler.on_trial_result = meter.timed("scheduler and journal", scheduler.on_trial_result)  # type: ignore[method-assign]
            return scheduler

        journal.session()
        journal.listen(meter.on_event)
        began, loads = time.time(), [os.getloadavg()[0]]
        run_trials(
            run, journal, make_searcher, make_scheduler, Stop(journal, space.budget.grace_epochs),
            Running(slow(seconds), 1, 1, workers),
        )  # fmt: skip
        wall = time.time() - began
        loads.append(os.getloadavg()[0])
    return _print(nodes, journal, meter, began, wall, loads)


def _print(nodes: int, journal: Journal, meter: Meter, began: float, wall: float, loads: list[float]) -> float:
    workers = nodes * GPUS_PER_NODE
    ends = Counter(trial.status for trial in journal.trials.values())
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(ends.items()))
    print(f"{nodes} nodes, {workers} workers: {len(journal.trials)} trials ({statuses}), {len(meter.reports)} epochs "
          f"in {wall:.0f} s; load {loads[0]:.1f} before, {loads[1]:.1f} after")  # fmt: skip
    starts = sorted(meter.first_of_trial)
    print(f"  first epoch after {starts[0] - began:.1f} s, all workers after {starts[workers - 1] - began:.1f} s")
    steady = meter.steady(workers)
    seconds, count = steady[-1][0] - steady[0][0], len(steady) - 1
    cpu = steady[-1][1] - steady[0][1]
    print(f"  all at work: {count} reports in {seconds:.1f} s, {count / seconds:.1f} epochs per second")
    print(
        f"  driver: {1e3 * cpu / count:.1f} ms CPU per report (aim: at most 20), busy {cpu / seconds:.0%} of the time"
    )
    for part, total in meter.parts.items():
        print(f"    of that {part}: {1e3 * total / meter.calls[part]:.1f} ms of wall time a call, "
              f"{1e3 * total / len(meter.reports):.1f} ms per report")  # fmt: skip
    memory = [meter.reports[round(share * (len(meter.reports) - 1) / 10)][2] for share in range(11)]
    print(f"  memory of the driver at each tenth, MB: {' '.join(f'{mb:.0f}' for mb in memory)}", flush=True)
    return count / seconds


def main(arguments: list[str] | None = None) -> None:
    """Runs the search on one node and on all and prints the ratio of their paces."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=27, help="of a trial that is not cut")
    parser.add_argument("--seconds", type=float, default=1.0, help="of an epoch")
    parser.add_argument("--quick", action="store_true", help="see that it works: 60 trials on 2 nodes")
    args = parser.parse_args(arguments)
    if args.quick:
        args.trials, args.nodes, args.epochs = 60, 2, 9
    one = search(1, args.trials // args.nodes, args.epochs, args.seconds)
    all_ = search(args.nodes, args.trials, args.epochs, args.seconds)
    aim = "aim: at least 6" if args.nodes == 8 else f"ideal: {args.nodes}"
    print(f"pace on {args.nodes} nodes / pace on one: {all_ / one:.2f} ({aim})")


if __name__ == "__main__":
    main()
