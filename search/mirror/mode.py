"""Where trials are mirrored to: decided once, up front, within seconds, and never with a question."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast, get_args

from search.mirror.experiment import home
from trainable.commands import program, typed
from trainable.errors import InputError

Mode = Literal["cloud", "offline", "local", "off"]
Requested = Literal["auto", "cloud", "offline", "local", "off"]
CHECK_S = 20.0  # for the login check as a whole: starting Python, importing SwanLab, one request
REQUEST_SHARE = 0.5  # of that, for the request: its own message says more than that of an ended process
_PROJECT = re.compile(r"[0-9a-zA-Z_\-+.]{1,100}")  # SwanLab's own rule


@dataclass(frozen=True)
class ResolvedMode:
    """Where trials are mirrored to."""

    mode: Mode
    how: str  # how to look at it, one line for the header
    warning: str = ""  # what was wanted and could not be had, for people to notice; "" where all is as asked
    project: str = "audio-search"
    requested: str = ""  # what `--swanlab` said

    def to_json(self) -> dict[str, str]:
        """What run.json notes."""
        return {"requested": self.requested, "mode": self.mode, "how": self.how, "project": self.project}


def resolve_mode(requested: str, run: Path, project: str = "audio-search", timeout: float = CHECK_S) -> ResolvedMode:
    """What `--swanlab` comes to on this machine now.

    `auto` is the cloud where a key is at hand and the server takes it, and the local pages otherwise: with a key that
    does not work, because of the network or the server, it says so in `warning`. Local rather than offline, because
    one can look at it at once, and `run_search.py mirror` uploads either later. It is off, and says so, where SwanLab
    itself does not work.

    Raises:
        InputError: the cloud was asked for and cannot be had, or a name is not allowed.
    """
    if requested not in get_args(Requested):
        raise InputError(f"--swanlab: must be one of {', '.join(get_args(Requested))}, got {requested}. Name one.")
    run = home(run)
    if requested == "off":
        return ResolvedMode("off", "SwanLab is off", project=project, requested=requested)
    if not _PROJECT.fullmatch(project):
        raise InputError(
            f"--project: may hold 1 to 100 of letters, digits and _ - + . only, got {project!r}. Choose such a name."
        )
    if find_spec("swanlab") is None or (requested in ("auto", "local") and find_spec("swanboard") is None):
        raise InputError(
            "--swanlab: needs swanlab[dashboard], which is not installed. `pip install 'swanlab[dashboard]'`, or use "
            "--swanlab off."
        )
    if requested in ("local", "offline"):
        return ResolvedMode(cast(Mode, requested), _how(requested, run), project=project, requested=requested)
    answer = check_login(timeout)
    if answer["ok"]:
        how = f"{answer['web']}/@{answer['username']}/{project}"
        return ResolvedMode("cloud", how, project=project, requested=requested)
    if requested == "cloud":
        raise InputError(
            f"--swanlab: cloud cannot be used: {answer['problem']}. `swanlab login`, or use --swanlab local and later "
            f"`{_upload(run)}`."
        )
    if answer.get("broken"):
        warning = f"this run is not mirrored: {answer['problem']}. Once that is put right: {typed('mirror', run)}"
        return ResolvedMode("off", "SwanLab is off", warning, project, requested)
    warning = ""
    if answer["key"] is not False:
        known = "you are logged in to SwanLab, but" if answer["key"] else "SwanLab's cloud could not be asked:"
        warning = f"{known} {answer['problem']}: this run is mirrored locally. Upload it later: {_upload(run)}"
    return ResolvedMode("local", _how("local", run), warning, project, requested)


def resolve_again(given: str | None, was: Mapping[str, str], run: Path) -> ResolvedMode:
    """What `--swanlab` comes to where a run goes on: as `given`, or as it `was` by run.json.

    A run that `auto` had sent to the cloud goes on without it where it is away: nobody had insisted on it. One that it
    had left alone, because SwanLab did not work, is tried again.

    Raises:
        InputError: the cloud was asked for and cannot be had.
    """
    chosen = was.get("requested") == "auto" and was["mode"] in ("cloud", "off")
    if given or not chosen:
        return resolve_mode(given or was["mode"], run, was["project"])
    mode = resolve_mode("auto", run, was["project"])
    if mode.mode == "cloud" or was["mode"] == "off" or mode.warning:
        return mode
    return replace(
        mode,
        warning=f"this run was mirrored to SwanLab's cloud, but here you are not logged in: it is mirrored locally. "
        f"Upload it later: {_upload(home(run))}",
    )


def check_login(timeout: float = CHECK_S) -> dict[str, Any]:
    """What `search.mirror.login` found: ok, key (whether there is one; None: not known), and username and web, or
    problem, with broken where SwanLab itself does not work here.

    In a process of its own: a hanging name server or proxy keeps to no timeout, and importing SwanLab takes a second
    that the driver does not need.
    """
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "search.mirror.login", str(timeout * REQUEST_SHARE)],
            stdin=subprocess.DEVNULL,  # nobody can be asked
            capture_output=True,
            text=True,
            timeout=timeout,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"},
        )
    except subprocess.TimeoutExpired:
        return {"ok": False, "key": None, "problem": f"there was no answer within {timeout:g} s"}
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"ok": False, "key": None, "broken": True, "problem": f"SwanLab itself failed: {lines[-1]}"}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _upload(run: Path) -> str:
    return typed("mirror", run, "--swanlab", "cloud")


def _how(mode: str, run: Path) -> str:
    if mode == "local":
        return f"{program('swanlab')} watch {shlex.quote(str(run / 'swanlog'))}"
    return f"{program('swanlab')} sync {shlex.quote(str(run / 'swanlog' / 'offline'))}/*_*"
