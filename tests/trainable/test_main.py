from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console
from typer.testing import CliRunner

from trainable.__main__ import Bars, app
from trainable.__main__ import run as train_and_save
from trainable.inference.model import load_model
from trainable.training.trial_folder import TrialFolder

ROOT = Path(__file__).resolve().parents[2]
MakeClips = Callable[..., Path]


def command(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "trainable", *map(str, words)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(map(str, words)))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(
        "backbone: squeezenet1_1\nweights: none\nimage_size: 32\nn_fft: 256\nhop_length: 128\nn_mels: 32\n"
        "scale: log\nnormalise: train\nepochs: 2\nlr: 1e-3\n"
    )
    return path


@pytest.mark.slow
def test_it_trains_saves_a_model_and_takes_its_own_config_again(
    config: Path, make_clips: MakeClips, tmp_path: Path
) -> None:
    clips, folder = make_clips(), tmp_path / "out"
    (clips / "class0" / "broken.wav").write_bytes(b"nothing")
    code, out, err = run("--config", config, "--data", clips, "--folder", folder)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "data: clips, 30 clips of 3 classes, 0.01 h; 1 files left out"
    assert "broken.wav" in lines[1]
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert any(line.startswith("best epoch: ") and "of 6 validation clips" in line for line in lines)
    model = load_model(folder / "model", device="cpu")
    assert model.labels == ("class0", "class1", "class2")
    assert model.record["validation_clips"] == 6

    code, out, err = run("--config", folder / "config.json", "--folder", tmp_path / "again")
    assert (code, err) == (0, "")
    once, again = TrialFolder(folder).epochs(), TrialFolder(tmp_path / "again").epochs()
    assert [result.val_loss for result in once] == [result.val_loss for result in again]

    code, _, err = run("--config", config, "--data", clips, "--folder", folder)
    assert code == 2
    assert err.startswith(f"--folder: must be new, got {folder}, which holds a training.")


def test_bad_input_is_one_message_and_leaves_nothing(
    config: Path, make_clips: MakeClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("backbone: resnet81\nimage_size: 64\nepochs: 0\n")
    folder = tmp_path / "out"
    code, out, err = run("--config", config, "--data", make_clips(), "--folder", folder)
    assert (code, out) == (2, "")
    assert "epochs: should be greater than or equal to 1, got 0" in err
    assert "Traceback" not in err
    config.write_text("backbone: squeezenet1_1\nweights: imagenet\nimage_size: 64\n")
    home = str(tmp_path / "torch")
    monkeypatch.setenv("TORCH_HOME", home)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there: no network
    code, out, err = run("--config", config, "--data", tmp_path / "clips", "--folder", folder)
    assert code == 2
    assert err.startswith(
        f"weights: imagenet for squeezenet1_1 needs {home}/hub/checkpoints/squeezenet1_1-b8a52dc0.pth"
    )
    assert "Traceback" not in err
    assert not folder.exists()


@pytest.mark.slow
def test_odd_clips_are_learned_from_and_bad_ones_are_named(config: Path, make_clips: MakeClips, tmp_path: Path) -> None:
    odd = make_clips() / "ünï cödé"
    odd.mkdir()
    rng = np.random.default_rng(0)
    for name, rate, shape, subtype in (
        ("8 bit", 8000, 8000, "PCM_U8"), ("24 bit", 8000, 8000, "PCM_24"), ("float", 8000, 8000, "FLOAT"),
        ("six channels at 96 kHz", 96_000, (96_000, 6), "PCM_16"), ("a hundredth of a second", 8000, 80, "PCM_16"),
    ):  # fmt: skip
        soundfile.write(odd / f"{name}.wav", 0.1 * rng.standard_normal(shape), rate, subtype=subtype)
    soundfile.write(odd / "silent.wav", np.zeros(8000), 8000)
    soundfile.write(odd / "no samples.wav", np.zeros(0), 8000)
    soundfile.write(odd / "not a number.wav", np.array([0.5, np.nan, -0.5]), 8000, subtype="FLOAT")
    (odd / "cut.wav").write_bytes((odd / "24 bit.wav").read_bytes()[:6044])
    (odd / "text.wav").write_text("text")
    (odd / "empty.wav").touch()
    (odd / "._float.wav").write_bytes(b"of macOS")
    code, out, err = run("--config", config, "--data", odd.parent, "--folder", tmp_path / "out")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "data: clips, 35 clips of 4 classes, 0.01 h; 7 files left out"
    assert lines[1:8] == [
        f"  left out: ünï cödé/{name}: {reason}"
        for name, reason in (
            ("._float.wav", "hidden (left behind by macOS)"),
            ("cut.wav", "truncated: 75% of the samples that its header promises are missing"),
            ("empty.wav", "empty file (0 bytes)"),
            ("no samples.wav", "no samples"),
            ("not a number.wav", "1 NaN or infinite samples"),
            ("silent.wav", "silent"),
            ("text.wav", "not readable as audio (format not recognised)"),
        )
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("n_fft: 16384", "n_fft: at least half of the clips must be that long, got 16384 samples (2048 ms at 8000 Hz)"),
        ("f_max: 9000", "f_max: must be at most half the sample rate (4000 Hz at 8000 Hz), got 9000."),
        ("f_min: 4000", "f_min: must be below f_max (4000 Hz), got 4000. Lower it."),
        ("image_size: 16", "{config}: image_size: must be at least 17 px for squeezenet1_1, got 16. Raise it."),
        ("lr: .nan", "{config}: lr: should be a finite number, got nan. Change the value."),
        ("n_ftt: 512", "{config}: n_ftt: unknown key, got 512. Did you mean n_fft?"),
        ("device: cuda:9", "device: must be one of this machine's, got 'cuda:9', which is not there. Use auto or cpu."),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    config: Path, make_clips: MakeClips, tmp_path: Path, line: str, message: str
) -> None:
    key = line.split(":")[0]
    kept = [old for old in config.read_text().splitlines() if not old.startswith(f"{key}:")]
    config.write_text("\n".join([*kept, line]) + "\n")
    code, _, err = run("--config", config, "--data", make_clips(clips=3), "--folder", tmp_path / "out")
    assert code == 2
    assert err.startswith(message.format(config=config))
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


CONTROL = re.compile(r"\r|\x1b\[[\d;?]*[A-Za-z]")  # what moves the cursor, hides it and clears lines


def terminal(*, is_one: bool = True) -> Console:
    """A console of 80 columns that keeps what it sends: see `sent`."""
    return Console(force_terminal=is_one, file=io.StringIO(), width=80, color_system=None, legacy_windows=False)


def sent(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_a_bar_per_step_and_takes_it_away_when_it_is_complete() -> None:
    console = terminal()
    with Bars(console) as progress:

        def shown() -> list[tuple[str, str]]:
            before = len(sent(console))
            progress._bars.refresh()  # it draws by itself ten times a second, which a test need not wait for
            drawn = CONTROL.sub("", sent(console)[before:])
            return list(dict.fromkeys(re.findall(r"^(.+?) [━╸╺ ]+ (\d+/\d+) ", drawn, re.M)))

        progress("Making mels", 2, 8)
        assert shown() == [("Making mels", "2/8")]
        progress("Epoch 1", 1, 4)
        progress("Making mels", 5, 9)
        assert shown() == [("Making mels", "5/9"), ("Epoch 1", "1/4")]
        progress("Making mels", 9, 9)
        assert shown() == [("Epoch 1", "1/4")]
        progress("Making mels", 1, 3)  # once more
        progress("Epoch 1", 4, 4)
        assert shown() == [("Making mels", "1/3")]
        console.print("epoch   1/2")
    assert "Making mels" in sent(console)
    assert "epoch   1/2" in sent(console)
    assert sent(console).count("\x1b[?25l") == sent(console).count("\x1b[?25h") == 1  # the cursor is back


def test_where_there_is_no_terminal_nothing_is_sent() -> None:
    console = terminal(is_one=False)
    with Bars(console) as progress:
        progress("Epoch 1", 1, 4)
        progress("Epoch 1", 4, 4)
    assert sent(console) == ""


@pytest.mark.slow
def test_training_on_a_terminal_shows_bars_and_leaves_the_lines_only(
    config: Path, make_clips: MakeClips, tmp_path: Path
) -> None:
    console = terminal()
    assert train_and_save(config, str(make_clips()), tmp_path / "out", None, False, console) == 0
    text = sent(console)
    for step in ("Reading clips", "Epoch 1", "Epoch 2"):
        assert step in text
    lines = CONTROL.sub("\n", text).splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_a_folder_that_cannot_be_written_is_named(config: Path, make_clips: MakeClips, tmp_path: Path) -> None:
    for place in (config, config / "below", Path("/proc/out")):
        code, _, err = run("--config", config, "--data", make_clips(name=f"for {place.name}"), "--folder", place)
        assert code == 2
        assert err.startswith(f"--folder: must be writable, got {place}: ")
        assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_a_training_that_diverges_fails_with_one_line(config: Path, make_clips: MakeClips, tmp_path: Path) -> None:
    config.write_text(config.read_text().replace("lr: 1e-3", "lr: 1e30\noptimizer: sgd"))
    code, _, err = run("--config", config, "--data", make_clips(), "--folder", tmp_path / "out")
    assert code == 1
    assert err.startswith("diverged: ")
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_ctrl_c_prints_the_command_that_goes_on_and_it_does(
    config: Path, make_clips: MakeClips, tmp_path: Path
) -> None:
    words = ["--config", config, "--data", make_clips(), "--folder", tmp_path / "out", "--epochs", "300"]
    process = command(*words)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch   2/"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("Interrupted. Go on with: python -m trainable --config ")
    assert err.endswith(" --resume\n")

    files = TrialFolder(tmp_path / "out")
    before = len(files.epochs())
    assert json.loads(files.config_file.read_text())["epochs"] == 300
    process = command(*words, "--resume")
    assert process.stdout is not None
    first = next(line for line in process.stdout if line.startswith("epoch "))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert first.startswith(f"epoch {before + 1:3d}/300")
