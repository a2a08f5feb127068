"""The option `predict --explain`: for each file the stretch that decides, as text and as a page."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from search.console.steps import Steps
from search.report.mistakes import Card, Prediction, card
from search.report.report import explained
from search.runs.format import percent
from trainable.data.audio import read_waveform
from trainable.errors import InputError
from trainable.files import write_atomically
from trainable.inference.explain import decisive_stretch
from trainable.inference.model import load_model
from trainable.inference.predict import Unreadable, predict_files


def explain(model_path: Path, files: Sequence[Path], style: Literal["table", "csv", "json"], target: Path) -> int:
    """Labels files, says which stretch of each decides, and writes them into `target`; 1 where one cannot be read.

    Raises:
        InputError: the model or a file is not there, or the style has no room for it.
    """
    if style == "csv":
        raise InputError("--csv: has no column for what decides, got it together with --explain. Use --json.")
    missing = [f"{path}: no such file or folder, got nothing to explain. Check the path." for path in files
               if not path.exists()]  # fmt: skip
    if missing:
        raise InputError(missing)
    model = load_model(model_path)
    config = model.networks[0].facts.config
    cards: list[Card] = []
    unreadable: list[Unreadable] = []
    with Steps(sys.stderr) as progress:
        for found in predict_files(model, files, progress=progress):
            if isinstance(found, Unreadable):
                unreadable.append(found)
                continue
            stretch = decisive_stretch(model, read_waveform(found.path), found.label)
            item = Prediction(found.path, "", found.label, found.probability)
            cards.append(card(item, Path(found.path), config, stretch))
            if style == "json":
                decides = {"start": stretch.start, "end": stretch.end, "drop": stretch.drop}
                print(json.dumps({**found.to_json(), "decides": decides}), flush=True)
            else:
                print(f"{found.path}: {found.label} {percent(found.probability, 0)}{_decided(cards[-1])}", flush=True)
    for file in unreadable:
        print(f"{file.path}: {file.reason}", file=sys.stderr)
    if cards:
        title = cards[0].name if len(cards) == 1 else f"{len(cards)} files explained"
        write_atomically(target, explained(title, cards))
        print(target, file=sys.stderr if style == "json" else sys.stdout)
    return 1 if unreadable else 0


def _decided(shown: Card) -> str:
    if shown.decides is None:
        return ", no single stretch decides"
    return (
        f", decided by {shown.decides.start:.1f} to {shown.decides.end:.1f} s ({100 * shown.decides.drop:.0f} points)"
    )
