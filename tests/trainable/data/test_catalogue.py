"""Published sets, against a server on this machine that breaks off, lies and refuses; nothing leaves 127.0.0.1."""

from __future__ import annotations

import csv
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from trainable.data.catalogue import CATALOGUE, fetch_published, published
from trainable.data.dataset import load_dataset
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
SMALL = replace(published("gtzan"), clips=20, checksum=CHECKSUM)
VARIABLE = "AUDIO_SEARCH_GTZAN_MIRRORS"


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
        return fetch_published(replace(SMALL, checksum=checksum), tmp_path / "GTZAN", mirrors, pause=0.0, **options)

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
        ("promises-less", "wrong checksum: another file, or a damaged one"),
        ("other-file", "wrong checksum: another file, or a damaged one"),
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
    text = problem(lambda: fetch_published(SMALL, dest, ["http://127.0.0.1:9/x"], pause=0.0))
    assert text.startswith("http://127.0.0.1:9/x: no connection, 5 times in a row.")
    assert not dest.exists()


def test_an_address_that_is_none_is_no_traceback(tmp_path: Path) -> None:
    assert "nonsense: " in problem(lambda: fetch_published(SMALL, tmp_path, ["nonsense"], pause=0.0))


def test_mirrors_come_from_the_environment_and_may_bring_their_own_checksum(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md5 = hashlib.md5(ARCHIVE).hexdigest()
    monkeypatch.setenv(VARIABLE, f"{server.url}/missing {server.url}/good#md5:{md5}")
    fetch_published(SMALL, tmp_path, pause=0.0)
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
        f"{tmp_path / 'GTZAN' / 'genres.tar.gz'}: must hold 2 clips of each of GTZAN's 10 classes, got 0 of rock. "
        "Remove it and run the command again."
    )
    assert not (tmp_path / "GTZAN" / "genres_original").exists()


def test_a_file_that_is_no_archive_is_refused(fetch: Callable[..., Path], server: Server, tmp_path: Path) -> None:
    server.archive = b"not an archive" * 100
    text = problem(lambda: fetch("good", checksum=hashlib.sha256(server.archive).hexdigest()))
    assert text.startswith(f"{tmp_path / 'GTZAN' / 'genres.tar.gz'}: cannot be unpacked (")


def test_a_folder_that_is_not_whole_is_not_taken_for_gtzan(fetch: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "GTZAN" / "genres_original" / "blues").mkdir(parents=True)
    assert "must hold 2 clips of each of GTZAN's 10 classes, got 0 of blues, 0 of classical" in problem(
        lambda: fetch("good")
    )


def test_a_place_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = problem(lambda: fetch_published(SMALL, tmp_path / "file" / "x", [f"{server.url}/good"]))
    assert text == f"{tmp_path / 'file' / 'x'}: cannot be written (Not a directory). Name another place."


# The other sets: each as its authors pack it, in small.


def packed(files: dict[str, bytes], kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def sound(number: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.random.default_rng(number).normal(0, 0.1, 1600), 8000, format="WAV")
    return buffer.getvalue()


ESC_META = b"filename,fold,target,category,esc10,src_file,take\n" + b"".join(
    f"{fold}-{fold}00{take}-A-{target}.wav,{fold},{target},{name},{target in (0, 38)},{fold}00{take},A\n".encode()
    for target, name in ((0, "dog"), (38, "clock_tick"), (49, "hand_saw"))
    for fold in (1, 2)
    for take in (0, 1)
)
ESC = {f"ESC-50-master/audio/{line.split(',')[0]}": b"" for line in ESC_META.decode().splitlines()[1:]}
ESC |= {"ESC-50-master/meta/esc50.csv": ESC_META, "ESC-50-master/audio/../../../evil.wav": b"evil"}
SPEAKERS = ("0a7c2a8d", "ffd2ba2f")
FILES: dict[str, dict[str, bytes]] = {
    "esc-50": ESC,
    "esc-10": ESC,
    "fsdd": {f"free-spoken-digit-dataset-1.0.10/recordings/{digit}_{who}_{take}.wav": b""
             for digit in (0, 7) for who in ("jackson", "theo") for take in (0, 4, 5)} | {"x/README.md": b"text"},
    "speech-commands": {f"./{word}/{who}_nohash_{take}.wav": b"" for word in ("yes", "no") for who in SPEAKERS
                        for take in (0, 1)} | {"./_background_noise_/pink_noise.wav": b"",
                        "./testing_list.txt": b"yes/0a7c2a8d_nohash_0.wav\nno/0a7c2a8d_nohash_1.wav\n",
                        "./validation_list.txt": b"yes/ffd2ba2f_nohash_0.wav\nno/ffd2ba2f_nohash_0.wav\n"},
    "urbansound8k": {f"UrbanSound8K/audio/fold{fold}/{fold}00{clip}-{kind}-0-{clip}.wav": b"" for fold in (1, 10)
                     for kind in (3, 8) for clip in (0, 1)} | {"UrbanSound8K/audio/fold1/._100-3-0-0.wav": b""},
    "emo-db": {f"wav/{who}a0{text}{letter}a.wav": b"" for who in ("03", "16") for text in (1, 2)
               for letter in "WTN"} | {"lablaut/03a01Wa.lablaut": b"text"},
}  # fmt: skip


def test_every_set_has_a_case_here() -> None:
    assert {"gtzan", *FILES} == {record.name for record in CATALOGUE}


@pytest.mark.parametrize("name", FILES)
def test_a_set_becomes_a_table_with_its_labels_groups_folds_and_parts(
    server: Server, tmp_path: Path, name: str
) -> None:
    record, files = published(name), FILES[name]
    files = {path: data or sound(index) for index, (path, data) in enumerate(files.items())}
    server.archive = packed(files, "zip" if record.archive.endswith(".zip") else "tar")
    classes = {"esc-50": 3, "emo-db": 3}.get(name, 2)
    small = replace(record, clips={"esc-10": 8, "speech-commands": 8, "urbansound8k": 8}.get(name, 12), classes=classes,
                    checksum=None, labels=())  # fmt: skip
    table = fetch_published(small, tmp_path / "there", [f"{server.url}/good"], pause=0.0)
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == small.clips
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name or path.name.startswith(".")]
    first = rows[0]
    assert (
        first
        == {
            "esc-50": {"path": "audio/1-1000-A-0.wav", "label": "dog", "group": "1000", "fold": "1"},
            "esc-10": {"path": "audio/1-1000-A-0.wav", "label": "dog", "group": "1000", "fold": "1"},
            "fsdd": {"path": "recordings/0_jackson_0.wav", "label": "0", "group": "jackson", "split": "test"},
            "speech-commands": {
                "path": "no/0a7c2a8d_nohash_0.wav",
                "label": "no",
                "group": "0a7c2a8d",
                "split": "train",
            },
            "urbansound8k": {"path": "audio/fold1/1000-3-0-0.wav", "label": "dog_bark", "group": "1000", "fold": "1"},
            "emo-db": {"path": "wav/03a01Na.wav", "label": "neutral", "group": "03"},
        }[name]
    )
    dataset = load_dataset(str(table))
    assert len(dataset.clips) == small.clips
    assert {clip.group for clip in dataset.clips} == {row["group"] for row in rows}
    server.asked.clear()
    assert fetch_published(small, tmp_path / "there", [f"{server.url}/good"]) == table
    assert server.asked == []


def test_a_set_without_a_checksum_is_counted(server: Server, tmp_path: Path) -> None:
    server.archive = packed(FILES["emo-db"], "zip")
    text = problem(lambda: fetch_published(published("emo-db"), tmp_path / "x", [f"{server.url}/good"], pause=0.0))
    assert text.endswith(
        "emodb.zip: must hold Emo-DB's 535 clips in 7 classes, got 12 in 3. Remove it and run the command again."
    )
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["emodb.zip"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_damaged_archive_is_named_and_leaves_nothing_half_done(server: Server, tmp_path: Path, kind: str) -> None:
    whole = packed({name: np.random.default_rng(3).bytes(5000) for name in FILES["fsdd"]}, kind)
    middle = len(whole) // 2
    server.archive = whole[:middle] + bytes(200) + whole[middle + 200 :]
    text = problem(lambda: fetch_published(published("fsdd"), tmp_path / "x", [f"{server.url}/good"], pause=0.0))
    assert "fsdd-1.0.10.zip: cannot be unpacked (" in text
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["fsdd-1.0.10.zip"]


def test_an_archive_that_would_fill_the_disk_is_not_unpacked(server: Server, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/recordings/0_theo_0.wav", bytes(20_000_000))
    server.archive = buffer.getvalue()
    assert "it becomes more than 6 times as large" in problem(
        lambda: fetch_published(published("fsdd"), tmp_path, [f"{server.url}/good"], pause=0.0)
    )


def test_a_server_that_sends_without_end_is_left(server: Server, tmp_path: Path) -> None:
    record = replace(published("fsdd"), megabytes=0)
    assert "the server sends more than 0 bytes" in problem(
        lambda: fetch_published(record, tmp_path, [f"{server.url}/good"], pause=0.0)
    )


def test_a_name_is_known_in_every_spelling_and_a_wrong_one_is_told_the_nearest() -> None:
    assert published("ESC50").name == published("esc_50").name == "esc-50"
    assert problem(lambda: published("urbansound")).endswith("Did you mean urbansound8k?")


def test_checksums_are_those_that_torchaudio_knows() -> None:
    from torchaudio.datasets import gtzan, speechcommands

    known = {**gtzan._CHECKSUMS, **speechcommands._CHECKSUMS}
    for name in ("gtzan", "speech-commands"):
        record = published(name)
        assert record.checksum == f"sha256:{known[record.addresses[0]]}"
