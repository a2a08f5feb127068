"""A search without training: trials with accuracy curves and paces of their own, cut as ASHA cuts."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.console.time_left import Plan
from search.runs.journal import Report, Trial


@dataclass(frozen=True)
class Event:
    """What the driver would have written at `time`, s since the start."""

    time: float
    values: dict[str, Any]


def simulate(plan: Plan, seed: int = 0, baselines: int = 1, spread: float = 0.4) -> list[Event]:
    """All events of a search in order; `spread`: deviation of the logarithm of the seconds per epoch."""
    rng = np.random.default_rng(seed)
    rungs: dict[int, list[float]] = {rung: [] for rung in plan.rungs}
    events: list[Event] = []
    queue: list[tuple[float, int, int]] = [(0.0, -1 - worker, 0) for worker in range(plan.concurrency)]
    top, rest, started = [], [], 0
    heapq.heapify(queue)
    while queue:
        time, number, epoch = heapq.heappop(queue)
        if number < 0:  # a free worker
            if started == plan.trials:
                continue
            number, started = started, started + 1
            kind = "baseline" if number < baselines else "search"
            # Later suggestions are better: the searcher learns.
            top.append(rng.normal(0.6 + 0.2 * number / plan.trials, 0.1))
            rest.append(float(np.exp(rng.normal(0, spread))))
            params = {"backbone": f"net{number % 3}", "lr": 10 ** rng.uniform(-5, -3)}
            events.append(Event(time, {
                "event": "suggested", "trial": number, "kind": kind, "params": params,
                "name": f"recipe-{number}" if kind == "baseline" else "", "config": {"epochs": plan.epochs, **params},
            }))  # fmt: skip
            heapq.heappush(queue, (time + 1.5 + rest[number], number, 1))
            continue
        value = top[number] * (1 - 0.7 ** (epoch + 1)) + rng.normal(0, 0.01)
        cut = False
        if epoch in rungs:
            seen = rungs[epoch]
            seen.append(value)
            cut = number >= baselines and value < np.percentile(seen, 100 * (1 - 1 / (plan.reduction_factor or 1)))
        decision = "cut" if cut else "continue"
        events.append(Event(time, {
            "event": "reported", "trial": number, "epoch": epoch, "value": float(value), "loss": 1.0,
            "decision": decision,
        }))  # fmt: skip
        if cut or epoch == plan.epochs:
            status = "cut" if cut else "finished"
            events.append(Event(time, {"event": "ended", "trial": number, "status": status, "message": ""}))
            heapq.heappush(queue, (time, -1 - number, 0))
        else:
            heapq.heappush(queue, (time + rest[number], number, epoch + 1))
    return events


def apply(trials: dict[int, Trial], event: Event) -> None:
    """Does to `trials` what the journal would do with the event."""
    values = event.values
    match values["event"]:
        case "suggested":
            trials[values["trial"]] = Trial(
                values["trial"], values["kind"], values["name"], values["params"], values["config"], event.time
            )
        case "reported":
            trials[values["trial"]].reports.append(
                Report(values["epoch"], values["value"], values["loss"], values["decision"], event.time)
            )
        case "ended":
            trial = trials[values["trial"]]
            trial.status, trial.message, trial.ended = values["status"], values["message"], event.time
