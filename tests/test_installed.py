"""The program as it is installed: from a wheel, away from its checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.space.load import load_space, space_path
from trainable.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def test_a_shipped_space_is_found_by_its_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("quick", "quick.yaml", "spaces/quick.yaml"):
        assert space_path(name) == ROOT / "spaces" / "quick.yaml"
    assert load_space("quick").dimensions
    (tmp_path / "quick.yaml").write_text("search: {lr: {loguniform: [1.0e-4, 1.0e-3]}}")
    assert space_path("quick.yaml") == Path("quick.yaml"), "a file of one's own comes first"
    with pytest.raises(InputError, match=r"quik: no such file, and no space of that name. Did you mean quick?"):
        load_space("quik")
    with pytest.raises(InputError, match=r"mine/quick.yaml: no such file"):
        load_space("mine/quick.yaml")


@pytest.mark.slow
@pytest.mark.process
def test_a_wheel_holds_the_spaces_the_page_and_the_types(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    built = subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, ROOT], capture_output=True, text=True)
    if built.returncode and "setuptools" in built.stderr:
        pytest.skip(f"the build needs setuptools from the network: {built.stderr.splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True)
    code = """
import pathlib, search, trainable
from search.space.load import load_space, shipped_spaces
print(sorted(file.stem for file in shipped_spaces().glob("*.yaml")), len(load_space("quick").dimensions) > 0)
print(shipped_spaces(), search.__file__)
from search.report import report
print(all((pathlib.Path(package.__file__).parent / "py.typed").exists() for package in (search, trainable)))
"""
    packages = Path(pytest.__file__).parents[1]  # what the program needs is taken from here
    said = subprocess.run(
        [python, "-P", "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    spaces, places, typed = said.stdout.splitlines()
    names = sorted(file.stem for file in (ROOT / "spaces").glob("*.yaml"))
    assert spaces == f"{names} True"
    assert all(str(tmp_path) in place for place in places.split())
    assert typed == "True"
