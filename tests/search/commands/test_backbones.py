from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from search.commands.backbones import MOST_COUNTED, backbones
from trainable.backbones import BACKBONES, backbone
from trainable.errors import InputError

EXAMPLE = f"{Path(__file__).resolve().parents[3] / 'examples' / 'own_network.py'}:make"

COUNTED = 5_435_488 - 990 * 513  # the parameters of resnet10t with ten classes instead of 1000


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def printed(pattern: str | None, style: str = "table") -> str:
    stream = io.StringIO()
    assert backbones(pattern, style, stream) == 0
    return stream.getvalue()


def rows(pattern: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(printed(pattern, "json"))
    return found


@pytest.mark.slow
def test_every_network_is_listed_with_its_size_cost_weights_and_licence() -> None:
    found = rows(None)
    assert [row["name"] for row in found] == list(BACKBONES)
    for row in found:
        assert row["parameters"] > 1e5
        assert row["operations"] > 0.01
        assert row["weights"] in ("imagenet", "audioset")
        assert row["licence"]
    [mn10] = [row for row in found if row["name"] == "mn10"]
    assert (mn10["parameters"], mn10["operations"], mn10["rows"], mn10["columns"]) == (4_876_831, 0.541, 128, 1000)


def test_it_says_which_weights_are_here(torch_home: Path) -> None:
    (torch_home / "mn04_as_mAP_432.pt").write_bytes(b"weights")
    by_name = {row["name"]: (row["here"], row["auto"]) for row in rows("mn0")}
    assert by_name == {
        "mn01": ("", "none"), "mn02": ("", "none"), "mn04": ("audioset", "audioset"), "mn05": ("", "none")
    }  # fmt: skip
    lines = printed("mn0").splitlines()
    assert lines[3].split() == ["mn04", "984k", "0.111G", "128", "x", "1000", "AudioSet", "(4", "MB,", "MIT,", "here)"]
    assert lines[1].endswith("AudioSet (1 MB, MIT, not here)")


def test_a_csv_has_the_columns_of_the_json() -> None:
    [row] = csv.DictReader(io.StringIO(printed("resnext101_32", "csv")))
    [same] = rows("resnext101_32")
    assert row == {name: "" if value is None else str(value) for name, value in same.items()}


def test_what_nobody_has_stated_is_counted() -> None:
    [row] = rows(EXAMPLE)
    model = backbone(EXAMPLE).make(10, 1, None, True)
    assert row["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    # The first convolution, from 1 to 32 channels of 64 x 500, is 9.2 of them.
    assert 0.0092 < row["operations"] < 1
    assert (row["name"], row["weights"], row["auto"]) == (EXAMPLE, "", "none")


@pytest.mark.slow
def test_timms_are_counted_where_few_match_and_only_named_where_many_do() -> None:
    pytest.importorskip("timm", reason="timm is optional and not installed")
    few = rows("timm:resnet10t")
    assert [(row["name"], row["parameters"]) for row in few] == [("timm:resnet10t", COUNTED)]
    assert few[0]["operations"] == pytest.approx(0.7, abs=0.1)  # 1.1 at 224 px, of which it was taught with 176
    many = rows("timm:resnet")
    assert len(many) > MOST_COUNTED
    assert {row["parameters"] for row in many} == {None}
    assert f"counted where at most {MOST_COUNTED} networks match" in printed("timm:resnet")


def test_a_pattern_that_nothing_holds_gets_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"must be part of a network's name, got 'resnte18'. Did you mean resnet18\?"):
        backbones("resnte18")
