"""ASHA through Ray's scheduler, with rungs that are rebuilt from the journal, and the journal's one writer of ends."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from search.runs.journal import Journal, Report, Trial
from search.runs.run import best_of
from search.space.space import Space
from search.tune.actor import NOT_THE_TRIALS
from search.tune.standing import merit


class JournalASHA(AsyncHyperBandScheduler):  # type: ignore[misc]  # Ray has no types
    """Cuts trials whose best accuracy so far is below the best third (1 / reduction_factor) of those at their rung.

    The rungs compare the best accuracy so far, not the one of that very epoch, because that is what a trial ends up
    with: its best epoch counts, so one unlucky epoch at a rung must not decide. Of equal accuracies the one with the
    lower loss is ahead, as in the rule for the best: with 20 validation clips ties are many, and where nobody is behind
    nobody is cut (tests/benchmarks/benchmark_ties.py: 14% fewer epochs, and what is found is as good on other clips).

    A trial that passed its rung when few had been there is judged again, after each epoch, by all who have been there
    since. Ray's own lets the first arrivals train to their end, whatever they are worth, which is most of what a short
    search spends (tests/benchmarks/benchmark_efficiency.py).

    Baselines are neither cut nor counted at a rung, unless the space says `cut_baselines`: they train by schedules of
    their own, and an epoch of theirs says nothing about an epoch of the others. Nor are repeats on further folds, whose
    clips are others. With `scheduler: none` nobody is cut;
    the bookkeeping is the same.

    Every report goes to the journal with its decision before Tune acts on it. A report that the journal knows, as a
    restarted trial repeats it, gets the recorded decision.
    """

    def __init__(self, space: Space, journal: Journal) -> None:
        """Rebuilds the rungs from the reports of the journal."""
        grace = space.budget.grace_epochs
        super().__init__(
            time_attr="epoch",
            metric="val_acc",
            mode="max",
            grace_period=grace,
            max_t=max(space.max_epochs, grace),
            reduction_factor=space.budget.reduction_factor,
            stop_last_trials=False,  # a trial ends at its own horizon, which is not the same for all
        )
        self._journal = journal
        self._rungs = space.rungs
        self._grace_epochs = grace
        self._cuts = space.scheduler == "asha"
        self._cut_baselines = space.scheduling.cut_baselines
        for trial in list(journal.trials.values()):
            if not trial.over and trial.reports and trial.reports[-1].decision == "cut":
                journal.ended(trial.number, "cut", self._cut_message(trial))  # killed between the decision and the end
            if self._competes(trial):
                best = -math.inf
                for report in trial.reports:
                    best = max(best, merit(report.value, report.loss))
                    self._at_rung(trial.number, report.epoch, best)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Nobody: Tune then gives a worker that becomes free to the trial that is proposed next.

        Ray's own scheduler names the trial that waits longest. That one waits for a worker of its own, which is just
        starting and is thrown away for the free one, while the next trial has yet another started: where trials end
        faster than workers start, some never come up (tests/search/test_workers.py).
        """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Nothing: there is one bracket, and the journal knows the trials."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether a trial goes on, noted in the journal first."""
        number, status = int(trial.config["number"]), str(result["status"])
        if status in NOT_THE_TRIALS:  # nothing has happened to the trial; another round takes it up again
            return str(TrialScheduler.STOP)
        if status in ("running", "finished"):
            decision = self._decide(number, result)
            if decision == "cut":
                self._journal.ended(number, "cut", self._cut_message(self._journal.trials[number]))
                return str(TrialScheduler.STOP)
        if status == "running":
            return str(TrialScheduler.CONTINUE)
        refused = bool(result.get("refused", False))
        self._journal.ended(number, status, str(result.get("message", "")), refused=refused)  # type: ignore[arg-type]
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing: Ray's own would put a trial's last value into a rung that it has not reached."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Nothing: what was reported stays reported."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its scheduler beside its results and we never read it; see StudySearch

    def _competes(self, trial: Trial) -> bool:
        return self._cuts and trial.repeats is None and (trial.kind != "baseline" or self._cut_baselines)

    def _decide(self, number: int, result: dict[str, Any]) -> str:
        """The decision on an epoch: the recorded one, or a new one that is recorded now."""
        epoch, value, loss = int(result["epoch"]), float(result["val_acc"]), float(result["val_loss"])
        known = self._journal.report(number, epoch)
        if known:
            return known.decision
        trial = self._journal.trials[number]
        decision = "continue"
        if self._competes(trial):
            best = max([merit(value, loss), *(merit(report.value, report.loss) for report in trial.reports)])
            now = replace(trial, reports=[*trial.reports, Report(epoch, value, loss, "continue", 0.0)])
            below = self._at_rung(number, epoch, best) or self._overtaken(now)
            # After its last epoch there is nothing left to cut.
            decision = "cut" if below and result["status"] == "running" else "continue"
        self._journal.reported(number, epoch, value, loss, decision)
        return decision

    def _at_rung(self, number: int, epoch: int, best: float) -> bool:
        """Whether Ray's bracket would stop the trial here; the value is in its rung afterwards."""
        answer = self._brackets[0].on_result(SimpleNamespace(trial_id=number), epoch, best)
        return bool(answer == TrialScheduler.STOP)

    def _overtaken(self, trial: Trial) -> bool:
        """Whether the trial's value at the last rung that it has passed is below the best third there by now.

        Not so where it leads the search by the rule for the best: its rung did not do it justice.
        """
        number = trial.number
        there = self._judges(number)
        if not there:
            return False
        if there[number] >= self._brackets[0].cutoff({other: there[other] for other in there if other != number}):
            return False
        others = (other for other in self._journal.trials.values() if other.number != number and self._competes(other))
        leader = best_of([trial, *others], self._grace_epochs)
        return leader is None or leader.trial.number != number

    def _judges(self, number: int) -> dict[int, float]:
        """The values at the last rung that a trial has passed, empty where too few have been there for a best third."""
        # Rungs come highest first.
        there: dict[int, float] = next((rung for _, rung in self._brackets[0]._rungs if number in rung), {})
        return there if len(there) >= self._reduction_factor else {}

    def _cut_message(self, trial: Trial) -> str:
        epoch = trial.reports[-1].epoch
        return f"below the best at epoch {max((rung for rung in self._rungs if rung <= epoch), default=epoch)}"
