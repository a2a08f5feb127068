"""Ray, started quietly: this machine by default, a running cluster where one is named."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.settings import Resources
from trainable.errors import InputError

# Ray and Tune read these when they are imported.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the console is ours
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about GPU variables on trials without a GPU
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # each trial writes its own epochs.jsonl
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `search.stop` handles signals
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the journal is our snapshot; Tune's own is not used
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # a lost worker is told in one line by the console
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "60",
}

# Folders that workers look for. They start in other folders than the driver, so a relative path would not be found.
_FOLDERS = ("TORCH_HOME", "XDG_CACHE_HOME", "AUDIO_SEARCH_CACHE")

KNOCK_S = 10.0


@dataclass(frozen=True)
class Machines:
    """What Ray has found: the sum over all nodes."""

    nodes: int
    cpus: float
    gpus: float
    local: bool  # started by us on this machine, not joined
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


def be_quiet() -> None:
    """Sets Ray's switches; call it before anything imports `ray.tune`."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


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
    be_quiet()
    make_folders_absolute()
    import ray

    if address not in (None, "auto"):
        _knock(address)
    quiet: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    if address is None:
        # "local" works even where another cluster, or only a stale note of one, exists. Trials pass nothing through
        # the object store, so it is as small as Ray allows.
        ray.init(address="local", include_dashboard=False, object_store_memory=100 * 2**20, **quiet)
    else:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(_nobody(address, error)) from None
    try:
        resources = ray.cluster_resources()
        nodes = [node for node in ray.nodes() if node["Alive"]]
        kinds = sorted(name.split(":")[1] for name in resources if name.startswith("accelerator_type:"))
        each = tuple((node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in nodes)
        yield Machines(
            len(nodes), resources.get("CPU", 0.0), resources.get("GPU", 0.0), address is None, tuple(kinds), each
        )
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Nothing, if somebody listens at HOST:PORT; Ray itself would try for minutes.

    Raises:
        InputError: nobody does.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
    except (OSError, ValueError) as error:
        raise InputError(_nobody(address, error)) from None


def _nobody(address: str, error: Exception) -> str:
    return (
        f"--address: a Ray cluster must answer there, got {address!r} ({error}). "
        "Start one with `ray start --head`, or leave --address out to use this machine."
    )


def fit_resources(wanted: Resources, machines: Machines, gpus_asked: float | None) -> tuple[Resources, tuple[str, ...]]:
    """What each trial gets here, and what a person must know about it.

    What the command line asks for must be there. What a space file asks for is a wish: without a GPU its trials run on
    the CPU, and the note says so.

    Raises:
        InputError: not even one trial fits.
    """
    gpu = wanted.gpu if wanted.gpu is not None else min(1.0, machines.gpus)
    in_vain = bool(gpu) and not machines.gpus and not gpus_asked
    notes: tuple[str, ...] = ()
    if in_vain:
        notes, gpu = ("no GPU here: trials run on the CPU, which is many times slower for this space",), 0.0
    elif machines.gpus and not gpu and gpus_asked is None:  # of a file, or of a machine without GPUs that began this
        notes = ("trials get no GPU (resources.gpu is 0), although there is one: they run on the CPU",)
    beside = [cpus // (gpus // gpu) for cpus, gpus in machines.by_node if gpu and gpus >= gpu]
    cpu = wanted.cpu if wanted.cpu is not None else max(1.0, min([4.0, *beside] if beside else [1.0]))
    if in_vain and wanted.cpu and wanted.cpu > machines.cpus:
        cpu = machines.cpus  # it was meant for the feeding of a GPU
    fitted = wanted.model_copy(update={"gpu": gpu, "cpu": cpu})
    concurrency(machines, cpu, gpu)
    return fitted, notes


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
    fits = [
        min((int(there / share + 1e-9) for share, there in zip(wanted.values(), node, strict=True) if share), default=1)
        for node in machines.by_node
    ]
    if sum(fits):
        return sum(fits)
    most = dict(zip(wanted, map(max, zip(*machines.by_node, strict=True)), strict=True))
    short = [flag for flag, share in wanted.items() if share > most[flag]] or list(wanted)  # or: each on another node
    raise InputError(
        [
            f"--{flag}: must be at most what a node has ({most[flag]:g}), got {wanted[flag]:g}. "
            "Lower it, or add machines."
            for flag in short
        ]
    )


def check_nodes(paths: list[Path]) -> None:
    """Nothing, if every node of the cluster sees all of `paths`.

    Raises:
        InputError: one line per node and path that is missing there.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def missing(names: list[str]) -> list[str]:
        return [name for name in names if not Path(name).exists()]

    look = ray.remote(num_cpus=0)(missing)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    names = [str(path) for path in paths]
    answers = ray.get(
        [
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(names)
            for node in nodes
        ]
    )
    problems = [
        f"{name}: must be visible to every node, got no such path on {node['NodeManagerAddress']}. "
        "Put data and runs on a file system that all nodes share (--data, --storage)."
        for node, names_there in zip(nodes, answers, strict=True)
        for name in names_there
    ]
    if problems:
        raise InputError(problems)
