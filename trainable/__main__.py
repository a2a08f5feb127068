"""`python -m trainable --config FILE.yaml`: one configuration, trained and saved, without Ray."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from trainable.commands import typed
from trainable.errors import InputError, TrialEnded
from trainable.files import read_mapping
from trainable.streams import open_closed_streams, settle_streams, tell

if TYPE_CHECKING:
    from trainable.config import TrialConfig
    from trainable.training.trial_folder import EpochResult, TrialFolder

EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130

open_closed_streams()
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Bars:
    """A `trainable.progress.Progress` as bars on a terminal, one per step; silent elsewhere."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        if not self._bars.disable:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._bars.disable:  # it would leave an empty line
            self._bars.stop()

    def __call__(self, description: str, done: int, total: int) -> None:
        """Moves the bar of that step; a step that is complete is taken off the screen."""
        if description not in self._tasks:
            self._tasks[description] = self._bars.add_task(description, total=total)
        self._bars.update(self._tasks[description], completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(description))


@app.command()
def main(
    config: Annotated[Path, typer.Option(help="A YAML file of TrialConfig fields, or a trial's config.json.")],
    data: Annotated[str | None, typer.Option(help="A folder of class folders, a CSV, or 'demo'.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where to write.", show_default="trained/NAME_OF_CONFIG")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the configuration's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last finished epoch in the folder.")] = False,
) -> None:
    """Train one configuration, an epoch a line, and save the model for `run_search.py predict`.

    Example: python -m trainable --config runs/quick-1/trial_0003/config.json --folder trained/again
    """
    folder = folder or Path("trained") / (config.parent.name if config.name == "config.json" else config.stem)
    console = Console(highlight=False, soft_wrap=True)
    try:
        code = run(config, data, folder, epochs, resume, console)
    except InputError as error:
        tell(error)
        code = EXIT_BAD_INPUT
    except TrialEnded as error:
        tell(f"{error.status.replace('_', ' ')}: {error}")
        code = EXIT_FAILED
    except KeyboardInterrupt:
        words = [word for word in sys.argv[1:] if word != "--resume"]
        tell(f"Interrupted. Go on with: python -m trainable {shlex.join(words)} --resume")
        code = EXIT_INTERRUPTED
    settle_streams()
    raise typer.Exit(code)


def run(path: Path, data: str | None, folder: Path, epochs: int | None, resume: bool, console: Console) -> int:
    """Trains and saves; the exit code.

    Raises:
        InputError: an input is wrong; then nothing has been written.
        TrialEnded: the training diverged or had no room.
    """
    from trainable.training.loop import train
    from trainable.training.network import checked_config
    from trainable.training.trial_folder import TrialFolder

    flags = {"data": data, "epochs": epochs}
    given = {name: value for name, value in flags.items() if value is not None}
    config = checked_config({**read_mapping(path), **given}, source=str(path))
    _check_folder(folder, resume)
    files = TrialFolder(folder)
    with Bars(console) as progress:
        config = _prepare(config, console, progress)
        if not resume:
            _write_config(files, config)
        for result in train(config, folder, resume, progress):
            console.print(_line(result, config.epochs))
    _hand_over(files, console)
    return EXIT_DONE


def _line(result: EpochResult, epochs: int) -> str:
    return (
        f"epoch {result.epoch:3d}/{epochs}  train loss {result.train_loss:.4f} acc {result.train_acc:6.1%}  "
        f"val loss {result.val_loss:.4f} acc {result.val_acc:6.1%}  lr {result.lr:.2e}  {result.seconds:.1f} s"
    )


def _check_folder(folder: Path, resume: bool) -> None:
    """Refuses to write over an earlier training, or to resume where there is none."""
    there = (folder / "config.json").exists()
    if there and not resume:
        raise InputError(
            f"--folder: must be new, got {folder}, which holds a training. Name another one, or add --resume."
        )
    if resume and not there:
        raise InputError(f"--resume: needs a training to go on with, got {folder}, which holds none. Leave it out.")


def _prepare(config: TrialConfig, console: Console, progress: Bars) -> TrialConfig:
    """The configuration with its weights settled and its mels made; says what will be learned from."""
    from trainable.backbones import SPOKEN, best_weights, fetch_weights
    from trainable.backbones import backbone as record_of
    from trainable.data.dataset import load_dataset
    from trainable.data.split import split_dataset
    from trainable.features.mel_cache import mels_of
    from trainable.training.device import find_device
    from trainable.training.network import input_in_words

    device = find_device(config.device)
    dataset = load_dataset(config.data, progress, config.group_column)
    split = split_dataset(dataset, config)
    if config.weights == "auto":
        for published in record_of(config.backbone).weights:
            try:
                fetch_weights([(config.backbone, published.kind)], progress)
                break
            except InputError as error:
                console.print(f"WARNING: no {SPOKEN[published.kind]} weights. {error}")
        config = config.model_copy(update={"weights": best_weights(config.backbone)})
    else:
        fetch_weights([(config.backbone, config.weights)], progress)
    console.print(
        f"data: {dataset.name}, {len(dataset.clips)} clips of {len(dataset.labels)} classes, "
        f"{dataset.seconds / 3600:.2f} h; {len(dataset.rejected)} files left out"
    )
    for item in dataset.rejected:
        console.print(f"  left out: {item.name}: {item.reason}")
    counts = f"{len(split.train)} train, {len(split.val)} val, {len(split.test)} test"
    console.print("; ".join([f"split: {split.name}: {counts}", *split.notes]))
    console.print(f"model: {config.backbone}, weights {config.weights}, {input_in_words(config)}, on {device}")
    mels_of(dataset, config, progress)  # now, so that what does not fit is said before anything is written
    return config


def _write_config(files: TrialFolder, config: TrialConfig) -> None:
    """Makes the folder, with the configuration in it."""
    try:
        files.write_config(config.to_json())
    except OSError as error:
        raise InputError(f"--folder: must be writable, got {files.path}: {error.strerror}. Name another one.") from None


def _hand_over(files: TrialFolder, console: Console) -> None:
    """Saves the model of the best epoch and says what it is worth."""
    from trainable.inference.metrics import fit_temperature, wilson_interval
    from trainable.inference.model import save_trial
    from trainable.inference.scores import score_trial

    scores, model = score_trial(files, "val"), files.path / "model"
    clips, right = len(scores.clips), int(scores.right.sum())
    if clips:
        record = {"validation_accuracy": scores.accuracy, "validation_clips": clips}
        save_trial(files, model, fit_temperature(scores.probabilities, scores.true), record)
        low, high = wilson_interval(right, clips)
        console.print(
            f"best epoch: {right} of {clips} validation clips, {right / clips:.1%} (95% interval {low:.1%} to "
            f"{high:.1%}; it flatters, as these clips chose the epoch)"
        )
    else:
        save_trial(files, model)
    console.print(f"model: {model}\nlabel files with: {typed('predict', model, 'FILE', '...')}")


if __name__ == "__main__":
    app(prog_name="python -m trainable")
