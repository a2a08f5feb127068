"""A stand-in for the Hugging Face hub: it takes a repository and one commit, and keeps what it was given."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.requests import body_of


class Hub(ThreadingHTTPServer):
    """What was asked of it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = "hf_right"
        self.repos: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        """Nothing: tests are quiet."""

    def do_GET(self) -> None:
        self._answer(404, {"error": "not here"})

    def do_HEAD(self) -> None:
        self._answer(404, {})

    def do_POST(self) -> None:
        body = body_of(self)
        if self.headers.get("authorization") != f"Bearer {self.server.token}":
            return self._answer(401, {"error": "Invalid credentials"})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.server.repos[f"{asked.get('organization')}/{asked['name']}"] = asked
            return self._answer(200, {"url": f"{self.server.url}/x/y", "id": "x/y", "name": "x/y"})
        if self.path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for each in json.loads(body)["files"]]  # fmt: skip
            return self._answer(200, {"files": files})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.server.url}/x/y/commit/abc"
            return self._answer(200, {"commitUrl": url, "commitOid": "abc", "success": True})
        return self._answer(404, {"error": f"unknown {self.path}"})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def stand_in() -> Iterator[Hub]:
    """A hub that answers while the context lasts."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
