"""What a request to a stand-in for a server carries."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler


def body_of(request: BaseHTTPRequestHandler) -> bytes:
    """The body of a request; files may come in chunks."""
    if "chunked" not in request.headers.get("Transfer-Encoding", ""):
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    parts = []
    while size := int(request.rfile.readline(), 16):
        parts.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(parts)
