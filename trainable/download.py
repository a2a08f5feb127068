"""A downloader for pooch that goes on where a broken download ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import requests
import urllib3

from trainable.progress import Progress

_CHUNK = 1 << 18  # bytes
_TIMEOUT = (10, 60)  # s to connect, s between two chunks


class DownloadError(Exception):
    """Why one address did not give the file."""


class Resuming:
    """`downloader(url, output_file, pooch)` as pooch wants it.

    What has arrived stays in `part`, also when the process is killed, and the next attempt asks for the rest with an
    HTTP range. A server that knows no ranges sends everything again.
    """

    def __init__(
        self, part: Path, progress: Progress | None = None, attempts: int = 5, pause: float = 2.0, largest: float = 4e9
    ) -> None:
        """So many `attempts` may pass without a byte; before each, `pause` s, doubled each time. `largest` in bytes."""
        self.part, self.progress, self.attempts, self.pause, self.largest = part, progress, attempts, pause, largest
        self.resumed = False  # whether the file was put together from several answers

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Downloads `url` to `output_file`.

        Raises:
            DownloadError: the server refuses, or breaks off again and again.
        """
        failures = 0
        while True:
            before = self._size()
            self.resumed = self.resumed or before > 0
            try:
                self._fetch(url, before)
                break
            except (requests.ConnectionError, requests.Timeout, _Transient) as error:
                failures = 0 if self._size() > before else failures + 1
                if failures >= self.attempts:
                    raise DownloadError(f"{_reason(error)}, {failures} times in a row") from None
                time.sleep(self.pause * 2 ** (failures - 1) if failures else 0)
            except requests.RequestException as error:
                raise DownloadError(_reason(error)) from None
        self.part.replace(output_file)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _fetch(self, url: str, begin: int) -> None:
        """Appends to the part file what the server sends from byte `begin` on; returns when the file is whole."""
        # gzip on the way would make lengths and ranges mean something else
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
            if answer.status_code == 416:  # nothing beyond `begin`: whole already, or a part of something else
                if answer.headers.get("Content-Range", "").rpartition("/")[2] == str(begin):
                    return
                self.part.unlink()
                raise _Transient("the server has less than what is here")
            if answer.status_code >= 500 or answer.status_code == 429:
                raise _Transient(f"the server answered {answer.status_code} {answer.reason}")
            if answer.status_code not in (200, 206):
                raise DownloadError(f"the server answered {answer.status_code} {answer.reason}")
            if answer.status_code == 200 or not answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
                if answer.status_code == 206:
                    raise DownloadError("the server sent another range than was asked for")
                begin = 0
            length = answer.headers.get("Content-Length", "")
            total = begin + int(length) if length.isdigit() else 0
            try:
                self._save(answer, begin, total)
            except urllib3.exceptions.HTTPError:
                raise _Transient(f"the server broke off after {self._size()} of {total or 'many'} bytes") from None

    def _save(self, answer: requests.Response, begin: int, total: int) -> None:
        done = begin
        with self.part.open("ab" if begin else "wb") as file:
            # not iter_content, which throws away what it has when the server breaks off within a chunk
            while chunk := answer.raw.read(_CHUNK, decode_content=False):
                file.write(chunk)
                done += len(chunk)
                if done > self.largest:
                    raise DownloadError(f"the server sends more than {self.largest:.0f} bytes")
                if self.progress:
                    self.progress("Downloading", done, max(total, done))


class _Transient(Exception):
    """What may be over in a moment."""


def _reason(error: Exception) -> str:
    """A library's words, short: requests wraps several errors into each other."""
    if isinstance(error, _Transient):
        return str(error)
    if isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.ReadTimeout):
        return "no answer in time"
    return "no connection" if isinstance(error, requests.ConnectionError) else str(error)
