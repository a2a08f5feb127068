"""What a data set holds and what is wrong with it, before anything is trained: the work of `data check`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from trainable.config import TrialConfig
from trainable.data_report import ClassFacts, CopyFacts, DataReport, SplitFacts, render
from trainable.dataset import Dataset, load_dataset
from trainable.duplicates import Copies, exact_copies, fingerprints, near_copies
from trainable.errors import InputError
from trainable.progress import Progress
from trainable.split import Split, split_dataset
from trainable.split_rules import groups_of
from trainable.table import unused_group

__all__ = ["DataReport", "check_data", "render"]


def check_data(data: str, progress: Progress | None = None, config: TrialConfig | None = None) -> DataReport:
    """What the data set at `data` holds, how `config` would split it, and what to mend.

    Without `config` it is split as the shipped space files do, with a test share.

    Raises:
        InputError: nothing can be learned from it; see `load_dataset`.
    """
    dataset = load_dataset(data, progress)
    config = config or TrialConfig(data=data, test_share=0.2)
    split, facts = _split_facts(dataset, config)
    parts = np.full(len(dataset.clips), "", dtype="<U5")
    if split is not None:
        for part in ("train", "val", "test"):
            parts[getattr(split, part)] = part

    def copies(found: Iterable[Copies]) -> tuple[CopyFacts, ...]:
        return tuple(
            CopyFacts(
                tuple(dataset.clips[index].name for index in item.clips),
                tuple(dataset.labels[dataset.clips[index].label] for index in item.clips),
                tuple(str(parts[index]) for index in item.clips),
                round(item.similarity, 3),
            )
            for item in found
        )

    prints = fingerprints(dataset, progress)
    exact, near = copies(exact_copies(dataset)), copies(near_copies(prints))
    groups = groups_of(dataset)
    by_group: dict[str, set[str]] = {}
    for group, part in zip([] if groups is None else groups.tolist(), parts.tolist(), strict=False):
        if group and part:
            by_group.setdefault(group, set()).add(part)
    straddling = tuple(sorted(group for group, where in by_group.items() if len(where) > 1))
    space = "" if data == "demo" else " --space spaces/small-data.yaml"  # the default space is for the demo set
    return DataReport(
        data=data,
        name=dataset.name,
        root=dataset.root,
        hash=dataset.hash,
        seconds=dataset.seconds,
        classes=tuple(_class_facts(dataset, label) for label in range(len(dataset.labels))),
        sample_rates=dict(Counter(clip.sample_rate for clip in dataset.clips).most_common()),
        channels=dict(Counter(clip.channels for clip in dataset.clips).most_common()),
        rejected=dataset.rejected,
        exact=exact,
        near=near,
        compared=len(prints.clips),
        groups=dict(sorted(Counter(clip.group for clip in dataset.clips if clip.group is not None).items())),
        straddling_groups=straddling,
        split=facts,
        warnings=(*_warnings(dataset, exact, near, straddling, facts), *_column_warnings(data)),
        command=f"python run_search.py{space} --data {shlex.quote(data)}",
    )


def _class_facts(dataset: Dataset, label: int) -> ClassFacts:
    seconds = [clip.seconds for clip in dataset.clips if clip.label == label]
    return ClassFacts(dataset.labels[label], len(seconds), min(seconds), float(np.median(seconds)), max(seconds))


def _split_facts(dataset: Dataset, config: TrialConfig) -> tuple[Split | None, SplitFacts]:
    try:
        split = split_dataset(dataset, config)
    except InputError as error:
        return None, SplitFacts("", {}, (), "", error.problems)
    counts = {part: len(getattr(split, part)) for part in ("train", "val", "test")}
    return split, SplitFacts(split.name, counts, split.notes, split.hash)


def _column_warnings(data: str) -> list[str]:
    """What a CSV knows of its clips and the split does not."""
    table = Path(data).expanduser()
    column = unused_group(table) if table.is_file() else ""
    if not column:
        return []
    return [f"the column {column} is not used: name it group if no {column} may be in two parts of the split"]


def _warnings(
    dataset: Dataset,
    exact: tuple[CopyFacts, ...],
    near: tuple[CopyFacts, ...],
    straddling: tuple[str, ...],
    split: SplitFacts,
) -> list[str]:
    """What should be mended or known, the worst first."""
    found = list(split.problems)
    copies = [*exact, *near]
    for kind, text in (
        ("contradicts", "two labels for the same sound, of which one must be wrong"),
        ("straddles", "clips in several parts of the split: what is learned is also scored, and the score flatters"),
    ):
        number = sum(getattr(item, kind) for item in copies)
        if number:
            found.append(f"sets of copies with {text}: {number}")
    extra = sum(len(item.names) - 1 for item in exact)
    if extra:
        found.append(f"exact copies of other clips: {extra}; take them away, or give copies a common group in a CSV")
    if straddling:
        found.append(f"groups that straddle the split: {len(straddling)}; use split: grouped or folds, or mean it")
    if dataset.rejected:
        found.append(f"files that are left out: {len(dataset.rejected)}")
    counts = Counter(clip.label for clip in dataset.clips)
    most, least = max(counts.values()), min(counts.values())
    if most > 3 * least:
        found.append(f"classes are uneven ({least} to {most} clips): consider class_balanced: true")
    if len({clip.sample_rate for clip in dataset.clips}) > 1:
        found.append(f"sample rates differ: all clips are resampled to {dataset.sample_rate} Hz, the most common one")
    return found
