"""Who comes next: unfinished trials, then baselines, then Optuna's proposals, through Ray's `OptunaSearch`.

A proposal depends on the seed, the trial's number and the journal, on nothing else: the study is rebuilt from the
journal and the sampler is made anew for every trial. So there is no random state to save, and a resumed search
proposes what an uninterrupted one would have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from search.runs.journal import Journal, Kind, Trial
from search.runs.run import RunFolder, best_epoch, next_repeat, trial_folder
from search.space.space import Space
from search.tune.lessons import Lesson, key_of, lesson_of
from search.tune.study import BAD_VALUE, JournalStudy, check_cmaes
from trainable.config import NOT_SEARCHED, TrialConfig
from trainable.errors import InputError

# A small space repeats itself. Another draw costs milliseconds, a repeated trial a whole training. Where a space is so
# small that its samples can be listed, what is left is drawn from after a few draws; constraints may leave little.
_ATTEMPTS, _MOST_ATTEMPTS = 40, 1000
_DRAWS_BEFORE_LISTING, _LISTED = 10, 100_000


@dataclass(frozen=True)
class WarmStart:
    """What a search has learned from another run."""

    run: str
    added: int
    left_out: dict[str, int]  # reason: trials
    notes: tuple[str, ...]  # what differs between the runs outside their dimensions


class StudySearch(OptunaSearch):  # type: ignore[misc]  # Ray has no types
    """Suggests trials until `budget.trials` are in the journal, baselines included: a budget of 10 is 10.

    With `budget.folds` what leads is repeated on further folds, on top of these trials: in front of new ones once there
    are enough to choose from, and when there are no new ones until the leader has been given all folds.

    Whatever Tune tells a searcher is ignored: a trial that Tune calls complete may only have lost its driver. How a
    trial ended is what the journal says.
    """

    def __init__(
        self,
        space: Space,
        journal: Journal,
        settle: Callable[[TrialConfig], TrialConfig] = lambda config: config,
        refused: Callable[[TrialConfig], bool] | None = None,
    ) -> None:
        """Rebuilds the study. `settle` has the last word on a configuration, such as the weights that can be had.

        `refused`: whether a configuration costs more than the constraints or the time budget allow; the sampler hears
        of it.

        Raises:
            InputError: the space asks for a sampler that cannot search it.
        """
        check_cmaes(space)
        self._journal_study = JournalStudy(space, journal)
        study = self._journal_study.study
        super().__init__(space.suggest, metric="val_acc", mode="max", storage=self._journal_study.storage,
                         study_name=study.study_name)  # fmt: skip
        self._ot_study = study
        self._search_space = space
        self._journal = journal
        self._settle = settle
        self._refused = refused
        self._handed_out: set[int] = set()
        self._tried: set[str] = set()
        self._looked_at = self._warm_looked_at = 0
        self._in_tune: set[str] = set()  # Tune's ids of the trials that run
        self._no_more = False  # new trials

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial for Tune, `{"number", "folder", "config", ...}`, or `Searcher.FINISHED`."""
        while True:
            trial = self._unfinished() or self._next()
            if trial is None:  # with folds, what runs may be worth a repeat when it ends
                return None if self._search_space.budget.folds and self._in_tune else str(Searcher.FINISHED)
            self._handed_out.add(trial.number)
            if not trial.over:
                break
        self._in_tune.add(trial_id)
        folder = trial_folder(self._journal.path.parent.resolve(), trial.number).path
        return {
            "number": trial.number, "folder": str(folder), "config": trial.config, "name": trial.name,
            "kind": trial.kind,
        }  # fmt: skip

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the study follows the journal."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Forgets that Tune runs the trial; the study follows the journal."""
        self._in_tune.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is all that a resumed search needs."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resumed search makes a new searcher from the journal."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher beside its results and we never read it; listeners cannot be pickled

    def _unfinished(self) -> Trial | None:
        waiting = [trial for trial in self._journal.waiting if trial.number not in self._handed_out]
        return waiting[0] if waiting else None

    def _next(self) -> Trial | None:
        """The next trial, noted in the journal: a repeat where that is due, or a new one."""
        folds = self._search_space.budget.folds
        if folds is None:
            return self._new()
        over = sum(trial.over and trial.repeats is None for trial in self._journal.trials.values())
        # The first to finish leads for want of others, and is often a baseline that no one will want.
        enough = over >= self._search_space.searcher.startup_trials
        trial = (self._repeat(folds) if enough else None) or (None if self._no_more else self._new())
        self._no_more |= trial is None
        return trial if trial is not None or enough else self._repeat(folds)

    def _repeat(self, folds: int) -> Trial | None:
        """The leader's configuration on its next fold, noted in the journal; None where that is not due."""
        found = next_repeat(self._journal.trials.values(), self._search_space.budget.grace_epochs, folds)
        if found is None:
            return None
        trial, fold = found
        name = f"fold {fold} of {f'{trial.name}, ' if trial.name else ''}trial {trial.number}"
        config = {**trial.config, "val_fold": fold}
        return self._journal.suggested("repeat", name, trial.params, config, repeats=trial.number)

    def _new(self) -> Trial | None:
        """A new trial, noted in the journal; None where the budget or the space is used up."""
        if self._journal.configurations >= self._search_space.budget.trials:
            return None
        begun = {trial.name for trial in self._journal.trials.values() if trial.kind not in ("retrain", "repeat")}
        for baseline in self._search_space.baselines:
            if baseline.name not in begun:
                config = self._settle(TrialConfig.parse(baseline.values, source=baseline.name))
                kind: Kind = "search" if baseline.cut else "baseline"
                return self._journal.suggested(kind, baseline.name, baseline.params or {}, config.to_json())
        return self._proposed()

    def _proposed(self) -> Trial | None:
        """A trial of the sampler's own."""
        tried = self._all_tried()
        size = self._search_space.size
        if size is not None and len(tried) >= size:
            return None
        number = len(self._journal.trials)
        if learned := self._journal_study.learned(number, tried):
            return self._begin(number, *learned)
        listed = size is not None and size <= _LISTED
        # A proposal costs milliseconds, and what is allowed may be rare.
        many = _MOST_ATTEMPTS if self._refused else _ATTEMPTS
        refused: list[tuple[int, dict[str, Any]]] = []
        for attempt in range(_DRAWS_BEFORE_LISTING if listed else many):
            asked, sample = self._journal_study.propose(number, attempt)
            if key_of(sample) in tried:
                self._journal_study.reject(asked)
            elif self._costs_too_much(sample):
                refused.append((self._journal_study.refuse(asked), sample))
            else:
                break
        else:
            out_of = {*tried, *(key_of(sample) for _, sample in refused)}
            found = self._left(number, out_of) if listed else None
            if found is None:
                return None
            asked, sample = self._journal_study.chosen(found)
        return self._begin(number, asked, sample, **({"refused": refused} if refused else {}))

    def _left(self, number: int, out_of: Container[str]) -> dict[str, Any] | None:
        """A sample of a finite space that is not in `out_of` and does not cost too much, or None where none is left."""
        space = self._search_space
        left = [sample for sample in space.samples() if key_of(sample) not in out_of]
        order = np.random.default_rng([space.searcher.seed, number]).permutation(len(left))
        return next((left[place] for place in order if not self._costs_too_much(left[place])), None)

    def _begin(self, number: int, asked: optuna.Trial, sample: dict[str, Any], **noted: Any) -> Trial:
        """Notes a proposed trial in the journal, with what led to it."""
        noted = {**self._journal_study.accept(asked, number), **noted}
        try:
            config = self._settle(self._search_space.config(sample, name=f"trial {number}"))
        except InputError as error:  # loading the space has tried its corners, alone and in pairs, and no others
            space = self._search_space
            values = {**TrialConfig().to_json(), **space.stretched({**space.fixed, **sample})}
            trial = self._journal.suggested("search", "", sample, values, noted)
            self._journal.ended(number, "failed", str(error), refused=True)
            return trial
        return self._journal.suggested("search", "", sample, config.to_json(), noted)

    def _costs_too_much(self, sample: Mapping[str, Any]) -> bool:
        """Whether a sample is refused for its cost; one that makes no configuration fails in its own way."""
        if self._refused is None:
            return False
        try:
            return self._refused(self._settle(self._search_space.config(sample)))
        except InputError:
            return False

    def _all_tried(self) -> set[str]:
        """The samples of all trials, those of a warm start included; each is looked at once."""
        for number in range(self._looked_at, len(self._journal.trials)):
            if params := self._journal.trials[number].params:
                self._tried.add(key_of(params))
        self._looked_at = len(self._journal.trials)
        for event in self._journal.warm[self._warm_looked_at :]:
            self._tried |= {key_of(record["params"]) for record in event["trials"] if record.get("whole", False)}
        self._warm_looked_at = len(self._journal.warm)
        return self._tried

    def add_warm(self, run: RunFolder, split_hash: str | None = None) -> WarmStart:
        """Learns from the trials of another run where its configurations lie inside this space.

        `split_hash`: this run's split; trials that were scored on other clips stay out. A run that is in the journal
        already, because this search was resumed, is not added again.
        """
        records, left_out = [], Counter[str]()
        same_clips = split_hash is None or run.record.get("split", {}).get("hash") == split_hash
        differing: set[str] = set()
        for trial in run.trials:
            record = _warm_record(self._search_space, run, trial) if same_clips else "scored on other clips"
            if isinstance(record, str):
                left_out[record] += 1
                continue
            records.append(record)
            differing |= _differing(self._search_space, trial, record["params"])
        path = str(run.path.resolve())
        if all(event["run"] != path for event in self._journal.warm):
            self._journal.warmed(path, records, numbered=len(run.trials))
        notes = [f"{run.name} differs in {', '.join(sorted(differing))}, which is fixed here"] if differing else []
        return WarmStart(run.name, len(records), dict(left_out), tuple(notes))

    def add_lessons(self, run: RunFolder) -> Lesson:
        """Learns from the trials of a run on other data; one that is in the journal already is not added again."""
        lesson, path = lesson_of(self._search_space, run), str(run.path.resolve())
        if lesson.seen and all(event["run"] != path for event in self._journal.lessons):
            self._journal.learned(path, [{"values": dict(s.values), "standing": s.standing} for s in lesson.seen])
        return lesson


def _warm_record(space: Space, run: RunFolder, trial: Trial) -> dict[str, Any] | str:
    """What the study needs of another run's trial, or the reason why it cannot have it."""
    if trial.repeats is not None:
        return "repeated on further folds"
    if not trial.over:
        return "not finished"
    if trial.status == "failed":
        return "failed"
    # What it was sampled as, where it was: --epochs may have changed what is counted in epochs since.
    samples = [space.sample_of(values) for values in ({**trial.config, **trial.params}, trial.config)]
    params = next((sample for sample, outside in samples if not outside and _makes(space, sample, trial)), None)
    if params is None:
        missed = [outside[0] for _, outside in samples if outside]
        return f"{missed[0]} outside this space" if missed else "counted in epochs of another horizon"
    horizon, here = trial.config["epochs"], space.stretched({**space.fixed, **params}).get("epochs", space.max_epochs)
    if horizon > here:
        return f"trained for {horizon} epochs, not {here}"
    best = best_epoch(trial, run.grace_epochs)
    # A shorter training is to a longer one what a cut trial is to a finished one.
    status = "cut" if trial.status == "finished" and horizon < here else trial.status
    return {
        "whole": horizon == here,  # to train it again would bring nothing new
        "params": params, "status": status, "value": best.accuracy if best else BAD_VALUE,
        "values": [report.value for report in trial.reports], "losses": [report.loss for report in trial.reports],
    }  # fmt: skip


def _makes(space: Space, params: Mapping[str, Any], trial: Trial) -> bool:
    """Whether the space makes the trial's own values of a sample, on its own horizon or on the trial's."""
    horizons = (space, replace(space, epochs=trial.config["epochs"]))
    made = [each.stretched({**space.fixed, **params}) for each in horizons]
    return any(all(values[name] == trial.config[name] for name in params) for values in made)


def _differing(space: Space, trial: Trial, params: Mapping[str, Any]) -> set[str]:
    """The fields outside the dimensions in which a trial differs from what this space would have made of its sample."""
    try:
        twin = space.config(params).to_json()
    except InputError:
        return set()
    ignored = {*params, *NOT_SEARCHED, "epochs", "weights"}
    return {name for name, value in twin.items() if name not in ignored and trial.config.get(name) != value}
