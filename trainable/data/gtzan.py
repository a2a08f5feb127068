"""GTZAN from the network to a folder of class folders, by downloads that go on where they broke off."""

from __future__ import annotations

import os
import shutil
import tarfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pooch
import requests
import urllib3

from trainable.data.listing import AUDIO
from trainable.errors import InputError
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


MIRRORS_VARIABLE = "AUDIO_SEARCH_GTZAN_MIRRORS"  # addresses, separated by spaces
CLIPS_PER_GENRE = 100
_ARCHIVE = "genres.tar.gz"
_FOLDER = "genres_original"


def fetch_gtzan(
    dest: Path,
    mirrors: Sequence[str] | None = None,
    progress: Progress | None = None,
    known_hash: str | None = None,
    clips_per_genre: int = CLIPS_PER_GENRE,
    pause: float = 2.0,
) -> Path:
    """The folder `dest`/genres_original with GTZAN's clips; downloaded, checked and unpacked unless it is there.

    The addresses in `mirrors`, or in AUDIO_SEARCH_GTZAN_MIRRORS, or the one that torchaudio knows, are tried in turn.
    An address may end in "#sha256:..." or "#md5:..." where its archive is packed differently; otherwise the checksum
    is `known_hash`, or torchaudio's. A download that broke off goes on where it ended, also after a kill, and an
    archive that lies at `dest`/genres.tar.gz already is used. `pause` is the s to wait before a broken download goes
    on.

    Raises:
        InputError: no mirror gives the right file, the disk does not take it, or it does not hold GTZAN.
    """
    target = dest / _FOLDER
    if target.exists():
        _check(target, clips_per_genre)
        return target
    archive = dest / _ARCHIVE
    had_archive, had_folder = archive.exists(), dest.exists()
    try:
        dest.mkdir(parents=True, exist_ok=True)
        _download(archive, mirrors or _configured(), known_hash, progress, pause)
        _unpack(archive, target, clips_per_genre, progress)
    except OSError as error:
        raise InputError(f"{dest}: cannot be written ({error.strerror or error}). Name another place.") from None
    finally:
        if not had_folder and dest.is_dir() and not any(dest.iterdir()):
            dest.rmdir()
    if not had_archive:
        archive.unlink()
    return target


def _configured() -> list[str]:
    from torchaudio.datasets import gtzan  # late: slow to import

    return os.environ.get(MIRRORS_VARIABLE, "").split() or [gtzan.URL]


def _download(
    archive: Path, mirrors: Sequence[str], known_hash: str | None, progress: Progress | None, pause: float
) -> None:
    """Puts the right file at `archive`, from the first mirror that has it."""
    from torchaudio.datasets import gtzan

    pooch.get_logger().setLevel("WARNING")  # it announces what the progress bar shows
    part = archive.with_name(f"{archive.name}.part")
    failures = []
    for mirror in mirrors:
        url, _, own_hash = mirror.partition("#")
        checksum = own_hash or known_hash or gtzan._CHECKSUMS[gtzan.URL]
        for _ in range(2):
            downloader = Resuming(part, progress, pause=pause)
            try:
                pooch.retrieve(url, checksum, fname=archive.name, path=archive.parent, downloader=downloader)
                return
            except DownloadError as error:
                failures.append(f"{url}: {error}")
                break
            except ValueError:  # pooch's word for a wrong checksum
                if not downloader.resumed:
                    failures.append(f"{url}: wrong checksum: the file is not GTZAN, or damaged")
                    break  # once more from the start only where the beginning may have come from elsewhere
        else:
            failures.append(f"{url}: wrong checksum: the file is not GTZAN, or damaged")
    raise InputError(
        [
            *(f"{failure}." for failure in failures),
            f"{archive.parent}: GTZAN could not be downloaded. Name another address with --mirror or "
            f"{MIRRORS_VARIABLE}, or put {archive.name} into that folder yourself, and run the same command again.",
        ]
    )


def _unpack(archive: Path, target: Path, clips_per_genre: int, progress: Progress | None) -> None:
    """Writes the archive's clips to `target`, which is there whole or not at all.

    Only the names of a clip and of its genre are taken from the archive, so that it cannot write anywhere else.
    """
    from torchaudio.datasets.gtzan import gtzan_genres

    unfinished = target.with_name(f".{target.name}.unfinished")
    total = clips_per_genre * len(gtzan_genres)
    shutil.rmtree(unfinished, ignore_errors=True)  # of one that was killed
    done = 0
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                *_, genre, name = ("", "", *PurePosixPath(member.name).parts)
                source = tar.extractfile(member) if member.isfile() and _is_clip(genre, name, gtzan_genres) else None
                if source is None:
                    continue
                (unfinished / genre).mkdir(parents=True, exist_ok=True)
                with source, (unfinished / genre / name).open("wb") as file:
                    shutil.copyfileobj(source, file)
                done += 1
                if progress:
                    progress("Unpacking", done, max(done, total))
        _check(unfinished, clips_per_genre, shown=archive)
        unfinished.rename(target)
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{archive}: cannot be unpacked ({error}). Remove it and run the command again.") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _is_clip(genre: str, name: str, genres: Sequence[str]) -> bool:
    return genre in genres and not name.startswith(".") and PurePosixPath(name).suffix in AUDIO


def _check(folder: Path, clips_per_genre: int, shown: Path | None = None) -> None:
    """Refuses a folder that does not hold so many clips of every genre."""
    from torchaudio.datasets.gtzan import gtzan_genres

    found = Counter(
        path.parent.name for path in folder.glob("*/*") if _is_clip(path.parent.name, path.name, gtzan_genres)
    )
    wrong = [f"{found[genre]} of {genre}" for genre in gtzan_genres if found[genre] != clips_per_genre]
    if wrong:
        raise InputError(
            f"{shown or folder}: must hold {clips_per_genre} clips of each of GTZAN's {len(gtzan_genres)} genres, "
            f"got {', '.join(wrong)}. Remove it and run the command again."
        )
