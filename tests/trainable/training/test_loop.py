from __future__ import annotations

import contextlib
import dataclasses
import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trainable.config import TrialConfig
from trainable.data.dataset import load_dataset
from trainable.data.split import Split
from trainable.errors import Diverged, InputError, OutOfMemory, Unavailable
from trainable.training import loop as learner
from trainable.training import loop as train_module
from trainable.training.loop import Tally, train
from trainable.training.trial_folder import EpochResult, TrialFolder, Which

MakeClips = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def config(clips: Path, **values: object) -> TrialConfig:
    """A trial of about a second: 32 px, 8 kHz, a small model without ImageNet weights."""
    return TrialConfig.parse(
        {
            "data": str(clips), "backbone": "mobilenet_v3_small", "weights": "none", "image_size": 32,
            "n_fft": 256, "hop_length": 128, "n_mels": 32, "scale": "log", "normalise": "train",
            "epochs": 3, "batch_size": 8, "lr": 1e-3, **values,
        }
    )  # fmt: skip


def without_time(results: list[EpochResult]) -> list[EpochResult]:
    return [dataclasses.replace(result, seconds=0.0) for result in results]


def same(one: object, other: object) -> bool:
    """Whether two checkpoints hold the same numbers, bit for bit; times aside."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(key == "seconds" or same(one[key], other[key]) for key in one)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))  # type: ignore[arg-type]
    return one == other


@pytest.mark.slow
def test_a_trial_learns(make_clips: MakeClips) -> None:
    results = list(train(config(make_clips(), backbone="resnet18", precision="fp32", epochs=6)))
    assert max(result.val_acc for result in results) == 1.0
    assert results[-1].train_loss < results[0].train_loss / 2


@pytest.mark.slow
def test_a_model_with_slow_batch_statistics_is_scored_as_what_it_has_learned(make_clips: MakeClips) -> None:
    settings = config(make_clips(clips=60), lr=2e-3, precision="fp32", epochs=6)
    assert max(result.val_acc for result in train(settings)) > 0.9


@pytest.mark.slow
def test_every_epoch_is_on_disk_when_it_is_yielded(make_clips: MakeClips, tmp_path: Path) -> None:
    settings = config(make_clips())
    files = TrialFolder(tmp_path / "trial")
    results = []
    for result in train(settings, files.path):
        results.append(result)
        assert files.epochs() == results
        assert len(files.load("last")["history"]) == len(results)  # type: ignore[index]
        assert files.load("best") is not None
    assert [result.epoch for result in results] == [1, 2, 3]
    assert all(result.lr == 1e-3 and result.seconds > 0 for result in results)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_epochs_and_another_one_others(make_clips: MakeClips) -> None:
    settings = config(make_clips(), mixup=0.2, dropout=0.2, noise=0.1)
    once, again = list(train(settings)), list(train(settings))
    other = list(train(settings.model_copy(update={"seed": 7})))
    assert without_time(once) == without_time(again)
    assert without_time(once) != without_time(other)


@pytest.mark.slow
def test_what_is_noted_for_people_spends_no_random_number_and_is_of_the_best_epoch(
    make_clips: MakeClips, tmp_path: Path
) -> None:
    settings = config(make_clips(), time_masks=1, time_mask=0.5, mixup=0.2)
    files = TrialFolder(tmp_path / "trial")
    results = list(train(settings, folder=files.path))
    assert without_time(results) == without_time(list(train(settings)))
    assert files.mel_file.read_bytes().startswith(b"\x89PNG")
    best, answers = files.load("best"), files.answers()
    assert best
    assert answers
    assert answers.epoch == best["epoch"]
    assert answers.labels == best["labels"]
    assert answers.true == best["val_labels"].tolist()
    assert answers.predicted == best["val_probabilities"].argmax(dim=1).tolist()
    files.mel_file.write_bytes(b"as it was")
    list(train(settings, folder=files.path, resume=True))
    assert files.mel_file.read_bytes() == b"as it was"  # once per trial
    assert next(train(settings, folder=files.path))
    assert files.mel_file.read_bytes() != b"as it was"  # begun anew


@pytest.mark.slow
def test_what_the_caller_draws_between_epochs_changes_nothing(make_clips: MakeClips) -> None:
    settings = config(make_clips(), dropout=0.2)
    disturbed = []
    for result in train(settings):
        disturbed.append(result)
        torch.rand(10)
    assert without_time(disturbed) == without_time(list(train(settings)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ema": 0.9, "mixup": 0.2, "cutmix": 0.3, "dropout": 0.2, "optimizer": "sgd", "lr": 0.01},
        {"optimizer": "adamw", "weight_decay": 0.05, "warmup_epochs": 2, "warmup": "linear", "schedule": "cosine",
         "time_masks": 1, "time_mask": 0.2, "noise": 0.1, "gain_db": 3.0, "roll": 0.2, "crop_seconds": 0.5,
         "grad_clip": 1.0, "freeze_stages": 1, "head_lr_multiple": 3.0, "label_smoothing": 0.1},
        {"precision": "fp16", "backbone": "squeezenet1_1", "random_resized_crop": 0.3},
        {"backbone": "squeezenet1_1", "precision": "bf16", "channels_last": False, "class_balanced": True},
    ],
    ids=["plain", "ema-mixing-sgd", "much-of-everything", "fp16", "bf16"],
)  # fmt: skip
def test_a_resumed_trial_goes_on_bit_for_bit(make_clips: MakeClips, tmp_path: Path, values: dict[str, object]) -> None:
    settings = config(make_clips(), **values)
    whole, parts = TrialFolder(tmp_path / "whole"), TrialFolder(tmp_path / "parts")
    expected = list(train(settings, whole.path))

    first = train(settings, parts.path)
    results = [next(first)]
    first.close()
    torch.manual_seed(12345)  # another process would be elsewhere
    second = train(settings, parts.path, resume=True)
    results.append(next(second))
    second.close()
    results += train(settings, parts.path, resume=True)

    assert without_time(results) == without_time(expected)
    assert without_time(parts.epochs()) == without_time(expected)
    assert same(parts.load("last"), whole.load("last"))
    assert same(parts.load("best"), whole.load("best"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_resumed_trial_goes_on_within_tolerance_on_a_gpu(
    make_clips: MakeClips, tmp_path: Path, precision: str
) -> None:
    settings = config(make_clips(), device="cuda", precision=precision, ema=0.9, mixup=0.2)
    expected = list(train(settings, tmp_path / "whole"))
    first = train(settings, tmp_path / "parts")
    results = [next(first)]
    first.close()
    results += train(settings, tmp_path / "parts", resume=True)

    for result, other in zip(results, expected, strict=True):  # cuDNN may add up in another order
        assert result.epoch == other.epoch
        assert result.lr == other.lr
        assert result.train_loss == pytest.approx(other.train_loss, rel=0.02)


@pytest.mark.slow
def test_a_kill_between_checkpoint_and_line_loses_neither(make_clips: MakeClips, tmp_path: Path) -> None:
    settings = config(make_clips())
    files = TrialFolder(tmp_path / "trial")
    list(train(settings, files.path))
    history = files.epochs()
    files.epochs_file.write_text("".join(files.epochs_file.read_text().splitlines(keepends=True)[:2]) + '{"epoch": 3')
    assert list(train(settings, files.path, resume=True)) == []
    assert files.epochs() == history


@pytest.mark.slow
@pytest.mark.parametrize("died_at", ["best", "last", "line"])
def test_a_kill_while_an_epoch_is_written_changes_nothing(
    make_clips: MakeClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, died_at: str
) -> None:
    settings = config(make_clips(), ema=0.9, epochs=2)
    whole, parts = TrialFolder(tmp_path / "whole"), TrialFolder(tmp_path / "parts")
    expected = list(train(settings, whole.path))

    class Killed(BaseException):
        pass

    save, append = TrialFolder.save, TrialFolder.append

    def dying_save(self: TrialFolder, which: Which, state: dict[str, Any]) -> None:
        if which == died_at and len(self.epochs()) == 1:
            raise Killed
        save(self, which, state)

    def dying_append(self: TrialFolder, result: EpochResult) -> None:
        if died_at == "line" and result.epoch == 2:
            raise Killed
        append(self, result)

    with monkeypatch.context() as patch:
        patch.setattr(TrialFolder, "save", dying_save)
        patch.setattr(TrialFolder, "append", dying_append)
        with contextlib.suppress(Killed):
            list(train(settings, parts.path))
    list(train(settings, parts.path, resume=True))
    assert without_time(parts.epochs()) == without_time(expected)
    assert same(parts.load("last"), whole.load("last"))
    assert same(parts.load("best"), whole.load("best"))


@pytest.mark.slow
def test_resuming_an_empty_folder_starts_and_starting_anew_forgets(make_clips: MakeClips, tmp_path: Path) -> None:
    settings = config(make_clips(), epochs=2)
    files = TrialFolder(tmp_path / "trial")
    resumed = list(train(settings, files.path, resume=True))
    anew = train(settings, files.path)
    next(anew)
    assert len(files.epochs()) == 1
    assert without_time([*files.epochs(), *anew]) == without_time(resumed)


@pytest.mark.slow
def test_a_checkpoint_of_another_configuration_is_refused(make_clips: MakeClips, tmp_path: Path) -> None:
    settings = config(make_clips(), epochs=1)
    list(train(settings, tmp_path / "trial"))
    other = settings.model_copy(update={"lr": 0.5})
    with pytest.raises(InputError, match="must hold a checkpoint of the same configuration"):
        list(train(other, tmp_path / "trial", resume=True))


@pytest.mark.slow
def test_the_best_checkpoint_holds_the_scored_weights_and_what_they_said(make_clips: MakeClips, tmp_path: Path) -> None:
    settings = config(make_clips(), backbone="squeezenet1_1", ema=0.5, epochs=4, crop_seconds=0.5)
    files = TrialFolder(tmp_path / "trial")
    results = list(train(settings, files.path))
    best = min(results, key=lambda result: (-result.val_acc, result.val_loss, result.epoch))
    state = files.load("best")
    assert state is not None
    assert state["epoch"] == best.epoch
    right = state["val_probabilities"].argmax(1) == state["val_labels"]
    assert float(right.float().mean()) == pytest.approx(best.val_acc)
    losses = -state["val_probabilities"].gather(1, state["val_labels"][:, None]).log()
    assert float(losses.mean()) == pytest.approx(best.val_loss, rel=1e-5)
    assert len(state["val_clips"]) == 6
    assert state["labels"] == ["class0", "class1", "class2"]
    assert state["sample_rate"] == 8000
    assert state["clip_seconds"] == 1.0
    assert TrialConfig.parse(state["config"]) == settings

    state_of_last = files.load("last")
    assert state_of_last is not None
    if best.epoch == results[-1].epoch:
        assert same(state["weights"], state_of_last["ema"])
    assert not same(state_of_last["model"], state_of_last["ema"])


@pytest.mark.slow
def test_training_stops_when_validation_has_not_got_better(
    make_clips: MakeClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.3, 0.5, 0.5, 0.4, 0.9])
    monkeypatch.setattr(learner.Learner, "validate", lambda self: (1.0, next(accuracies)))
    settings = config(make_clips(), epochs=5, patience=2)
    results = list(train(settings, tmp_path / "trial"))
    assert [result.val_acc for result in results] == [0.3, 0.5, 0.5, 0.4]
    assert list(train(settings, tmp_path / "trial", resume=True)) == []


@pytest.mark.slow
def test_equal_accuracy_with_lower_loss_is_better_and_the_first_of_equals_is_kept(
    make_clips: MakeClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = TrialFolder(tmp_path / "trial")
    answers = iter([(1.0, 0.5), (0.8, 0.5), (0.8, 0.5), (0.1, 0.4)])
    monkeypatch.setattr(learner.Learner, "validate", lambda self: next(answers))
    kept = []
    for _ in train(config(make_clips(), epochs=4), files.path):
        state = files.load("best")
        assert state is not None
        kept.append(state["epoch"])
    assert kept == [1, 2, 2, 2]


@pytest.mark.slow
def test_a_last_batch_of_one_clip_is_left_out(make_clips: MakeClips) -> None:
    clips = make_clips(classes=2, clips=5)
    train_clips = np.array([0, 1, 2, 5, 6, 7, 8])
    split = Split("mine", train_clips, np.array([4, 9]))
    steps: list[tuple[str, int, int]] = []
    settings = config(clips, epochs=1, batch_size=2)
    results = list(train(settings, progress=lambda *step: steps.append(step), split=split))
    assert len(results) == 1
    assert [step for step in steps if step[0] == "Epoch 1"] == [("Epoch 1", done, 3) for done in (1, 2, 3)]


def test_an_epoch_draws_so_many_different_crops_of_each_clip(make_clips: MakeClips) -> None:
    settings = config(make_clips(), crop_seconds=0.3, train_crops=3, batch_size=4)
    state = learner.Learner(settings, None, None)
    drawn = torch.cat(state.batches())
    assert torch.equal(drawn.bincount()[state.train_clips], torch.full((len(state.train_clips),), 3))
    clip = state.train_clips[:1].repeat(3)
    images, targets = state.inputs.train_batch(clip, state.rng)
    assert not torch.equal(images[0], images[1])
    assert torch.equal(targets[0], targets[1])


def test_whole_clips_are_drawn_once_in_an_epoch(make_clips: MakeClips) -> None:
    state = learner.Learner(config(make_clips(), train_crops=3), None, None)
    assert sorted(torch.cat(state.batches()).tolist()) == state.train_clips.tolist()


@pytest.mark.slow
def test_without_validation_clips_every_epoch_is_trained_and_the_last_kept(
    make_clips: MakeClips, tmp_path: Path
) -> None:
    settings = config(make_clips(), train_on="all", patience=1)
    files = TrialFolder(tmp_path / "trial")
    results = list(train(settings, files.path))
    assert [(result.val_loss, result.val_acc) for result in results] == [(0.0, 0.0)] * 3
    state = files.load("best")
    assert state is not None
    assert state["epoch"] == 3
    assert len(state["val_clips"]) == len(state["val_probabilities"]) == 0


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_trial_and_names_the_step(
    make_clips: MakeClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(make_clips(), optimizer="sgd", lr=1e30, precision="fp32")
    with pytest.raises(Diverged, match=r"the loss became (nan|inf) in epoch 1, step \d, at lr 1e\+30"):
        list(train(settings))


# One step that throws the weights far away, of which nobody sees the next loss.
LAST_STEP = {"optimizer": "sgd", "precision": "fp32", "epochs": 1, "batch_size": 64}


@pytest.mark.slow
def test_answers_that_are_not_finite_end_the_trial_and_leave_no_checkpoint(
    make_clips: MakeClips, tmp_path: Path
) -> None:
    settings = config(make_clips(), **LAST_STEP, lr=1e38)
    with pytest.raises(Diverged) as ended:
        list(train(settings, tmp_path / "trial"))
    assert str(ended.value) == "the network's answers became NaN in the validation of epoch 1. Lower lr."
    assert list((tmp_path / "trial").glob("*.pt")) == []


@pytest.mark.slow
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_without_validation_clips_weights_that_are_not_finite_end_the_trial_and_leave_no_checkpoint(
    make_clips: MakeClips, tmp_path: Path, ema: float
) -> None:
    settings = config(make_clips(), **LAST_STEP, lr=1e300, ema=ema, train_on="all")
    with pytest.raises(Diverged) as ended:
        list(train(settings, tmp_path / "trial"))
    assert str(ended.value) == "the network's weights became NaN or infinite in epoch 1. Lower lr."
    assert list((tmp_path / "trial").glob("*.pt")) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_step_that_diverged_is_named_although_steps_are_looked_at_in_groups(bad: float) -> None:
    tally = Tally(2)
    logits, targets = torch.zeros(2, 3), torch.eye(3)[:2]
    for step in range(1, 32):
        tally.add(torch.tensor(bad if step >= 20 else 1.0), logits, targets, step / 40)
    with pytest.raises(Diverged, match=f"the loss became {bad} in epoch 2, step 20, at lr 0.5"):
        tally.add(torch.tensor(1.0), logits, targets, 0.5)


def test_the_tally_is_per_clip_and_counts_the_larger_share_of_mixed_labels() -> None:
    tally = Tally(1)
    tally.add(torch.tensor(1.0), torch.tensor([[5.0, 0], [5, 0], [5, 0]]), torch.tensor([[0.6, 0.4]] * 3), 0.1)
    tally.add(torch.tensor(3.0), torch.tensor([[5.0, 0]]), torch.tensor([[0.3, 0.7]]), 0.1)
    assert tally.means() == (1.5, 0.75)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nException raised from malloc"),
            "CUDA out of memory. Tried to allocate 2.00 GiB.",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory",
        ),
        (RuntimeError("std::bad_alloc"), "std::bad_alloc"),
        (MemoryError("cannot allocate " + 200 * "x"), "cannot allocate " + 184 * "x"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_out_of_memory_names_batch_and_image_and_leaves_nothing_behind(
    make_clips: MakeClips, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    models = []

    def fail(self: object, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise error

    build = learner.build_network

    def remember(*args: object) -> nn.Module:
        model = build(*args)  # type: ignore[arg-type]
        models.append(weakref.ref(model))
        return model

    monkeypatch.setattr(learner, "build_network", remember)
    monkeypatch.setattr(learner.Loss, "__call__", fail)
    with pytest.raises(OutOfMemory) as raised:
        list(train(config(make_clips())))
    assert str(raised.value) == f"no room for batch_size 8 at image_size 32 with mobilenet_v3_small: {words}"
    error.__traceback__ = None  # kept alive by this test alone
    assert raised.value.__context__ is None
    gc.collect()
    assert models[0]() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, to run out of its memory")
def test_a_gpu_that_is_full_ends_the_trial_and_has_its_memory_back(make_clips: MakeClips) -> None:
    fits = config(make_clips(), backbone="resnet18", device="cuda", batch_size=24, epochs=1, lr=1e-4)
    list(train(fits))  # cuBLAS takes a workspace with the first product and keeps it
    gc.collect()
    torch.cuda.empty_cache()
    before, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    # The process may have 256 MiB more. The first layer's answers alone are 24 x 64 x 512 x 512 numbers, 768 MiB in
    # bf16; what else is on the GPU is none of this test's business.
    total = torch.cuda.get_device_properties("cuda").total_memory
    torch.cuda.set_per_process_memory_fraction((reserved + (256 << 20)) / total)
    try:
        with pytest.raises(OutOfMemory) as ended:
            list(train(fits.model_copy(update={"image_size": 1024})))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    message = str(ended.value)
    assert message.startswith(
        "no room for batch_size 24 at image_size 1024 with resnet18: CUDA out of memory. Tried to allocate "
    )
    assert "\n" not in message
    assert ended.value.__context__ is None
    assert torch.cuda.memory_allocated() <= before
    assert torch.cuda.memory_reserved() <= reserved
    list(train(fits))  # the next trial has its room


@pytest.mark.slow
def test_a_closed_generator_leaves_no_model_behind(make_clips: MakeClips, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = make_clips()
    alive: list[weakref.ref[object]] = []
    start = learner.Learner.__init__

    def remember(self: learner.Learner, *args: object) -> None:
        start(self, *args)  # type: ignore[arg-type]
        alive.extend([weakref.ref(self.model), weakref.ref(self.inputs), weakref.ref(self.optimizer)])

    monkeypatch.setattr(train_module.Learner, "__init__", remember)
    for size in (32, 48, 64):
        epochs = train(config(clips, image_size=size, ema=0.9))
        next(epochs)
        epochs.close()
    assert len(alive) == 9
    assert [reference() for reference in alive] == [None] * 9


@pytest.mark.slow
def test_compiling_changes_nothing_that_is_learned_and_leaves_no_model_behind(
    make_clips: MakeClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(make_clips(), backbone="squeezenet1_1", precision="fp32", epochs=2, ema=0.9)
    compile_with = nn.Module.compile
    models: list[weakref.ref[nn.Module]] = []

    def compile_fast(self: nn.Module) -> None:  # the real back end takes a minute
        models.append(weakref.ref(self))
        compile_with(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_fast)
    plain = list(train(settings))
    assert models == []
    compiled = list(train(settings.model_copy(update={"compile": True})))
    assert without_time(compiled) == without_time(plain)
    assert [reference() for reference in models] == [None]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_models_layout_is_the_one_that_is_asked_for(make_clips: MakeClips, wanted: bool) -> None:
    state = learner.Learner(config(make_clips(clips=3), channels_last=wanted, ema=0.9, val_share=0.4), None, None)
    assert state.ema
    for model in (state.model, state.ema.model):
        kernels = [weight for weight in model.parameters() if weight.ndim == 4 and min(weight.shape[1:]) > 1]
        assert kernels
        for kernel in kernels:
            assert kernel.is_contiguous(memory_format=torch.channels_last) is wanted
            assert kernel.is_contiguous() is not wanted


@pytest.mark.slow
@pytest.mark.parametrize("values", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_mixed_targets_are_what_is_learned(
    make_clips: MakeClips, monkeypatch: pytest.MonkeyPatch, values: dict[str, float]
) -> None:
    seen: list[torch.Tensor] = []
    loss_of = learner.Loss.__call__

    def remember(self: learner.Loss, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(targets)
        return loss_of(self, logits, targets)

    monkeypatch.setattr(learner.Loss, "__call__", remember)
    list(train(config(make_clips(), epochs=2, **values)))
    targets = torch.cat(seen)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(len(targets)))
    assert ((targets > 0.01) & (targets < 0.99)).any(dim=1).float().mean() > 0.3


@pytest.mark.slow
def test_the_number_of_threads_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(train_module, "_epochs", lambda *_: iter(()))
    for value in ("2", "1", "3,1", "", "0"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        list(train(config(tmp_path)))
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    for allowed in (64, 4):
        monkeypatch.setattr(train_module, "allowed_cores", lambda: allowed)  # noqa: B023
        list(train(config(tmp_path)))
    assert seen == [2, 1, 3, 1, 4]


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["all", "its content", "a class", "a clip"])
def test_data_that_are_no_longer_what_they_were_are_nothing_that_a_configuration_decides(
    make_clips: MakeClips, gone: str
) -> None:
    folder = make_clips()
    before = load_dataset(str(folder)).hash
    settings = config(folder, epochs=1)
    if gone == "a clip":
        next(folder.rglob("*.wav")).unlink()
    else:
        shutil.rmtree(next(folder.iterdir()) if gone == "a class" else folder)
    if gone == "its content":  # where something is mounted no more, an empty folder is left
        folder.mkdir()
    with pytest.raises(Unavailable):
        next(train(settings, data_hash=before))


@pytest.mark.slow
def test_data_that_are_what_they_were_are_trained_on(make_clips: MakeClips) -> None:
    folder = make_clips()
    assert next(train(config(folder, epochs=1), data_hash=load_dataset(str(folder)).hash)).epoch == 1


@pytest.mark.slow
def test_a_device_that_is_not_there_is_refused(make_clips: MakeClips) -> None:
    with pytest.raises(InputError, match="device: must be one of this machine's, got 'cuda:63', which is not there"):
        next(train(config(make_clips(), device="cuda:63")))


@pytest.mark.slow
def test_epochs_beyond_the_horizon_are_never_trained_and_the_rate_ends_with_it(make_clips: MakeClips) -> None:
    results = list(train(config(make_clips(), schedule="step", step_size=1, gamma=0.5)))
    assert [result.lr for result in results] == pytest.approx([1e-3, 5e-4, 2.5e-4])
    warming = list(train(config(make_clips(name="more"), warmup_epochs=2, warmup="linear")))
    assert [result.lr for result in warming] == pytest.approx([5e-4, 1e-3, 1e-3])


@pytest.mark.slow
def test_a_clipped_gradient_moves_the_weights_by_its_norm(make_clips: MakeClips, tmp_path: Path) -> None:
    one_step = {"batch_size": 24, "epochs": 1, "optimizer": "sgd", "momentum": 0.0, "precision": "fp32"}
    settings = config(make_clips(), **one_step, grad_clip=0.01, lr=1.0)
    still = settings.model_copy(update={"lr": 1e-30})
    list(train(settings, tmp_path / "moved"))
    list(train(still, tmp_path / "still"))
    moved, start = TrialFolder(tmp_path / "moved").load("last"), TrialFolder(tmp_path / "still").load("last")
    assert moved is not None
    assert start is not None
    names = [name for name, _ in learner.build_network(settings, 3).named_parameters()]
    change = sum(float((moved["model"][name] - start["model"][name]).square().sum()) for name in names)
    assert change**0.5 == pytest.approx(0.01, rel=1e-2)
