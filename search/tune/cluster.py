"""Ray, started quietly: this machine by default, a running cluster where one is named."""

from __future__ import annotations

import importlib
import logging
import math
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.space.sections import Resources
from search.tune.stop import leave_at_once, signals_wait
from trainable.cores import allowed_cores
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
    place: Path | None = None  # where a Ray that was started here has its files

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

    Ray on this machine alone listens to nobody outside of it, and its files lie in a folder that only this user can
    enter, which goes away with it.

    Raises:
        InputError: no cluster answers at `address`, or there is no place for Ray's files.
    """
    make_folders_absolute()
    # `ray.shutdown` imports it, and this import asks the control service, for which it waits where that is lost.
    importlib.import_module("ray.dag.compiled_dag_node")
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the console tells what matters
    # What Ray has to say of its own processes it prints, whatever it was told of logging.
    ray._private.worker.print_to_stdstream = lambda *said, **how: None
    if address is not None:
        _ask(address)
        _keep_token_to_oneself()
    with ExitStack() as stack:
        place = None if address is not None else stack.enter_context(_place_of_its_own())
        stack.callback(ray.shutdown)
        try:
            _join(address, place)
        except SystemExit:
            # While it starts, Ray answers SIGTERM with an exit of its own, and then aborts where it is shut down. Its
            # processes die with this one, and no trial has begun.
            leave_at_once("Interrupted while Ray started: give the same command again.", 130)
        yield _machines(address, place)


def _machines(address: str | None, place: Path | None) -> Machines:
    resources = ray.cluster_resources()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    kinds = sorted(name.split(":")[1] for name in resources if name.startswith("accelerator_type:"))
    each = tuple((node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in nodes)
    return Machines(
        len(nodes), resources.get("CPU", 0.0), resources.get("GPU", 0.0), address, tuple(kinds), each, place
    )


# Ray opens its folder to everybody, so it is one inside of ours.
_INSIDE = "r"
# It makes sockets there, whose whole path may have 107 characters; its own part takes 62 of them.
_LONGEST_PARENT = 107 - 62 - len(f"/ray-12345678/{_INSIDE}")
# Ray listens on the loopback device where it believes that this system knows no clusters. It asks this variable when
# it is imported, and its processes ask it too.
_ONLY_HERE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextmanager
def _place_of_its_own() -> Iterator[Path]:
    """A new folder for Ray's files, short enough and closed to others, and Ray told to keep to this machine.

    Ray asks for a token where it is started so. It is one for this search alone, handed down in the environment and
    written nowhere.
    """
    place = _short_folder()
    mode = {"RAY_AUTH_TOKEN": secrets.token_hex(32), _ONLY_HERE: "0"}
    before = {name: os.environ.get(name) for name in (*mode, "RAY_AUTH_MODE")}  # which Ray sets
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    try:
        os.environ.update(mode)
        ray_constants.ENABLE_RAY_CLUSTER = False
        AuthenticationTokenLoader.instance().reset_cache()
        yield place
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        AuthenticationTokenLoader.instance().reset_cache()
        shutil.rmtree(place, ignore_errors=True)


def _short_folder() -> Path:
    """A new folder that only this user can enter, in TMPDIR, or in /tmp where TMPDIR is too long for sockets."""
    problems = []
    for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp")):
        if len(os.path.abspath(parent)) > _LONGEST_PARENT:  # noqa: PTH100 (links stay as they are)
            problems.append(f"{parent} is longer than {_LONGEST_PARENT} characters")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix="ray-", dir=os.path.abspath(parent)))  # noqa: PTH100
        except OSError as error:
            problems.append(f"{parent}: {error.strerror}")
    raise InputError(
        f"TMPDIR: must be a short path that can be written to, got {'; '.join(problems)}. Set TMPDIR to another folder."
    )


def _join(address: str | None, place: Path | None) -> None:
    """Starts Ray in `place`, or joins the cluster at `address`."""
    quiet: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    with signals_wait():  # Ray ends with a segmentation fault where it is interrupted
        if address is None:
            # "local" works even where another cluster, or only a stale note of one, exists. Trials pass nothing
            # through the object store, so it is as small as Ray allows.
            ray.init(
                address="local", include_dashboard=False, object_store_memory=100 * 2**20, num_cpus=allowed_cores(),
                _temp_dir=str(place / _INSIDE) if place else None, **quiet,
            )  # fmt: skip
            return
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise InputError(_nobody(address, str(error))) from None


def start_again(machines: Machines) -> None:
    """Starts Ray anew after it was lost, or joins its cluster again.

    Raises:
        InputError: the cluster does not answer any more.
    """
    ray.shutdown()
    if machines.address is not None:
        _ask(machines.address)
    _join(machines.address, machines.place)


def _keep_token_to_oneself() -> None:
    """Takes the right to read the user's token away from others: whoever has it may run programs as this user."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"
    try:
        if not path.stat().st_mode & 0o077:
            return
        path.chmod(0o600)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(
            f"{path}: must be readable by its owner alone, got a file of others ({error.strerror}). "
            "Whoever reads it can run programs on the cluster: have a new one made with chmod 600."
        ) from None
    sys.stderr.write(
        f"{path}: others could read Ray's token until now, with which one can run programs on the cluster. Now only "
        "you can. If others work on this machine, make a new one: ray get-auth-token --generate.\n"
    )


class Pulse:
    """Whether Ray is still there: its control service (GCS), and the raylet of this machine.

    Ray itself ends a driver that has lost either, without a word: after some ten seconds for a raylet, after sixty for
    the control service. This asks once a second, in a thread, by knocking at the doors that Ray keeps open. A context
    manager.
    """

    def __init__(self, give_up: Callable[[str], None], every: float = 1.0) -> None:
        """`give_up` is called where nobody has left the context long after the loss: Ray holds the main thread."""
        self.lost = ""  # what does not answer any more; "" while all is well
        self._give_up = give_up
        self._every = every
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        self._doors: dict[str, tuple[socket.AddressFamily, Any]] = {
            "Ray's control service (GCS)": (socket.AF_INET, (host, int(port))),
            "Ray's raylet": (socket.AF_UNIX, ray._private.worker._global_node.raylet_socket_name),
        }
        self._is_near = host == "127.0.0.1"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join(timeout=2 * KNOCK_S)

    def beats(self) -> bool:
        """Whether Ray is there at this very moment, as far as that can be told at once.

        Without the control service Tune waits for it for a minute whenever it begins a trial, and then is ended.
        """
        if not self.lost:
            shut = (name for name, door in self._doors.items() if self._is_near and _knock(*door) == "closed")
            self.lost = next((f"{name} was lost" for name in shut), "")
        return not self.lost

    def _watch(self) -> None:
        silent_since: dict[str, float] = {}
        while not self._over.wait(self._every):
            for name, door in self._doors.items():
                answer = _knock(*door)
                if answer == "open":
                    silent_since.pop(name, None)
                    continue
                since = silent_since.setdefault(name, time.monotonic())
                if answer == "closed" or time.monotonic() - since > SILENCE_S:
                    self.lost = f"{name} was lost"
                    if not self._over.wait(HELD_S):
                        self._give_up(self.lost)
                    return


KNOCK_S = 3.0
SILENCE_S = 30.0  # a network may be slow; nothing at all for so long is a machine that is gone
HELD_S = 4.0  # well before the ten seconds of a raylet are over: a machine that is overloaded is late with all this


def _knock(family: socket.AddressFamily, address: Any) -> Literal["open", "closed", "silent"]:
    """Whether somebody listens at an address: "silent" where nobody says no either."""
    try:
        with socket.socket(family) as door:
            door.settimeout(KNOCK_S)
            door.connect(address)
        return "open"
    except (ConnectionRefusedError, FileNotFoundError):
        return "closed"
    except OSError:
        return "silent"


def _ask(address: str) -> None:
    """Checks that a Ray cluster answers at `address`; joining one that does not would try for minutes.

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
    """Checks that trials of `gpus` GPUs each can have the `device` that `where`, a file and a key, asks for.

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
    """Checks that every node of the cluster has this project, sees all of `paths`, and has the weights.

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
