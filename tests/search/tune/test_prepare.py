from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from search.commands.search import Searching
from search.mirror.mode import resolve_mode
from search.runs.folder import free_folder, new_run
from search.runs.run import RunFolder, load_run
from search.space.load import load_space
from search.space.sections import Resources
from search.space.space import Space
from search.tune.cluster import Machines
from search.tune.prepare import (
    Options,
    affordable,
    check_constraints,
    check_folds,
    choose_data,
    prepare,
    record,
    resolve_weights,
    settle,
    silent_defaults,
    with_weights_at_hand,
)
from trainable.backbones import backbone
from trainable.data.dataset import load_dataset
from trainable.data.split import split_dataset
from trainable.errors import InputError

SPACE = """
fixed: {image_size: 64, weights: WEIGHTS, n_fft: 256, n_mels: 32, epochs: 2}
search: {backbone: {choice: [mobilenet_v3_small, squeezenet1_1]}}
budget: {trials: 3, grace_epochs: 1}
"""


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and of all ImageNet weights only those of squeezenet1_1."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    file = backbone("squeezenet1_1").weights[0].file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")


def space_of(folder: Path, weights: str) -> Space:
    (folder / "space.yaml").write_text(SPACE.replace("WEIGHTS", weights))
    return load_space(folder / "space.yaml")


def test_auto_leaves_exactly_the_missing_backbones_without_imagenet_weights(tmp_path: Path) -> None:
    resolved, missing = resolve_weights(space_of(tmp_path, "auto").weights_by_backbone(), None)
    assert resolved == {"mobilenet_v3_small": "none", "squeezenet1_1": "imagenet"}
    assert missing == (("mobilenet_v3_small", "imagenet"),)
    none = space_of(tmp_path, "none").weights_by_backbone()
    assert resolve_weights(none, None)[1] == ()  # nothing is missing where nothing was wanted


AUDIO = """
fixed: {weights: auto}
search:
  backbone: {choice: [mn10, mn04, squeezenet1_1]}
  hop_ms: {choice: [10.0, 5.0], when: {backbone: [mn04, mn10]}}
  layer_decay: {choice: [1.0, 0.9], when: {hop_ms: 5.0}}
  mixup: {choice: [0.0, 0.2], when: {backbone: mn04}}
  image_size: {choice: [64], when: {backbone: squeezenet1_1}}
baselines:
  - {name: probe-mn04, backbone: mn04, method: probe}
  - {name: probe-mn10, backbone: mn10, weights: audioset, method: probe}
  - tutorial-simple
"""


def test_networks_of_audioset_and_baselines_without_their_weights_are_left_out_and_the_header_says_so(
    tmp_path: Path,
) -> None:
    (tmp_path / "space.yaml").write_text(AUDIO)
    space = load_space(tmp_path / "space.yaml")
    backbone("mn04").weights[0].file.write_bytes(b"weights")
    reduced, notes = with_weights_at_hand(space)
    assert [baseline.name for baseline in reduced.baselines] == ["probe-mn04", "tutorial-simple"]
    assert reduced.dimensions["backbone"].args == ("mn04", "squeezenet1_1")
    assert reduced.dimensions["hop_ms"].when == (("backbone", ("mn04",)),)
    assert notes == ("no AudioSet weights for mn10, so it is not searched and the baseline probe-mn10 is left out",)
    backbone("mn04").weights[0].file.unlink()
    reduced, notes = with_weights_at_hand(space)
    assert set(reduced.dimensions) == {"backbone", "image_size"}  # and what hangs on what is gone
    assert [baseline.name for baseline in reduced.baselines] == ["tutorial-simple"]  # auto: random weights, and said
    assert len(notes) == 2


def test_a_space_that_holds_nothing_but_what_lacks_its_weights_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "fixed: {weights: auto}\nbaselines: [{name: probe, backbone: mn04, method: probe}]"
    )
    space = load_space(tmp_path / "space.yaml")
    assert with_weights_at_hand(space) == (space, ())
    (tmp_path / "space.yaml").write_text("fixed: {weights: auto}\nsearch: {backbone: {choice: [mn01, mn04]}}")
    space = load_space(tmp_path / "space.yaml")
    assert with_weights_at_hand(space) == (space, ())
    resolved, missing = resolve_weights(space.weights_by_backbone(), None)
    assert resolved == {"mn01": "none", "mn04": "none"}
    assert missing == (("mn01", "audioset"), ("mn04", "audioset"))


def test_a_trials_configuration_says_which_weights_it_really_has(tmp_path: Path) -> None:
    space = space_of(tmp_path, "auto")
    resolved, _ = resolve_weights(space.weights_by_backbone(), None)
    for name in ("mobilenet_v3_small", "squeezenet1_1"):
        assert settle(space.config({"backbone": name}), resolved).weights == resolved[name]


def test_imagenet_weights_that_cannot_be_had_are_one_error_with_three_ways_out(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        resolve_weights(space_of(tmp_path, "imagenet").weights_by_backbone(), None)
    (line,) = error.value.problems
    assert str(backbone("mobilenet_v3_small").weights[0].file) in line
    for way in ("TORCH_HOME", "weights: auto", "weights: none"):
        assert way in line


def test_without_data_gtzan_is_taken_where_it_is_and_the_demo_set_elsewhere_and_both_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert choose_data("clips", None) == ("clips", ())
    assert choose_data(None, "fixed") == ("fixed", ())
    assert choose_data("clips", "fixed") == ("clips", ())
    name, (note,) = choose_data(None, None)
    assert name == "demo"
    assert "DEMO" in note
    Path("GTZAN/genres_original").mkdir(parents=True)
    name, (note,) = choose_data(None, None)
    assert name == "GTZAN/genres_original"
    assert name in note


def test_the_header_says_what_will_be_done_and_what_is_not_as_wished(
    tmp_path: Path, make_clips: Callable[..., Path]
) -> None:
    space_of(tmp_path, "auto")
    options = Options(tmp_path / "space.yaml", data=str(make_clips()), storage=str(tmp_path), name="run", swanlab="off")
    prepared, machines = prepare(options), Machines(1, 2.0, 0.0)
    mode = resolve_mode("off", prepared.run)
    space = replace(prepared.space, resources=Resources(gpu=0, cpu=1))
    content = record(prepared, options, mode.to_json(), machines.to_json(space.resources))
    with new_run(prepared.run, content, options.storage) as run:
        header = Searching(run, space, machines, mode, notes=("no GPU here",)).session.header
    assert header.data == f"{tmp_path / 'clips'}: 30 clips, 3 classes"
    shown = "1 dimensions, 2 trials of up to 2 epochs (the space has no more, of 3 asked for)"
    assert header.space == f"{tmp_path / 'space.yaml'}: {shown}"
    assert header.devices == "2 CPU cores, no GPU; 2 trials at a time, 1 CPU core each"
    assert header.weights == "ImageNet for squeezenet1_1; random for mobilenet_v3_small"
    assert any(note.startswith("no ImageNet weights for mobilenet_v3_small: ") for note in header.notes)
    assert "no GPU here" in header.notes


def test_data_is_recorded_where_it_was_found_whether_at_home_or_behind_a_link(
    tmp_path: Path, make_clips: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = make_clips()
    rows = [f"{clip.relative_to(tmp_path)},{clip.parent.name}" for clip in clips.rglob("*.wav")]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "clips.csv").write_text("\n".join(["path,label", *rows]))
    (tmp_path / "link.csv").symlink_to("elsewhere/clips.csv")
    monkeypatch.setenv("HOME", str(tmp_path))
    text = SPACE.replace("WEIGHTS", "none")
    for data, found in {"~/clips": clips, "~/link.csv": tmp_path / "link.csv"}.items():
        (tmp_path / "space.yaml").write_text(text.replace("fixed: {", f"fixed: {{data: {data}, "))
        prepared = prepare(Options(tmp_path / "space.yaml", storage=str(tmp_path), name="run"))
        assert prepared.space.fixed["data"] == str(found)
        assert load_dataset(prepared.space.fixed["data"]).hash == prepared.dataset.hash


def test_a_run_folder_in_which_trials_have_begun_survives_bad_input(tmp_path: Path) -> None:
    def refuse_later(begin: Callable[[RunFolder], object]) -> None:
        with new_run(tmp_path / "a" / "run", {"space": load_space("quick").to_json()}, "a") as run:
            begin(run)
            raise InputError("the disk is full")

    with pytest.raises(InputError):
        refuse_later(lambda run: None)
    assert not (tmp_path / "a").exists()
    with pytest.raises(InputError):
        refuse_later(lambda run: run.journal.suggested("search", "", {}, {}))
    assert len(load_run(tmp_path / "a" / "run").trials) == 1


@pytest.mark.parametrize("moment", ["before it is made", "while it is made"])
def test_a_run_that_has_taken_the_name_meanwhile_is_named_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = free_folder(str(tmp_path / "runs"), "same", tmp_path / "space.yaml")

    mkdir = Path.mkdir

    def other_search() -> None:
        mkdir(path.parent, exist_ok=True)
        mkdir(path)
        (path / "run.json").write_text("the other search")

    def overtaken(self: Path, *args: Any, **kwargs: Any) -> None:
        if self == path and not path.exists():
            other_search()
        mkdir(self, *args, **kwargs)

    if moment == "before it is made":
        other_search()
    monkeypatch.setattr(Path, "mkdir", overtaken)
    record = {"space": load_space("quick").to_json()}
    message = rf"--name: must be new, because runs are never overwritten, got 'same' \({path} exists\)"
    with (
        pytest.raises(InputError, match=message),
        new_run(path, record, str(path.parent)),
    ):
        pass
    assert (path / "run.json").read_text() == "the other search"


def test_searches_without_a_name_that_start_in_the_same_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.runs.folder.time.strftime", lambda pattern: "20260101-120000")
    names = {free_folder(str(tmp_path), None, Path("spaces/quick.yaml")).name for _ in range(4)}
    assert len(names) > 1
    assert all(name.startswith("quick-20260101-120000-") for name in names)


def test_the_name_of_any_space_file_makes_a_folder_name(tmp_path: Path) -> None:
    assert free_folder(str(tmp_path), None, Path("my spaces/wide (2) é.yaml")).name.startswith("wide-2-é-")


@pytest.mark.parametrize(
    ("fixed", "search", "said"),
    [
        ("{}", "lr: {loguniform: [1.0e-4, 1.0e-2]}", {"test_share", "scale"}),
        ("{test_share: 0.0, scale: power}", "lr: {loguniform: [1.0e-4, 1.0e-2]}", set()),
        ("{test_share: 0.2}", "scale: {choice: [log, db]}", set()),
        ("{scale: log}", "lr: {loguniform: [1.0e-4, 1.0e-2]}", {"test_share"}),
    ],
)
def test_defaults_that_few_would_choose_are_said(
    fixed: str, search: str, said: set[str], tmp_path: Path, make_clips: Callable[..., Path]
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(f"fixed: {fixed}\nsearch:\n  {search}\n")
    space = load_space(path).with_fixed(data=str(make_clips()))
    notes = silent_defaults(space, split_dataset(load_dataset(space.fixed["data"]), space.default_config()))
    assert {name for name in ("test_share", "scale") if any(name in note for note in notes)} == said
    assert len(notes) == len(said)


@pytest.mark.slow
def test_constraints_that_nothing_keeps_are_refused_with_the_least_that_is_needed(
    tmp_path: Path, make_clips: Callable[..., Path]
) -> None:
    dataset = load_dataset(str(make_clips()))
    text = SPACE.replace("WEIGHTS", "none") + "constraints: {parameters: LIMIT}\n"
    for limit, network in (("1e6", "squeezenet1_1"), ("3e6", "mobilenet_v3_small")):
        path = tmp_path / "space.yaml"
        path.write_text(text.replace("LIMIT", limit))
        space = load_space(path)
        check_constraints(space, dataset)
        keeps = affordable(space, dataset)
        assert keeps(space.config({"backbone": network}))
    assert keeps(space.config({"backbone": "squeezenet1_1"}))
    path.write_text(text.replace("LIMIT", "1e5"))
    with pytest.raises(InputError, match=r"constraints: must allow some .* need: parameters \d+k\)\. Raise a limit"):
        check_constraints(load_space(path), dataset)


@pytest.mark.slow
def test_a_limit_on_time_is_measured_on_this_machine(tmp_path: Path, make_clips: Callable[..., Path]) -> None:
    dataset = load_dataset(str(make_clips()))
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.replace("WEIGHTS", "none") + "constraints: {latency_ms: 1.0e-3}\n")
    with pytest.raises(InputError, match=r"latency_ms [\d.]+ ms"):
        check_constraints(load_space(path), dataset)


@pytest.mark.parametrize(
    ("constraints", "problem"),
    [
        ("{parameters: -1}", "constraints.parameters: should be greater than 0, got -1."),
        ("{latency: 20}", "constraints.latency: unknown key, got 20. Did you mean latency_ms?"),
        ("[1]", "constraints: must hold keys and values, got [1]."),
    ],
)
def test_wrong_constraints_are_named(constraints: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.replace("WEIGHTS", "none") + f"constraints: {constraints}\n")
    with pytest.raises(InputError) as caught:
        load_space(path)
    assert any(line.startswith(f"{path}: {problem}") for line in caught.value.problems), caught.value.problems


def test_a_network_with_a_front_end_of_its_own_leaves_no_scale_to_the_default(
    tmp_path: Path, make_clips: Callable[..., Path]
) -> None:
    (tmp_path / "space.yaml").write_text(
        "fixed: {backbone: mn04, weights: none, test_share: 0.2}\nsearch: {lr: {choice: [1.0e-3]}}\n"
    )
    space = load_space(tmp_path / "space.yaml")
    assert silent_defaults(space, split_dataset(load_dataset(str(make_clips())), space.default_config())) == ()


# --- networks of one's own

OWN = """
import beside
from torch import nn

def make(classes, channels):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, LOGITS))
"""


def own_space(folder: Path, logits: str) -> Path:
    """A space file that names a network in a file beside it by the file's name alone."""
    (folder / "mine.py").write_text(OWN.replace("LOGITS", logits))
    (folder / "beside.py").touch()
    (folder / "space.yaml").write_text(
        "fixed: {backbone: 'mine.py:make', weights: none, scale: log, n_fft: 256, n_mels: 32, epochs: 1}\n"
        "search: {lr: {choice: [0.001, 0.01]}}\nbudget: {trials: 2, grace_epochs: 1}\n"
    )
    return folder / "space.yaml"


def test_a_network_of_ones_own_is_recorded_with_its_hash_and_what_every_network_began_with(
    tmp_path: Path, make_clips: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = Options(own_space(tmp_path, "classes"), data=str(make_clips()), storage=str(tmp_path), name="run")
    content = record(prepare(options), options, {}, {})
    name = f"{tmp_path}/mine.py:make"
    digest = hashlib.sha256((tmp_path / "mine.py").read_bytes()).hexdigest()
    assert content["own_backbones"] == {name: digest}
    assert content["weights"] == {name: "none"}
    assert content["pretraining"] == {name: "nothing: random weights, none applies"}

    space_of(tmp_path, "auto")
    options = replace(options, space=tmp_path / "space.yaml", name="other")
    told = record(prepare(options), options, {}, {})["pretraining"]
    assert told["squeezenet1_1"] == "ImageNet: weights of torchvision's squeezenet1_1, BSD-3-Clause"
    assert told["mobilenet_v3_small"] == "nothing: random weights, none applies"


def test_a_network_whose_answer_does_not_fit_is_one_error_before_any_trial(
    tmp_path: Path, make_clips: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = Options(own_space(tmp_path, "7"), data=str(make_clips()), storage=str(tmp_path), name="run")
    with pytest.raises(InputError) as error:
        prepare(options)
    assert len(error.value.problems) == 1
    assert "mine.py:make must give logits [2, 3] for [2, 1, 32, " in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'space.yaml'}: backbone: ")
    assert not (tmp_path / "run").exists()


def test_a_network_that_does_not_take_the_shortest_clip_is_refused(
    tmp_path: Path, make_clips: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = own_space(tmp_path, "classes")
    (tmp_path / "mine.py").write_text(OWN.replace("LOGITS", "classes").replace("channels, 4, 3", "channels, 4, (3, 9)"))
    clips = make_clips(seconds=1.0)
    options = Options(file, data=str(clips), storage=str(tmp_path), name="run")
    prepare(options)  # 13 frames
    samples, rate = soundfile.read(clips / "class0" / "000.wav")
    soundfile.write(clips / "class0" / "short.wav", samples[: rate // 4], rate)
    with pytest.raises(InputError, match=r"must take inputs of the shape \[2, 1, 32, 4\]"):
        prepare(options)


def test_more_folds_than_the_clips_make_are_refused_before_anything_is_spent(
    tmp_path: Path, make_clips: Callable[..., Path]
) -> None:
    data = make_clips(classes=2, clips=10)
    file = tmp_path / "folds.yaml"

    def told(folds: int, fixed: str = "test_share: 0.2") -> list[str]:
        file.write_text(
            f"fixed: {{{fixed}, weights: none}}\nsearch: {{lr: {{loguniform: [1.0e-4, 1.0e-2]}}}}\n"
            f"budget: {{folds: {folds}}}"
        )
        try:
            check_folds(load_space(file), load_dataset(str(data)))
        except InputError as error:
            return list(error.problems)
        return []

    assert told(4) == []
    (line,) = told(5)
    assert line.startswith(f"{file}: budget.folds: ")
    assert "must be at most 4 (the split's own, and 3 of its 12 train clips), got 5" in line
    assert "must be at most 2" in told(3, "val_share: 0.5")[0]
    table = tmp_path / "clips.csv"
    rows = [f"{path},{path.parent.name},{'train' if number % 5 else 'val'}"
            for number, path in enumerate(sorted(data.glob("*/*.wav")))]  # fmt: skip
    table.write_text("\n".join(["path,label,split", *rows]))
    data = table
    (line,) = told(2, "val_share: 0.2")
    assert "needs val clips that are drawn, got split: given, which lists them: there are no further folds" in line
