"""`study.db` shows the run as it is, at every moment, under an open reader, with the run's own numbers."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import optuna
import pytest
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from search.commands.session import without_harm
from search.runs.journal import Journal
from search.runs.run import best_of
from search.space.space import Space
from search.tune.study_file import METRIC, StudyFile, write_study
from tests.support.spaces import space_of
from tests.support.stepping import new_journal, step_through

SPACE = """
    fixed: {epochs: 6, weights: none}
    search:
      lr: {loguniform: [1e-3, 1.0]}
      n_mels: {qrandint: [32, 128, 32]}
      mixup: {quniform: [0.0, 0.4, 0.1]}
      optimizer: {choice: [adamw, sgd]}
      momentum: {uniform: [0.5, 0.9], when: {optimizer: sgd}}
    baselines: [tutorial-simple]
    budget: {trials: 12, grace_epochs: 2, reduction_factor: 2}
"""
PARAMS = {"lr": 1e-3, "n_mels": 32, "mixup": 0.1, "optimizer": "adamw"}


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return space_of(tmp_path, SPACE)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return new_journal(tmp_path / "run")


def path_of(journal: Journal) -> Path:
    return journal.path.with_name("study.db")


def study_of(journal: Journal) -> optuna.Study:
    """The study as a reader of its own opens it."""
    return optuna.load_study(study_name=journal.path.parent.name, storage=f"sqlite:///{path_of(journal)}")


@pytest.mark.slow
def test_it_is_in_step_after_every_event_for_a_reader_that_has_it_open(space: Space, journal: Journal) -> None:
    file = StudyFile(space, journal, path_of(journal))
    reader = study_of(journal)  # before the first trial, and never opened again
    inode = path_of(journal).stat().st_ino

    def same(event: dict[str, object]) -> None:
        file.on_event(event)
        if event["event"] != "reported" or event["epoch"] == 1:
            shown = reader.get_trials()
            assert [trial.number for trial in shown] == list(journal.trials)
            assert [len(trial.intermediate_values) for trial in shown] == [
                len(trial.reports) for trial in journal.trials.values()
            ]
            assert [trial.state.is_finished() for trial in shown] == [trial.over for trial in journal.trials.values()]

    journal.listen(same)
    step_through(space, journal, workers=3)
    best = best_of(journal.trials.values(), space.budget.grace_epochs)
    assert best
    assert (reader.best_trial.number, reader.best_value) == (best.trial.number, best.accuracy)
    assert reader.user_attrs["best"] == f"trial {best.trial.number}, {best.accuracy:.4f} at epoch {best.epoch}"
    assert reader.metric_names == [METRIC]
    assert path_of(journal).stat().st_ino == inode
    for trial, shown in zip(journal.trials.values(), reader.get_trials(), strict=True):
        assert trial.params == (shown.params if trial.params else {})
        assert shown.user_attrs["status"] == trial.status
        assert shown.datetime_start is not None
        assert shown.datetime_start.timestamp() == pytest.approx(trial.started, abs=1e-3)


@pytest.mark.slow
def test_a_baseline_outside_the_space_has_its_own_number_and_values_and_hides_no_importance(
    space: Space, journal: Journal
) -> None:
    step_through(space, journal)
    assert journal.trials[0].params == {}
    write_study(space, journal, path_of(journal))
    study = study_of(journal)
    baseline = study.get_trials()[0]
    assert baseline.user_attrs["name"] == "tutorial-simple"
    assert (baseline.params["lr"], baseline.params["optimizer"]) == (1e-4, "adam")  # neither is a point of the space
    assert set(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())) >= {"lr", "n_mels", "mixup"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "values", "state", "value"),
    [
        ("finished", [0.2, 0.6, 0.5, 0.5, 0.5, 0.4], TrialState.COMPLETE, 0.6),
        ("cut", [0.3, 0.2], TrialState.PRUNED, 0.2),
        ("cut", [0.3, 0.4, 0.2], TrialState.COMPLETE, 0.4),  # it leads all the same
        ("diverged", [0.9, 0.8, 0.9], TrialState.COMPLETE, 0.9),
        ("diverged", [0.9], TrialState.FAIL, None),
        ("out_of_memory", [], TrialState.FAIL, None),
        ("failed", [0.5, 0.7], TrialState.COMPLETE, 0.7),
        ("failed", [0.5], TrialState.FAIL, None),
        (None, [0.4, 0.5], TrialState.RUNNING, None),
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_each_end_is_worth_what_the_rule_for_the_best_makes_of_it(
    space: Space, journal: Journal, status: str | None, values: list[float], state: TrialState,
    value: float | None, live: bool,
) -> None:  # fmt: skip
    if live:
        journal.listen(StudyFile(space, journal, path_of(journal)).on_event)
    journal.suggested("search", "", PARAMS, {"epochs": 6})
    for epoch, reported in enumerate(values, start=1):
        journal.reported(0, epoch, reported, 1.0, "cut" if status == "cut" and epoch == len(values) else "continue")
    if status:
        journal.ended(0, status, "why")  # type: ignore[arg-type]
    if not live:
        write_study(space, journal, path_of(journal))
    (shown,) = study_of(journal).get_trials()
    assert (shown.state, shown.value, shown.params) == (state, value, PARAMS)
    best = best_of(journal.trials.values(), 2)
    assert (best.accuracy if best and status else None) == (value if state == TrialState.COMPLETE else None)


@pytest.mark.slow
def test_a_trial_that_is_retried_runs_again_under_its_number(space: Space, journal: Journal) -> None:
    file = StudyFile(space, journal, path_of(journal))
    journal.listen(file.on_event)
    journal.suggested("search", "", PARAMS, {"epochs": 6})
    journal.ended(0, "failed", "the mount is gone")
    journal.retried(0)
    assert [trial.state for trial in study_of(journal).get_trials()] == [TrialState.RUNNING]
    for epoch in (1, 2, 3):
        journal.reported(0, epoch, 0.5, 1.0, "continue")
    journal.ended(0, "finished")
    (shown,) = study_of(journal).get_trials()
    assert (shown.state, shown.value, len(shown.intermediate_values)) == (TrialState.COMPLETE, 0.5, 3)


@pytest.mark.slow
@pytest.mark.parametrize("left", ["half", "no database", "another run's", "nothing", "an export of an older version"])
def test_what_was_left_there_is_brought_up_to_date_or_made_anew(
    space: Space, journal: Journal, tmp_path: Path, left: str
) -> None:
    path = path_of(journal)
    if left == "half":
        events: list[dict[str, object]] = []
        file = StudyFile(space, journal, path)
        journal.listen(lambda event: (events.append(event), file.on_event(event) if len(events) < 25 else None))
    step_through(space, journal, workers=2)
    if left == "no database":
        path.write_text("<html>")
    elif left == "another run's":
        other = new_journal(tmp_path / "other" / "run")
        step_through(space, other)
        write_study(space, other, path)
    elif left == "an export of an older version":
        old = optuna.create_study(storage=f"sqlite:///{path}", study_name="run", direction="maximize")
        old.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"number": 3}))
    write_study(space, journal, path)
    shown = study_of(journal).get_trials()
    assert [trial.user_attrs["status"] for trial in shown] == [trial.status for trial in journal.trials.values()]
    assert [len(trial.intermediate_values) for trial in shown] == [
        len(trial.reports) for trial in journal.trials.values()
    ]


@pytest.mark.slow
def test_a_reader_that_holds_it_for_long_costs_a_search_nothing_but_the_wait(
    space: Space, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.tune.study_file._PATIENCE_S", 0.05)
    warnings: list[str] = []
    journal.listen(without_harm(StudyFile(space, journal, path_of(journal)).on_event, warnings.append))
    holder = sqlite3.connect(path_of(journal))
    holder.execute("BEGIN EXCLUSIVE")
    journal.suggested("search", "", PARAMS, {"epochs": 6})
    journal.reported(0, 1, 0.5, 1.0, "continue")
    holder.rollback()
    assert warnings
    journal.reported(0, 2, 0.6, 1.0, "continue")
    (shown,) = study_of(journal).get_trials()
    assert shown.intermediate_values == {1: 0.5, 2: 0.6}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["which?", "a%20b", "100%", "a#b{c}"])
def test_it_is_written_into_folders_whose_names_mean_something_in_a_url(
    space: Space, tmp_path: Path, name: str
) -> None:
    journal = new_journal(tmp_path / name)
    journal.suggested("search", "", PARAMS, {"epochs": 6})
    write_study(space, journal, tmp_path / name / "study.db")
    shutil.copy(tmp_path / name / "study.db", tmp_path / "plain.db")
    assert len(optuna.load_study(study_name=name, storage=f"sqlite:///{tmp_path / 'plain.db'}").trials) == 1
    assert {file.name for file in tmp_path.iterdir()} == {"plain.db", "space.yaml", name}


@pytest.mark.slow
def test_a_baseline_that_does_without_what_is_searched_on_a_logarithmic_scale_is_in_it(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """
        fixed: {epochs: 2, weights: none}
        search:
          optimizer: {choice: [adamw, adam]}
          weight_decay: {loguniform: [1e-4, 1e-1]}
          patience: {lograndint: [1, 9]}
        baselines: [tutorial-simple]
        """,
    )
    journal = new_journal(tmp_path / "run")
    values = space.baselines[0].values
    assert (values["weight_decay"], values["patience"]) == (0.0, 0)
    journal.suggested("baseline", "tutorial-simple", {}, values)
    write_study(space, journal, path_of(journal))
    (trial,) = study_of(journal).trials
    assert "weight_decay" not in trial.params
    assert trial.user_attrs["weight_decay (outside)"] == 0.0
