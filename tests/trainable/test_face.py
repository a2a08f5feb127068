from __future__ import annotations

import subprocess
import sys

import pytest

import trainable


@pytest.mark.parametrize("name", trainable.__all__)
def test_everything_that_the_package_shows_is_there(name: str) -> None:
    assert getattr(trainable, name) is not None


def test_the_package_shows_what_the_design_names() -> None:
    named = "TrialConfig train EpochResult load_dataset split_dataset load_model predict_files InputError __version__"
    assert sorted(dir(trainable)) == sorted(named.split())
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = trainable.trian


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, trainable; dir(trainable); print({'torch', 'pydantic'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
