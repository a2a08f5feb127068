"""The shapes of a run folder's files: run.json, the lines of events.jsonl, and retrained/result.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from trainable.shapes import Record

Count = Annotated[int, Field(ge=0, le=10**12)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=100_000)]
Interval = tuple[FiniteFloat, FiniteFloat] | Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]
Outcome = Literal["finished", "cut", "diverged", "out_of_memory", "failed"]


class _Baseline(Record):
    name: Text
    values: dict[str, Any]
    params: dict[str, Any] | None = None
    cut: bool = False
    note: Text = ""


class _Budget(Record):
    grace_epochs: Annotated[int, Field(ge=1, le=10**9)]


class _Space(Record):
    source: Text = ""
    fixed: dict[str, Any] = Field(default={})
    search: dict[str, dict[str, Any]] = Field(default={})
    baselines: list[_Baseline] = Field(default=[])
    budget: _Budget
    resources: dict[str, Any] = Field(default={})
    scheduler: dict[str, Any] = Field(default={})
    searcher: dict[str, Any] = Field(default={})
    epochs: Annotated[int, Field(ge=1, le=10**9)] | None = None


class _Data(Record):
    path: Text = ""
    hash: Text = ""
    clips: Count = 0
    labels: list[Text] = Field(default=[])
    rejected: Count | list[Any] = 0
    name: Text = ""
    group_column: Text | None = None
    groups: Count = 0


class _Split(Record):
    name: Text = ""
    hash: Text = ""
    train: Count = 0
    val: Count = 0
    test: Count = 0
    notes: list[Text] = Field(default=[])


class _Mirror(Record):
    mode: Text = ""
    project: Text = ""
    requested: Text = ""


class RunRecord(Record):
    """run.json. What the first versions did not note yet may be missing."""

    space: _Space
    command: list[str] | Text = ""
    created: Text = ""
    space_file: Text = ""
    space_hash: Text | None = None
    data: _Data | None = None
    split: _Split | None = None
    seed: int | None = None
    weights: dict[str, str] | None = None
    own_backbones: dict[str, str] = Field(default={})
    mirror: _Mirror | None = None
    warm_start: list[Text] = Field(default=[])
    learn_from: list[Text] = Field(default=[])
    notes: list[Text] = Field(default=[])
    versions: dict[str, str] = Field(default={})
    git_commit: Text | None = None
    hardware: dict[str, Any] = Field(default={})


class ClipsRecord(Record):
    """What run.json must say to find the run's clips, and those of each part."""

    class _WholeSpace(_Space):
        source: Text
        fixed: dict[str, Any]
        search: dict[str, dict[str, Any]]
        baselines: list[_Baseline]

    class _WholeData(_Data):
        path: Text
        hash: Text
        labels: list[Text]
        clips: Count
        rejected: Count | list[Any]

    class _WholeSplit(_Split):
        name: Text
        hash: Text
        train: Count
        val: Count
        test: Count
        notes: list[Text]

    space: _WholeSpace
    data: _WholeData
    split: _WholeSplit


class WholeRecord(ClipsRecord):
    """What a search or a retraining that goes on needs of run.json."""

    class _WholeMirror(_Mirror):
        mode: Text
        project: Text

    space_file: Text
    weights: dict[str, str]
    mirror: _WholeMirror
    notes: list[Text]


class Event(Record):
    """What all lines of events.jsonl have; those of newer versions may be of kinds that are not known here."""

    event: str
    time: FiniteFloat


class _OfTrial(Event):
    trial: Count


class _Sampler(Record):
    attrs: dict[str, Any] = Field(default={})
    rejected: Annotated[int, Field(ge=0, le=10**6)] = 0
    refused: list[Annotated[list[Any], Field(min_length=2, max_length=2)]] = Field(default=[])  # place and sample


class _Suggested(_OfTrial):
    kind: Literal["baseline", "search", "retrain", "repeat"]
    name: Text
    params: dict[str, Any]
    config: dict[str, Any]
    sampler: _Sampler = Field(default=_Sampler())
    repeats: Count | None = None


class _Reported(_OfTrial):
    epoch: Annotated[int, Field(ge=1, le=10**9)]
    # What a network that diverges reports may be infinite or no number.
    value: Annotated[float, Field(allow_inf_nan=True)]
    loss: Annotated[float, Field(allow_inf_nan=True)]
    decision: Literal["continue", "cut"]


class _Ended(_OfTrial):
    status: Outcome
    message: Text
    refused: bool = False


class _WarmTrial(Record):
    params: dict[str, Any]
    status: Outcome
    value: FiniteFloat
    values: list[float]
    losses: list[float] | None = None
    whole: bool = False


class _Warm(Event):
    run: Text
    trials: list[_WarmTrial]
    before: Count
    numbered: Annotated[int, Field(ge=0, le=10**9)] = 0


class _LearnedTrial(Record):
    values: dict[str, Any]
    standing: Share


class _Learned(Event):
    run: Text
    trials: list[_LearnedTrial]


class _Session(Event):
    trials: Count | None = None
    time_budget: FiniteFloat | None = None
    git_commit: Text | None = None
    versions: dict[str, str] | None = None


class _Stopped(Event):
    reason: Text


class _Moved(Event):
    data: Text


EVENTS: dict[str, type[Record]] = {
    "session": _Session, "warm": _Warm, "learned": _Learned, "moved": _Moved, "suggested": _Suggested,
    "reported": _Reported, "ended": _Ended, "retried": _OfTrial, "stopped": _Stopped,
}  # fmt: skip


class _Seed(Record):
    seed: int | None = None
    accuracy: Share | None = None
    validation: Share | None = None
    epoch: int | None = None


class _Spread(Record):
    mean: FiniteFloat
    deviation: FiniteFloat


class _Row(Record):
    name: Text
    trial: int | None = None
    searched: FiniteFloat | None = None
    validation: _Spread | None = None
    measured: _Spread | None = None
    interval_95: Interval | None = None
    per_seed: list[_Seed | Share] = Field(default=[])


class _Difference(Record):
    mean: FiniteFloat
    interval_95: Interval | None
    p_value: FiniteFloat | None
    test: Text = ""


class _Bin(Record):
    low: Share
    high: Share
    clips: Annotated[int, Field(ge=1)]
    accuracy: Share
    confidence: Share


class _Calibration(Record):
    temperature: Annotated[float, Field(gt=0)]
    bins_before: list[_Bin] = Field(default=[])
    bins_after: list[_Bin] = Field(default=[])
    ece_before: FiniteFloat
    ece_after: FiniteFloat


class _Ensemble(Record):
    accuracy: Share | None = None
    interval_95: Interval | None = None
    members: list[Text] = Field(default=[])


class _Group(Record):
    group: Text
    clips: Count
    accuracy: Share
    interval_95: Interval


class _Failed(Record):
    name: Text
    status: Text = ""
    message: Text = ""


class _HandedOver(Record):
    seed: int | None = None


class Result(Record):
    """retrained/result.json."""

    measured_on: Literal["test", "folds", "validation"]
    accuracy: Share
    config: dict[str, Any]
    clips: Count | None = None
    sentence: Text | None = None
    interval_95: Interval | None = None
    interval_groups: Count | None = None
    per_seed: list[_Seed | Share] = Field(default=[])
    chosen: Text | None = None
    candidates: list[_Row] = Field(default=[])
    baseline: _Row | None = None
    baseline_accuracy: Share | None = None
    difference: _Difference | None = None
    ensemble_accuracy: Share | None = None
    ensembles: dict[str, _Ensemble | None] = Field(default={})
    calibration: _Calibration | None = None
    model: _HandedOver | None = None
    winners_curse: dict[str, Any] | None = None
    groups: list[_Group] = Field(default=[])
    labels: list[Text] = Field(default=[])
    seeds: list[int] = Field(default=[])
    failed: list[_Failed] = Field(default=[])
    notes: list[Text] = Field(default=[])
    earlier: list[dict[str, Any]] = Field(default=[])
    command: list[str] | Text | None = None
    git_commit: Text | None = None
    created: Text = ""
