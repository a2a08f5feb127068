"""The sections of a space file beside its dimensions: budget, resources, scheduler, searcher; and durations."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from trainable.config import describe
from trainable.errors import did_you_mean, shown

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION_PART = r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([smhd])"  # a number and its unit


def parse_duration(text: str | float) -> float:
    """Seconds in a duration such as 90, "1e3", "45s", "30m" or "1h30m".

    Raises:
        ValueError: it is none, not above 0, or without an end.
    """
    said = str(text).strip().lower()
    try:
        seconds = float(said)
    except ValueError:
        parts = re.findall(DURATION_PART, said) if re.fullmatch(f"({DURATION_PART})+", said) else []
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds < math.inf:
        raise ValueError("must be a duration above 0 such as 45s, 30m or 1h30m")
    return seconds


def rungs_before(last: int, grace_epochs: int, reduction_factor: float) -> tuple[int, ...]:
    """The epochs before `last` after which ASHA may cut a trial: the grace period times powers of the factor.

    A rung between two epochs is reached with the later one, as Ray's scheduler has it.
    """
    rungs, rung = [], float(grace_epochs)
    while math.ceil(rung) < last:
        rungs.append(math.ceil(rung))
        rung *= reduction_factor
    return tuple(dict.fromkeys(rungs))


def check_gpus(each: float) -> None:
    """Checks that a trial can have this many GPUs.

    Raises:
        ValueError: it cannot, because a share is of one GPU.
    """
    if each > 1 and each != int(each):
        raise ValueError("must be a whole number above 1, or a fraction of one GPU")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Budget(_Section):
    """When a search ends, and how early ASHA may cut: whichever limit comes first."""

    trials: int = Field(32, ge=1, description="trials in all, baselines included")
    # One is faster on recorded trainings (tests/benchmarks/benchmark_efficiency.py); two leave time to a warmup.
    grace_epochs: int = Field(2, ge=1, description="epochs that every trial gets before it may be cut")
    # Jamieson and Talwalkar's eta; 3 is the value that the ASHA paper found hard to beat.
    reduction_factor: float = Field(3.0, gt=1, description="one in so many trials survives each rung")
    target_accuracy: float | None = Field(None, gt=0, le=1, description="stop at this validation accuracy, a fraction")
    gain: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="stop where as many trials again promise less accuracy than this, a fraction: 0.005",
    )
    folds: int | None = Field(
        None, ge=2, description="repeat what leads on so many folds of the clips that are not tested: 3; not in trials"
    )
    time: Annotated[float | None, BeforeValidator(lambda v: v if v is None else parse_duration(v))] = Field(
        None, description="stop after this wall time: seconds, or 45s, 30m, 1h30m"
    )


class Resources(_Section):
    """What each trial gets; left out, the machine decides."""

    gpu: float | None = Field(
        None, ge=0, description="GPUs per trial, may be a fraction of one; left out: 1 where there is one"
    )
    cpu: float | None = Field(
        None, gt=0, description="CPU cores per trial, also torch's threads; left out: as they fit"
    )

    at_once: int | None = Field(
        None, ge=1, description="trials that run at the same time at most; left out: as many as fit"
    )

    @field_validator("gpu")
    @classmethod
    def _whole_above_one(cls, gpu: float | None) -> float | None:
        if gpu is not None:
            check_gpus(gpu)
        return gpu


class Scheduler(_Section):
    """Whether bad trials are cut early."""

    kind: Literal["asha", "none"] = Field("asha", description="asha cuts at rungs; none runs every trial to its end")
    cut_baselines: bool = Field(False, description="whether baselines may be cut, too")


class Searcher(_Section):
    """Who proposes the trials."""

    kind: Literal["tpe", "random", "cmaes"] = Field("tpe", description="Optuna's sampler; cmaes wants numbers only")
    seed: int = Field(42, ge=0, description="decides every suggestion")
    startup_trials: int = Field(10, ge=1, description="random trials before the sampler starts to learn")  # Optuna's


class Constraints(_Section):
    """What a configuration may cost to use, so that nothing is trained that is of no use afterwards."""

    parameters: float | None = Field(None, gt=0, description="parameters of the network at most")
    operations: float | None = Field(None, gt=0, description="multiply-adds for a clip of the usual length at most")
    latency_ms: float | None = Field(
        None, gt=0, description="time from a clip of the usual length to its probabilities on this machine at most, ms"
    )

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by the names of the costs."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


S = TypeVar("S", bound=_Section)


def parse_section(name: str, model: type[S], raw: Any) -> tuple[S, list[str]]:
    """The section, with defaults in the place of what is wrong, and the problems."""
    if isinstance(raw, str) and "kind" in model.model_fields:
        raw = {"kind": raw}  # `scheduler: none` is short for {kind: none}
    if not isinstance(raw, Mapping):
        words = "YAML reads off and no as false: write none. " if raw is False and "kind" in model.model_fields else ""
        return model(), [f"{name}: must hold keys and values, got {shown(raw)}. {words}See spaces/quick.yaml."]
    fields = tuple(model.model_fields)
    problems = [
        f"{name}.{key}: unknown key, got {shown(value)}. {did_you_mean(str(key), fields)}"
        for key, value in raw.items()
        if key not in fields
    ]
    known = {key: value for key, value in raw.items() if key in fields}
    try:
        return model.model_validate(known), problems
    except ValidationError as error:
        problems += [f"{name}.{line}" for line in describe(error)]
        wrong = {problem["loc"][0] for problem in error.errors() if problem["loc"]}
    try:  # what is right goes on into the checks of how the sections go together
        return model.model_validate({key: value for key, value in known.items() if key not in wrong}), problems
    except ValidationError:
        return model(), problems
