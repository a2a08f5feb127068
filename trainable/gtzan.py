"""GTZAN from the network to a folder of class folders: the work of `data gtzan`."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pooch

from trainable.download import DownloadError, Resuming
from trainable.errors import InputError
from trainable.listing import AUDIO
from trainable.progress import Progress

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
