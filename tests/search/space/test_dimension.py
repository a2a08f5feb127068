from __future__ import annotations

import json

import optuna
import pytest
from optuna.samplers import RandomSampler
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from search.space.dimension import KINDS, Dimension, parse_dimension
from search.space.load import parse_search

SAMPLES = {
    "choice": ("backbone", ["resnet18", "resnet34"]),
    "uniform": ("dropout", [0.0, 0.5]),
    "quniform": ("dropout", [0.0, 0.5, 0.1]),
    "loguniform": ("lr", [1e-5, 1e-2]),
    "qloguniform": ("lr", [1e-4, 1e-2, 1e-4]),
    "randint": ("step_size", [2, 5]),
    "qrandint": ("n_mels", [32, 96, 32]),
    "lograndint": ("n_mels", [16, 256]),
}


def parsed(kind: str) -> Dimension:
    name, args = SAMPLES[kind]
    dimension, problems = parse_dimension(name, {kind: args})
    assert dimension, problems
    return dimension


def drawn(dimension: Dimension, count: int = 200) -> list[object]:
    study = optuna.create_study(sampler=RandomSampler(0))
    return [dimension.suggest(study.ask()) for _ in range(count)]


def test_every_distribution_of_ray_tune_that_optuna_can_take_has_an_example() -> None:
    assert SAMPLES.keys() == KINDS.keys()
    assert all(hasattr(tune, kind) for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_values_lie_inside_and_reach_what_ray_tune_reaches(kind: str) -> None:
    dimension = parsed(kind)
    values = drawn(dimension)
    assert all(dimension.contains(value) for value in values)
    _, args = SAMPLES[kind]
    domain = getattr(tune, kind)(args) if kind == "choice" else getattr(tune, kind)(*args)
    theirs = {round(value, 9) if isinstance(value, float) else value for value in domain.sample(size=400)}
    if dimension.size is not None and dimension.size < 10:
        assert set(values) == theirs
    else:
        assert min(theirs) >= dimension.bounds[0]
        assert max(theirs) <= dimension.bounds[1]


def test_bounds_follow_ray_tune_in_leaving_the_upper_one_out_or_in() -> None:
    assert set(drawn(parsed("randint"))) == {2, 3, 4}
    assert set(drawn(parsed("qrandint"))) == {32, 64, 96}
    assert parsed("lograndint").bounds == (16, 255)
    whole = parse_dimension("step_size", {"qrandint": [2, 5]})[0]
    assert whole
    assert set(drawn(whole)) == {2, 3, 4, 5}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"qloguniform", "quniform"}))
def test_optuna_samples_the_distribution_that_ray_makes_of_the_same_words(kind: str) -> None:
    name, args = SAMPLES[kind]
    domain = getattr(tune, kind)(args) if kind == "choice" else getattr(tune, kind)(*args)
    assert parsed(kind).distribution == OptunaSearch.convert_search_space({name: domain})[name]


def test_ray_drops_the_quantum_of_a_logarithmic_distribution_which_is_why_we_count_steps() -> None:
    converted = OptunaSearch.convert_search_space({"lr": tune.qloguniform(1e-4, 1e-2, 1e-4)})["lr"]
    assert converted.step is None
    assert all(round(float(str(value)) / 1e-4, 6).is_integer() for value in drawn(parsed("qloguniform")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_comes_back_from_json_as_exactly_what_optuna_drew(kind: str) -> None:
    dimension = parsed(kind)
    for value in drawn(dimension, 50):
        again = json.loads(json.dumps(value))
        internal = dimension.distribution.to_internal_repr(dimension.to_optuna(value))
        assert dimension.distribution.to_internal_repr(dimension.to_optuna(again)) == internal
        assert dimension.from_optuna(dimension.to_optuna(again)) == value


def test_quantised_values_read_as_people_write_them() -> None:
    assert set(drawn(parsed("quniform"))) == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}


@pytest.mark.parametrize(
    ("kind", "default", "usual"),
    [
        ("choice", "resnet34", "resnet34"),
        ("choice", "vgg11", "resnet18"),
        ("uniform", 0.9, 0.25),
        ("quniform", 0.7, 0.2),
        ("loguniform", 1.0, pytest.approx(10**-3.5)),
        ("qrandint", 128, 64),
        ("lograndint", 512, 64),
        ("qloguniform", 1e-4, 1e-4),
    ],
)
def test_the_usual_value_is_the_default_where_it_fits_and_the_middle_elsewhere(
    kind: str, default: object, usual: object
) -> None:
    assert parsed(kind).usual(default) == usual


@pytest.mark.parametrize("kind", KINDS)
def test_the_usual_value_lies_inside(kind: str) -> None:
    assert parsed(kind).contains(parsed(kind).usual(None))


def test_true_is_not_one() -> None:
    dimension = parse_dimension("warmup_epochs", {"choice": [0, 1]})[0]
    assert dimension
    assert not dimension.contains(True)
    assert dimension.contains(1)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"choise": [1]}, "choise: unknown distribution, got [1]. Did you mean choice?"),
        ({"randn": [0, 1]}, "Optuna cannot sample it: use uniform."),
        ({"choice": [1], "uniform": [0, 1]}, "exactly one distribution, got choice and uniform"),
        ({"when": {"scale": "log"}}, "exactly one distribution, got none"),
        ([1, 2], "got [1, 2]. Write {choice: [1, 2]}."),
        (3, "To fix lr, put it under fixed."),
        ({"uniform": [1]}, "must be [lower, upper], got [1]"),
        ({"uniform": [2, 1]}, "lower must not pass upper, got [2, 1]"),
        ({"uniform": ["a", 1]}, "got ['a', 1]. Write numbers."),
        ({"uniform": [0, float("inf")]}, "Write numbers."),
        ({"loguniform": [0, 1]}, "must be above 0 on a logarithmic scale, got 0. Raise it, or use uniform."),
        ({"randint": [3, 3]}, "upper, which is left out, got [3, 3]"),
        ({"randint": [1.5, 3]}, "Write whole numbers."),
        ({"quniform": [0, 1]}, "must be [lower, upper, step]"),
        ({"quniform": [0, 1, 0.3]}, "multiples of the step 0.3, got 1"),
        ({"qrandint": [5, 7, 4]}, "must hold a multiple of the step 4, got [5, 7]"),
        ({"qrandint": [4, 8, 0]}, "step must be above 0, got 0"),
        ({"choice": [1, 1]}, "every value once, got 1 twice"),
        ({"choice": [[1]]}, "plain values, got [1]"),
        ({"choice": []}, "must be [value, value, ...], got []"),
        ({"choice": [1], "when": "log"}, "when: must map a dimension to a value, got 'log'"),
        ({"choice": [1], "when": {"scale": []}}, "when.scale: must name at least one value, got []"),
    ],
)
def test_a_dimension_that_cannot_be_read_says_the_rule_and_the_value(raw: object, words: str) -> None:
    dimension, problems = parse_dimension("lr", raw)
    assert dimension is None
    assert words in " ".join(problems)
    assert all(line.startswith("search.lr") for line in problems)


def test_a_dimension_survives_the_way_through_json() -> None:
    raw = {"qrandint": [32, 96, 32], "when": {"scale": ["log", "db"]}}
    dimension = parse_dimension("n_mels", raw)[0]
    assert dimension
    assert parse_dimension("n_mels", json.loads(json.dumps(dimension.to_json())))[0] == dimension


def test_parents_come_before_their_children_wherever_they_stand_in_the_file() -> None:
    raw = {
        "gamma": {"uniform": [0.1, 0.5], "when": {"step_size": [3, 4]}},
        "step_size": {"randint": [2, 5], "when": {"schedule": "step"}},
        "schedule": {"choice": ["step", "cosine"]},
    }
    dimensions, problems = parse_search(raw, {})
    assert problems == []
    assert list(dimensions) == ["schedule", "step_size", "gamma"]
