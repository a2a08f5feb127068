"""The command line: flags to one call each. `python run_search.py --help` shows the commands."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Optional, TextIO

import typer
from typer.core import TyperGroup

from trainable.commands import retold
from trainable.cores import allowed_cores
from trainable.streams import open_closed_streams, reader_has_gone, settle_streams, tell

open_closed_streams()  # first of all, for the messages of the command line itself too


class Commands(TyperGroup):
    """Commands whose help shows them as one types them here."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help of the commands together."""
        self.help = retold(self.help or "")
        super().format_help(ctx, formatter)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by its name, or None."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            command.help = retold(command.help or "")
        return command


# Heavy imports (torch, Ray) happen inside the commands, so that --help answers at once.
app = typer.Typer(
    cls=Commands, add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
data_app = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Check, make or download data; see and clear the caches."
)
app.add_typer(data_app, name="data")

SwanLabMode = Literal["auto", "cloud", "offline", "local", "off"]

Run = Annotated[Path, typer.Argument(help="A run: its folder, or its name in --storage.", show_default=False)]
Runs = Annotated[list[Path], typer.Argument(help="Runs: their folders, or names in --storage.", show_default=False)]
Storage = Annotated[str, typer.Option(help="Where run folders are that are given by name.")]
Moved = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Where the data set lies by now, if it was moved.", show_default="as before"),
]
Data = Annotated[
    Optional[str],  # noqa: UP045 - typer reads annotations at run time, on all supported versions
    typer.Option(help="A folder of class folders, a CSV, or 'demo'.", show_default="GTZAN if it is there, else demo"),
]
Group = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="A column of the CSV whose values stay in one part.", show_default="group"),
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
AtOnce = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Trials that run at the same time at most.", show_default="as many as fit"),
]
Cpus = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(min=0.01, help="CPUs per trial, also its torch threads.", show_default="the space file's"),
]


def load(modules: Sequence[str], stream: TextIO) -> None:
    """Imports what takes seconds, and says so: a person must not take that for a hang."""
    if all(name in sys.modules for name in modules):
        return
    on_terminal = stream.isatty()
    if on_terminal or stream is sys.stdout:
        print("Loading torch and what goes with it ...", end="" if on_terminal else "\n", file=stream, flush=True)
    for name in modules:
        importlib.import_module(name)
    if torch := sys.modules.get("torch"):  # it counts the machine's cores where a group or a job has fewer
        torch.set_num_threads(min(torch.get_num_threads(), allowed_cores()))
    if on_terminal:
        print("\r\x1b[K", end="", file=stream, flush=True)


def answer(work: Callable[[], int | None], *modules: str, talks: bool = False) -> NoReturn:
    """Ends the command: 0 done, 1 failed, 2 bad input (its message and no traceback), 130 interrupted.

    `modules`: what `work` will import, where that takes seconds. `talks`: standard output is for people to follow.
    """
    from trainable.errors import InputError

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's preemption is a Ctrl-C
    try:
        load(modules, sys.stdout if talks else sys.stderr)
        code = work() or 0
        sys.stdout.flush()
    except KeyboardInterrupt:  # once trials run, the first one only asks for a stop
        tell("Interrupted. Nothing that was finished is lost: give the same command again.")
        code = 130
    except InputError as error:
        tell(str(error))
        code = 2
    except OSError as error:  # a disk, a mount, a network: nothing of ours
        if error.errno is None:  # no word of the system's, but of a library, such as one that cannot be loaded
            raise
        way_out = "Free some space, change its rights or mount it again, and give the same command again."
        place = error.filename or "a file, a folder or the network"
        if not (isinstance(error, BrokenPipeError) and reader_has_gone()):
            tell(f"{place}: must be there and usable, got {error.strerror or error!r}. {way_out}")
        code = 1
    settle_streams()
    raise typer.Exit(code)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(metadata.version("audio-search"))
        raise typer.Exit


@app.callback(invoke_without_command=True)
def search(
    context: typer.Context,
    space: Annotated[Path, typer.Option(help="The space file, or a shipped one by its name.")] = Path(
        "spaces/quick.yaml"
    ),
    data: Data = None,
    group: Group = None,
    name: Annotated[str | None, typer.Option(help="The run's name.", show_default="space and time")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all, baselines included.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of a whole trial.")] = None,
    time_budget: Annotated[str | None, typer.Option(help="Wall clock, such as 30m or 2h.")] = None,
    gpus_per_trial: Gpus = None,
    cpus_per_trial: Cpus = None,
    at_once: AtOnce = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the search and of its trials.")] = None,
    swanlab: SwanLab = "auto",
    project: Annotated[str, typer.Option(help="The SwanLab project.")] = "audio-search",
    storage: Annotated[str, typer.Option(help="Where run folders go; must be shared by all nodes.")] = "runs",
    address: Address = None,
    warm_start: Annotated[
        list[Path] | None,
        typer.Option(help="A run on the same data whose trials the sampler learns from; may be given again."),
    ] = None,
    learn_from: Annotated[
        list[Path] | None,
        typer.Option(
            help="A run on other data whose results guide the proposals while they prove right; may be given again."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Fix a field, such as n_folds=10; may be given again."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version and end.")
    ] = False,
    without: Annotated[
        Path | None, typer.Option(help="Leave out the clips that this CSV lists, as `data suspects` writes it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and what it would cost.")] = False,
) -> None:
    """Search for the best audio classifier that a folder of labelled clips allows.

    Without a command: run a search. Example:

        python run_search.py --space spaces/wide.yaml --data GTZAN/genres_original --trials 64
    """
    if context.invoked_subcommand is not None:
        _refuse_flags_before(context, context.invoked_subcommand)
        return

    def work() -> int:
        from search.commands.search import search as start
        from search.tune.prepare import Options

        return start(
            Options(
                space=space, data=data, name=name, trials=trials, epochs=epochs, time_budget=time_budget,
                gpus_per_trial=gpus_per_trial, cpus_per_trial=cpus_per_trial, at_once=at_once, seed=seed,
                swanlab=swanlab, project=project, storage=storage, address=address, warm_start=tuple(warm_start or ()),
                learn_from=tuple(learn_from or ()),
                dry_run=dry_run, settings=(*(settings or ()), *([f"group_column={_quoted(group)}"] if group else [])),
                without=without,
            )
        )  # fmt: skip

    answer(work, "search.commands.search", talks=True)


@app.command()
def resume(
    run: Run,
    trials: Annotated[int | None, typer.Option(min=1, help="New total, to extend a finished search.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Take up again what has failed, too.")] = False,
    at_once: AtOnce = None,
    data: Moved = None,
    time_budget: Annotated[str | None, typer.Option(help="Wall clock from now on, such as 30m or 2h.")] = None,
    gpus_per_trial: Gpus = None,
    cpus_per_trial: Cpus = None,
    swanlab: Annotated[SwanLabMode | None, typer.Option(show_default="as before")] = None,
    address: Address = None,
    storage: Storage = "runs",
) -> None:
    """Continue a search that was interrupted, killed or is to be longer.

    Example: python run_search.py resume runs/wide-1 --trials 200
    """

    def work() -> int:
        from search.commands.search import ResumeOptions
        from search.commands.search import resume as start

        return start(
            _found(run, storage),
            ResumeOptions(
                trials=trials, data=data, time_budget=time_budget, gpus_per_trial=gpus_per_trial,
                cpus_per_trial=cpus_per_trial, swanlab=swanlab, address=address, retry_failed=retry_failed,
                at_once=at_once,
            ),
        )  # fmt: skip

    answer(work, "search.commands.search", talks=True)


@app.command()
def retrain(
    run: Run,
    top: Annotated[
        int | None, typer.Option(min=1, help="How many of the best trials to retrain.", show_default="3; folds: 1")
    ] = None,
    trial: Annotated[int | None, typer.Option(min=0, help="Retrain this trial instead.")] = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Retrain the best trade-offs of accuracy and a cost.")
    ] = False,
    cost: Annotated[
        str, typer.Option(help="For --pareto: parameters, operations, latency_ms or memory_mb.")
    ] = "operations",
    config: Annotated[Path | None, typer.Option(help="Retrain this configuration instead, such as best.yaml.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The baseline to compare with.", show_default="the best baseline")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds per configuration.", show_default="5; folds: 3")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each training.", show_default="as searched")
    ] = None,
    protocol: Annotated[
        Literal["holdout", "folds"], typer.Option(help="folds: score every clip by a model that has not seen it.")
    ] = "holdout",
    train_on: Annotated[
        Literal["train", "train+val"], typer.Option(help="The parts that models learn from.")
    ] = "train",
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Save the ensemble of seeds, too.")] = False,
    at_once: AtOnce = None,
    data: Moved = None,
    swanlab: Annotated[SwanLabMode | None, typer.Option(show_default="as before")] = None,
    address: Address = None,
    storage: Storage = "runs",
) -> None:
    """Train the best configurations anew on several seeds and test each model once.

    Example: python run_search.py retrain runs/wide-1 --top 3 --seeds 5
    """

    def work() -> int:
        from search.commands.retrain import retrain_run
        from search.retrain.plan import RetrainOptions

        options = RetrainOptions(
            top=top, trial=trial, pareto=cost if pareto else None, config=config, baseline=baseline, seeds=seeds,
            epochs=epochs, protocol=protocol, train_on=train_on, save_ensemble=ensemble,
        )  # fmt: skip
        return retrain_run(_found(run, storage), options, swanlab, address, data, at_once)

    answer(work, "search.commands.retrain", talks=True)


@app.command()
def report(runs: Runs, storage: Storage = "runs") -> None:
    """Write report.html, one page that opens offline; several runs are compared.

    Example: python run_search.py report runs/wide-1
    """

    def work() -> int:
        from search.commands.report import report as write

        return write([_found(run, storage) for run in runs])

    answer(work, "search.commands.report")


@app.command()
def compare(
    runs: Runs,
    where: Annotated[
        str | None, typer.Option(help="Show only these trials, such as \"lr < 1e-3 and status == 'cut'\".")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Sort by this column; -COLUMN: descending.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="CSV to standard output.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON to standard output.")] = False,
    storage: Storage = "runs",
) -> None:
    """Print the trials of one or several runs as one table.

    Example: python run_search.py compare runs/wide-1 runs/wide-2 --where "best_acc > 0.9"
    """

    def work() -> None:
        from search.commands.compare import print_comparison

        print_comparison([_found(run, storage) for run in runs], where, sort, _style(csv, json))

    answer(work)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model folder, such as runs/wide-1/retrained/model.")],
    files: Annotated[list[Path], typer.Argument(help="Audio files and folders.")],
    csv: Annotated[bool, typer.Option("--csv", help="CSV to standard output.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON lines to standard output.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Labels per file, the most likely first.")] = 5,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Find the stretch that decides, and write it as a page to look at and hear."),
    ] = False,
    window: Annotated[float | None, typer.Option(help="Label every window of so many s, with its times.")] = None,
    hop: Annotated[float | None, typer.Option(help="From one window to the next, s.", show_default="WINDOW")] = None,
    labels: Annotated[Path | None, typer.Option(help="A folder for label files of Audacity, one per file.")] = None,
) -> None:
    """Label audio files, or the windows of long recordings, with a retrained model.

    Example: python run_search.py predict runs/wide-1/retrained/model ~/Music --json
    """

    def work() -> int:
        from search.commands.predict import predict as label

        if explain:
            from search.commands.explain import explain as show
            from trainable.errors import InputError

            if window is not None or hop is not None or labels is not None:
                raise InputError("--explain: explains whole files, got it together with --window. Leave one out.")

            return show(model, files, _style(csv, json), Path("explained.html"))
        return label(model, files, _style(csv, json), top, window, hop, labels)

    answer(work, "search.commands.predict")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model folder, such as runs/wide-1/retrained/model.")],
    target: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    clips: Annotated[list[Path] | None, typer.Option(help="Compare with predict on this file too.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.01, help="The longest clip that it takes.", show_default="what predict takes whole"),
    ] = None,
) -> None:
    r"""Write a model as ONNX, from waveform to probabilities. Needs pip install -e '.\[onnx]'.

    Example: python run_search.py export runs/wide-1/retrained/model model.onnx
    """

    def work() -> int:
        from search.commands.predict import export as write

        return write(model, target, clips or [], seconds)

    answer(work, "search.commands.predict", "trainable.inference.onnx")


@app.command()
def push(
    run: Annotated[Path, typer.Argument(help="A run that was retrained, or a model folder.")],
    target: Annotated[str, typer.Argument(help="The repository: hf:USER/NAME.", metavar="TARGET")],
    private: Annotated[bool, typer.Option("--private", help="Only you can see it.")] = False,
    storage: Storage = "runs",
) -> None:
    r"""Upload a retrained model with its card to the Hugging Face hub. Needs pip install -e '.\[hub]'.

    Example: python run_search.py push runs/wide-1 hf:USER/NAME
    """

    def work() -> int:
        from search.commands.push import push as upload

        return upload(_found(run, storage), target, private)

    answer(work)


@app.command()
def mirror(
    run: Run,
    swanlab: SwanLab = "auto",
    project: Annotated[str | None, typer.Option(help="The SwanLab project.", show_default="the run's")] = None,
    storage: Storage = "runs",
) -> None:
    """Mirror to SwanLab what is not there yet, from the run's folder.

    Example: python run_search.py mirror runs/wide-1 --swanlab cloud
    """

    def work() -> int:
        from search.commands.mirror import mirror as replay

        return replay(_found(run, storage), swanlab, project)

    answer(work)


@app.command()
def fields(
    name: Annotated[str | None, typer.Argument(help="Part of a field's name.", show_default="all of them")] = None,
) -> None:
    """Say what a configuration's fields mean, what they take, and their defaults.

    Example: python run_search.py fields crop
    """

    def work() -> int:
        from search.commands.fields import fields as show

        return show(name)

    answer(work)


@app.command()
def backbones(
    pattern: Annotated[
        str | None,
        typer.Argument(help="Part of a name; timm:PART, or FILE.py:FUNCTION.", show_default="all but timm's"),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="CSV to standard output.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON to standard output.")] = False,
) -> None:
    """List the networks that a search may use: size, cost, and which weights there are.

    Example: python run_search.py backbones mobilenet
    """

    def work() -> int:
        from search.commands.backbones import backbones as show

        return show(pattern, _style(csv, json))

    answer(work, "search.commands.backbones")


@app.command()
def schema() -> None:
    """Print the JSON Schema of space files, for editors.

    Example: python run_search.py schema > space.schema.json
    """

    def work() -> None:
        import json

        from search.space.schema import json_schema

        typer.echo(json.dumps(json_schema(), indent=2))

    answer(work, "search.space.schema")


@data_app.command("check")
def data_check(
    path: Annotated[str, typer.Argument(help="A folder of class folders, a CSV, or 'demo'.")],
    json: Annotated[bool, typer.Option("--json", help="JSON to standard output.")] = False,
    group: Group = None,
) -> None:
    """Say what a data set holds and what is wrong with it.

    Example: python run_search.py data check GTZAN/genres_original
    """

    def work() -> int:
        from search.commands.data import check

        return check(path, json, group)

    answer(work, "trainable.data.check")


@data_app.command("demo")
def data_demo(target: Annotated[Path, typer.Argument(help="Where to write it.")]) -> None:
    """Write the demo set: ten genre-like classes of synthetic clips.

    Example: python run_search.py data demo DEMO
    """

    def work() -> int:
        from search.commands.data import demo

        return demo(target)

    answer(work, "trainable.data.demo")


Mirrors = Annotated[list[str] | None, typer.Option("--mirror", help="Try this address; may be repeated.")]


@data_app.command("get")
def data_get(
    name: Annotated[str | None, typer.Argument(help="The set's name.", show_default="list them")] = None,
    target: Annotated[Path | None, typer.Argument(help="Where to put it.", show_default="the set's title")] = None,
    mirrors: Mirrors = None,
) -> None:
    """Download a published data set, going on where a broken download ended, and check it.

    Example: python run_search.py data get esc-50 ESC-50
    """

    def work() -> int:
        from search.commands.data import get

        return get(name, target, mirrors or [])

    answer(work, "trainable.data.catalogue")


@data_app.command("gtzan")
def data_gtzan(
    target: Annotated[Path, typer.Argument(help="Where to put genres_original.")], mirrors: Mirrors = None
) -> None:
    """Download GTZAN (1.2 GB): the same as data get gtzan.

    Example: python run_search.py data gtzan GTZAN
    """
    data_get("gtzan", target, mirrors)


@data_app.command("suspects")
def data_suspects(
    run: Run,
    target: Annotated[Path | None, typer.Option(help="The CSV to write.", show_default="RUN/suspects.csv")] = None,
    storage: Storage = "runs",
) -> None:
    """List the clips whose label is most likely wrong, by models that have not learned from them.

    Example: python run_search.py data suspects runs/wide-1
    """

    def work() -> int:
        from search.commands.suspects import suspects

        return suspects(_found(run, storage), target)

    answer(work, "search.retrain.suspects")


@data_app.command("cache")
def data_cache(clear: Annotated[bool, typer.Option("--clear", help="Remove what is not in use.")] = False) -> None:
    """Show the cache of mel spectrograms, or clear it.

    Example: python run_search.py data cache --clear
    """

    def work() -> int:
        from search.commands.data import cache

        return cache(clear)

    answer(work, "trainable.features.mel_cache")


def _found(run: Path, storage: str) -> Path:
    """The folder of a run that is given by its path or by its name."""
    from search.runs.folder import find_run

    return find_run(run, storage)


def _refuse_flags_before(context: typer.Context, command: str) -> None:
    """Nothing, unless a flag stands before the command: there it would be the search's, and be lost."""
    sources = {param: context.get_parameter_source(param.name) for param in context.command.params if param.name}
    flags = [param.opts[0] for param, source in sources.items() if source and source.name == "COMMANDLINE"]

    def work() -> None:
        from trainable.commands import typed
        from trainable.errors import InputError

        way_out = f"Move it, or leave it out: {typed(command, '--help')} shows what {command} takes."
        raise InputError([f"{flag}: belongs behind the command, got it before {command}. {way_out}" for flag in flags])

    if flags:
        answer(work)


def _quoted(text: str) -> str:
    """A text as YAML, whatever it looks like."""
    import json

    return json.dumps(text)


def _style(csv: bool, json: bool) -> Literal["table", "csv", "json"]:
    from trainable.errors import InputError

    if csv and json:
        raise InputError("--csv: cannot be given together with --json, got both. Choose one.")
    return "csv" if csv else "json" if json else "table"


if __name__ == "__main__":
    app()
