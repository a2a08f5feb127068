"""What a configuration costs: the same whether it is counted beforehand or measured in the trial."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainable.config import TrialConfig
from trainable.data.dataset import Dataset, load_dataset
from trainable.errors import InputError
from trainable.training import cost as costs
from trainable.training.cost import PeakMemory, cost_of, measured_cost, usual_clip
from trainable.training.loop import train
from trainable.training.network import build_network
from trainable.training.trial_folder import Cost, TrialFolder

SMALL = {
    "weights": "none", "image_size": 32, "n_fft": 256, "hop_length": 128, "n_mels": 32, "batch_size": 8, "epochs": 2,
    "backbone": "squeezenet1_1",
}  # fmt: skip


@pytest.fixture
def dataset(make_clips: Callable[..., Path]) -> Dataset:
    return load_dataset(str(make_clips()))


@pytest.mark.slow
def test_parameters_and_operations_are_those_that_torchvision_states(dataset: Dataset) -> None:
    config = TrialConfig.parse({**SMALL, "backbone": "resnet18", "image_size": 224})
    cost = cost_of(config, dataset, timed=False)
    assert cost.operations / 1e9 == pytest.approx(1.814, rel=0.002)  # the head is smaller
    assert cost.parameters == sum(p.numel() for p in build_network(config, 3).parameters())
    assert cost.latency_ms is None


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["regnet_x_400mf", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_what_is_counted_beforehand_is_what_the_trial_measures(dataset: Dataset, backbone: str) -> None:
    config = TrialConfig.parse({**SMALL, "backbone": backbone, "crop_seconds": 0.3})
    before = cost_of(config, dataset)
    measured = measured_cost(config, dataset, build_network(config, 3), torch.device("cpu"))
    assert (before.parameters, before.operations) == (measured.parameters, measured.operations)
    assert before.latency_ms is not None  # both are times of the same work, on a machine that may be busy
    assert measured.latency_ms is not None
    assert before.latency_ms > 0 < measured.latency_ms


def test_every_scored_crop_costs_its_operations(dataset: Dataset) -> None:
    crops = [
        cost_of(TrialConfig.parse({**SMALL, "crop_seconds": 0.2, "eval_crops": count}), dataset, timed=False).operations
        for count in (1, 2, 4)
    ]
    assert crops == [crops[0], 2 * crops[0], 4 * crops[0]]


def test_a_network_is_timed_once_for_all_configurations_that_use_it_alike(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[str] = []
    monkeypatch.setattr(costs, "latency", lambda model, config, *rest: timed.append(config.backbone) or 7.0)
    costs._timed.cache_clear()
    for values in ({"lr": 1e-3}, {"lr": 1e-4, "epochs": 9}, {"mixup": 0.2}, {"image_size": 48}):
        assert cost_of(TrialConfig.parse({**SMALL, **values}), dataset).latency_ms == 7.0
    assert len(timed) == 2  # another size is another network
    costs._timed.cache_clear()


@pytest.mark.slow
def test_a_trial_notes_its_cost_after_its_first_epoch_and_trains_as_if_nothing_had_been_measured(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrialConfig.parse({**SMALL, "data": dataset.root, "dropout": 0.2, "mixup": 0.3})
    with_cost = [(e.train_loss, e.val_loss) for e in train(config, folder=tmp_path / "with")]
    cost = TrialFolder(tmp_path / "with").cost()
    assert cost is not None
    assert cost.parameters == cost_of(config, dataset, timed=False).parameters
    assert cost.latency_ms is not None
    assert 0 < cost.latency_ms < 10_000
    assert cost.memory_mb is not None
    assert 0 <= cost.memory_mb < 10_000
    without = [(e.train_loss, e.val_loss) for e in train(config)]
    assert with_cost == without


def test_memory_is_noted_again_when_it_has_grown_and_the_rest_is_kept(tmp_path: Path) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process can be begun anew on Linux only")
    memory = PeakMemory(torch.device("cpu"))
    held = torch.ones(16, 1024, 1024)  # 64 MB
    assert memory.megabytes() > 60
    del held
    assert memory.megabytes() > 60  # the peak stays
    assert PeakMemory(torch.device("cpu")).megabytes() < 60  # and begins anew with the next training


def test_a_damaged_cost_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cost.json").write_text(json.dumps({"parameters": 3}))
    with pytest.raises(InputError, match=r"cost\.json: operations: must be there, got nothing"):
        TrialFolder(tmp_path).cost()
    (tmp_path / "cost.json").unlink()
    TrialFolder(tmp_path).write_cost(Cost(1, 2, 3.5, None))
    assert TrialFolder(tmp_path).cost() == Cost(1, 2, 3.5, None)


def test_the_usual_clip_is_the_one_of_median_length(make_clips: Callable[..., Path]) -> None:
    short, long = make_clips(classes=2, clips=2, seconds=0.5, name="a"), make_clips(classes=2, clips=3, name="b")
    for index, path in enumerate(sorted(short.rglob("*.wav"))):
        path.rename(long / "class0" / f"short{index}.wav")
    dataset = load_dataset(str(long))
    assert dataset.clips[usual_clip(dataset)].seconds == 1.0
