"""Space files as people mistype them, and as nobody would write them: success or clear errors, in little time."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.space.load import load_space, shipped_spaces
from search.space.space import Space
from tests.support.spaces import problems_of, space_of
from trainable.config import FIELDS
from trainable.errors import InputError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scheduler: off", "YAML reads off and no as false: write none."),
        ("searcher: {kind: no}", "YAML reads yes, on, no and off as true and false: put the word into quotes."),
        ("fixed: {schedule: off}", "YAML reads yes, on, no and off as true and false: put the word into quotes."),
        ("baselines: [{name: no, lr: 1.0e-3}]", "baselines.1.name: must be a text, got False. Put it into quotes."),
        ("budget: {time: 1:30}", "budget.time: must be a duration above 0 such as 45s, 30m or 1h30m, got '1:30'."),
        ("fixed: {crop_seconds: 1:30}", "fixed.crop_seconds: should be a valid number, got '1:30'."),
        ("fixed: {epochs: 012}", "fixed.epochs: should be a valid integer, got '012'."),
        ("search: {f_max: {choice: [None, 4000.0]}}", "got 'None'. Write null where nothing is meant."),
        ("fixed: {f_max: nan}", "got 'nan'. Write null where nothing is meant."),
    ],
)
def test_what_yaml_reads_as_something_else_says_what_to_write(tmp_path: Path, text: str, words: str) -> None:
    assert any(words in line for line in problems_of(tmp_path, text)), problems_of(tmp_path, text)


def test_numbers_are_read_as_people_mean_them(tmp_path: Path) -> None:
    space = space_of(tmp_path, "fixed: {lr: 1e-3, f_min: 20., n_fft: 1_024, split_seed: 0x10, momentum: .5}\n"
                               "search: {weight_decay: {loguniform: [1E-5, 1.0e-2]}}")  # fmt: skip
    assert [space.fixed[name] for name in ("lr", "f_min", "n_fft", "split_seed", "momentum")] == [
        1e-3,
        20,
        1024,
        16,
        0.5,
    ]


@pytest.mark.parametrize("parent", ["lr: {loguniform: [1e-4, 1e-2]}", "lr: {uniform: [0.001, 0.002]}"])
def test_a_condition_on_a_number_that_is_never_drawn_exactly_is_refused(tmp_path: Path, parent: str) -> None:
    (line,) = problems_of(tmp_path, f"search:\n  {parent}\n  ema: {{uniform: [0.9, 0.99], when: {{lr: 0.001}}}}")
    assert "search.ema.when.lr: must be a dimension whose values can be listed" in line


def test_where_epochs_is_searched_only_sometimes_the_rungs_follow_the_longest_training(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        "search:\n  backbone: {choice: [resnet18, resnet50]}\n  epochs: {choice: [3], when: {backbone: resnet50}}\n"
        "budget: {grace_epochs: 2, reduction_factor: 3}",
    )
    assert space.max_epochs == 20  # the default, which ResNet18 has
    assert space.rungs == (2, 6, 18)


def test_two_baselines_of_equal_values_are_refused(tmp_path: Path) -> None:
    (line,) = problems_of(tmp_path, "search: {lr: {loguniform: [1e-4, 1e-2]}}\n"
                                    "baselines: [{name: one, lr: 1e-3}, {name: two, lr: 0.001}]")  # fmt: skip
    assert "baselines.two: must differ from one, got the same values." in line


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(97 + level)}: &{chr(97 + level)} [{', '.join(['*' + chr(96 + level)] * 10)}]\n" for level in range(1, 9)
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "must hold at most 20000 values, aliases written out"),
        (BOMB + "fixed: *i\n", "must hold at most 20000 values"),
        ("fixed: &a {epochs: *a}", "must not hold itself"),
        ("fixed: " + "[" * 200 + "]" * 200, "must not be nested deeper than 30 levels"),
        ("fixed: " + "[" * 200_000 + "]" * 200_000, "not valid YAML"),
        ("fixed: {backbone: " + "x" * 2_000_000 + "}", "must have at most 1000000 characters"),
        ("fixed: {backbone: " + "x" * 500_000 + "}", "fixed.backbone: "),
        (
            "search: {lr: {choice: [" + ", ".join(map(str, range(1, 5000))) + "]}}",
            "must list at most 1000 values, got 4999",
        ),
        ("x" * 900 + ": 1", "a key must have at most 200 characters"),
        ("search: {lr: {quniform: [0, 1, 1.0e-300]}}", "step must be at least"),
        ("search: {lr: {qloguniform: [1.0e-9, 1.0e+300, 1.0e-9]}}", "step must be at least"),
        ("search: {batch_size: {qrandint: [2, 1000000000000000000, 1]}}", "step must be at least"),
        ("fixed: {lr: 1e999}", "fixed.lr: "),
    ],
)
def test_what_would_take_gigabytes_or_minutes_is_refused_at_once_and_in_few_words(
    tmp_path: Path, text: str, words: str
) -> None:
    started = time.monotonic()
    lines = problems_of(tmp_path, text)
    assert any(words in line for line in lines), [line[:200] for line in lines]
    assert all(len(line) < 1000 for line in lines)
    assert time.monotonic() - started < 20


def test_many_conditions_are_counted_without_trying_every_sample(tmp_path: Path) -> None:
    names = ["time_masks", "freq_masks", "train_crops", "eval_crops", "patience", "freeze_stages", "step_size"]
    lines = [f"  {name}: {{choice: [1, 2, 3, 4, 5, 6, 7, 8]}}" for name in names]
    lines.append("  gamma: {choice: [0.1, 0.2], when: {" + ", ".join(f"{name}: [1, 2]" for name in names) + "}}")
    space = space_of(tmp_path, "fixed: {crop_seconds: 1.0, epochs: 9}\nsearch:\n" + "\n".join(lines))
    assert space.size == 8**7 + 2**7


SHIPPED = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(shipped_spaces().glob("*.yaml"))}
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-10, 10**30), st.floats(), st.text(max_size=20),
    st.lists(st.one_of(st.integers(-3, 400), st.floats(), st.none(), st.text(max_size=5)), max_size=4),
    st.dictionaries(st.sampled_from(["choice", "uniform", "randint", "when", "kind"]), st.integers(), max_size=2),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in nested mappings and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in items for place in places(child, (*path, key)))]


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_shipped_space_with_anything_put_anywhere_is_read_or_refused_with_its_place(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = copy.deepcopy(SHIPPED[data.draw(st.sampled_from(sorted(SHIPPED)), label="space")])
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        place = data.draw(st.sampled_from([place for place in places(raw) if place]), label="place")
        parent = raw
        for key in place[:-1]:
            parent = parent[key]
        action = data.draw(st.sampled_from(["replace", "drop", "add"]), label="action")
        if action == "drop":
            del parent[place[-1]]
        elif action == "add" and isinstance(parent, dict):
            parent[data.draw(st.sampled_from([*FIELDS, "name", "typo"]), label="key")] = data.draw(ODD, label="value")
        else:
            parent[place[-1]] = data.draw(ODD, label="value")
    file = tmp_path_factory.getbasetemp() / "space.yaml"
    try:
        file.write_text(yaml.safe_dump(raw, allow_unicode=False))
    except UnicodeEncodeError:  # a lone surrogate, which no file holds
        return
    started = time.monotonic()
    problems: tuple[str, ...] = ()
    try:
        assert isinstance(load_space(file), Space)
    except InputError as error:
        problems = error.problems
    assert all(problem.startswith(str(file)) for problem in problems)
    assert all(len(problem) < 1500 for problem in problems)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("folds", "rule"),
    [
        ("1", "budget.folds: should be greater than or equal to 2, got 1"),
        ("0", "budget.folds: should be greater than or equal to 2, got 0"),
        ("2.5", "budget.folds: should be a valid integer, got 2.5"),
        ("all", "budget.folds: should be a valid integer, got 'all'"),
    ],
)
def test_folds_that_cannot_be_are_refused(tmp_path: Path, folds: str, rule: str) -> None:
    (line,) = problems_of(tmp_path, f"search: {{lr: {{loguniform: [1e-4, 1e-2]}}}}\nbudget: {{folds: {folds}}}")
    assert line.startswith(rule)


def test_further_folds_go_on_from_the_splits_own(tmp_path: Path) -> None:
    text = "fixed: {val_fold: 2}\nsearch: {lr: {loguniform: [1e-4, 1e-2]}}\nbudget: {folds: 3}"
    (line,) = problems_of(tmp_path, text)
    assert line == "fixed.val_fold: must be 1 where budget.folds asks for further ones, got 2. Leave it out."
