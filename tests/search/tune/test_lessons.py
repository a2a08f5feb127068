from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.report.facts import record
from search.runs.journal import Journal
from search.runs.run import RunFolder
from search.space.space import Space
from search.tune import study
from search.tune.lessons import Encoder, Lessons, Seen, agreement, key_of, lesson_of, told, worth_it
from search.tune.prepare import check_learning
from search.tune.searcher import StudySearch
from search.tune.study import beliefs_of
from tests.support.spaces import space_of
from tests.support.stepping import FINISHED, events, new_journal, step_through
from trainable.config import TrialConfig
from trainable.errors import Diverged, InputError, TrialEnded

SPACE = """
    fixed: {epochs: 4, weights: none}
    search:
      backbone: {choice: [resnet18, mobilenet_v3_small, squeezenet1_1]}
      lr: {loguniform: [1e-5, 1e-1]}
      n_mels: {qrandint: [32, 128, 32]}
      schedule: {choice: [constant, step]}
      step_size: {randint: [2, 5], when: {schedule: step}}
    budget: {trials: 16, grace_epochs: 2, reduction_factor: 2}
    searcher: {startup_trials: 6}
"""
Train = Callable[[TrialConfig], list[float | TrialEnded]]


def peaked_at(lr: float, scale: float = 1.0) -> Train:
    """Trainings that are the better the nearer their rate is to `lr`."""

    def train(config: TrialConfig) -> list[float | TrialEnded]:
        if config.lr > 0.08:
            return [Diverged("nan")]
        best = scale * (0.9 - 0.15 * abs(np.log10(config.lr / lr)))
        return [float(best * (1 - 0.5**epoch)) for epoch in range(1, config.epochs + 1)]

    return train


def earlier_run(folder: Path, name: str, train: Train, text: str = SPACE, trials: int = 40) -> RunFolder:
    home = folder / name
    home.mkdir()
    space = space_of(home, text.replace("trials: 16", f"trials: {trials}"))
    journal = new_journal(home)
    step_through(space, journal, workers=2, train=train)
    return RunFolder(home, {"space": space.to_json(), "split": {"hash": "another"}}, journal)


def search_with(space: Space, folder: Path, train: Train, *runs: RunFolder) -> Journal:
    journal = new_journal(folder)
    searcher = StudySearch(space, journal)
    for run in runs:
        searcher.add_lessons(run)
    step_through(space, Journal(journal.path), workers=2, train=train)
    return Journal(journal.path)


def near(journal: Journal, lr: float, first: int) -> int:
    """How many of the first trials have their rate within a third of a decade of `lr`."""
    return sum(abs(np.log10(trial.params["lr"] / lr)) < 1 / 3 for trial in list(journal.trials.values())[:first])


@pytest.mark.slow
def test_what_was_good_on_other_data_is_tried_soon_whatever_its_accuracy_was(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    run = earlier_run(tmp_path, "other", peaked_at(1e-3, scale=0.3))
    taught = search_with(space, tmp_path / "taught", peaked_at(1e-3), run)
    cold = search_with(space, tmp_path / "cold", peaked_at(1e-3))
    assert near(taught, 1e-3, first=10) >= 4 > near(cold, 1e-3, first=10)


@pytest.mark.slow
def test_a_run_that_misleads_is_let_go_one_that_does_not_is_kept_and_the_report_says_so(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    right = earlier_run(tmp_path, "right", peaked_at(1e-3))
    wrong = earlier_run(tmp_path, "wrong", lambda config: [1 - float(v) for v in peaked_at(1e-3)(config)]  # type: ignore[arg-type]
                        if config.lr < 0.08 else [0.9] * config.epochs)  # fmt: skip
    journal = search_with(space, tmp_path / "run", peaked_at(1e-3), right, wrong)
    beliefs = {Path(run).name: belief for run, belief in beliefs_of(space, journal).items()}
    assert beliefs["wrong"] < 0.1 < 0.4 < beliefs["right"]
    said = dict(record(RunFolder(tmp_path / "run", {"space": space.to_json()}, journal)).pairs)["learned from"]
    assert said.startswith(f"right: 40 trials, rank agreement {beliefs['right']:.2f} in the end; wrong: ")


@pytest.mark.slow
@pytest.mark.parametrize("let_go", ["beliefs", "worth_it"])
def test_where_runs_are_not_believed_or_bring_nothing_the_proposals_are_those_of_a_cold_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, let_go: str
) -> None:
    space = space_of(tmp_path, SPACE)
    run = earlier_run(tmp_path, "other", peaked_at(1e-3))
    if let_go == "beliefs":
        monkeypatch.setattr(Lessons, "beliefs", lambda self, own: dict.fromkeys(self._voters, 0.0))
    else:
        monkeypatch.setattr(study, "worth_it", lambda guided, others: False)
    taught = search_with(space, tmp_path / "taught", peaked_at(1e-3), run)
    cold = search_with(space, tmp_path / "cold", peaked_at(1e-3))
    assert [trial.params for trial in taught.trials.values()] == [trial.params for trial in cold.trials.values()]


@pytest.mark.slow
def test_earlier_runs_choose_no_first_trials_and_then_every_second_one(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    run = earlier_run(tmp_path, "other", peaked_at(1e-3))
    journal = search_with(space, tmp_path / "run", peaked_at(1e-3), run)
    chosen = [trial.number for trial in journal.trials.values() if "fixed_params" in trial.sampler["attrs"]]
    assert len(chosen) >= 4
    assert min(chosen) >= 3  # a rank correlation takes three
    assert not any(number % 2 for number in chosen)


def test_guiding_goes_on_while_the_latest_guided_trials_do_as_well_as_the_latest_others() -> None:
    assert worth_it([0.1, 0.1], [0.9] * 9)  # two say nothing
    assert worth_it([0.1] * 9, [0.9, 0.9])
    assert worth_it([0.5, 0.6, 0.7], [0.4, 0.6, 0.8])
    assert not worth_it([0.5, 0.6, 0.6], [0.4, 0.6, 0.8])
    assert worth_it([0.0] * 6 + [0.6] * 6, [1.0] * 6 + [0.5] * 6)
    assert not worth_it([1.0] * 6 + [0.4] * 6, [0.0] * 6 + [0.5] * 6)


@pytest.mark.slow
def test_a_taught_search_proposes_after_a_kill_what_it_would_have_without_the_other_run(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    run = earlier_run(tmp_path, "other", peaked_at(1e-3))
    whole = search_with(space, tmp_path / "whole", peaked_at(3e-3), run)
    shutil.rmtree(run.path)
    assert any(trial.sampler.get("rejected") for trial in whole.trials.values())
    lines = whole.path.read_bytes().splitlines(keepends=True)
    suggested = [position for position, event in enumerate(events(whole)) if event["event"] == "suggested"]
    for position in suggested[::3]:
        prefix = tmp_path / f"prefix{position}" / "events.jsonl"
        prefix.parent.mkdir()
        prefix.write_bytes(b"".join(lines[:position]) + lines[position][:40])
        journal = Journal(prefix)
        searcher = StudySearch(space, journal)
        for _ in range(len(journal.unfinished) + 1):
            assert searcher.suggest("ray") != FINISHED
        assert events(journal)[-1] == events(whole)[position]


@pytest.mark.slow
def test_no_configuration_is_tried_twice_and_a_small_space_is_used_up(tmp_path: Path) -> None:
    text = """
        fixed: {epochs: 4, weights: none}
        search: {lr: {choice: [1e-4, 1e-3, 1e-2]}, n_mels: {choice: [32, 64]}}
        budget: {trials: 16, grace_epochs: 2}
    """
    run = earlier_run(tmp_path, "other", peaked_at(1e-3))
    journal = search_with(space_of(tmp_path, text), tmp_path / "run", peaked_at(1e-3), run)
    assert len({key_of(trial.params) for trial in journal.trials.values()}) == len(journal.trials) == 6


@pytest.mark.slow
def test_a_lesson_says_what_it_teaches_what_it_leaves_open_and_what_was_left_out(tmp_path: Path) -> None:
    other = SPACE.replace("n_mels: {qrandint: [32, 128, 32]}", "mixup: {choice: [0.0, 0.2]}").replace(
        "squeezenet1_1]", "densenet121]"
    )
    run = earlier_run(
        tmp_path, "other", peaked_at(1e-3), other.replace("budget", "baselines: [tutorial-simple]\n    budget")
    )
    lesson = lesson_of(space_of(tmp_path, SPACE), run)
    assert lesson.teaches == ("backbone", "lr", "schedule", "step_size")
    assert lesson.left_out == {"a baseline outside its space": 1}
    assert lesson.notes == (
        "nothing of n_mels, which it did not vary", "nothing of backbone squeezenet1_1, which it did not try"
    )  # fmt: skip
    assert told(lesson).startswith(
        "learning from other: 39 trials teach backbone, lr, schedule, step_size; 1 left out: "
    )
    broken = [seen for seen in lesson.seen if seen.values["lr"] > 0.08]
    assert broken
    assert {seen.standing for seen in broken} == {0.0}


def test_a_run_of_few_trials_teaches_nothing_and_says_so(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    run = earlier_run(tmp_path, "other", peaked_at(1e-3), trials=3)
    journal = new_journal(tmp_path / "run")
    lesson = StudySearch(space, journal).add_lessons(run)
    assert (lesson.seen, lesson.left_out) == ((), {"too few to compare": 3})
    assert told(lesson) == "learning from other: it teaches nothing; 3 left out: too few to compare"
    assert journal.lessons == []


def test_a_run_is_learned_from_once(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    run = earlier_run(tmp_path, "other", peaked_at(1e-3), trials=8)
    journal = new_journal(tmp_path / "run")
    for _ in range(2):
        StudySearch(space, journal).add_lessons(run)
    assert len(journal.lessons) == 1


def test_samples_become_rows_in_which_a_missing_value_differs_from_all_others(tmp_path: Path) -> None:
    text = """
        fixed: {weights: none}
        search:
          backbone: {choice: [resnet18, resnet50]}
          lr: {loguniform: [1e-4, 1e-2]}
          crop_seconds: {choice: [1.0, 3.0, null]}
    """
    rows = Encoder(space_of(tmp_path, text)).rows([
        {"backbone": "resnet50", "lr": 1e-3, "crop_seconds": 2.0},
        {"backbone": "resnet34", "lr": 1e-9, "crop_seconds": None},
    ])  # fmt: skip
    assert rows == pytest.approx(np.array([[0, 1, 0.5, 0.5], [0, 0, -0.5, -1]]))


def test_agreement_is_spearmans_and_nothing_where_there_is_nothing_to_compare() -> None:
    one = np.array([1.0, 2.0, 3.0, 4.0])
    assert agreement(one, one**3) == pytest.approx(1.0)
    assert agreement(one, -one) == pytest.approx(-1.0)
    assert agreement(one, np.array([1.0, 1.0, 2.0, 2.0])) == pytest.approx(0.894, abs=1e-3)
    assert agreement(one, np.ones(4)) == agreement(one[:2], one[:2]) == 0.0


def test_belief_begins_with_none_and_follows_what_is_seen(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE)
    lessons = Lessons(space)
    rates = np.geomspace(1e-5, 1e-1, 12)

    def seen(rising: bool) -> list[Seen]:
        places = np.linspace(0, 1, 12) if rising else np.linspace(1, 0, 12)
        fixed: dict[str, Any] = {"backbone": "resnet18", "n_mels": 64, "schedule": "constant"}
        return [Seen({**fixed, "lr": float(lr)}, float(place)) for lr, place in zip(rates, places, strict=True)]

    lessons.add("run", seen(rising=True))
    assert lessons.beliefs([]) == {"run": 0.0}
    assert lessons.beliefs(seen(rising=True))["run"] == pytest.approx(12 / 18, abs=0.02)
    assert lessons.beliefs(seen(rising=False))["run"] == 0.0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("    searcher: {kind: random}", "--learn-from: needs searcher.kind tpe, got random"),
        ("    search: {}\n    baselines: [tutorial-simple]", "--learn-from: needs something to search, got none"),
    ],
)
def test_learning_is_refused_where_nobody_would_listen(tmp_path: Path, more: str, message: str) -> None:
    text = "\n    fixed: {epochs: 4, weights: none}\n" + more
    if "search:" not in more:
        text += "\n    search: {lr: {loguniform: [1e-5, 1e-1]}}"
    space = space_of(tmp_path, text)
    check_learning(space, [])
    with pytest.raises(InputError, match=message):
        check_learning(space, [tmp_path / "other"])
