from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainable.backbones import backbone, located, native_values, source_hash
from trainable.errors import InputError
from trainable.training.network import build_network, check_shape, checked_config

EXAMPLE = f"{Path(__file__).resolve().parents[3] / 'examples' / 'own_network.py'}:make"
SQUARE = {"image_size": 48, "channels": "repeat"}
NETWORK = """
from torch import nn

def make(classes, channels):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
"""


def written(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text)
    return f"{folder / name}:make"


def config(name: str, **values: object):  # type: ignore[no-untyped-def]
    return checked_config({"backbone": name, "weights": "none", "n_mels": 32, **values})


@pytest.mark.parametrize(("values", "shape"), [({}, (1, 32, 50)), (SQUARE, (3, 48, 48))])
def test_the_example_takes_mels_as_they_are_and_squares(values: dict[str, object], shape: tuple[int, ...]) -> None:
    settings = config(EXAMPLE, **values)
    model = build_network(settings, 7)
    assert model(torch.randn(2, *shape)).shape == (2, 7)
    check_shape(settings, 7, 50)


def test_its_mel_keeps_its_shape_and_has_one_channel_unless_it_says_otherwise() -> None:
    assert native_values(EXAMPLE, "none") == {"image_size": None, "channels": "one"}
    assert config(EXAMPLE).image_size is None
    assert config(EXAMPLE).input_channels == 1


def test_a_module_that_can_be_imported_does_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_package").mkdir()
    written(tmp_path / "my_package", NETWORK, "__init__.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert build_network(config("my_package:make"), 3)(torch.randn(2, 1, 32, 40)).shape == (2, 3)


def test_its_hash_follows_its_source(tmp_path: Path) -> None:
    name = written(tmp_path, NETWORK)
    first = source_hash(name)
    written(tmp_path, NETWORK + "\n# changed\n")
    assert first is not None
    assert source_hash(name) not in (None, first)
    assert source_hash("resnet18") is None


def test_a_file_that_was_changed_is_read_again(tmp_path: Path) -> None:
    name = written(tmp_path, NETWORK)
    assert len(list(build_network(config(name), 3).modules())) == 5
    written(tmp_path, NETWORK.replace("nn.Flatten(),", "nn.Flatten(), nn.ReLU(),"))
    assert len(list(build_network(config(name), 3).modules())) == 6


def test_its_path_means_the_same_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert located("mine.py:make") == f"{tmp_path}/mine.py:make"
    assert located("package.module:make") == "package.module:make"
    assert located("timm:resnet10t") == "timm:resnet10t"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def makes(classes, channels): ...", "and no make there. Did you mean makes?"),
        ("", "Write def make(classes, channels)."),
        ("import nothing_of_that_name", "must be Python that runs, got ModuleNotFoundError"),
        ("def make(classes, channels", "must be Python that runs, got SyntaxError"),
        (None, "must name a file that is there"),
    ],
)
def test_what_is_no_function_is_one_clear_error(tmp_path: Path, text: str | None, says: str) -> None:
    name = f"{tmp_path}/mine.py:make" if text is None else written(tmp_path, text)
    with pytest.raises(InputError) as error:
        config(name)
    assert len(error.value.problems) == 1
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def make(classes, channels): return 3", "must return an nn.Module, got int"),
        ("def make(classes): return None", "must build a network for (5, 1), classes and channels, got TypeError"),
        (NETWORK.replace("classes))", "6))"), "must give logits [2, 5] for [2, 1, 32, 50], got [2, 6]"),
        (NETWORK.replace("nn.Linear(4, ", "nn.Linear(5, "), "must take inputs of the shape [2, 1, 32, 50]"),
    ],
)  # fmt: skip
def test_a_shape_that_does_not_fit_is_one_clear_error(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        check_shape(config(written(tmp_path, text)), 5, 50)
    assert len(error.value.problems) == 1
    assert says in str(error.value)


def test_its_cost_is_counted_where_nobody_has_stated_it() -> None:
    from trainable.training.cost import giga_operations

    assert backbone(EXAMPLE).giga(100) is None
    small, large = (giga_operations(config(EXAMPLE), 32, frames) for frames in (64, 128))
    assert large == pytest.approx(2 * small, rel=0.01)
