"""A stand-in for SwanLab's cloud on 127.0.0.1 that speaks what the SDK sends, and remembers what it was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.requests import body_of

USER = "somebody"


class StandIn(ThreadingHTTPServer):
    """`behaviour`: works, hangs, garbage, or an HTTP status as a number; may be changed at any time."""

    daemon_threads = True

    def __init__(self, behaviour: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour = behaviour
        self.released = threading.Event()  # hanging answers end
        self.requests: list[tuple[str, str]] = []
        self.experiments: dict[str, dict[str, Any]] = {}  # by id
        self.scalars: dict[str, dict[str, dict[int, float]]] = {}  # id, metric, step; a step sent again fails a test
        self.pictures: dict[str, dict[str, dict[int, str]]] = {}  # id, key, step: path of the file
        self.files: dict[str, bytes] = {}  # by path
        self.lines: dict[str, list[str]] = {}  # of the console, by id
        self.repeated: list[tuple[str, str, int]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def stand_in(behaviour: str = "works") -> Iterator[StandIn]:
    """A running server."""
    server = StandIn(behaviour)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        body = body_of(self)
        path = self.path.split("?")[0].removeprefix("/api")
        self.server.requests.append((method, path))
        behaviour = self.server.behaviour
        if behaviour == "hangs":
            self.server.released.wait(600)
            return
        if behaviour == "garbage":
            return self._send(200, "<html>a captive portal</html>")
        if behaviour.isdigit():
            return self._send(int(behaviour), {"code": behaviour, "message": "stand-in"})
        if path.startswith("/stored/"):
            self.server.files[path.removeprefix("/stored/")] = body
            return self._send(200, {})
        with self.server.lock:
            status, answer = self._speak(method, path, json.loads(body) if body else None)
        self._send(status, answer)

    def _speak(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        experiments = self.server.experiments
        match method, parts:
            case "POST", ["login", "api_key"]:
                user = {"username": USER, "name": "Some Body"}
                return 200, {"sid": "sid", "expiredAt": "2099-01-01T00:00:00.000Z", "userInfo": user}
            case "GET", ["project", _, name]:
                return 200, {
                    "cuid": "project", "name": name, "path": f"/{USER}/{name}", "group": {"username": USER},
                    "_count": {"experiments": len(experiments)}, "version": 1,
                }  # fmt: skip
            case "POST", ["project", _, _, "experiment"]:
                new = body["cuid"] not in experiments
                experiment = experiments.setdefault(body["cuid"], {**body, "config": {}})
                experiment["state"] = "RUNNING"
                return (201 if new else 200), {
                    "cuid": body["cuid"], "slug": body["cuid"], "name": body["name"], "createdAt": body["createdAt"],
                }  # fmt: skip
            case "GET", ["house", "metrics", "summaries", _, ident]:
                curves = self.server.scalars.get(ident, {})
                pictures = self.server.pictures.get(ident, {})
                return 200, {
                    kind: [{"key": key, "step": max(steps)} for key, steps in each.items()]
                    for kind, each in (("scalar", curves), ("media", pictures))
                }
            case "POST", ["resources", "presigned", "put"]:
                return 200, {
                    "urls": [f"{self.server.url}/stored/{body['experimentId']}/{path}" for path in body["paths"]]
                }
            case "POST", ["house", "metrics"] if body["type"] == "log":
                self.server.lines.setdefault(body["experimentId"], []).extend(
                    line["message"] for line in body["metrics"]
                )
                return 200, {}
            case "POST", ["house", "metrics"] if body["type"] in ("media", "scalar"):
                kept: dict[str, Any] = self.server.pictures if body["type"] == "media" else self.server.scalars
                for item in body["metrics"]:
                    steps = kept.setdefault(body["experimentId"], {}).setdefault(item["key"], {})
                    if item["index"] in steps:
                        self.server.repeated.append((body["experimentId"], item["key"], item["index"]))
                    (steps[item["index"]],) = item["data"] if body["type"] == "media" else (item["data"],)
                return 200, {}
            case "PUT", ["project", _, _, "runs", ident, "profile"]:
                experiments[ident]["config"].update(body.get("config", {}))
                return 200, {}
            case "PUT", ["project", _, _, "runs", ident, "state"]:
                experiments[ident]["state"] = body["state"]
                return 200, {}
        return 200, {}

    def _send(self, status: int, answer: Any) -> None:
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
