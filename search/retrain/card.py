"""The card of a retrained model: what somebody must know who is handed the folder and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from search.runs.format import interval_in_words, percent, percent_spread, quantity
from trainable.backbones import pretraining as pretraining_of
from trainable.training.trial_folder import Cost

MEASURED = {"test": "test clips", "folds": "clips out of fold", "validation": "validation clips"}


def model_card(result: Mapping[str, Any], cost: Cost | None) -> str:
    """The card as Markdown with the header that model hubs read; `result` is `retrained/result.json`."""
    data, config = result["data"], result["config"]
    source, licence = pretraining(config)
    labels = ", ".join(data.get("labels") or result["labels"])
    name = f"{config['backbone']} on {data.get('name') or data['path']}"
    lines = [
        f"# {name}",
        f"Labels audio clips with one of {len(result['labels'])} classes: {labels}.",
        "## How good it is",
        *_numbers(result),
        "## How it was made",
        f"- data: {data.get('name') or data['path']}, {data.get('clips', '?')} clips (hash {data['hash']})",
        f"- split: {result['split'].get('name', '?')} (hash {result['split'].get('hash', '?')}); {result['protocol']}",
        f"- configuration: {result['chosen']} of the search {result['run']}, chosen by {result['chosen_by']}",
        f"- pretrained with: {source}",
        f"- licence of those weights: {licence}",
        f"- seeds: {', '.join(map(str, result['seeds']))}; code: commit {result.get('git_commit') or 'unknown'}",
        *(f"- {note}" for note in result.get("notes") or []),
        *([] if cost is None else ["## What it costs", _cost(cost)]),
        "## How to use it",
        "```python",
        "from trainable import load_model",
        'model = load_model("FOLDER")  # this folder',
        "print(model.predict(waveform, rate))  # an array of samples, and its rate in Hz",
        "```",
        "or `audio-search predict FOLDER FILE ...`. Both need the package audio-search. `weights.safetensors` and "
        "`model.json` are all that is read; neither runs code.",
    ]
    header = {
        "library_name": "audio-search",
        "pipeline_tag": "audio-classification",
        "tags": ["audio-classification", str(config["backbone"])],
        "metrics": ["accuracy"],
    }
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n" + _blocks(lines)


def pretraining(config: Mapping[str, Any]) -> tuple[str, str]:
    """What the network's weights were before it was trained, and under which terms those are given away."""
    source, licence = pretraining_of(config["backbone"], config["weights"])
    if config["weights"] == "imagenet":
        licence += "; they may be bound by the terms of ImageNet, which is for non-commercial research"
    return source, licence


def _numbers(result: Mapping[str, Any]) -> list[str]:
    measured = MEASURED.get(result["measured_on"], result["measured_on"])
    spread = {"mean": result["accuracy"], "deviation": result["deviation"]}
    seeds = len(result["per_seed"])
    over = f"mean and deviation over {seeds} seeds" if seeds > 1 else "one seed"
    interval = interval_in_words(result["interval_95"], result.get("interval_groups"))
    lines = [
        f"- **{percent_spread(spread)}** on {result['clips']} {measured}, {over}, 95% interval {interval}: "
        f"{result['sentence']}"
    ]
    own = result.get("model") or {}
    if own.get("accuracy") is not None:
        lines.append(f"- this very model (seed {own['seed']}): {percent(own['accuracy'])}")
    if result.get("baseline_accuracy") is not None:
        lines.append(f"- baseline {result['baseline']['name']}: {percent(result['baseline_accuracy'])}")
    error = result["calibration"]["ece_after"]
    lines.append(f"- its probabilities are off by {percent(error)} on average (expected calibration error)")
    return lines


def _cost(cost: Cost) -> str:
    time = "" if cost.latency_ms is None else f", {cost.latency_ms:.3g} ms per clip on the machine that trained it"
    return f"{quantity(cost.parameters)} parameters, {quantity(cost.operations)} multiply-adds per clip{time}."


def _blocks(lines: list[str]) -> str:
    """Lines with an empty one around each heading, list and block, as Markdown wants it."""
    text, inside = "", False
    for before, line in zip(["", *lines], lines, strict=False):
        joined = inside or (line.startswith("- ") and before.startswith("- "))
        text += ("" if not text or joined else "\n") + line + "\n"
        inside = not inside if line.startswith("```") else inside
    return text
