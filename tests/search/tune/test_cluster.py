from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from search.runs.journal import Journal
from search.runs.run import trial_folder
from search.space.load import load_space
from search.space.sections import Resources
from search.tune import cluster as cluster_module
from search.tune import tuner as run
from search.tune.cluster import Machines, check_device, check_nodes, concurrency, connected, fit_resources
from search.tune.scheduler import JournalASHA
from search.tune.searcher import StudySearch
from search.tune.stop import Stop
from tests.support.driver import SPACE
from tests.support.driving import start_driver, wait_for_events
from tests.support.simulated import slow
from trainable.backbones import backbone
from trainable.errors import InputError

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without CPUs, as a login node is; tests add workers."""
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def check_all_accounted_for(run: Path) -> None:
    journal = Journal(run / "events.jsonl")
    assert len(journal.trials) == 12
    assert journal.unfinished == []
    assert {trial.status for trial in journal.trials.values()} <= {"finished", "cut"}
    for number, trial in journal.trials.items():
        epochs = [epoch.epoch for epoch in trial_folder(run, number).epochs()]
        assert epochs[: len(trial.reports)] == [report.epoch for report in trial.reports]
        assert len(epochs) == len(set(epochs))


def test_a_search_outlives_nodes_that_go_and_seconds_without_any_and_uses_those_that_come(
    cluster: Cluster, tmp_path: Path
) -> None:
    nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
    driver = start_driver(tmp_path, "--address", cluster.address, "--concurrency", "2", "--seconds", "0.2")
    wait_for_events(tmp_path, 8, driver)
    cluster.remove_node(nodes.pop(0), allow_graceful=False)
    nodes.append(cluster.add_node(num_cpus=1))

    wait_for_events(tmp_path, 24, driver)
    for node in nodes:
        cluster.remove_node(node, allow_graceful=False)
    time.sleep(4)
    cluster.add_node(num_cpus=2)

    assert driver.wait(timeout=150) == 0, driver.communicate()[0]
    check_all_accounted_for(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="Ray watches a node's memory on Linux only")
def test_a_trial_whose_workers_ray_kills_for_memory_that_others_hold_is_kept_for_another_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.shutdown()
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")  # any worker is too much
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    monkeypatch.setattr(run, "WORKER_RETRIES", 1)  # the last failure counts
    monkeypatch.setattr(run, "PAUSES", (0.1, 0.1))
    monkeypatch.setattr(run, "ROUNDS_PER_TRIAL", 1)
    (tmp_path / "space.yaml").write_text(SPACE)
    space, said, journal = load_space(tmp_path / "space.yaml"), [], Journal(tmp_path / "events.jsonl")
    space = space.with_budget(trials=1)
    stop = Stop(journal, 1)
    with connected(None):
        run.run_trials(
            tmp_path, journal, lambda: StudySearch(space, journal), lambda: JournalASHA(space, journal),
            stop, run.Running(slow(5), 1, 0, 1, said.append),
        )  # fmt: skip
    assert journal.trials[0].status == "running"  # to be resumed: its own worker had the smaller part
    assert stop.trouble
    assert "ran low on memory" in (stop.reason or "")


def test_a_node_that_lacks_the_file_of_ones_own_network_is_named(tmp_path: Path) -> None:
    name = f"{tmp_path}/mine.py:make"
    [problem] = cluster_module._missing_here([], {name: "none"}, "10.0.0.7")
    assert problem == f"backbone: must name a file that is there, got {name!r}. Check the path. (on 10.0.0.7)"
    (tmp_path / "mine.py").write_text("def make(classes, channels): ...")
    assert cluster_module._missing_here([], {name: "none"}, "10.0.0.7") == []


def test_every_node_is_asked_whether_it_runs_this_project_and_has_the_data_and_the_weights(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, backbones in ((here, ("resnet18", "densenet121")), (there, ("densenet121",))):
        monkeypatch.setenv("TORCH_HOME", str(folder))
        for name in backbones:
            published = backbone(name).of_kind("imagenet")
            assert published is not None
            published.file.parent.mkdir(parents=True, exist_ok=True)
            published.file.touch()
    cluster.add_node(num_cpus=1, env_vars={"TORCH_HOME": str(there)})
    monkeypatch.setenv("TORCH_HOME", str(here))

    def problems(paths: list[Path], weights: dict[str, str]) -> tuple[str, ...]:
        with pytest.raises(InputError) as error:
            check_nodes(paths, weights)
        return tuple(error.value.problems)

    def fails(*_: object) -> list[str]:
        raise ModuleNotFoundError("No module named 'trainable'")

    with connected(cluster.address) as machines:
        assert machines.nodes == 2
        check_nodes([tmp_path], {})
        unseen = problems([tmp_path, tmp_path / "elsewhere"], {})
        lacking = problems([tmp_path], {"densenet121": "imagenet", "resnet18": "imagenet"})
        monkeypatch.setattr("search.tune.cluster._missing_here", fails)
        without = problems([tmp_path], {})
    assert len(unseen) == 2
    assert "must be visible to every node" in unseen[0]
    assert str(tmp_path / "elsewhere") in unseen[0]
    found = [problem for problem in lacking if "for resnet18." in problem]
    assert found
    assert found[0].startswith("TORCH_HOME: ImageNet weights must be on every node, got none on ")
    assert len(without) == 2
    assert 'every node must run this project, got "ModuleNotFoundError: No module named' in without[0]


@pytest.mark.parametrize("asks", [True, False])
def test_a_cluster_is_joined_with_a_token_where_it_asks_for_one(tmp_path: Path, asks: bool) -> None:
    ray.shutdown()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(secrets.token_hex(32))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    home = {**environment, "HOME": str(tmp_path)}  # with a token there Ray asks for it, unless it is told not to
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--port", "0", "--num-cpus", "1",
             "--block", "--include-dashboard", "false", "--temp-dir"]  # fmt: skip
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as short,  # a socket's path has at most 107 letters
        subprocess.Popen(
            [*start, short],
            env=home if asks else {**home, "RAY_AUTH_MODE": "disabled"},
            stdout=subprocess.PIPE,
            text=True,
        ) as head,
    ):
        assert head.stdout is not None
        address = next(found[1] for line in head.stdout if (found := re.search(r"--address='([^']+)'", line)))
        try:
            by_name = join(address, home)
            with_token = join(address, {**home, "RAY_AUTH_MODE": "token"})
        finally:
            head.terminate()
    if asks:
        assert by_name.startswith(f"--address: a Ray cluster must answer there, got '{address}' (ray.exceptions.Authe")
        assert "export RAY_AUTH_MODE=token" in by_name
        assert with_token == "a worker has answered"
    else:
        assert by_name == "a worker has answered"


@pytest.mark.parametrize(
    ("error", "mode"), [("", "disabled"), ("ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken", None)]
)
def test_ray_shows_its_token_to_the_cluster_that_it_finds_only_where_that_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, error: str, mode: str | None
) -> None:
    def status(command: list[str], **_: object) -> None:
        assert command[-1] == "status"
        if error:
            raise subprocess.CalledProcessError(1, command, stderr=error)

    monkeypatch.setenv("RAY_AUTH_MODE", "")  # so that it is put back
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setattr(subprocess, "run", status)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr(ray, "nodes", list)
    with connected("auto"):
        assert os.environ.get("RAY_AUTH_MODE") == mode


@pytest.mark.ray
@pytest.mark.slow
def test_ray_on_one_machine_is_reached_by_nobody_else_and_needs_no_short_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.shutdown()
    long = tmp_path / ("a folder " * 10).strip().replace(" ", "-")
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)  # so that the variable is read anew
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})  # as under `taskset -c 0`
    with connected(None) as machines:
        assert machines.cpus == 1
        token, place = os.environ["RAY_AUTH_TOKEN"], machines.place
        assert place is not None
        assert place.parent == Path("/tmp")
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        ours = psutil.Process().children(recursive=True)
        listening = [
            (process.name(), each.laddr.ip)
            for process in ours
            for each in process.net_connections("inet")
            if each.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert {ip for _, ip in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening
        assert not any(token in " ".join(process.cmdline()) for process in ours)  # which all users can read
        others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        others["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # or it would knock at the machine's address outside
        stranger = subprocess.run(
            [sys.executable, "-c", STRANGER, ray.get_runtime_context().gcs_address],
            env=others, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert "InvalidAuthToken" in stranger.stderr, stranger
        assert "came in" not in stranger.stdout
    assert not place.exists()
    assert not (tmp_path / ".ray").exists()  # no token is left for anybody to find
    assert "RAY_AUTH_TOKEN" not in os.environ


STRANGER = """
import sys
import ray
try:
    ray.init(address=sys.argv[1])
    print("came in")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_token_that_others_can_read_is_taken_away_from_them_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    cluster_module._keep_token_to_oneself()  # there is none
    (tmp_path / "token").write_text("secret")
    (tmp_path / "token").chmod(0o644)
    cluster_module._keep_token_to_oneself()
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'token'}: others could read Ray's token until now")
    cluster_module._keep_token_to_oneself()
    assert capsys.readouterr().err == ""


def test_a_tmpdir_of_any_length_gives_a_place_or_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 60)))
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix, dir: f"{dir}/{prefix}1")
    assert cluster_module._short_folder() == Path("/tmp/ray-1")

    def full(prefix: str, dir: str) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(InputError, match=r"^TMPDIR: must be a short path .* than 30 characters; /tmp: No space left"):
        cluster_module._short_folder()


def join(address: str, environment: dict[str, str]) -> str:
    """What a driver prints that joins a cluster and has a worker there answer."""
    done = subprocess.run([sys.executable, "-c", JOIN, address], env=environment, capture_output=True, text=True)
    return done.stdout.strip()


JOIN = """
import sys
import ray
from search.tune.cluster import connected
from trainable.errors import InputError

class Worker:
    def answer(self):
        return "a worker has answered"

try:
    with connected(sys.argv[1]):
        print(ray.get(ray.remote(Worker).remote().answer.remote(), timeout=60))
except InputError as error:
    print(error)
"""


def test_a_local_search_starts_beside_a_running_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.add_node(num_cpus=7)
    with connected(None) as machines:
        assert machines.address is None
        assert machines.cpus != 7


def test_workers_find_what_a_relative_path_in_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.shutdown()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", "weights")
    monkeypatch.setenv("AUDIO_SEARCH_CACHE", str(tmp_path / "mels"))
    with connected(None):
        look = ray.remote(num_cpus=0)(lambda: [os.environ.get(n) for n in ("TORCH_HOME", "AUDIO_SEARCH_CACHE")])
        assert ray.get(look.remote()) == [str(tmp_path / "weights"), str(tmp_path / "mels")]


def test_an_address_where_nobody_answers_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    ray.shutdown()
    monkeypatch.setattr("search.tune.cluster.ANSWER_S", 3.0)
    with (
        pytest.raises(InputError, match=r"--address: a Ray cluster must answer there, got '127\.0\.0\.1:1'"),
        connected("127.0.0.1:1"),
    ):
        pass


def test_gpus_that_the_command_line_asks_for_must_be_there() -> None:
    without = Machines(1, 2.0, 0.0)
    with pytest.raises(InputError, match=r"--gpus-per-trial: must be at most what a node has \(0\), got 1"):
        fit_resources(Resources(gpu=1, cpu=1), without, gpus_asked=1)


def test_a_device_that_is_asked_for_must_be_there() -> None:
    check_device("auto", "space.yaml: fixed.device", Machines(1, 2.0, 0.0), 0)
    with pytest.raises(InputError, match=r"space.yaml: fixed.device: must be there, got 'cuda' and no GPU. Use auto"):
        check_device("cuda", "space.yaml: fixed.device", Machines(1, 2.0, 0.0), 0)


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("cuda", 0.0, "at: must be a device that trials get, got 'cuda' and 0 GPUs per trial. Use auto or cpu, or"),
        ("cuda:0", 0.0, "at: must be a device that trials get, got 'cuda:0' and 0 GPUs per trial."),
        ("cuda:3", 1.0, "at: must be cuda or cuda:0, because each trial sees only the GPU that it gets, got 'cuda:3'"),
        ("cuda", 0.5, ""),
        ("cuda:0", 1.0, ""),
        ("auto", 0.0, ""),
        ("cpu", 1.0, ""),
    ],
)
def test_a_device_must_be_one_that_trials_get(device: str, gpus: float, message: str) -> None:
    four = Machines(1, 16.0, 4.0)
    if not message:
        check_device(device, "at", four, gpus)
        return
    with pytest.raises(InputError) as error:
        check_device(device, "at", four, gpus)
    assert str(error.value).startswith(message)


def test_gpus_that_a_space_wishes_for_are_done_without_and_said() -> None:
    fitted, notes = fit_resources(Resources(gpu=1, cpu=2), Machines(1, 2.0, 0.0))
    assert (fitted.gpu, fitted.cpu) == (0.0, 2)
    assert "no GPU here" in notes[0]


def test_gpus_that_are_there_and_not_used_are_said_where_nobody_has_just_asked_for_it() -> None:
    one = Machines(1, 16.0, 1.0)
    fitted, notes = fit_resources(Resources(gpu=0), one)
    assert (fitted.gpu, fitted.cpu) == (0.0, 1.0)
    assert notes == ("trials get no GPU (resources.gpu is 0), although there is one: they run on the CPU",)
    assert fit_resources(Resources(gpu=0), one, gpus_asked=0.0)[1] == ()


def test_what_nobody_has_set_follows_from_the_machine() -> None:
    on_gpus, _ = fit_resources(Resources(), Machines(1, 16.0, 4.0))
    assert (on_gpus.gpu, on_gpus.cpu) == (1.0, 4.0)
    on_cpus, _ = fit_resources(Resources(), Machines(1, 2.0, 0.0))
    assert (on_cpus.gpu, on_cpus.cpu) == (0.0, 1.0)
    assert concurrency(Machines(1, 2.0, 0.0), 1.0, 0.0) == 2


def test_a_trial_must_fit_on_one_node() -> None:
    two = Machines(2, 4.0, 0.0, each=((2.0, 0.0), (2.0, 0.0)))
    assert concurrency(two, cpus=2, gpus=0) == 2
    assert concurrency(Machines(2, 6.0, 0.0, each=((3.0, 0.0), (3.0, 0.0))), cpus=2, gpus=0) == 2
    with pytest.raises(InputError, match=r"--cpus-per-trial: must be at most what a node has \(2\), got 4"):
        concurrency(two, cpus=4, gpus=0)
    apart = Machines(2, 9.0, 1.0, each=((8.0, 0.0), (1.0, 1.0)))
    with pytest.raises(InputError, match=r"--cpus-per-trial: must be at most what a node has \(8\), got 4"):
        concurrency(apart, cpus=4, gpus=1)


def test_a_head_without_gpus_does_not_count_as_cores_beside_them() -> None:
    cluster = Machines(2, 72.0, 4.0, each=((64.0, 0.0), (8.0, 4.0)))
    fitted, _ = fit_resources(Resources(), cluster)
    assert (fitted.gpu, fitted.cpu) == (1, 2)
    assert concurrency(cluster, fitted.cpu or 0, fitted.gpu or 0) == 4


def test_a_fraction_of_a_gpu_lets_trials_share_it() -> None:
    assert concurrency(Machines(1, 16.0, 2.0), 1, 0.25) == 8
    assert concurrency(Machines(1, 16.0, 2.0), 1, 0.4) == 4  # none lies half on one GPU and half on the other
    assert concurrency(Machines(1, 16.0, 1.0), 1, 0.1) == 10
    fitted, _ = fit_resources(Resources(gpu=0.1), Machines(1, 20.0, 1.0))
    assert fitted.cpu == 2


def test_cores_that_a_space_wishes_for_are_done_without_and_said() -> None:
    small = Machines(2, 6.0, 1.0, each=((4.0, 0.0), (2.0, 1.0)))
    fitted, notes = fit_resources(Resources(gpu=1, cpu=4), small)
    assert (fitted.gpu, fitted.cpu) == (1, 2)
    assert notes == ("trials get 2 CPU cores each, not the 4 of resources.cpu: no node with a GPU has more",)
    with pytest.raises(InputError, match=r"--cpus-per-trial: must be at most what a node has \(4\), got 4"):
        fit_resources(Resources(gpu=1, cpu=4), small, cpus_asked=4)
