from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from search.mirror import mode as mirror_mode
from search.mirror.mode import check_login, resolve_again, resolve_mode
from tests.support.swanlab_server import USER, stand_in
from trainable.errors import InputError

RUN = Path("runs/quick-1")


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SwanLab looks for a key in variables, in the working folder and in the home folder: all empty here."""
    for name in [name for name in os.environ if name.startswith("SWANLAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SWANLAB_ROOT", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def log_in(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SWANLAB_API_KEY", "a-secret-key")
    monkeypatch.setenv("SWANLAB_API_HOST", url)


@pytest.mark.slow
def test_without_a_key_auto_is_local_and_says_how_to_look() -> None:
    mode = resolve_mode("auto", RUN)
    assert (mode.mode, mode.warning) == ("local", "")
    assert mode.how == "swanlab watch runs/quick-1/swanlog"


@pytest.mark.slow
def test_without_a_key_the_cloud_is_refused_with_ways_out() -> None:
    with pytest.raises(InputError, match="you are not logged in") as refused:
        resolve_mode("cloud", RUN)
    assert "swanlab login" in str(refused.value)
    assert "--swanlab local" in str(refused.value)


@pytest.mark.slow
def test_with_a_key_that_the_server_takes_auto_is_the_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in() as server:
        log_in(monkeypatch, server.url)
        mode = resolve_mode("auto", RUN, project="music")
    assert (mode.mode, mode.how, mode.warning) == ("cloud", f"{server.url}/@{USER}/music", "")
    assert server.requests == [("POST", "/login/api_key")]


@pytest.mark.slow
def test_a_key_from_swanlab_login_counts(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / ".netrc").write_text(f"machine {server.url}\nlogin {server.url}\npassword a-secret-key\n")
        (tmp_path / "home" / ".netrc").chmod(0o600)
        assert resolve_mode("auto", RUN).mode == "cloud"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        ("401", "does not accept the API key (HTTP 401)"),
        ("500", "answered with HTTP 500"),
        ("garbage", "not as SwanLab does"),
        ("hangs", "gave no answer within 3 s"),
    ],
)
def test_a_server_that_fails_is_named_and_auto_falls_back_loudly(
    behaviour: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stand_in(behaviour) as server:
        log_in(monkeypatch, server.url)
        monkeypatch.setattr(mirror_mode, "REQUEST_SHARE", 0.05)
        mode = resolve_mode("auto", RUN, timeout=60.0)
    assert mode.mode == "local"
    assert f"{server.url} " in mode.warning
    assert problem in mode.warning
    assert "mirror runs/quick-1 --swanlab cloud" in mode.warning
    assert "a-secret-key" not in mode.warning


@pytest.mark.slow
def test_the_cloud_asked_for_and_refused_is_an_error_that_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, but nobody listens: connections are refused
        taken.bind(("127.0.0.1", 0))
        log_in(monkeypatch, f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(InputError, match="cannot be reached"):
            resolve_mode("cloud", RUN)


def test_a_check_that_hangs_before_its_own_limit_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hanging))
    answer = check_login(timeout=0.5)
    assert (answer["ok"], answer["problem"]) == (False, "there was no answer within 0.5 s")
    mode = resolve_mode("auto", RUN, timeout=0.5)
    assert mode.warning.startswith("SwanLab's cloud could not be asked: there was no answer within 0.5 s: this run is")


@pytest.mark.slow
def test_a_setting_that_swanlab_refuses_is_named_and_nobody_is_said_to_be_logged_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SWANLAB_MODE", "nonsense")
    monkeypatch.setenv("SWANLAB_API_KEY", "a-secret-key")
    with pytest.raises(InputError, match="cloud cannot be used: SwanLab refuses its settings: mode: Invalid mode: non"):
        resolve_mode("cloud", RUN)
    mode = resolve_mode("auto", RUN)
    assert mode.mode == "off"
    assert mode.warning.startswith("this run is not mirrored: SwanLab refuses its settings: mode: Invalid mode: nonsen")
    assert mode.warning.endswith("Once that is put right: python run_search.py mirror runs/quick-1")
    assert "a-secret-key" not in mode.warning

    monkeypatch.delenv("SWANLAB_MODE")
    monkeypatch.delenv("SWANLAB_API_KEY")
    assert resolve_again(None, mode.to_json(), RUN).mode == "local"
    assert resolve_again(None, {**mode.to_json(), "requested": "off"}, RUN).mode == "off"


def test_a_swanlab_that_cannot_be_imported_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "swanlab.py").write_text("raise ImportError('libnothing.so: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    mode = resolve_mode("auto", RUN)
    assert mode.mode == "off"
    assert "SwanLab itself failed: ImportError: libnothing.so" in mode.warning


@pytest.mark.parametrize(
    ("requested", "how"),
    [("local", "swanlab watch"), ("offline", "swanlab sync runs/quick-1/swanlog/offline"), ("off", "off")],
)
def test_modes_without_a_network_ask_nobody(requested: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_mode, "check_login", lambda timeout: pytest.fail("asked the network"))
    mode = resolve_mode(requested, RUN)
    assert mode.mode == requested
    assert how in mode.how


@pytest.mark.slow
def test_a_run_that_auto_had_sent_to_the_cloud_goes_on_where_the_cloud_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stand_in() as server:
        log_in(monkeypatch, server.url)
        was = resolve_mode("auto", RUN, project="music").to_json()
        assert resolve_again(None, was, RUN).mode == "cloud"
    away = resolve_again(None, was, RUN)  # nobody listens there any more
    assert (away.mode, away.project) == ("local", "music")
    assert "cannot be reached" in away.warning
    monkeypatch.delenv("SWANLAB_API_KEY")
    without_a_key = resolve_again(None, was, RUN)
    assert without_a_key.mode == "local"
    assert "this run was mirrored to SwanLab's cloud, but here you are not logged in" in without_a_key.warning
    assert "mirror runs/quick-1 --swanlab cloud" in without_a_key.warning


@pytest.mark.slow
@pytest.mark.parametrize("requested", [{}, {"requested": "cloud"}])
def test_who_asked_for_the_cloud_outright_is_told_where_it_is_away(requested: dict[str, str]) -> None:
    was = {"mode": "cloud", "project": "music", **requested}  # run.json of older runs does not say what was requested
    with pytest.raises(InputError, match="cloud cannot be used: you are not logged in"):
        resolve_again(None, was, RUN)
    assert resolve_again("off", was, RUN).mode == "off"


@pytest.mark.slow
def test_a_run_that_was_mirrored_locally_stays_local(monkeypatch: pytest.MonkeyPatch) -> None:
    was = resolve_mode("auto", RUN).to_json()
    assert was["requested"] == "auto"
    monkeypatch.setattr(mirror_mode, "check_login", lambda timeout: pytest.fail("asked the network"))
    assert resolve_again(None, was, RUN).mode == "local"


def test_a_retraining_is_watched_with_its_search(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert resolve_mode("local", tmp_path / "retrained").how == f"swanlab watch {tmp_path / 'swanlog'}"


def test_wrong_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"--swanlab: must be one of .* got clod"):
        resolve_mode("clod", RUN)
    with pytest.raises(InputError, match="--project"):
        resolve_mode("local", RUN, project="my project")
