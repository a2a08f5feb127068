"""A space file to a typed `Space`: fixed values, dimensions, conditions, baselines, budget; every error at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from pydantic import BaseModel, ValidationError

from search.space.dimension import Dimension, parse_dimension
from search.space.sections import Budget, Constraints, Resources, Scheduler, Searcher, rungs_before
from trainable.config import COUNTED_IN_EPOCHS, TrialConfig, describe
from trainable.errors import InputError
from trainable.training.network import checked_config


@dataclass(frozen=True)
class Baseline:
    """A trial that is evaluated before the sampler's own."""

    name: str
    values: dict[str, Any]  # the whole configuration
    params: dict[str, Any] | None  # its sample where it is a point of the space; None: the sampler never hears of it
    cut: bool = False  # it competes like a trial of the sampler's own, and is noted as one
    note: str = ""  # how it was completed, or why the sampler does not hear of it


_KEYS: dict[str, type] = {"source": str, "fixed": dict, "search": dict, "baselines": list, "budget": dict}
_SECTIONS: dict[str, type[BaseModel]] = {
    "budget": Budget, "resources": Resources, "scheduler": Scheduler, "searcher": Searcher,
    "constraints": Constraints,
}  # fmt: skip
_ABSENT, _OTHER = object(), object()  # no value, and one that no condition asks for


@dataclass(frozen=True)
class Space:
    """What is searched, and how. Build it with `load_space`."""

    source: str  # the file, for messages
    fixed: dict[str, Any]
    dimensions: dict[str, Dimension]  # parents before their children
    baselines: tuple[Baseline, ...]
    budget: Budget
    resources: Resources
    scheduling: Scheduler
    searcher: Searcher
    epochs: int | None = None  # --epochs: the horizon of every trial, baselines included
    constraints: Constraints = dataclasses.field(default_factory=Constraints)

    @property
    def scheduler(self) -> str:
        """Who cuts: "asha" or "none"."""
        return self.scheduling.kind

    def active(self, dimension: Dimension, sample: Mapping[str, Any]) -> bool:
        """Whether the dimension has a value, given those of its parents; a parent without a value leaves it none."""
        return all(parent in sample and sample[parent] in values for parent, values in dimension.when)

    def suggest(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """A sample, `{field: value}`, of the dimensions that are active in it."""
        sample: dict[str, Any] = {}
        for dimension in self.dimensions.values():
            if self.active(dimension, sample):
                sample[dimension.name] = dimension.suggest(trial)
        return sample

    def sample_of(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The sample that `values` make, and its fields that lie outside their dimensions: with any it is none."""
        sample: dict[str, Any] = {}
        outside = []
        for dimension in self.dimensions.values():
            if self.active(dimension, sample):
                sample[dimension.name] = values.get(dimension.name)
                if not dimension.contains(sample[dimension.name]):
                    outside.append(dimension.name)
        return sample, outside

    def config(self, sample: Mapping[str, Any], name: str = "") -> TrialConfig:
        """The configuration of a sample: its values, then the fixed ones, then the defaults.

        Raises:
            InputError: the values do not go together.
        """
        return checked_config(self.stretched({**self.fixed, **sample}), source=name or self.source)

    def default_config(self) -> TrialConfig:
        """The configuration in which every dimension has its usual value; its `SHARED_FIELDS` are everybody's."""
        return self.config(self.usual_sample())

    def usual_sample(self) -> dict[str, Any]:
        """The sample in which every active dimension has its usual value."""
        sample: dict[str, Any] = {}
        for dimension in self.dimensions.values():
            if self.active(dimension, sample):
                sample[dimension.name] = dimension.usual(TrialConfig.model_fields[dimension.name].default)
        return sample

    def stretched(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values` with the horizon of --epochs; what is counted in epochs shrinks or grows along."""
        if self.epochs is None:
            return dict(values)
        factor = self.epochs / values.get("epochs", TrialConfig.model_fields["epochs"].default)
        along = {name: scaled(values[name], factor) for name in COUNTED_IN_EPOCHS if values.get(name)}
        return {**values, **along, "epochs": self.epochs}

    def with_fixed(self, **values: Any) -> Space:
        """The space with these values fixed, for its baselines too."""
        baselines = tuple(dataclasses.replace(b, values={**b.values, **values}) for b in self.baselines)
        return dataclasses.replace(self, fixed={**self.fixed, **values}, baselines=baselines)

    def with_budget(self, **values: Any) -> Space:
        """The space with other limits, as `resume --trials` sets them."""
        return dataclasses.replace(self, budget=self.budget.model_copy(update=values))

    @property
    def max_epochs(self) -> int:
        """The longest horizon of a searched trial, epochs."""
        if self.fixed.get("method") == "probe":  # solved at once
            return 1
        if self.epochs is not None:
            return self.epochs
        default = int(self.fixed.get("epochs", TrialConfig.model_fields["epochs"].default))
        searched = self.dimensions.get("epochs")
        if searched is None:
            return default
        return int(max(*searched.corners(), default if searched.when else 0))  # where it is inactive, the default

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which a searched trial may be cut; none without ASHA."""
        if self.scheduler == "none":
            return ()
        return rungs_before(self.max_epochs, self.budget.grace_epochs, self.budget.reduction_factor)

    @property
    def device(self) -> str:
        """The device that the space fixes for its trials."""
        return str(self.fixed.get("device", "auto"))

    def weights_by_backbone(self) -> tuple[tuple[str, str], ...]:
        """Every pair of a backbone and its `weights` that a trial may have."""
        used = [(b.values["backbone"], b.values["weights"]) for b in self.baselines]
        return tuple(dict.fromkeys([*used, *self.searched_weights()]))

    def searched_weights(self) -> tuple[tuple[str, str], ...]:
        """Those pairs that the sampler may propose."""
        if not self.dimensions:
            return ()
        return tuple((name, weights) for name in self._values("backbone") for weights in self._values("weights", name))

    def without(self, backbones: Collection[str], baselines: Collection[str]) -> Space:
        """The space without these choices of `backbone`, what hangs on them, and the baselines of these names."""
        dimensions: dict[str, Dimension] = {}
        for dimension in self.dimensions.values():
            when = tuple(
                (parent, tuple(v for v in values if parent != "backbone" or v not in backbones))
                for parent, values in dimension.when
            )
            if dimension.name == "backbone" and dimension.kind == "choice":
                args = tuple(value for value in dimension.args if value not in backbones)
                dimension = dataclasses.replace(dimension, args=args)
            if all(values and parent in dimensions for parent, values in when):
                dimensions[dimension.name] = dataclasses.replace(dimension, when=when)
        kept = tuple(baseline for baseline in self.baselines if baseline.name not in baselines)
        return dataclasses.replace(self, dimensions=dimensions, baselines=kept)

    @property
    def size(self) -> int | None:
        """How many different samples there can be, None where there is no end of them; 0 without dimensions."""
        if not self.dimensions:
            return 0
        if any(dimension.size is None for dimension in self.dimensions.values()):
            return None
        return self._count(tuple(self.dimensions.values()), {}, {})

    def samples(self) -> Iterator[dict[str, Any]]:
        """All samples that there can be, where there is an end of them."""
        return self._beginning_with({}, tuple(self.dimensions.values()))

    def _beginning_with(self, sample: dict[str, Any], dimensions: tuple[Dimension, ...]) -> Iterator[dict[str, Any]]:
        if not dimensions:
            yield sample
            return
        first, rest = dimensions[0], dimensions[1:]
        values = first.values() if self.active(first, sample) else (_ABSENT,)
        for value in values:
            yield from self._beginning_with(sample if value is _ABSENT else {**sample, first.name: value}, rest)

    def _count(self, dimensions: tuple[Dimension, ...], sample: Mapping[str, Any], known: dict[Any, int]) -> int:
        """How many samples begin with `sample`, whose values are those of the dimensions before these.

        Only those values matter that a later condition asks for; what is counted with them is kept in `known`.
        """
        if not dimensions:
            return 1
        parents = {parent for dimension in dimensions for parent, _ in dimension.when}
        key = (len(dimensions), tuple((name, sample.get(name, _ABSENT)) for name in sorted(parents)))
        if key not in known:
            known[key] = self._count_from(dimensions, sample, known)
        return known[key]

    def _count_from(self, dimensions: tuple[Dimension, ...], sample: Mapping[str, Any], known: dict[Any, int]) -> int:
        first, rest = dimensions[0], dimensions[1:]
        if not self.active(first, sample):
            return self._count(rest, sample, known)
        asked = {value for other in rest for parent, values in other.when if parent == first.name for value in values}
        counts = [self._count(rest, {**sample, first.name: value}, known) for value in asked]
        if others := (first.size or 0) - len(asked):  # values that no condition asks for, all alike
            counts.append(others * self._count(rest, {**sample, first.name: _OTHER}, known))
        return sum(counts)

    @property
    def trials(self) -> int:
        """How many trials a search makes: its budget, or fewer where baselines and samples are used up before."""
        if self.size is None:
            return self.budget.trials
        points = {frozenset(baseline.params.items()) for baseline in self.baselines if baseline.params}
        return min(self.budget.trials, len(self.baselines) + self.size - len(points))

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` turns back into an equal space."""
        return {
            "source": self.source,
            "fixed": self.fixed,
            "search": {name: dimension.to_json() for name, dimension in self.dimensions.items()},
            "baselines": [dataclasses.asdict(baseline) for baseline in self.baselines],
            "budget": self.budget.model_dump(),
            "resources": self.resources.model_dump(),
            "scheduler": self.scheduling.model_dump(),
            "searcher": self.searcher.model_dump(),
            "epochs": self.epochs,
            "constraints": self.constraints.model_dump(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Space:
        """The space that `to_json` has written; how its values go together is not checked again.

        Raises:
            InputError: somebody has edited it, or another version has written it, with what this one does not know.
        """
        wrong = [name for name, kind in _KEYS.items() if not isinstance(values.get(name), kind)]
        if wrong:
            raise InputError(
                f"run.json: space.{wrong[0]}: must be as a space has it, got another. Put back a copy of it."
            )
        parsed = {name: parse_dimension(name, raw) for name, raw in values["search"].items()}
        problems = [f"{values['source']}: {line}" for _, found in parsed.values() for line in found]
        sections: dict[str, Any] = {}
        for name, section in _SECTIONS.items():
            try:
                sections[name] = section.model_validate(values.get(name, {}))  # older runs have no constraints
            except ValidationError as error:
                problems += [f"{values['source']}: {name}.{line}" for line in describe(error)]
        fixed = dict(values["fixed"])
        mappings = {"fixed": fixed, **{f"baselines.{each['name']}": each["values"] for each in values["baselines"]}}
        for name, mapping in mappings.items():
            try:
                TrialConfig.model_validate(mapping)
            except ValidationError as error:
                problems += [f"{values['source']}: {name}.{line}" for line in describe(error)]
        if problems:
            raise InputError([f"run.json, of {problem}" for problem in problems])
        return cls(
            values["source"],
            fixed,
            {name: dimension for name, (dimension, _) in parsed.items() if dimension},
            tuple(Baseline(**baseline) for baseline in values["baselines"]),
            sections["budget"],
            sections["resources"],
            sections["scheduler"],
            sections["searcher"],
            values.get("epochs"),
            sections["constraints"],
        )

    def _values(self, name: str, backbone: str | None = None) -> tuple[Any, ...]:
        """The values that a field may have in a sample; of this backbone, where one is named."""
        otherwise = (self.fixed.get(name, TrialConfig.model_fields[name].default),)
        dimension = self.dimensions.get(name)
        if dimension is None:
            return otherwise
        if backbone is not None and any(p == "backbone" and backbone not in values for p, values in dimension.when):
            return otherwise
        always = all(parent == "backbone" for parent, _ in dimension.when) if backbone else not dimension.when
        return dimension.corners() if always else tuple(dict.fromkeys((*dimension.corners(), *otherwise)))


def scaled(epochs: int, factor: float) -> int:
    """A number of epochs on another horizon: at least one, never more than its share."""
    return max(1, int(epochs * factor + 1e-9))
