"""The commands `data check`, `data demo`, `data get` and `data cache`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from search.console.steps import Steps
from search.console.table import terminal
from trainable.commands import typed


def check(path: str, as_json: bool, group: str | None = None) -> int:
    """Prints what a data set holds and what is wrong with it."""
    from trainable.config import TrialConfig
    from trainable.data.check import check_data, render

    with Steps(sys.stderr) as progress:
        found = check_data(path, progress, TrialConfig(data=path, test_share=0.2, group_column=group))
    if as_json:
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        render(found, terminal())
    return 0


def demo(target: Path) -> int:
    """Writes the demo set."""
    from trainable.data.demo import make_demo

    with Steps(sys.stderr) as progress:
        print(make_demo(target, progress=progress))
    return 0


def get(name: str | None, target: Path | None, mirrors: Sequence[str]) -> int:
    """Downloads and unpacks a published set and says how to cite it; without a name lists those that there are."""
    from trainable.data.catalogue import CATALOGUE, fetch_published, published

    if name is None:
        table = Table("name", "clips", "classes", "MB", "licence", "citation", box=None, pad_edge=False)
        for each in CATALOGUE:
            facts = (str(each.clips), str(each.classes), str(each.megabytes), each.licence, each.citation)
            table.add_row(each.name, *facts)
        terminal().print(table)
        return 0
    record = published(name)
    print(f"{record.title}: {record.citation}. Licence: {record.licence}.", file=sys.stderr)
    if record.checksum is None:
        print("No checksum is published: what arrives is counted, not compared.", file=sys.stderr)
    with Steps(sys.stderr) as progress:
        found = fetch_published(record, target or Path(record.title), mirrors=mirrors or None, progress=progress)
    print(found)
    print(typed("--space", "spaces/small-data.yaml", "--data", found), file=sys.stderr)
    return 0


def cache(clear: bool) -> int:
    """Prints what the cache of mels holds, or empties it."""
    from trainable.features.mel_cache import cache_entries, cache_limit, clear_cache
    from trainable.files import cache_folder

    if clear:
        removed, size = clear_cache()
        print(f"{removed} entr{'y' if removed == 1 else 'ies'} removed, {size / 1e6:.0f} MB, from {cache_folder()}")
        return 0
    table = Table("data set", "clips", "MB", "last used", "front end", box=None, pad_edge=False)
    entries = cache_entries()
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        front_end = ", ".join(f"{key} {value}" for key, value in entry.about.items() if key not in ("dataset", "clips"))
        megabytes = f"{entry.bytes / 1e6:.1f}"
        table.add_row(entry.about["dataset"], str(entry.about["clips"]), megabytes, used, front_end)
    terminal().print(table)
    total = sum(entry.bytes for entry in entries)
    print(f"{total / 1e6:.0f} MB of at most {cache_limit() / 1e6:.0f} MB in {cache_folder()}")
    return 0
