"""The command line: flags to one call each. `python run_search.py --help` shows the commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Optional

import typer

# Heavy imports (torch, Ray) happen inside the commands, so that --help answers at once.
app = typer.Typer(
    add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
data_app = typer.Typer(no_args_is_help=True, help="Check, make or download data; see and clear the caches.")
app.add_typer(data_app, name="data")

SwanLabMode = Literal["auto", "cloud", "offline", "local", "off"]

Run = Annotated[Path, typer.Argument(help="A run folder, such as runs/quick-1.", show_default=False)]
Runs = Annotated[list[Path], typer.Argument(help="Run folders, such as runs/quick-1.", show_default=False)]
Data = Annotated[
    Optional[str],  # noqa: UP045 - typer reads annotations at run time, on all supported versions
    typer.Option(help="A folder of class folders, a CSV, or 'demo'.", show_default="GTZAN if it is there, else demo"),
]
SwanLab = Annotated[SwanLabMode, typer.Option(help="Where trials are mirrored; auto: cloud when logged in.")]
Address = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="A running Ray cluster: auto or HOST:PORT.", show_default="this machine alone"),
]
Gpus = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(min=0, help="GPUs per trial; a fraction shares one.", show_default="the space file's"),
]
Cpus = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(min=0.01, help="CPUs per trial, also its torch threads.", show_default="the space file's"),
]


def answer(work: Callable[[], int | None]) -> NoReturn:
    """Ends the command: 0 done, 1 failed, 2 bad input (its message and no traceback), 130 interrupted."""
    from trainable.errors import InputError

    try:
        code = work() or 0
    except InputError as error:
        typer.echo(str(error), err=True)
        code = 2
    raise typer.Exit(code)


@app.callback(invoke_without_command=True)
def search(
    context: typer.Context,
    space: Annotated[Path, typer.Option(help="The space file.")] = Path("spaces/quick.yaml"),
    data: Data = None,
    name: Annotated[str | None, typer.Option(help="The run's name.", show_default="space and time")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all, baselines included.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of a whole trial.")] = None,
    time_budget: Annotated[str | None, typer.Option(help="Wall clock, such as 30m or 2h.")] = None,
    gpus_per_trial: Gpus = None,
    cpus_per_trial: Cpus = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the search and of its trials.")] = None,
    swanlab: SwanLab = "auto",
    project: Annotated[str, typer.Option(help="The SwanLab project.")] = "audio-search",
    storage: Annotated[str, typer.Option(help="Where run folders go; must be shared by all nodes.")] = "runs",
    address: Address = None,
    warm_start: Annotated[
        list[Path] | None, typer.Option(help="Learn from the trials of this run too; may be given again.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and what it would cost.")] = False,
) -> None:
    """Search for the best audio classifier that a folder of labelled clips allows.

    Without a command: run a search. Example:

        python run_search.py --space spaces/wide.yaml --data GTZAN/genres_original --trials 64
    """
    if context.invoked_subcommand is not None:
        return

    def work() -> int:
        from search.prepare import Options
        from search.session import search as start

        return start(
            Options(
                space=space, data=data, name=name, trials=trials, epochs=epochs, time_budget=time_budget,
                gpus_per_trial=gpus_per_trial, cpus_per_trial=cpus_per_trial, seed=seed, swanlab=swanlab,
                project=project, storage=storage, address=address, warm_start=tuple(warm_start or ()),
                dry_run=dry_run,
            )
        )  # fmt: skip

    answer(work)


@app.command()
def resume(
    run: Run,
    trials: Annotated[int | None, typer.Option(min=1, help="New total, to extend a finished search.")] = None,
    swanlab: SwanLab = "auto",
    address: Address = None,
) -> None:
    """Continue a search that was interrupted, killed or is to be longer.

    Example: python run_search.py resume runs/wide-1 --trials 200
    """

    def work() -> int:
        from search.session import resume as start

        return start(run, trials=trials, swanlab=swanlab, address=address)

    answer(work)


if __name__ == "__main__":
    app()
