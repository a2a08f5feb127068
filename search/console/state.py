"""Where a search stands: counts, the best so far, what runs, how fast; kept up to date one event at a time."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Any

from search.console.time_left import History, Plan, Underway, pace_of, time_left
from search.runs.gain import Gain, Prospect
from search.runs.journal import Journal, Trial
from search.runs.run import Best, best_epoch, rank

TOP = 10
WINDOW = 64  # the newest reports, from which the speed is taken
ESTIMATE_EVERY = 2.0  # s between two estimates of the time left; one takes up to 20 ms


class Standings:
    """What the terminal shows, in an amount that does not grow with the number of trials."""

    def __init__(self, journal: Journal, plan: Plan) -> None:
        """Starts from what the journal holds already, as a resumed search does."""
        self.plan = plan
        self.counts: Counter[str] = Counter()  # trials that are over, by status
        self.running: dict[int, Trial] = {}  # by number, oldest first
        self.top: list[Best] = []  # the best trials, best first
        self.baselines: list[Best] = []  # the best epoch of each baseline that has one, best first
        self.failed: list[Trial] = []  # in the order in which they ended
        self.epochs = 0  # finished by all trials together
        self.last_event = 0.0  # s since 1970
        self.keys: dict[str, None] = {}  # all dimensions so far, in order
        self._estimate: tuple[float, float] | None = None
        self._estimated = 0.0  # when, s since 1970
        self._journal = journal
        self._history = History(plan)
        self._prospect = Prospect(plan.grace_epochs)
        self._gain: tuple[tuple[int, float], Gain | None] | None = None  # with what it was made from
        self._reports: deque[float] = deque(maxlen=WINDOW)  # times of the newest ones in this session
        for trial in journal.trials.values():
            self._take_in(trial)

    @property
    def planned(self) -> int:
        """How many trials there will be, as far as that is known: repeats come on top as they are begun."""
        return self.plan.trials + self.suggested - self._journal.configurations

    @property
    def suggested(self) -> int:
        """How many trials there have been, those that run included."""
        return len(self._journal.trials)

    @property
    def started(self) -> float | None:
        """When this session of the driver began, s since 1970."""
        return self._sessions[-1] if self._journal.sessions else None

    @property
    def stop_reason(self) -> str | None:
        """Why this session has ended, None while it runs."""
        return self._journal.stop_reason

    def update(self, event: dict[str, Any]) -> bool:
        """Takes in an event that the journal has just applied; True if there is a new best."""
        self.last_event = event["time"]
        if event["event"] == "session":
            self._reports.clear()
        if "trial" not in event:
            return False
        trial = self._journal.trials[event["trial"]]
        match event["event"]:
            case "suggested":
                self.running[trial.number] = trial
                self.keys.update(dict.fromkeys(trial.params))
            case "reported":
                self.epochs += 1
                self._reports.append(event["time"])
                self._history.report(event["epoch"], event["decision"] == "continue", self.plan.cuts(trial))
                return self._rerank(trial)
            case "ended":
                self._end(trial)
                return self._rerank(trial)
        return False

    def epochs_per_minute(self, now: float) -> float | None:
        """How many epochs all trials together finish in a minute now; None before two have."""
        if len(self._reports) < 2 or now <= self._reports[0]:
            return None
        return 60 * (len(self._reports) - 1) / (now - self._reports[0])

    def time_left(self, now: float) -> tuple[float, float] | None:
        """The range in which the time to the end of the search lies, s; None before anything is known."""
        since = now - self._estimated
        if self._estimate is None or not 0 <= since < ESTIMATE_EVERY:
            self._estimate, self._estimated, since = self._estimate_anew(now), now, 0.0
        if self._estimate is None:
            return None
        low, high = self._estimate
        return max(low - since, 0.0), max(high - since, 0.0)

    @property
    def gain(self) -> Gain | None:
        """What as many trials again are expected to gain on the best; None before that can be said."""
        best = self.top[0].accuracy if self.top else -math.inf
        made_from = (sum(self.counts.values()), best)
        if self._gain is None or self._gain[0] != made_from:
            self._gain = (made_from, self._prospect.gain(best))
        return self._gain[1]

    @property
    def _sessions(self) -> list[float]:
        return [session["time"] for session in self._journal.sessions]

    def _estimate_anew(self, now: float) -> tuple[float, float] | None:
        underway = []
        for trial in list(self.running.values()):
            last = trial.reports[-1].time if trial.reports else trial.started
            waited = now - max(last, self.started or last)
            horizon = int(trial.config.get("epochs", self.plan.epochs))
            pace = pace_of(trial, self._sessions)
            underway.append(Underway(len(trial.reports), horizon, pace, max(waited, 0.0), self.plan.cuts(trial)))
        return time_left(self._history, underway, max(self.planned - self.suggested, 0), now)

    def _take_in(self, trial: Trial) -> None:
        self.keys.update(dict.fromkeys(trial.params))
        self.epochs += len(trial.reports)
        for report in trial.reports:
            self._history.report(report.epoch, report.decision == "continue", self.plan.cuts(trial))
        if trial.over:
            self._end(trial)
        else:
            self.running[trial.number] = trial
        self._rerank(trial)

    def _end(self, trial: Trial) -> None:
        self.running.pop(trial.number, None)
        self.counts[trial.status] += 1
        self._history.end(len(trial.reports), pace_of(trial, self._sessions), self.plan.cuts(trial))
        self._prospect.ended(trial)
        if trial.status == "failed":
            self.failed.append(trial)

    def _rerank(self, trial: Trial) -> bool:
        """Ranks `trial` among the few at the top; True if it leads with a new best epoch.

        A trial's best only ever gets better, and a further fold puts it before all that have fewer, so one that is not
        among these few and has no news cannot enter.
        """
        first = self._journal.trials[trial.first]
        if best_epoch(first, self.plan.grace_epochs) is None or (trial is not first and not trial.over):
            return False
        leader = self.top[0] if self.top else None
        family = self._journal.family(first.number)
        self.top = _with(self.top, family, self.plan)[:TOP]
        if first.kind == "baseline":
            self.baselines = _with(self.baselines, family, self.plan)
        new = self.top[0]
        return new.trial is first and (
            leader is None or (new.trial, new.epoch, new.folds) != (leader.trial, leader.epoch, leader.folds)
        )


def _with(bests: list[Best], family: list[Trial], plan: Plan) -> list[Best]:
    """The ranking with a trial and its repeats, in the place of what it said of that trial."""
    others = [trial for best in bests if best.trial is not family[0] for trial in (best.trial, *best.repeats)]
    return rank([*others, *family], plan.grace_epochs)
