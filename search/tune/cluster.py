"""Ray, started quietly: this machine by default, a running cluster where one is named."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.space.sections import Resources
from search.tune.stop import signals_wait
from trainable.errors import InputError

# Folders that workers look for. They start in other folders than the driver, so a relative path would not be found.
_FOLDERS = ("TORCH_HOME", "XDG_CACHE_HOME", "AUDIO_SEARCH_CACHE")
ANSWER_S = 20.0  # it takes half a second, and longer where the machine is busy


@dataclass(frozen=True)
class Machines:
    """What Ray has found: the sum over all nodes."""

    nodes: int
    cpus: float
    gpus: float
    address: str | None = None  # of the cluster that was joined; None: Ray was started here, for this search
    gpu_names: tuple[str, ...] = ()  # Ray's own names of the kinds, such as H200
    each: tuple[tuple[float, float], ...] = ()  # CPU cores and GPUs of each node; left out: there is one

    @property
    def by_node(self) -> tuple[tuple[float, float], ...]:
        """CPU cores and GPUs of each node: a trial must find all of its own on one of them."""
        return self.each or ((self.cpus, self.gpus),)

    def to_json(self, resources: Resources) -> dict[str, Any]:
        """What run.json notes of the machines and of what a trial gets of them."""
        return {
            "nodes": self.nodes, "cpus": self.cpus, "gpus": self.gpus, "gpu_names": list(self.gpu_names),
            "gpus_per_trial": resources.gpu, "cpus_per_trial": resources.cpu,
        }  # fmt: skip

    def describe(self, resources: Resources, at_once: int) -> str:
        """The machines and what a trial gets of them, in words."""
        parts = [f"{self.nodes} nodes"] if self.nodes > 1 else []
        if self.gpus:
            parts.append(f"{self.gpus:g} GPU{'s' if self.gpus > 1 else ''} ({', '.join(self.gpu_names) or 'any kind'})")
        parts.append(f"{self.cpus:g} CPU cores" + ("" if self.gpus else ", no GPU"))
        gpu = f"{resources.gpu:g} GPU and " if resources.gpu else ""
        each = f"{gpu}{resources.cpu or 0:g} CPU core{'s' if resources.cpu != 1 else ''} each"
        return f"{', '.join(parts)}; {at_once} trial{'s' if at_once > 1 else ''} at a time, {each}"


def make_folders_absolute() -> None:
    """Replaces relative paths in the environment by absolute ones, for the workers that will inherit it."""
    for name in _FOLDERS:
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().absolute())


@contextmanager
def connected(address: str | None) -> Iterator[Machines]:
    """Ray, started on this machine or joined at `address` ("auto" or HOST:PORT), for the time of the context.

    Raises:
        InputError: no cluster answers at `address`.
    """
    make_folders_absolute()
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the console tells what matters

    if address is not None:
        _ask(address)
    try:
        try:
            with signals_wait():  # Ray ends with a segmentation fault where it is interrupted
                _join(address)
        except SystemExit:
            # While it starts, Ray answers SIGTERM with an exit of its own, and then aborts where it is shut down. Its
            # processes die with this one, and no trial has begun.
            sys.stderr.write("Interrupted while Ray started: give the same command again.\n")
            sys.stderr.flush()
            os._exit(130)
        resources = ray.cluster_resources()
        nodes = [node for node in ray.nodes() if node["Alive"]]
        kinds = sorted(name.split(":")[1] for name in resources if name.startswith("accelerator_type:"))
        each = tuple((node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in nodes)
        yield Machines(len(nodes), resources.get("CPU", 0.0), resources.get("GPU", 0.0), address, tuple(kinds), each)
    finally:
        ray.shutdown()


def _join(address: str | None) -> None:
    quiet: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    if address is None:
        # "local" works even where another cluster, or only a stale note of one, exists. Trials pass nothing through
        # the object store, so it is as small as Ray allows.
        ray.init(address="local", include_dashboard=False, object_store_memory=100 * 2**20, **quiet)
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise InputError(_nobody(address, str(error))) from None


def _ask(address: str) -> None:
    """Nothing, if a Ray cluster answers at `address`; joining it would try for minutes.

    Raises:
        InputError: none does, or it asks for a token.
    """
    named = [] if address == "auto" else ["--address", address]
    rays_choice = address == "auto" and "RAY_AUTH_MODE" not in os.environ  # whether to show a token that there is
    try:
        subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "status", *named],
            check=True, capture_output=True, text=True, timeout=ANSWER_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise InputError(_nobody(address, f"no answer within {ANSWER_S:g} s")) from None
    except subprocess.CalledProcessError as error:
        if rays_choice and "AuthenticationError" in error.stderr:
            return  # it will
        lines = [line for line in error.stderr.splitlines() if line and not line.startswith(" ")]
        raise InputError(_nobody(address, lines[-1].split(". ")[0] if lines else "ray status fails")) from None
    if rays_choice:
        # It would here as well, and workers of a cluster that asks for none cannot talk to a driver that does.
        os.environ["RAY_AUTH_MODE"] = "disabled"


def _nobody(address: str, why: str) -> str:
    return (
        f"--address: a Ray cluster must answer there, got {address!r} ({why}). "
        "Start one with `ray start --head`, or leave --address out to use this machine. One that runs may ask for a "
        "token: every machine needs the same ~/.ray/auth_token and `export RAY_AUTH_MODE=token`."
    )


def fit_resources(
    wanted: Resources, machines: Machines, gpus_asked: float | None = None, cpus_asked: float | None = None
) -> tuple[Resources, tuple[str, ...]]:
    """What each trial gets here, and what a person must know about it.

    What the command line asks for must be there. What a space file asks for is a wish: without a GPU its trials run on
    the CPU, on small nodes with the cores that there are, and the notes say so.

    Raises:
        InputError: not even one trial fits.
    """
    gpu = wanted.gpu if wanted.gpu is not None else min(1.0, machines.gpus)
    notes = []
    if gpu and not machines.gpus and not gpus_asked:
        notes.append("no GPU here: trials run on the CPU, which is many times slower for this space")
        gpu = 0.0
    elif machines.gpus and not gpu and gpus_asked is None:  # of a file, or of a machine without GPUs that began this
        notes.append("trials get no GPU (resources.gpu is 0), although there is one: they run on the CPU")
    fitting = [(cpus, trials) for cpus, gpus in machines.by_node if (trials := _sharing(gpus, gpu))]
    cpu = wanted.cpu
    if cpu is None:
        cpu = max(1.0, min([4.0, *(cpus // trials for cpus, trials in fitting)] if gpu and fitting else [1.0]))
    most = max((cpus for cpus, _ in fitting), default=0.0)
    if most and cpu > most and cpus_asked is None:
        whose = "no node with a GPU" if gpu else "no node"
        notes.append(f"trials get {most:g} CPU cores each, not the {cpu:g} of resources.cpu: {whose} has more")
        cpu = most
    concurrency(machines, cpu, gpu)
    return wanted.model_copy(update={"gpu": gpu, "cpu": cpu}), tuple(notes)


def _sharing(gpus: float, each: float) -> float:
    """How many trials a node's GPUs serve at a time: a share is of one of them; infinity where trials want none."""
    if not each:
        return math.inf
    return int(gpus) * int(1 / each + 1e-9) if each < 1 else int(gpus / each)


def check_device(device: str, where: str, machines: Machines, gpus: float) -> None:
    """Nothing, if trials of `gpus` GPUs each can have the `device` that is asked for at `where`, a file and a key.

    Raises:
        InputError: it is a GPU, and there is none, or trials get none, or not this one.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return
    if not machines.gpus:
        raise InputError(f"{where}: must be there, got {device!r} and no GPU. Use auto or cpu.")
    if not gpus:
        raise InputError(
            f"{where}: must be a device that trials get, got {device!r} and 0 GPUs per trial. "
            "Use auto or cpu, or give them one: --gpus-per-trial, resources.gpu."
        )
    if number not in ("", "0"):
        raise InputError(
            f"{where}: must be cuda or cuda:0, because each trial sees only the GPU that it gets, got {device!r}. "
            "Use auto or cuda; CUDA_VISIBLE_DEVICES says which GPUs are used."
        )


def hide_gpus() -> None:
    """Lets torch in this process find no GPU, where trials get none; before its first use of one, or it is too late.

    Ray leaves the GPUs of a worker that gets none visible, and `device: auto` would take the first.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def concurrency(machines: Machines, cpus: float, gpus: float) -> int:
    """How many trials of `cpus` and `gpus` each run at the same time.

    Raises:
        InputError: not even one does.
    """
    wanted = {"cpus-per-trial": cpus, "gpus-per-trial": gpus}
    fits = [min(int(there / cpus + 1e-9), _sharing(there_gpus, gpus)) for there, there_gpus in machines.by_node]
    if sum(fits):
        return int(sum(fits))
    most = dict(zip(wanted, map(max, zip(*machines.by_node, strict=True)), strict=True))
    short = [flag for flag, share in wanted.items() if share > most[flag]] or list(wanted)  # or: each on another node
    raise InputError(
        [
            f"--{flag}: must be at most what a node has ({most[flag]:g}), got {wanted[flag]:g}. "
            "Lower it, or add machines."
            for flag in short
        ]
    )


def check_nodes(paths: list[Path], weights: dict[str, str]) -> None:
    """Nothing, if every node of the cluster has this project, sees all of `paths`, and has the weights.

    `weights`: those that each backbone wants.

    Raises:
        InputError: a line per node and path, and one per node for what else is missing there.
    """
    look = ray.remote(num_cpus=0)(_missing_here)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    names = [str(path) for path in paths]
    answers = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            names, weights, node["NodeManagerAddress"]
        )
        for node in nodes
    ]
    problems = []
    for node, answer in zip(nodes, answers, strict=True):
        try:
            problems += ray.get(answer)
        except ray.exceptions.RayError as error:
            why = str(error).strip().splitlines()[-1]
            problems.append(
                f"{node['NodeManagerAddress']}: every node must run this project, got {why!r} there. "
                "Install it there as it is here, in a folder of the same name."
            )
    if problems:
        raise InputError(problems)


def _missing_here(paths: list[str], weights: dict[str, str], node: str) -> list[str]:
    from trainable.backbones import SPOKEN, weights_here
    from trainable.errors import InputError

    problems = [
        f"{path}: must be visible to every node, got no such path on {node}. "
        "Put data and runs on a file system that all nodes share (--data, --storage)."
        for path in paths
        if not Path(path).exists()
    ]
    lacking: dict[str, list[str]] = {}
    for name, kind in weights.items():
        try:
            if not weights_here(name, kind):
                lacking.setdefault(kind, []).append(name)
        except InputError as error:  # somebody's own network, whose file is not there
            problems += [f"{line} (on {node})" for line in error.problems]
    problems += [
        f"TORCH_HOME: {SPOKEN.get(kind, kind)} weights must be on every node, got none on {node} for "
        f"{', '.join(names)}. Set it to a folder that all nodes share, before `ray start`."
        for kind, names in lacking.items()
    ]
    return problems
