"""Archives from the network, whole and checked, by downloads that go on where they broke off; and what is in them."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pooch
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
        """Gives up after `attempts` in a row without a byte, waiting `pause` s before the second, twice that before the
        third and so on, or after `largest` bytes.
        """
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


def download(
    archive: Path, mirrors: Sequence[str], checksum: str | None, largest: float, progress: Progress | None = None,
    pause: float = 2.0,
) -> list[str]:  # fmt: skip
    """Puts the right file at `archive`, from the first of `mirrors` that has it; or why each of them has not.

    A mirror may end in "#sha256:..." or "#md5:...", where its archive is packed differently; the others' `checksum` is
    None where nobody has published one. At most `largest` bytes are taken. A file that lies there already is used if it
    is the right one.
    """
    pooch.get_logger().setLevel("WARNING")  # it announces what the progress bar shows
    part = archive.with_name(f"{archive.name}.part")
    failures = []
    for mirror in mirrors:
        url, _, own_hash = mirror.partition("#")
        for _ in range(2):
            downloader = Resuming(part, progress, pause=pause, largest=largest)
            try:
                pooch.retrieve(
                    url, own_hash or checksum, fname=archive.name, path=archive.parent, downloader=downloader
                )
                return []
            except DownloadError as error:
                failures.append(f"{url}: {error}")
                break
            except ValueError:  # pooch's word for a wrong checksum
                if not downloader.resumed:
                    failures.append(f"{url}: {_WRONG}")
                    break  # once more from the start only where the beginning may have come from elsewhere
        else:
            failures.append(f"{url}: {_WRONG}")
    return failures


_WRONG = "wrong checksum: another file, or a damaged one"


class BadArchive(Exception):
    """Why an archive cannot be unpacked."""


_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
    RuntimeError, NotImplementedError,  # a ZipFile that is encrypted, or packed as Python does not know
)  # fmt: skip
Member = tuple[tuple[str, ...], int, IO[bytes]]  # the parts of its name, its bytes, its content


@contextmanager
def members(archive: Path) -> Iterator[Iterator[Member]]:
    """The files in an archive, .zip or .tar in any packing, in their order; links and devices are passed over.

    Raises:
        BadArchive: it is none, or is damaged.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                yield _of_zip(packed)
        else:
            with tarfile.open(archive) as tar:
                yield _of_tar(tar)
    except _DAMAGED as error:
        raise BadArchive(str(error) or type(error).__name__) from None


def _of_tar(tar: tarfile.TarFile) -> Iterator[Member]:
    for member in tar:
        source = tar.extractfile(member) if member.isfile() else None
        if source is not None:
            with source:
                yield PurePosixPath(member.name).parts, member.size, source


def _of_zip(packed: zipfile.ZipFile) -> Iterator[Member]:
    for member in packed.infolist():
        if not member.is_dir():
            with packed.open(member) as source:
                yield PurePosixPath(member.filename).parts, member.file_size, source
