"""Fixtures shared by all tests: small sets of synthesised clips, and a cache folder of their own."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run two at a time on two cores

# A shell starts what it puts into the background deaf to Ctrl-C, and so would be all that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test run; nothing touches the user's own."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("AUDIO_SEARCH_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True, scope="module")
def out_of_the_collectors_sight() -> None:
    """What is imported is not searched for garbage again: every training searches for a third of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def activated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the tests as if activated, so that messages name `python` and not a path."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def make_clips(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a folder of class folders whose classes differ by pitch, and returns its path."""

    def make(
        classes: int = 3, clips: int = 10, seconds: float = 1.0, sample_rate: int = 8000, name: str = "clips"
    ) -> Path:
        rng = np.random.default_rng(0)
        time = np.arange(int(seconds * sample_rate)) / sample_rate
        for label in range(classes):
            folder = tmp_path / name / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(clips):
                pitch = 300 * 1.6**label * rng.uniform(0.97, 1.03)
                wave = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.02 * rng.standard_normal(time.size)
                soundfile.write(folder / f"{index:03d}.wav", wave, sample_rate, subtype="PCM_16")
        return tmp_path / name

    return make


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the project; tests that want it skip where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data is not at hand: {SHARED_DATA} does not exist")
    return SHARED_DATA
