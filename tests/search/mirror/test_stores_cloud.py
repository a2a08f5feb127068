"""Cloud mode against a stand-in for the server; the real one has never been asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.mirror import pool as mirror_pool
from search.mirror.experiment import trial_experiment
from search.mirror.mirror import Mirror, replay
from search.mirror.mode import ResolvedMode
from search.runs.run import RunFolder
from tests.support.mirrored import METRICS, children, curve, kill, make_run, picture, reopen, suggest, train, until
from tests.support.swanlab_server import StandIn, stand_in

pytestmark = [pytest.mark.process, pytest.mark.slow]

CLOUD = ResolvedMode("cloud", "", project="music")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with stand_in() as server:
        for name in [name for name in os.environ if name.startswith("SWANLAB_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("SWANLAB_ROOT", str(tmp_path / "home"))
        monkeypatch.setenv("SWANLAB_API_KEY", "a-secret-key")
        monkeypatch.setenv("SWANLAB_API_HOST", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run")


def ident(run: RunFolder, number: int) -> str:
    return trial_experiment(run, run.trials[number]).id


def test_a_trial_appears_with_group_tags_and_configuration_and_its_curve(server: StandIn, run: RunFolder) -> None:
    suggest(run)
    picture(run, 0, epoch=3)
    train(run, 0, upto=3)
    run.journal.ended(0, "cut")
    suggest(run)
    run.journal.ended(1, "failed", "the reason")
    done = replay(run.path, CLOUD)
    assert (done.mirrored, done.failed, done.problem) == (2, 0, "")
    experiment = server.experiments[ident(run, 0)]
    assert experiment["name"] == "000 resnet18 224px lr 1.3e-4"
    assert (experiment["cluster"], experiment["job"]) == ("run", "search")
    assert {label["name"] for label in experiment["labels"]} == {"resnet18", "demo", "search"}
    assert experiment["config"]["Outcome"]["value"] == "cut by ASHA at epoch 3"
    assert experiment["config"]["backbone"]["value"] == "resnet18"
    curves = server.scalars[ident(run, 0)]
    assert curves["val/acc"] == pytest.approx(curve(run, 0))
    assert set(METRICS) == set(curves)
    for path in [path for steps in server.pictures[ident(run, 0)].values() for path in steps.values()]:
        assert server.files[f"{ident(run, 0)}/{path}"].startswith(b"\x89PNG")
    assert server.pictures[ident(run, 0)].keys() == {"mel", "confusion"}
    assert ident(run, 1) not in server.pictures
    lines = server.lines[ident(run, 0)]
    assert [line.split(":")[0] for line in lines if line.startswith("epoch")] == ["epoch 1", "epoch 2", "epoch 3"]
    assert "cut by ASHA at epoch 3" in lines
    assert "failed: the reason" in server.lines[ident(run, 1)]
    assert [server.experiments[ident(run, number)]["state"] for number in (0, 1)] == ["FINISHED", "CRASHED"]


def test_a_resumed_trial_continues_its_curve(server: StandIn, run: RunFolder) -> None:
    mirror = Mirror(run, CLOUD)
    run.journal.listen(mirror.on_event)
    suggest(run)
    picture(run, 0)
    train(run, 0, upto=2)
    until(lambda: len(server.scalars.get(ident(run, 0), {}).get("val/acc", {})) == 2)
    kill(children()[0])
    mirror.close()  # as interrupted
    again = reopen(run)
    mirror = Mirror(again, CLOUD)
    again.journal.listen(mirror.on_event)
    train(again, 0, upto=4)
    again.journal.ended(0, "finished")
    mirror.close()
    assert len(server.experiments) == 1
    assert server.scalars[ident(run, 0)]["val/acc"] == pytest.approx(curve(run, 0))
    assert {key: list(steps) for key, steps in server.pictures[ident(run, 0)].items()} == {"mel": [1], "confusion": [0]}
    assert server.repeated == []
    assert server.experiments[ident(run, 0)]["state"] == "FINISHED"


@pytest.mark.parametrize("behaviour", ["hangs", "500", "403"])
def test_a_server_that_breaks_during_the_search_costs_warnings_and_a_replay_makes_up_for_it(
    behaviour: str, server: StandIn, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_pool, "PAUSE_S", 0.1)
    monkeypatch.setattr(mirror_pool, "GOODBYE_S", 2.0)
    mirror = Mirror(run, CLOUD)
    run.journal.listen(mirror.on_event)
    suggest(run)
    train(run, 0, upto=1)
    until(lambda: ident(run, 0) in server.scalars)
    server.behaviour = behaviour
    train(run, 0, upto=3)
    run.journal.ended(0, "finished")
    mirror.close(timeout=2)
    assert mirror.warnings >= 1
    assert "1 trials are not mirrored in full" in mirror.last_warning
    until(lambda: not children())
    server.behaviour = "works"
    assert replay(run.path, CLOUD).mirrored == 1
    assert server.scalars[ident(run, 0)]["val/acc"] == pytest.approx(curve(run, 0))
    assert server.experiments[ident(run, 0)]["state"] == "FINISHED"
