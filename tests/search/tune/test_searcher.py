from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from search.runs.journal import Journal
from search.runs.run import RunFolder, best_epoch, best_of
from search.space.space import Space
from search.tune.lessons import key_of
from search.tune.searcher import StudySearch
from search.tune.study import BAD_VALUE, JournalStudy, check_cmaes
from tests.support.spaces import space_of
from tests.support.stepping import FINISHED, curve, events, new_journal, step_through
from trainable.config import TrialConfig
from trainable.errors import Diverged, InputError, TrialEnded

SPACE = """
    fixed: {epochs: 6, weights: none}
    search:
      backbone: {choice: [resnet18, mobilenet_v3_small, squeezenet1_1]}
      lr: {loguniform: [1e-4, 1e-2]}
      mixup: {quniform: [0.0, 0.4, 0.1]}
      schedule: {choice: [constant, step]}
      step_size: {randint: [2, 5], when: {schedule: step}}
    baselines: [tutorial-simple, {name: mine, lr: 0.0005}]
    budget: {trials: 14, grace_epochs: 2, reduction_factor: 2}
    searcher: {startup_trials: 4}
"""


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return space_of(tmp_path, SPACE)


def params_of(journal: Journal) -> list[dict[str, Any]]:
    return [trial.params for trial in journal.trials.values()]


def suggested(searcher: StudySearch) -> dict[str, Any]:
    suggestion = searcher.suggest("ray-id")
    assert isinstance(suggestion, dict)
    return suggestion


def test_it_is_an_optuna_search_to_ray(space: Space, tmp_path: Path) -> None:
    searcher = StudySearch(space, new_journal(tmp_path / "run"))
    assert isinstance(searcher, OptunaSearch)
    assert (searcher.metric, searcher.mode) == ("val_acc", "max")
    assert not searcher.set_search_properties("val_acc", "max", {})  # as OptunaSearch says where it has its space
    assert Searcher.FINISHED == FINISHED


def test_baselines_come_first_in_their_order_and_at_their_own_settings(space: Space, tmp_path: Path) -> None:
    journal = new_journal(tmp_path / "run")
    searcher = StudySearch(space, journal)
    first, second, third = suggested(searcher), suggested(searcher), suggested(searcher)
    assert (first["number"], first["name"], first["kind"]) == (0, "tutorial-simple", "baseline")
    assert first["config"]["epochs"] == 20
    assert (second["name"], second["config"]["lr"]) == ("mine", 0.0005)
    assert third["kind"] == "search"
    assert journal.trials[0].params == {}
    assert journal.trials[1].params["lr"] == 0.0005


def test_a_suggestion_holds_the_trials_own_folder_and_a_configuration_that_can_be_trained(
    space: Space, tmp_path: Path
) -> None:
    suggestion = suggested(StudySearch(space, new_journal(tmp_path / "run")))
    assert suggestion["folder"] == str((tmp_path / "run").resolve() / "trial_0000")
    assert TrialConfig.parse(suggestion["config"]).to_json() == suggestion["config"]


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_a_budget_of_so_many_trials_is_exactly_so_many_with_the_baselines(
    space: Space, tmp_path: Path, budget: int
) -> None:
    journal = new_journal(tmp_path / "run")
    step_through(space.with_budget(trials=budget), journal, workers=3)
    assert len(journal.trials) == budget
    assert journal.unfinished == []


def test_a_finished_search_can_be_extended(space: Space, tmp_path: Path) -> None:
    journal, whole = new_journal(tmp_path / "a"), new_journal(tmp_path / "b")
    step_through(space.with_budget(trials=6), journal)
    step_through(space.with_budget(trials=9), Journal(journal.path))
    step_through(space.with_budget(trials=9), whole)
    assert events(Journal(journal.path)) == events(whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_a_search_killed_after_any_event_goes_on_as_if_it_had_not_been(tmp_path: Path, kind: str) -> None:
    space = space_of(tmp_path, SPACE.replace("startup_trials: 4", f"kind: {kind}, startup_trials: 4"))
    _same_after_every_kill(space, tmp_path, step=3 if kind == "tpe" else 11)


@pytest.mark.slow
def test_cmaes_goes_on_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    pytest.importorskip("cmaes")
    space = space_of(
        tmp_path,
        """
        fixed: {epochs: 4, weights: none}
        search:
          lr: {loguniform: [1e-4, 1e-2]}
          mixup: {uniform: [0.0, 0.4]}
          label_smoothing: {uniform: [0.0, 0.1], when: {ema: 0.99}}
          ema: {choice: [0.0, 0.99]}
        budget: {trials: 20, grace_epochs: 2}
        searcher: {kind: cmaes, startup_trials: 3}
        """,
    )
    whole = _same_after_every_kill(space, tmp_path, step=7)
    learned = [trial for trial in whole.trials.values() if any("cma" in key for key in trial.sampler["attrs"])]
    assert len(learned) > 10
    assert any(len(trial.sampler["attrs"]) > 1 for trial in learned)  # its state lies in the journal


def by_fold(config: TrialConfig) -> list[float | TrialEnded]:
    """A curve that is higher or lower by up to a tenth on each fold, and diverges on some."""
    luck = np.random.default_rng([config.val_fold, int(1e9 * config.lr)])
    if config.val_fold > 1 and luck.random() < 0.1:
        return [Diverged("nan")]
    shift = luck.uniform(-0.1, 0.1)
    return [max(0.0, value + shift) if isinstance(value, float) else value for value in curve(config)]


FOLDS = SPACE.replace("budget: {", "budget: {folds: 3, ")


def test_what_leads_is_repeated_on_further_folds_on_top_of_the_trials_until_the_best_has_had_all(
    tmp_path: Path,
) -> None:
    space, journal = space_of(tmp_path, FOLDS), new_journal(tmp_path / "run")
    step_through(space, journal, train=by_fold)
    trials = list(journal.trials.values())
    repeats = [trial for trial in trials if trial.repeats is not None]
    assert journal.configurations == 14
    assert len(repeats) >= 2
    for repeat in repeats:
        first = journal.trials[repeat.repeats]  # type: ignore[index]
        assert (repeat.kind, repeat.params) == ("repeat", first.params)
        assert repeat.config == {**first.config, "val_fold": repeat.fold}
        assert repeat.status in ("finished", "diverged")  # never cut
        assert sum(trial.repeats is None and trial.over for trial in trials[: repeat.number]) >= 4  # startup_trials
    assert any(trial.repeats is None for trial in trials[repeats[0].number :])  # in front of new ones, not only last
    best = best_of(trials, space.budget.grace_epochs)
    assert best is not None
    assert len(best.folds) == 3
    assert repeats[0].name.startswith("fold 2 of ")


def test_the_sampler_has_one_value_of_a_configuration_and_it_is_of_the_first_fold(tmp_path: Path) -> None:
    space, journal = space_of(tmp_path, FOLDS), new_journal(tmp_path / "run")
    step_through(space, journal, train=by_fold)
    study = JournalStudy(space, journal).study
    told = [trial for trial in study.get_trials() if trial.params]
    firsts = [trial for trial in journal.trials.values() if trial.repeats is None and trial.params]
    assert len(told) == len(firsts) < len(journal.trials)
    values = {best.trial.number: best.accuracy for trial in firsts if (best := best_epoch(trial, 2))}
    complete = {trial.value for trial in told if trial.state.name == "COMPLETE"}
    assert complete <= set(values.values())


@pytest.mark.parametrize("scheduler", ["asha", "none"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_search_of_few_trials_repeats_its_leaders_when_all_have_begun(
    tmp_path: Path, workers: int, scheduler: str
) -> None:
    text = FOLDS.replace("trials: 14", "trials: 3").replace("startup_trials: 4", "startup_trials: 10")
    space = space_of(tmp_path, f"{text}    scheduler: {scheduler}\n")
    journal = new_journal(tmp_path / "run")
    step_through(space, journal, workers, train=by_fold)
    assert journal.configurations == 3
    assert [trial.repeats is None for trial in journal.trials.values()][:4] == [True] * 3 + [False]
    assert not journal.unfinished


@pytest.mark.slow
def test_a_search_with_folds_that_is_killed_after_any_event_decides_the_same(tmp_path: Path) -> None:
    _same_after_every_kill(space_of(tmp_path, FOLDS), tmp_path, step=5, train=by_fold)


def test_a_warm_start_takes_no_repeats(tmp_path: Path) -> None:
    space, journal = space_of(tmp_path, FOLDS), new_journal(tmp_path / "run")
    step_through(space, journal, train=by_fold)
    run = RunFolder(tmp_path / "run", {"space": space.to_json()}, journal)
    learned = StudySearch(space, new_journal(tmp_path / "next")).add_warm(run)
    assert learned.left_out["repeated on further folds"] == len(journal.trials) - 14


def _same_after_every_kill(
    space: Space, folder: Path, step: int, train: Callable[[TrialConfig], list[float | TrialEnded]] = curve
) -> Journal:
    whole = new_journal(folder / "whole")
    step_through(space, whole, train=train)
    lines = whole.path.read_bytes().splitlines(keepends=True)
    for kept in range(0, len(lines), step):
        killed = folder / f"killed{kept}" / "events.jsonl"
        killed.parent.mkdir()
        killed.write_bytes(b"".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])
        step_through(space, Journal(killed), train=train)
        assert _comparable(killed) == _comparable(whole.path)
    return whole


def _comparable(path: Path) -> list[dict[str, Any]]:
    """The events without CMA-ES's pickled state, which holds memory that it never set and never reads."""
    found = events(Journal(path))
    for event in found:
        attrs = event.get("sampler", {}).get("attrs", {})
        for key in [key for key in attrs if key.startswith("cma:optimizer")]:
            attrs[key] = "pickled"
    return found


def test_a_proposal_depends_on_the_seed_and_the_journal_alone_with_trials_in_parallel(
    space: Space, tmp_path: Path
) -> None:
    whole = new_journal(tmp_path / "whole")
    step_through(space, whole, workers=3)
    lines = whole.path.read_text().splitlines(keepends=True)
    for position, event in enumerate(events(whole)):
        if event["event"] != "suggested":
            continue
        prefix = tmp_path / f"prefix{position}" / "events.jsonl"
        prefix.parent.mkdir()
        prefix.write_text("".join(lines[:position]))
        journal = Journal(prefix)
        searcher = StudySearch(space, journal)
        for trial in list(journal.unfinished):
            assert suggested(searcher)["number"] == trial.number
        suggested(searcher)
        assert events(journal)[-1] == event


def test_unfinished_trials_are_taken_up_first_with_their_number_and_configuration(space: Space, tmp_path: Path) -> None:
    journal = new_journal(tmp_path / "run")
    before = StudySearch(space, journal)
    given = [suggested(before) for _ in range(4)]
    journal.ended(1, "finished")
    after = StudySearch(space, Journal(journal.path))
    again = [suggested(after) for _ in range(4)]
    assert again[:3] == [given[0], given[2], given[3]]
    assert again[3]["number"] == 4


def test_other_seeds_give_other_proposals(space: Space, tmp_path: Path) -> None:
    journals = [new_journal(tmp_path / str(seed)) for seed in (1, 1, 2)]
    for journal, seed in zip(journals, (1, 1, 2), strict=True):
        searcher = StudySearch(space_of(tmp_path, SPACE, seed=seed), journal)
        for _ in range(5):
            searcher.suggest("x")
    first, same, other = (params_of(journal)[2:] for journal in journals)
    assert first == same
    assert first != other


def test_a_small_space_ends_when_every_point_has_been_tried_once(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """
        fixed: {epochs: 2, weights: none}
        search:
          mixup: {choice: [0.0, 0.2]}
          ema: {choice: [0.0, 0.9, 0.99]}
          dropout: {choice: [0.0, 0.1, 0.5], when: {mixup: 0.2}}
        budget: {trials: 50, grace_epochs: 1}
        """,
    )
    journal = new_journal(tmp_path / "run")
    step_through(space, journal)
    params = params_of(journal)
    assert len(params) == space.trials == 12
    assert all(params.count(sample) == 1 for sample in params)


@pytest.mark.slow
def test_a_proposal_that_repeats_a_trial_is_drawn_again_and_a_killed_search_draws_the_same(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """
        fixed: {epochs: 2, weights: none}
        search:
          mixup: {choice: [0.0, 0.2]}
          ema: {choice: [0.0, 0.9, 0.99]}
          dropout: {choice: [0.0, 0.5], when: {mixup: 0.2}}
        budget: {trials: 8, grace_epochs: 1}
        searcher: {startup_trials: 3}
        """,
    )
    whole = _same_after_every_kill(space, tmp_path, step=4)
    params = params_of(whole)
    assert any(trial.sampler["rejected"] for trial in whole.trials.values())
    assert all(params.count(sample) == 1 for sample in params)


def test_a_space_without_dimensions_runs_its_baselines_and_ends(tmp_path: Path) -> None:
    space = space_of(tmp_path, "baselines: [tutorial-simple, tutorial-strong]\nfixed: {weights: none}")
    journal = new_journal(tmp_path / "run")
    step_through(space, journal)
    assert [trial.name for trial in journal.trials.values()] == ["tutorial-simple", "tutorial-strong"]


def test_the_driver_has_the_last_word_on_a_configuration(space: Space, tmp_path: Path) -> None:
    journal = new_journal(tmp_path / "run")
    searcher = StudySearch(space, journal, settle=lambda config: config.model_copy(update={"weights": "imagenet"}))
    for _ in range(3):
        assert suggested(searcher)["config"]["weights"] == "imagenet"
    assert all(trial.config["weights"] == "imagenet" for trial in journal.trials.values())


def test_three_values_that_do_not_go_together_are_a_failed_trial_and_not_the_end(tmp_path: Path) -> None:
    # What is found when a space is loaded is an error there; from_json, like three values at once, is not checked.
    checked = space_of(tmp_path, "search: {sample_rate: {choice: [16000, 8000, 4000]}}\nbudget: {trials: 3}")
    broken = Space.from_json({**checked.to_json(), "fixed": {"weights": "none", "f_max": 3000.0}})
    journal = new_journal(tmp_path / "run")
    step_through(broken, journal)
    by_rate = {trial.params["sample_rate"]: trial for trial in journal.trials.values()}
    assert by_rate[4000].status == "failed"
    assert "f_max: must be at most half the sample rate" in by_rate[4000].message
    assert by_rate[16000].status == by_rate[8000].status == "finished"


def test_a_value_between_corners_that_another_refuses_is_a_failed_trial_with_a_whole_configuration(
    tmp_path: Path,
) -> None:
    space = space_of(
        tmp_path,
        "fixed: {weights: none, epochs: 4}\n"
        "search: {backbone: {choice: [vit_b_16]}, image_size: {randint: [64, 225]}}\nbudget: {trials: 1}",
        epochs=2,
    )
    journal = new_journal(tmp_path / "run")
    step_through(space, journal)
    (trial,) = journal.trials.values()
    assert (trial.status, trial.reports) == ("failed", [])
    assert "image_size: must be a multiple of 16 px for vit_b_16" in trial.message
    expected = {"weights": "none", "epochs": 2, **trial.params}  # and what `retrain` asks all trials for
    assert trial.config == {**TrialConfig().to_json(), **expected}


def test_what_tune_tells_a_searcher_changes_nothing(space: Space, tmp_path: Path) -> None:
    journal = new_journal(tmp_path / "run")
    searcher = StudySearch(space, journal)
    for _ in range(3):
        searcher.suggest("x")
    before = searcher._ot_study.get_trials()
    searcher.on_trial_result("x", {"val_acc": 0.5, "training_iteration": 1})
    searcher.on_trial_complete("x", {"val_acc": 0.5})
    searcher.on_trial_complete("x", error=True)
    assert searcher._ot_study.get_trials() == before


def test_tune_can_pickle_it_and_save_it(space: Space, tmp_path: Path) -> None:
    journal = new_journal(tmp_path / "run")
    journal.listen(lambda event: None)
    searcher = StudySearch(space, journal)
    cloudpickle.dumps(searcher)
    searcher.save_to_dir(str(tmp_path), "session")


def test_cmaes_has_nothing_to_need_where_only_baselines_run(tmp_path: Path) -> None:
    check_cmaes(space_of(tmp_path, "baselines: [tutorial-simple]\nsearcher: cmaes"))


def test_cmaes_needs_numbers_and_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "search: {lr: {loguniform: [1e-4, 1e-2]}, ema: {choice: [0.0, 0.9]}}\nsearcher: cmaes"
    with pytest.raises(InputError, match=r"searcher.kind: cmaes needs two numeric dimensions .* got lr. Use tpe."):
        StudySearch(space_of(tmp_path, text), new_journal(tmp_path / "run"))

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match="Run pip install cmaes, or use tpe"):
        StudySearch(space_of(tmp_path, text), new_journal(tmp_path / "run"))


def other_run(folder: Path, text: str, hash_of_split: str = "same", epochs: int | None = None) -> RunFolder:
    def train(config: TrialConfig) -> list[float | TrialEnded]:
        return [Diverged("nan")] if config.lr > 5e-3 else curve(config)

    space = space_of(folder, text, epochs=epochs)
    journal = new_journal(folder / "other")
    step_through(space, journal, train=train)
    record = {"space": space.to_json(), "split": {"hash": hash_of_split}}
    return RunFolder(folder / "other", record, journal)


def test_a_warm_start_adds_the_trials_that_lie_inside_and_counts_the_others_by_reason(tmp_path: Path) -> None:
    other = other_run(tmp_path, SPACE.replace("squeezenet1_1", "resnet34").replace("trials: 14", "trials: 20"))
    searcher = StudySearch(space_of(tmp_path, SPACE), new_journal(tmp_path / "run"))
    warm = searcher.add_warm(other, "same")
    outside = sum(trial.config["backbone"] == "resnet34" for trial in other.trials if trial.kind == "search")
    assert warm.left_out["backbone outside this space"] == outside
    assert warm.left_out["trained for 20 epochs, not 6"] == 1
    assert warm.added == 20 - outside - 1
    told = searcher._ot_study.get_trials()
    assert len(told) == warm.added
    states = {trial.status for trial in other.trials}
    assert {"finished", "cut", "diverged"} <= states
    cut = next(trial for trial in other.trials if trial.status == "cut" and trial.config["backbone"] != "resnet34")
    twin = next(trial for trial in told if trial.params["lr"] == cut.params["lr"])
    assert (twin.state.name, twin.last_step) == ("PRUNED", len(cut.reports))


def test_a_warm_start_survives_a_restart_without_the_other_run(tmp_path: Path) -> None:
    space, other = space_of(tmp_path, SPACE), other_run(tmp_path, SPACE)
    journal = new_journal(tmp_path / "run")
    searcher = StudySearch(space, journal)
    searcher.add_warm(other, "same")
    given = [suggested(searcher)["config"] for _ in range(5)]
    again = new_journal(tmp_path / "again")
    again.path.write_text(journal.path.read_text().splitlines(keepends=True)[0])
    resumed = StudySearch(space, Journal(again.path))
    assert [suggested(resumed)["config"] for _ in range(5)] == given
    assert resumed.add_warm(other, "same").added > 0
    assert len(Journal(again.path).warm) == 1


def test_a_warm_start_from_other_clips_adds_nothing_and_says_so(tmp_path: Path) -> None:
    other = other_run(tmp_path, SPACE, hash_of_split="another")
    warm = StudySearch(space_of(tmp_path, SPACE), new_journal(tmp_path / "run")).add_warm(other, "same")
    assert (warm.added, warm.left_out) == (0, {"scored on other clips": 14})


def test_a_warm_start_with_a_shorter_horizon_counts_as_cut_and_other_fixed_values_are_named(tmp_path: Path) -> None:
    other = other_run(tmp_path, SPACE)
    longer = space_of(tmp_path, SPACE.replace("epochs: 6,", "epochs: 9, label_smoothing: 0.1,"))
    searcher = StudySearch(longer, new_journal(tmp_path / "run"))
    warm = searcher.add_warm(other, "same")
    assert warm.notes == ("other differs in label_smoothing, which is fixed here",)
    finished = [trial for trial in searcher._ot_study.get_trials() if trial.last_step == 6]
    assert finished
    assert {trial.state.name for trial in finished} == {"PRUNED"}


STRETCHED = """
    fixed: {epochs: 30, weights: none}
    search:
      lr: {loguniform: [1e-4, 4e-3]}
      schedule: {choice: [cosine, step]}
      step_size: {randint: [10, 25], when: {schedule: step}}
      warmup_epochs: {randint: [0, 8]}
    baselines: [{name: mine, lr: 0.001, schedule: step, step_size: 12, warmup_epochs: 4}]
    budget: {trials: 14, grace_epochs: 3}
"""


@pytest.mark.parametrize("here", [10, None])
def test_a_warm_start_from_a_stretched_search_has_its_samples_and_not_what_became_of_them(
    tmp_path: Path, here: int | None
) -> None:
    other = other_run(tmp_path, STRETCHED, epochs=10)
    assert any(trial.params.get("step_size", 0) != trial.config["step_size"] for trial in other.trials)
    searcher = StudySearch(space_of(tmp_path, STRETCHED, epochs=here), new_journal(tmp_path / "run"))
    warm = searcher.add_warm(other, "same")
    assert (warm.added, warm.left_out) == (14, {})
    told = [record["params"] for event in searcher._journal.warm for record in event["trials"]]
    assert told == [trial.params for trial in other.trials]


def test_a_warm_start_leaves_out_a_stretched_value_that_nobody_noted_as_a_sample(tmp_path: Path) -> None:
    other = other_run(tmp_path, STRETCHED, epochs=20)
    for trial in other.trials:
        trial.params = {}
    warm = StudySearch(space_of(tmp_path, STRETCHED, epochs=20), new_journal(tmp_path / "run")).add_warm(other, "same")
    stretched = [trial for trial in other.trials if trial.config["warmup_epochs"] > 1]
    assert len(stretched) > 3
    assert warm.added <= 14 - len(stretched)


def refused(config: TrialConfig) -> bool:
    return config.backbone != "squeezenet1_1"


def test_what_costs_too_much_is_never_tried_and_the_sampler_hears_of_it(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE + "    constraints: {parameters: 1e6}\n")
    journal = new_journal(tmp_path / "run")
    searcher = StudySearch(space, journal, refused=refused)
    while searcher.suggest("ray-id") != FINISHED:
        journal.ended(len(journal.trials) - 1, "failed")
    own = [trial for trial in journal.trials.values() if trial.kind == "search"]
    assert len(journal.trials) == space.budget.trials  # what was refused costs no budget
    assert {trial.params["backbone"] for trial in own} == {"squeezenet1_1"}
    told = [sample for trial in own for _, sample in trial.sampler.get("refused", ())]
    assert told
    assert {sample["backbone"] for sample in told} == {"resnet18", "mobilenet_v3_small"}
    complete = [trial for trial in searcher._ot_study.trials if trial.state.is_finished() and trial.value == BAD_VALUE]
    assert len(complete) == len(told)


@pytest.mark.slow
def test_a_search_with_constraints_that_is_killed_proposes_what_it_would_have(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE + "    constraints: {parameters: 1e6}\n")
    proposals = []
    for name, killed in (("whole", False), ("killed", True)):
        journal = new_journal(tmp_path / name)
        searcher = StudySearch(space, journal, refused=refused)
        while searcher.suggest("ray-id") != FINISHED:
            number = len(journal.trials) - 1
            journal.reported(number, 1, 0.1 * (number % 7), 1.0, "continue")
            journal.reported(number, 2, 0.1 * (number % 7), 1.0, "continue")
            journal.ended(number, "finished")
            if killed:
                journal = Journal(journal.path)
                searcher = StudySearch(space, journal, refused=refused)
        proposals.append([(trial.params, trial.sampler) for trial in Journal(journal.path).trials.values()])
    assert proposals[0] == proposals[1]


@pytest.mark.slow
def test_a_search_ends_where_its_constraints_allow_nothing_more(tmp_path: Path) -> None:
    space = space_of(tmp_path, SPACE + "    constraints: {parameters: 1e6}\n")
    journal = new_journal(tmp_path / "run")
    searcher = StudySearch(space, journal, refused=lambda config: True)
    for _ in space.baselines:  # are what is compared with, whatever they cost
        suggested(searcher)
    assert searcher.suggest("ray-id") == FINISHED


FINITE = """
    fixed: {epochs: 6, weights: none}
    search:
      backbone: {choice: [resnet18, squeezenet1_1]}
      n_mels: {qrandint: [32, 64, 32]}
      schedule: {choice: [constant, step]}
      step_size: {randint: [2, 5], when: {schedule: step}}
      mixup: {quniform: [0.0, 0.1, 0.1]}
    budget: {trials: 200, grace_epochs: 2, reduction_factor: 2}
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_finite_space_is_drawn_to_its_last_sample_and_none_comes_twice(tmp_path: Path, kind: str) -> None:
    space = space_of(tmp_path, FINITE + f"    searcher: {kind}")
    journal = new_journal(tmp_path / "run")
    step_through(space, journal)
    keys = [key_of(trial.params) for trial in journal.trials.values()]
    assert len(set(keys)) == len(keys) == space.size == 2 * 2 * (1 + 3) * 2
    assert set(keys) == {key_of(sample) for sample in space.samples()}


@pytest.mark.slow
def test_what_is_left_of_a_finite_space_is_drawn_alike_after_a_kill(tmp_path: Path) -> None:
    space = space_of(tmp_path, FINITE.replace("n_mels: {qrandint: [32, 64, 32]}", "n_mels: {choice: [64]}"))
    whole = new_journal(tmp_path / "whole")
    step_through(space, whole)
    lines = whole.path.read_text().splitlines(keepends=True)
    for place in range(5, len(lines), 37):
        again = tmp_path / f"at {place}"
        again.mkdir()
        (again / "events.jsonl").write_text("".join(lines[:place]))
        journal = Journal(again / "events.jsonl")
        step_through(space, journal)
        assert params_of(journal) == params_of(whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "tpe"])
@pytest.mark.parametrize("text", [SPACE, FINITE], ids=["endless", "finite"])
def test_a_warm_start_repeats_nothing_of_the_run_it_has_learned_from(tmp_path: Path, kind: str, text: str) -> None:
    space = space_of(tmp_path, text + ("" if text == SPACE else f"    searcher: {kind}"))
    space = replace(space, baselines=(), searcher=space.searcher.model_copy(update={"kind": kind}))
    old = new_journal(tmp_path / "old")
    step_through(space.with_budget(trials=12), old)
    other = RunFolder(old.path.parent, {"space": space.to_json(), "split": {"hash": "same"}}, old)
    journal = new_journal(tmp_path / "new")
    assert StudySearch(space, journal).add_warm(other, "same").added == 12
    step_through(space.with_budget(trials=12), journal)
    before, now = ({key_of(trial.params) for trial in each.trials.values()} for each in (old, journal))
    assert len(now) == 12
    assert not before & now


def test_what_a_warm_start_had_trained_for_fewer_epochs_may_be_trained_again(tmp_path: Path) -> None:
    text = "fixed: {epochs: EPOCHS, weights: none}\nsearch: {n_mels: {choice: [32, 64]}}\nbudget: {grace_epochs: 1}"
    short, long = (space_of(tmp_path, text.replace("EPOCHS", epochs)) for epochs in ("2", "6"))
    old = new_journal(tmp_path / "old")
    step_through(short, old)
    other = RunFolder(old.path.parent, {"space": short.to_json(), "split": {"hash": "same"}}, old)
    journal = new_journal(tmp_path / "new")
    StudySearch(long, journal).add_warm(other, "same")
    step_through(long, journal)
    assert sorted(trial.params["n_mels"] for trial in journal.trials.values()) == [32, 64]


def test_a_searcher_that_is_made_anew_takes_the_place_of_the_one_before(space: Space, tmp_path: Path) -> None:
    journal = new_journal(tmp_path / "run")
    searchers = [StudySearch(space, journal) for _ in range(5)]
    suggested(searchers[-1])
    suggested(searchers[-1])
    assert len(journal._listeners) == 1
    assert [len(each._journal_study.study.trials) for each in searchers] == [0, 0, 0, 0, 1]


def test_a_warm_start_takes_no_trial_that_is_still_running_or_has_failed_and_says_how_many(tmp_path: Path) -> None:
    space, old = space_of(tmp_path, SPACE), new_journal(tmp_path / "old")
    searcher = StudySearch(space, old)
    for _ in range(8):
        suggested(searcher)
    for number, status in ((0, "finished"), (1, "failed"), (2, "failed"), (3, "cut"), (4, "diverged")):
        for epoch in range(1, 3):
            old.reported(number, epoch, 0.1 * number, 1.0, "continue")
        old.ended(number, status)  # type: ignore[arg-type]
    other = RunFolder(old.path.parent, {"space": space.to_json(), "split": {"hash": "same"}}, old)
    learner = StudySearch(space, new_journal(tmp_path / "new"))
    warm = learner.add_warm(other, "same")
    # The first baseline is trained for 20 epochs, more than are trained here.
    assert warm.left_out == {"not finished": 3, "failed": 2, "trained for 20 epochs, not 6": 1}
    [event] = learner._journal.warm
    assert [(record["status"], record["whole"]) for record in event["trials"]] == [("cut", True), ("diverged", True)]


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "status", "whole"), [(4, "finished", True), (6, "cut", False)])
def test_only_what_was_trained_for_as_long_counts_as_finished_to_a_warm_start(
    tmp_path: Path, epochs: int, status: str, whole: bool
) -> None:
    text = "fixed: {epochs: EPOCHS, weights: none}\nsearch: {n_mels: {choice: [32, 64]}}\nbudget: {grace_epochs: 1}"
    old_space, space = (space_of(tmp_path, text.replace("EPOCHS", str(each))) for each in (4, epochs))
    old = new_journal(tmp_path / "old")
    step_through(old_space, old)
    assert "finished" in {trial.status for trial in old.trials.values()}
    learner = StudySearch(space, new_journal(tmp_path / "new"))
    learner.add_warm(RunFolder(old.path.parent, {"space": old_space.to_json(), "split": {}}, old))
    [event] = learner._journal.warm
    of_finished = [record for record in event["trials"] if len(record["values"]) == 4]
    assert of_finished
    assert {(record["status"], record["whole"]) for record in of_finished} == {(status, whole)}


def test_trials_of_a_warm_start_that_nobody_noted_as_whole_may_come_again(tmp_path: Path) -> None:
    text = "fixed: {epochs: 2, weights: none}\nsearch: {n_mels: {choice: [32, 64]}}\nbudget: {grace_epochs: 1}"
    journal = new_journal(tmp_path / "run")
    known = {"params": {"n_mels": 32}, "status": "finished", "value": 0.5, "values": [0.5], "losses": [1.0]}
    journal.warmed("/old/run", [known])  # as before version 0.2
    step_through(space_of(tmp_path, text), journal)
    assert sorted(trial.params["n_mels"] for trial in journal.trials.values()) == [32, 64]


def test_leaders_are_repeated_as_soon_as_so_many_trials_as_start_a_search_are_over(tmp_path: Path) -> None:
    space, journal = space_of(tmp_path, FOLDS), new_journal(tmp_path / "run")
    searcher = StudySearch(space, journal)
    for number in range(4):  # startup_trials
        assert journal.trials.get(number) is None
        suggested(searcher)
        assert journal.trials[number].repeats is None
        for epoch in range(1, 7):
            journal.reported(number, epoch, 0.1 * number, 1.0, "continue")
        journal.ended(number, "finished")
    suggested(searcher)
    assert (journal.trials[4].repeats, journal.trials[4].name) == (3, "fold 2 of trial 3")
    for epoch in range(1, 7):
        journal.reported(4, epoch, 0.05, 1.0, "continue")
    journal.ended(4, "finished")
    suggested(searcher)
    assert (journal.trials[5].repeats, journal.trials[5].fold) == (2, 2)  # it leads by now


def test_what_makes_no_configuration_is_not_refused_for_its_cost_but_fails_in_its_own_way(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """
        fixed: {epochs: 6, weights: none, n_mels: 32, scale: log}
        search:
          f_min: {uniform: [0, 900]}
          f_max: {uniform: [901, 4000]}
          sample_rate: {choice: [8000]}
        budget: {trials: 1, grace_epochs: 1}
        constraints: {parameters: 1e9}
        """,
    )

    def settle(config: TrialConfig) -> TrialConfig:
        raise InputError("this does not go together")

    journal = new_journal(tmp_path / "run")
    searcher = StudySearch(space, journal, settle=settle, refused=lambda config: True)
    assert searcher.suggest("ray-id") == FINISHED
    [trial] = journal.trials.values()
    assert (trial.status, trial.message, trial.refused) == ("failed", "this does not go together", True)
