"""Confusion matrix and mistakes: whose they are, and that every one can be seen and heard."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from search.report.mistakes import CLIPS, explainer, mistakes, scored
from search.report.report import write_report
from search.runs.run import RunFolder
from tests.support.saved_models import save_small
from tests.support.synthetic import add_result, add_scores, data_record, make_run, write_clips
from trainable.config import TrialConfig
from trainable.data.dataset import Dataset

CONFIG = TrialConfig.parse({"n_fft": 256, "hop_length": 128, "n_mels": 32})


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_clips(tmp_path / "clips", ["a", "b", "c"])


@pytest.fixture
def run(tmp_path: Path, dataset: Dataset) -> RunFolder:
    return make_run(tmp_path / "run", trials=8, data=data_record(dataset))


def test_the_best_trials_checkpoint_gives_confusion_and_mistakes(run: RunFolder, dataset: Dataset) -> None:
    assert scored(run, None) is None  # no best.pt yet
    add_scores(run, dataset, range(0, 18, 2), wrong=2)
    found = scored(run, None)
    assert found
    assert "validation clips, on which it was chosen" in found.about
    assert np.array(found.confusion()).sum() == 9
    assert np.trace(found.confusion()) == 7
    assert [(item.label, item.predicted) for item in found.mistakes] == [("a", "b"), ("a", "b")]
    assert found.mistakes[0].probability >= found.mistakes[1].probability


def test_the_retrained_models_predictions_come_first_once_there_are_any(run: RunFolder, dataset: Dataset) -> None:
    add_scores(run, dataset, range(9))
    add_result(run)
    lines = ["path,label,predicted,probability,seeds_right", f"{dataset.clips[0].path},a,c,0.9,0"]
    lines += [f"{dataset.clips[6].path},b,b,0.8,2"]
    (run.path / "retrained" / "predictions.csv").write_text("\n".join(lines) + "\n")
    found = scored(run, {"measured_on": "test", "labels": ["c", "b", "a"]})
    assert found
    assert found.about == "the retrained model on the test clips"
    assert found.labels == ("c", "b", "a")
    assert found.confusion() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]


def test_a_data_set_that_has_changed_gives_a_confusion_but_no_clips(run: RunFolder, dataset: Dataset) -> None:
    add_scores(run, dataset, range(9), wrong=2)
    Path(dataset.clips[0].path).unlink()
    found = scored(run, None)
    assert found
    assert np.trace(found.confusion()) == 7
    assert "must be the data that the search ran on" in found.lost
    assert mistakes(run, found, CONFIG).cards == ()
    assert mistakes(run, found, CONFIG).lost_all == found.lost


@pytest.mark.slow
def test_every_mistake_has_a_picture_and_a_player_and_lost_files_are_named(run: RunFolder, dataset: Dataset) -> None:
    add_scores(run, dataset, range(18), wrong=12)
    found = scored(run, None)
    assert found
    lost = found.mistakes[0]
    Path(lost.path).unlink()
    shown = mistakes(run, found, CONFIG)
    assert len(shown.cards) == CLIPS
    assert all(card.picture and card.sound for card in shown.cards)
    assert len(shown.lost) == 1
    assert Path(lost.path).name in shown.lost[0]
    (run.path / "retrained").mkdir()
    rows = [f"{item.path},{item.label},{item.predicted},{item.probability}" for item in found.predictions]
    table = "\n".join(["path,label,predicted,probability", *rows])
    (run.path / "retrained" / "predictions.csv").write_text(table, encoding="utf-8")
    add_result(run)
    html = write_report([run]).read_text(encoding="utf-8")
    assert html.count('<img src="data:image/png') == html.count('<audio src="data:audio/mpeg') == CLIPS
    assert "1 mistaken clip cannot be shown" in html


@pytest.mark.slow
def test_what_decides_a_mistake_is_framed_in_its_picture_and_can_be_played_alone(
    run: RunFolder, dataset: Dataset, tmp_path: Path
) -> None:
    save_small(run.path / "retrained" / "model", labels=dataset.labels)
    rows = [f"{clip.path},{dataset.labels[clip.label]},{dataset.labels[0]},0.9" for clip in dataset.clips]
    (run.path / "retrained" / "predictions.csv").write_text("\n".join(["path,label,predicted,probability", *rows]))
    add_result(run, measured_on="test", labels=list(dataset.labels))
    found = scored(run, {"measured_on": "test", "labels": list(dataset.labels)})
    assert found
    shown = mistakes(run, found, CONFIG)
    decided = [card.decides for card in shown.cards if card.decides]
    assert decided  # the networks of these tests depend strongly on what they hear
    for each in decided:
        assert 0 <= each.start < each.end <= 0.61
        assert 0 <= each.left < each.left + each.width <= 100.1
        assert base64.b64decode(each.sound)
    html = write_report([run]).read_text(encoding="utf-8")
    assert html.count('class="alone"') == html.count('<i style="left:') > 0
    add_result(run, measured_on="folds", labels=list(dataset.labels))  # whose trainings are gone
    assert not [card for card in mistakes(run, found, CONFIG).cards if card.decides]


@pytest.mark.slow
def test_a_slow_network_leaves_the_last_mistakes_unexplained(run: RunFolder, dataset: Dataset) -> None:
    save_small(run.path / "retrained" / "model", labels=dataset.labels)
    (run.path / "retrained" / "predictions.csv").write_text("path,label,predicted,probability\n")
    add_result(run)
    clip = Path(dataset.clips[0].path)
    assert explainer(run)(clip, dataset.labels[0]) is not None
    assert explainer(run, patience=0.0)(clip, dataset.labels[0]) is None
