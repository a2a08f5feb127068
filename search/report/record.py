"""The part of the report that lets somebody repeat the run: configuration, commands, versions, hashes."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from search.report.facts import label
from search.report.headline import retrained
from search.report.page import Html, facts, join, note, pre, tag
from search.runs.run import Best, Run
from search.space.space import Space
from search.tune.study import beliefs_of
from trainable.config import RECIPES, SHARED_FIELDS, TrialConfig

_EMPTY: tuple[object, ...] = (None, "", [], {})


def best_settings(best: Best) -> Html:
    """The best trial's configuration: what differs from the defaults, and the whole."""
    defaults = TrialConfig.parse({}).to_json()
    differs = {key: value for key, value in best.trial.config.items() if defaults.get(key, value) != value}
    return join(
        [
            note(f"Trial {label(best.trial)}. What differs from the defaults, which are the tutorial's simple recipe:"),
            pre(_lines(differs)),
            whole(best.trial.config, "the whole configuration"),
        ]
    )


def whole(config: dict[str, Any], title: str) -> Html:
    """A configuration with all its fields, folded away under a title."""
    return tag("details", tag("summary", title), pre(_lines(config)))


def record(run: Run) -> Html:
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
        ("hardware", _flat(known.get("hardware", {}))),
        ("weights", _flat(known.get("weights", {}))),
        ("SwanLab", _flat(known.get("mirror", {}))),
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
    return join(
        [
            facts([(name, value) for name, value in pairs if str(value)], class_="record"),
            tag("h3", "Commands" if len(commands) > 1 else "Command"),
            pre("\n".join(commands)),
            tag("h3", "Space"),
            pre(_space_file(known["space"])),
        ]
    )


def _lessons(run: Run) -> Iterator[str]:
    """What each run on other data was worth to this one."""
    beliefs = beliefs_of(Space.from_json(run.record["space"]), run.journal)
    for event in run.journal.lessons:
        belief = beliefs[event["run"]]
        worth = f"rank agreement {belief:.2f} in the end" if belief else "misled, and was let go"
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


def _sessions(run: Run) -> str:
    starts = [session["time"] for session in run.journal.sessions if "time" in session]
    if not starts:
        return ""
    first = time.strftime("%Y-%m-%d %H:%M", time.localtime(starts[0]))
    resumed = f", resumed {len(starts) - 1} times" if len(starts) > 2 else ", resumed once" if len(starts) == 2 else ""
    return f"started {first}{resumed}; {run.journal.stop_reason or 'the last one has not ended or was killed'}"


def _command(command: object) -> str:
    """The command as one types it."""
    if not isinstance(command, list):
        return str(command)
    words = [str(word) for word in command]
    return shlex.join(["python", *words] if words and words[0].endswith(".py") else words)


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')}: {_flat(item)}" for key, item in value.items() if item not in _EMPTY)
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _yaml(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def _lines(config: dict[str, Any]) -> str:
    """A configuration as YAML, one field a line."""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
