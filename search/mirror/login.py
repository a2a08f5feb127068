"""Whether SwanLab's cloud can be used, as one line of JSON: `python -m search.mirror.login [SECONDS]`.

SwanLab's own `login` tries a request six times and then says "check the API key", whatever went wrong. This asks the
same question once and says which answer came.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def check(timeout: float) -> dict[str, Any]:
    """ok, key (whether there is one; None: not known), and username and web, or problem: a clause for people."""
    import requests
    from swanlab import Settings

    try:
        settings = Settings()  # the key and the host from wherever SwanLab looks for them
    except Exception as error:  # a variable or a file of its own that it refuses, in one of many ways
        return {"ok": False, "key": None, "broken": True, "problem": f"SwanLab refuses its settings: {_reason(error)}"}
    if not settings.api_key:
        return {"ok": False, "key": False, "problem": "you are not logged in"}
    host = settings.api_host
    found: dict[str, Any] = {"ok": False, "key": True}
    try:
        answer = requests.post(
            f"{host}/api/login/api_key", headers={"authorization": settings.api_key}, timeout=timeout
        )
    except requests.Timeout:
        return {**found, "problem": f"{host} gave no answer within {timeout:g} s"}
    except requests.RequestException as error:
        return {**found, "problem": f"{host} cannot be reached ({type(error).__name__})"}
    if answer.status_code in (401, 403):
        return {**found, "problem": f"{host} does not accept the API key (HTTP {answer.status_code})"}
    if not answer.ok:
        return {**found, "problem": f"{host} answered with HTTP {answer.status_code}"}
    try:
        username = answer.json()["userInfo"]["username"]
    except (ValueError, KeyError, TypeError):
        return {**found, "problem": f"{host} answered, but not as SwanLab does; is it the right address?"}
    return {"ok": True, "key": True, "username": username, "web": settings.web_host}


def _reason(error: Exception) -> str:
    """What is wrong with which setting, on one line."""
    if hasattr(error, "errors"):  # pydantic's: the setting's name and the rule
        return "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}" for each in error.errors()
        )
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    print(json.dumps(check(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)))
