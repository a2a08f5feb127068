"""What a run says once it is added up: its headline, time, progress of the best, rungs, slots, and how to repeat it.

Everything here is plain numbers and text, so that figures and templates only show it, and that these rules can be
tested without a browser.
"""

from __future__ import annotations

import math
import shlex
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search.retrain.text import OPTIMISTIC
from search.retrain.trust import candidates_of, margin_on_folds, trust
from search.runs.format import ABSENT, conditions_of, folds_in_words, interval_in_words, stop_in_words, value_of
from search.runs.journal import Trial
from search.runs.run import Best, RunFolder, rank, result_of
from search.space.space import Space
from search.tune.study import beliefs_of
from trainable.config import RECIPES, SHARED_FIELDS, TrialConfig


@dataclass(frozen=True)
class Progress:
    """The best so far, at the moment when it became so."""

    seconds: float  # of searching since the start, interruptions left out
    epochs: int  # finished by all trials together
    accuracy: float  # validation accuracy, fraction
    trial: Trial


@dataclass(frozen=True)
class Rung:
    """An epoch at which trials were compared and some were cut."""

    epoch: int  # 1-based
    passed: tuple[tuple[Trial, float], ...]  # with the best validation accuracy until there, fraction
    cut: tuple[tuple[Trial, float], ...]


@dataclass(frozen=True)
class Span:
    """When a trial ran, and beside how many others."""

    trial: Trial
    slot: int  # 0-based: the lowest that was free
    start: float  # s of searching since the start
    end: float

    @property
    def seconds(self) -> float:
        """How long it ran, s."""
        return self.end - self.start


def trials_of(run: RunFolder) -> list[Trial]:
    """The trials of the search itself, baselines included, retraining left out."""
    return [trial for trial in run.trials if trial.kind != "retrain"]


def configurations_of(run: RunFolder) -> list[Trial]:
    """Those trials without the repeats on further folds, whose accuracies are of other clips."""
    return [trial for trial in trials_of(run) if trial.repeats is None]


def space_of(run: RunFolder) -> Space:
    """The space that was searched."""
    return Space.from_json(run.record["space"])


def settings_of(trial: Trial, space: Space) -> dict[str, Any]:
    """A trial's values of the dimensions that were active in it.

    A baseline that is no point of the space has no sample; its configuration says where it would lie.
    """
    conditions = conditions_of(space.to_json()["search"])
    values = {name: value_of(trial, name, conditions) for name in space.dimensions}
    return {name: value for name, value in values.items() if value is not ABSENT}


def label(trial: Trial) -> str:
    """What the report calls a trial: `#17`, or `#0 tutorial-simple`."""
    return f"#{trial.number} {trial.name}".strip()


def top(trial: Trial) -> Best | None:
    """A trial's best epoch, whether or not it got past the grace period: for drawing, not for ranking."""
    finite = [report for report in trial.reports if math.isfinite(report.value)]
    if not finite:
        return None
    best = min(finite, key=lambda report: (-report.value, report.loss, report.epoch))
    return Best(trial, best.epoch, best.value, best.loss)


def search_clock(run: RunFolder) -> Callable[[float], float]:
    """A function from s since 1970 to s of searching: the time between a session's last event and the next is left out.

    A night between an interruption and its resumption is no time that the search took.
    """
    starts = sorted(session["time"] for session in run.journal.sessions if "time" in session)
    events = sorted(_event_times(run))
    if not starts or (events and events[0] < starts[0]):
        starts = events[:1] + starts
    spans: list[tuple[float, float, float]] = []  # start, end, s of searching before it
    before = 0.0
    for index, start in enumerate(starts):
        until = starts[index + 1] if index + 1 < len(starts) else math.inf
        last = events[bisect_right(events, until) - 1] if bisect_right(events, until) else start
        end = max(start, last)
        spans.append((start, end, before))
        before += end - start

    def clock(moment: float) -> float:
        reached = [span for span in spans if span[0] <= moment]
        if not reached:
            return 0.0
        start, end, earlier = reached[-1]
        return earlier + min(moment, end) - start

    return clock


def state_in_words(run: RunFolder) -> str:
    """Whether the search has ended, why and when, and when it began."""
    events = _event_times(run)
    began = [session["time"] for session in run.journal.sessions if "time" in session] + events
    started = f"started {_moment(min(began))}" if began else ""
    reason = run.journal.stop_reason
    if reason is None and (run.journal.unfinished or not events):
        return ", ".join(filter(None, ["search not finished", started]))
    why = f" ({stop_in_words(reason)})" if reason else ""
    return ", ".join(filter(None, [started, f"ended {_moment(max(events or began))}{why}"])).capitalize()


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _event_times(run: RunFolder) -> list[float]:
    times = []
    for trial in run.trials:
        times.append(trial.started)
        times += [report.time for report in trial.reports]
        times += [trial.ended] if trial.ended is not None else []
    return times


def progress(run: RunFolder) -> list[Progress]:
    """Each moment at which there was a new best by the rule of `search.runs.run`, oldest first; the last is the run's.

    A trial counts from the epoch at which it gets past the grace period, with the best that it has until then. Where
    accuracies are equal, a lower loss makes a step that is no higher.
    """
    clock = search_clock(run)
    seen: dict[int, Trial] = {}
    families: dict[int, list[Trial]] = {}  # a trial and its repeats
    leader: Best | None = None
    steps: list[Progress] = []
    events = [
        (report.time, trial.number, index) for trial in trials_of(run) for index, report in enumerate(trial.reports)
    ]
    for epochs, (moment, number, index) in enumerate(sorted(events), start=1):
        trial = run.journal.trials[number]
        if number not in seen:
            seen[number] = Trial(
                number, trial.kind, trial.name, trial.params, trial.config, trial.started, repeats=trial.repeats
            )
            families.setdefault(trial.first, []).append(seen[number])
        partial = seen[number]
        partial.reports.append(trial.reports[index])
        if index + 1 == len(trial.reports):
            partial.status = trial.status
        compared = {partial.first, leader.trial.number if leader else partial.first}
        ranked = rank([each for first in compared for each in families[first]], run.grace_epochs)
        if ranked and (leader is None or _quality(ranked[0]) != _quality(leader)):
            leader = ranked[0]
            steps.append(Progress(clock(moment), epochs, leader.accuracy, run.journal.trials[leader.trial.number]))
    return steps


def _quality(best: Best) -> tuple[int, float, float]:
    """Trial, accuracy and loss of a best epoch: what tells it from the one before it."""
    return best.trial.number, best.accuracy, best.loss


def rungs(run: RunFolder) -> list[Rung]:
    """The epochs at which the scheduler compared trials, earliest first; empty where it cuts nothing.

    A trial that was cut between two of them had been overtaken at the former. Baselines take no part where they are
    not cut.
    """
    space = space_of(run)
    cuttable = ("search", "baseline") if space.scheduling.cut_baselines else ("search",)
    trials = [trial for trial in run.trials if trial.kind in cuttable]
    ends = [*space.rungs[1:], math.inf]
    found = [_rung(trials, epoch, end) for epoch, end in zip(space.rungs, ends, strict=False)]
    return [rung for rung in found if rung.passed or rung.cut]


def _rung(trials: list[Trial], epoch: int, end: float) -> Rung:
    """What happened at a rung, up to the next one at epoch `end`."""
    there = [trial for trial in trials if len(trial.reports) >= epoch]
    best = {trial.number: max(report.value for report in trial.reports[:epoch]) for trial in there}
    cut = {trial.number for trial in there if trial.reports[-1].decision == "cut" and len(trial.reports) < end}
    return Rung(
        epoch,
        passed=tuple((trial, best[trial.number]) for trial in there if trial.number not in cut),
        cut=tuple((trial, best[trial.number]) for trial in there if trial.number in cut),
    )


def spans(run: RunFolder) -> list[Span]:
    """When each trial ran, oldest first. A trial that was taken up again is one span from start to end."""
    clock = search_clock(run)
    free_from: list[float] = []  # per slot
    found = []
    for trial in sorted(trials_of(run), key=lambda trial: (trial.started, trial.number)):
        last = max([trial.started, *(report.time for report in trial.reports)])
        start, end = clock(trial.started), clock(trial.ended if trial.ended is not None else last)
        slot = next((slot for slot, free in enumerate(free_from) if free <= start + 1e-9), len(free_from))
        free_from[slot : slot + 1] = [end]
        found.append(Span(trial, slot, start, end))
    return found


@dataclass(frozen=True)
class Headline:
    """The number that the reader takes away; fractions in [0, 1]."""

    accuracy: float | None  # None: there is no number yet
    interval: tuple[float, float] | None  # 95%
    trust: str  # the interval in words, or why there is none
    sentence: str
    optimistic: bool  # chosen on the same clips as measured


def retrained(run: RunFolder) -> dict[str, Any] | None:
    """What `retrained/result.json` says, or None where nothing was retrained."""
    return result_of(run.path)


def headline(run: RunFolder) -> Headline:
    """The retrained accuracy where there is one, else the search's own best, called what it is."""
    result = retrained(run)
    if result is not None:
        return _of_result(result)
    best = run.best()
    if best is None:
        return Headline(None, None, "", "No trial has got past the grace period yet, so there is no best.", False)
    clips = run.record.get("split", {}).get("val")
    where = f"{clips} validation clips" if clips and not best.folds else "the validation clips"
    at = folds_in_words(best.folds) or f"at epoch {best.epoch}"
    sentence = f"Trial {label(best.trial)} {at}, the highest of {_choices(run)} on {where}."
    if margin := margin_on_folds(run):
        sentence = f"{sentence} That is {margin.in_words()}."
    found = trust(run, best, candidates_of(run))
    return Headline(best.accuracy, found.interval, found.in_words(), sentence, True)


def _of_result(result: dict[str, Any]) -> Headline:
    seeds = len(result.get("per_seed") or [])
    what = "The best configuration, retrained" + (f" on {seeds} seeds (mean)" if seeds > 1 else "")
    clips = f"{result['clips']} " if result.get("clips") else ""
    plain = {
        "test": f"{clips}test clips, on which nothing was trained or chosen",
        "folds": f"{clips}clips, each scored by models that were not trained on it",
    }.get(result["measured_on"], f"the {clips}validation clips")
    on = str(result.get("sentence") or plain).removesuffix(f": {OPTIMISTIC}")
    low_high = result.get("interval_95")
    interval = (float(low_high[0]), float(low_high[1])) if low_high else None
    words = interval_in_words(interval, result.get("interval_groups"))
    return Headline(
        result["accuracy"], interval, f"95% interval {words}" if interval else words if "interval_95" in result else "",
        f"{what}, on {on}.", result["measured_on"] not in ("test", "folds"),
    )  # fmt: skip


def _choices(run: RunFolder) -> str:
    reports = sum(len(trial.reports) for trial in run.trials if trial.kind != "retrain")
    return f"{reports} scores (every epoch of every trial)"


@dataclass(frozen=True)
class Lead:
    """How far the best trial is above the best baseline."""

    name: str  # the baseline's
    accuracy: float  # the baseline's, fraction
    ahead: float  # fraction, never below 0; 0 where the baseline itself is the best
    overlap: bool  # whether the intervals overlap, so that it may be chance


def lead(run: RunFolder) -> Lead | None:
    """How far the best trial is above the best baseline, both by the one rule; None where either is missing."""
    ranked = run.ranked()
    base = next((other for other in ranked if other.trial.kind == "baseline"), None)
    if base is None:
        return None
    best = ranked[0]
    ours, theirs = trust(run, best, candidates_of(run)).interval, trust(run, base).interval
    overlap = ours is not None and theirs is not None and ours[0] < theirs[1]
    return Lead(base.trial.name, base.accuracy, best.accuracy - base.accuracy, overlap)


_EMPTY: tuple[object, ...] = (None, "", [], {})


def differing_settings(config: Mapping[str, Any]) -> str:
    """What of a configuration differs from the defaults, as YAML."""
    defaults = TrialConfig.parse({}).to_json()
    return as_yaml({key: value for key, value in config.items() if defaults.get(key, value) != value})


@dataclass(frozen=True)
class Record:
    """What lets somebody repeat the run."""

    pairs: tuple[tuple[str, str], ...]  # names and values, as people read them
    commands: tuple[str, ...]  # as one types them
    space: str  # a space file


def record(run: RunFolder) -> Record:
    """Everything that run.json knows, and the commands that repeat the run."""
    known = run.record
    data, split = known.get("data", {}), known.get("split", {})
    left_out = data.get("rejected", 0)
    counts = ", ".join(f"{split[part]} {part}" for part in ("train", "val", "test") if part in split)
    pairs: list[tuple[str, object]] = [
        ("run folder", run.path),
        ("created", known.get("created", "")),
        ("data", f"{data.get('name', '')} ({data.get('path', '')})"),
        ("clips", f"{data.get('clips', '?')} in {len(data.get('labels', []))} classes, "
                  f"{len(left_out) if isinstance(left_out, list) else left_out} files left out"),
        ("data hash", data.get("hash", "")),
        ("split", f"{split.get('name', '')}: {counts} clips"),
        ("split hash", split.get("hash", "")),
        ("seed of the search", known.get("seed", "")),
        ("git commit", known.get("git_commit") or "unknown"),
        ("versions", ", ".join(f"{name} {number}" for name, number in known.get("versions", {}).items())),
        ("hardware", _flat(_said(known.get("hardware", {})))),
        ("weights", _flat(known.get("weights", {}))),
        *([("pretrained with", _flat(known["pretraining"]))] if known.get("pretraining") else []),
        ("SwanLab", _flat(_said(known.get("mirror", {})))),
        ("sessions", _sessions(run)),
    ]  # fmt: skip
    for extra, name in (("warm_start", "warm start from"), ("notes", "notes")):
        if known.get(extra):
            pairs.append((name, "; ".join(map(str, known[extra]))))
    pairs += [("learned from", "; ".join(_lessons(run)))] if run.journal.lessons else []
    pairs += [("about the split", "; ".join(map(str, split["notes"])))] if split.get("notes") else []
    result = retrained(run) or {}
    if result.get("seeds"):
        pairs.append(("seeds of the retraining", ", ".join(map(str, result["seeds"]))))
    if result.get("git_commit") and result["git_commit"] != known.get("git_commit"):
        pairs.append(("git commit of the retraining", result["git_commit"]))
    commands = [_command(each) for each in (known.get("command"), result.get("command")) if each]
    shown = tuple((name, str(value)) for name, value in pairs if str(value))
    return Record(shown, tuple(commands), _space_file(known["space"]))


def _lessons(run: RunFolder) -> Iterator[str]:
    """What each run on other data was worth to this one."""
    beliefs = beliefs_of(Space.from_json(run.record["space"]), run.journal)
    for event in run.journal.lessons:
        belief = beliefs[event["run"]]
        worth = f"rank agreement {belief:.2f} in the end" if belief else "no rank agreement in the end, not followed"
        yield f"{Path(event['run']).name}: {len(event['trials'])} trials, {worth}"


def _space_file(space: dict[str, Any]) -> str:
    """The space as a space file has it, so that it can be copied and run; baselines by their names.

    Where `--epochs` has set the horizon, it is said above: the file itself keeps its own, because dimensions that are
    counted in epochs are on it.
    """
    keys = ("fixed", "search", "budget", "resources", "scheduler", "searcher")
    file: dict[str, Any] = {key: space[key] for key in keys if space.get(key)}
    baselines = [_baseline(item, space.get("fixed", {})) for item in space.get("baselines", [])]
    if baselines:
        file["baselines"] = baselines
    epochs = space.get("epochs")
    if epochs is None:
        return _yaml(file)
    own = space.get("fixed", {}).get("epochs", TrialConfig().epochs)
    # The least that --epochs scales to the grace period of this run.
    file["budget"] = {**space["budget"], "grace_epochs": math.ceil(space["budget"]["grace_epochs"] * own / epochs)}
    return f"# run with --epochs {epochs}\n{_yaml(file)}"


def _baseline(item: dict[str, Any], fixed: dict[str, Any]) -> object:
    """A recipe by its name; a point of one's own by the values that the space does not give it anyway."""
    if item["name"] in RECIPES:
        return item["name"]
    given = {**TrialConfig.parse({}).to_json(), **fixed}
    own = {key: value for key, value in item["values"].items() if value != given.get(key) and key not in SHARED_FIELDS}
    return {"name": item["name"], **({"cut": True} if item.get("cut") else {}), **own}


def _sessions(run: RunFolder) -> str:
    starts = [session["time"] for session in run.journal.sessions if "time" in session]
    if not starts:
        return ""
    first = _moment(starts[0])
    resumed = f", resumed {len(starts) - 1} times" if len(starts) > 2 else ", resumed once" if len(starts) == 2 else ""
    last = stop_in_words(run.journal.stop_reason) or "the last one has not ended or was killed"
    return f"started {first}{resumed}; {last}"


def _command(command: object) -> str:
    """The command as one types it."""
    if not isinstance(command, list):
        return str(command)
    words = [str(word) for word in command]
    return shlex.join(["python", *words] if words and words[0].endswith(".py") else words)


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under names that are read, not typed; a backbone's name stays as it is."""
    return {key.replace("_", " "): value for key, value in values.items()}


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_flat(item)}" for key, item in value.items() if item not in _EMPTY)
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _yaml(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def as_yaml(config: Mapping[str, Any]) -> str:
    """A configuration as YAML, one field a line."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
