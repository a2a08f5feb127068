"""Against a server on this machine that breaks off, lies and refuses; nothing leaves 127.0.0.1."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainable.data.gtzan import MIRRORS_VARIABLE, fetch_gtzan
from trainable.errors import InputError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")


def content(genre: str, number: int) -> bytes:
    """400 bytes that do not compress."""
    return np.random.default_rng([ord(genre[0]), ord(genre[1]), number]).bytes(400)


def make_archive(genres: tuple[str, ...] = GENRES, clips: int = 2, extra: dict[str, bytes] | None = None) -> bytes:
    """A GTZAN archive with small files in it that are no audio: unpacking does not look inside."""
    buffer = io.BytesIO()
    files = {f"genres/{genre}/{genre}.{n:05d}.wav": content(genre, n) for genre in genres for n in range(clips)}
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in {**files, **(extra or {})}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


ARCHIVE = make_archive()
CHECKSUM = f"sha256:{hashlib.sha256(ARCHIVE).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves ARCHIVE by the rules below and remembers the ranges that it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.archive = ARCHIVE

    def ranges(self, path: str) -> list[str | None]:
        return [asked for at, asked in self.asked if at == path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        body = self.server.archive
        match self.path.strip("/"):
            case "good":
                self.answer(body, begin)
            case "breaks-off":  # a third of what is left, each time
                self.answer(body, begin, send=max(200, (len(body) - begin) // 3))
            case "no-ranges":
                self.answer(body, 0, send=None if len(self.server.asked) > 1 else 300)
            case "promises-more":
                self.answer(body, begin, promise=len(body) + 1000, send=len(body) - begin)
            case "promises-less":
                self.answer(body[:500], begin)
            case "other-file":
                self.answer(make_archive(clips=3), begin)
            case "another-range":
                self.answer(body, 7 if asked else 0, send=300 if not asked else None)
            case "busy":
                if len(self.server.asked) < 3:
                    self.refuse(503)
                else:
                    self.answer(body, begin)
            case "500":
                self.refuse(500)
            case _:
                self.refuse(404)

    def answer(self, body: bytes, begin: int, promise: int | None = None, send: int | None = None) -> None:
        total = promise or len(body)
        if begin and begin >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{total - 1}/{total}")
        self.send_header("Content-Length", str(total - begin))
        self.end_headers()
        self.wfile.write(body[begin : None if send is None else begin + send])
        self.close_connection = True

    def refuse(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetch(server: Server, tmp_path: Path) -> Callable[..., Path]:
    """Fetches from the server's paths into tmp_path/GTZAN without waiting."""

    def call(*paths: str, checksum: str = CHECKSUM, **options: Any) -> Path:
        mirrors = [f"{server.url}/{path}" for path in paths]
        return fetch_gtzan(tmp_path / "GTZAN", mirrors, known_hash=checksum, clips_per_genre=2, pause=0.0, **options)

    return call


def problem(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def test_gtzan_is_downloaded_checked_and_unpacked_and_nothing_else_is_left(fetch: Callable[..., Path]) -> None:
    steps: list[str] = []
    folder = fetch("good", progress=lambda description, done, total: steps.append(description))
    assert folder.name == "genres_original"
    assert sorted(path.name for path in folder.iterdir()) == list(GENRES)
    assert (folder / "blues" / "blues.00001.wav").read_bytes() == content("blues", 1)
    assert len(list(folder.glob("*/*.wav"))) == 20
    assert [path.name for path in folder.parent.iterdir()] == ["genres_original"]
    assert list(dict.fromkeys(steps)) == ["Downloading", "Unpacking"]


def test_gtzan_that_is_there_already_is_not_downloaded_again(fetch: Callable[..., Path], server: Server) -> None:
    fetch("good")
    server.asked.clear()
    fetch("good")
    assert server.asked == []


def test_a_server_that_breaks_off_is_asked_for_the_rest(fetch: Callable[..., Path], server: Server) -> None:
    fetch("breaks-off")
    ranges = server.ranges("/breaks-off")
    assert ranges[0] is None
    begins = [int(str(asked).removeprefix("bytes=").removesuffix("-")) for asked in ranges[1:]]
    assert begins[0] == len(ARCHIVE) // 3
    assert begins == sorted(set(begins))


def test_a_download_goes_on_where_a_killed_process_ended(
    fetch: Callable[..., Path], server: Server, tmp_path: Path
) -> None:
    (tmp_path / "GTZAN").mkdir()
    (tmp_path / "GTZAN" / "genres.tar.gz.part").write_bytes(ARCHIVE[:400])
    fetch("good")
    assert server.ranges("/good") == ["bytes=400-"]


def test_a_whole_file_that_was_not_yet_checked_is_not_sent_again(
    fetch: Callable[..., Path], server: Server, tmp_path: Path
) -> None:
    (tmp_path / "GTZAN").mkdir()
    (tmp_path / "GTZAN" / "genres.tar.gz.part").write_bytes(ARCHIVE)
    fetch("good")
    assert server.ranges("/good") == [f"bytes={len(ARCHIVE)}-"]


def test_a_beginning_that_belongs_to_another_file_is_thrown_away(
    fetch: Callable[..., Path], server: Server, tmp_path: Path
) -> None:
    (tmp_path / "GTZAN").mkdir()
    (tmp_path / "GTZAN" / "genres.tar.gz.part").write_bytes(b"?" * 400)
    fetch("good")
    assert server.ranges("/good") == ["bytes=400-", None]


def test_a_server_without_ranges_sends_everything_again(fetch: Callable[..., Path], server: Server) -> None:
    fetch("no-ranges")
    assert server.ranges("/no-ranges") == [None, "bytes=300-"]


def test_a_busy_server_is_asked_again(fetch: Callable[..., Path], server: Server) -> None:
    fetch("busy")
    assert len(server.ranges("/busy")) == 3


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("500", "the server answered 500 Internal Server Error, 5 times in a row"),
        ("missing", "the server answered 404 Not Found"),
        (
            "promises-more",
            f"the server broke off after {len(ARCHIVE)} of {len(ARCHIVE) + 1000} bytes, 5 times in a row",
        ),
        ("promises-less", "wrong checksum: the file is not GTZAN, or damaged"),
        ("other-file", "wrong checksum: the file is not GTZAN, or damaged"),
        ("another-range", "the server sent another range than was asked for"),
    ],
)
def test_a_mirror_that_fails_is_named_with_its_reason_and_the_next_one_is_tried(
    fetch: Callable[..., Path], server: Server, tmp_path: Path, path: str, reason: str
) -> None:
    text = problem(lambda: fetch(path))
    assert text.splitlines()[0] == f"{server.url}/{path}: {reason}."
    assert text.splitlines()[1] == (
        f"{tmp_path / 'GTZAN'}: GTZAN could not be downloaded. Name another address with --mirror or "
        "AUDIO_SEARCH_GTZAN_MIRRORS, or put genres.tar.gz into that folder yourself, and run the same command again."
    )
    assert not (tmp_path / "GTZAN" / "genres_original").exists()
    assert len(list(fetch(path, "good").glob("*/*.wav"))) == 20


def test_a_server_that_is_away_is_no_traceback_and_leaves_nothing(tmp_path: Path) -> None:
    dest = tmp_path / "GTZAN"
    text = problem(lambda: fetch_gtzan(dest, ["http://127.0.0.1:9/x"], known_hash=CHECKSUM, pause=0.0))
    assert text.startswith("http://127.0.0.1:9/x: no connection, 5 times in a row.")
    assert not dest.exists()


def test_an_address_that_is_none_is_no_traceback(tmp_path: Path) -> None:
    assert "nonsense: " in problem(lambda: fetch_gtzan(tmp_path, ["nonsense"], known_hash=CHECKSUM, pause=0.0))


def test_mirrors_come_from_the_environment_and_may_bring_their_own_checksum(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md5 = hashlib.md5(ARCHIVE).hexdigest()
    monkeypatch.setenv(MIRRORS_VARIABLE, f"{server.url}/missing {server.url}/good#md5:{md5}")
    fetch_gtzan(tmp_path, clips_per_genre=2, pause=0.0)
    assert [path for path, _ in server.asked] == ["/missing", "/good"]


def test_an_archive_that_was_put_there_by_hand_is_used_and_kept(
    fetch: Callable[..., Path], server: Server, tmp_path: Path
) -> None:
    (tmp_path / "GTZAN").mkdir()
    archive = tmp_path / "GTZAN" / "genres.tar.gz"
    archive.write_bytes(ARCHIVE)
    fetch("good")
    assert server.asked == []
    assert archive.exists()


def test_an_archive_cannot_write_outside_the_folder(fetch: Callable[..., Path], server: Server, tmp_path: Path) -> None:
    server.archive = make_archive(
        extra={
            "../../blues/../evil.wav": b"evil", "/tmp/evil/rock/../../evil.wav": b"evil",
            "genres/../../evil.wav": b"evil", "genres/._blues.00000.wav": b"resource",
            "genres/blues/._blues.00000.wav": b"resource", "genres/README": b"text",
        }
    )  # fmt: skip
    folder = fetch("good", checksum=hashlib.sha256(server.archive).hexdigest())
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 20
    assert len(list(folder.glob("*/*.wav"))) == 20


def test_an_archive_with_missing_clips_is_refused(fetch: Callable[..., Path], server: Server, tmp_path: Path) -> None:
    server.archive = make_archive(genres=GENRES[:-1])
    text = problem(lambda: fetch("good", checksum=hashlib.sha256(server.archive).hexdigest()))
    assert text == (
        f"{tmp_path / 'GTZAN' / 'genres.tar.gz'}: must hold 2 clips of each of GTZAN's 10 genres, got 0 of rock. "
        "Remove it and run the command again."
    )
    assert not (tmp_path / "GTZAN" / "genres_original").exists()


def test_a_file_that_is_no_archive_is_refused(fetch: Callable[..., Path], server: Server, tmp_path: Path) -> None:
    server.archive = b"not an archive" * 100
    text = problem(lambda: fetch("good", checksum=hashlib.sha256(server.archive).hexdigest()))
    assert text.startswith(f"{tmp_path / 'GTZAN' / 'genres.tar.gz'}: cannot be unpacked (")


def test_a_folder_that_is_not_whole_is_not_taken_for_gtzan(fetch: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "GTZAN" / "genres_original" / "blues").mkdir(parents=True)
    assert "must hold 2 clips of each of GTZAN's 10 genres, got 0 of blues, 0 of classical" in problem(
        lambda: fetch("good")
    )


def test_a_place_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = problem(lambda: fetch_gtzan(tmp_path / "file" / "x", [f"{server.url}/good"], known_hash=CHECKSUM))
    assert text == f"{tmp_path / 'file' / 'x'}: cannot be written (Not a directory). Name another place."
