"""Published data sets by name: where they can be had, under which licence, and what they become here.

A set is registered in `CATALOGUE` and nowhere else.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainable.data.download import BadArchive, download, members
from trainable.data.listing import is_audio
from trainable.errors import InputError, did_you_mean
from trainable.files import write_atomically
from trainable.progress import Progress

Parts = tuple[str, ...]
Row = dict[str, str]  # path, label, and some of group, fold and split
_MEGABYTE = 1e6
_UNPACKED = 6  # times its archive: more is no set of sounds, but a file made to fill the disk


@dataclass(frozen=True)
class Published:
    """A data set that somebody has published."""

    name: str  # for the command line
    title: str
    addresses: tuple[str, ...]  # tried in turn
    checksum: str | None  # "sha256:..." or "md5:..."; None: none is published, so what is unpacked is counted
    megabytes: int  # of the archive, about
    archive: str  # its name here
    folder: str  # what it becomes
    clips: int
    classes: int
    licence: str
    citation: str
    labels: Parts  # of its classes, where they are few; () where they are not all said here
    even: bool  # whether every class has as many clips
    # Where a member of the archive goes, below `folder`; None: nowhere. It sees names of strangers, so it builds paths
    # from their last parts alone.
    place: Callable[[Parts], str | None]
    # The rows of the CSV, from the folder; None: class folders say all.
    rows: Callable[[Path], Iterable[Row]] | None = None

    @property
    def mirrors_variable(self) -> str:
        """The environment variable with other addresses, separated by spaces."""
        return f"AUDIO_SEARCH_{self.name.upper().replace('-', '_')}_MIRRORS"

    @property
    def table(self) -> str | None:
        """The name of the CSV in `folder`; None where there is none."""
        return f"{self.name}.csv" if self.rows else None


def published(name: str) -> Published:
    """The record of that name.

    Raises:
        InputError: there is none.
    """
    wanted = re.sub(r"[^a-z0-9]", "", name.lower())  # ESC-50, esc50 and Esc_50 are one
    for record in CATALOGUE:
        if wanted == re.sub(r"[^a-z0-9]", "", record.name):
            return record
    names = [record.name for record in CATALOGUE]
    hint = did_you_mean(name, names) or f"Use one of {', '.join(names)}."
    raise InputError(f"NAME: must be a published data set, got {name!r}. {hint}")


def fetch_published(
    record: Published, dest: Path, mirrors: Sequence[str] | None = None, progress: Progress | None = None,
    pause: float = 2.0,
) -> Path:  # fmt: skip
    """What `--data` takes: the folder of a set's classes, or its CSV; downloaded and unpacked unless it is there.

    `mirrors`, or those in the set's environment variable, or its own addresses are tried in turn. An address may end
    in "#sha256:..." or "#md5:..." where its archive is packed differently. A download that broke off goes on where it
    ended, also after a kill, and an archive that lies in `dest` already is used. `pause` is the s to wait before a
    broken download goes on.

    Raises:
        InputError: no mirror gives the right file, the disk does not take it, or it holds something else.
    """
    target = dest / record.folder
    result = target / record.table if record.table else target
    if target.exists():
        _check(record, target, target)
        return result
    archive = dest / record.archive
    had_archive, had_folder = archive.exists(), dest.exists()
    try:
        dest.mkdir(parents=True, exist_ok=True)
        addresses = mirrors or os.environ.get(record.mirrors_variable, "").split() or record.addresses
        failures = download(archive, addresses, record.checksum, 2 * record.megabytes * _MEGABYTE, progress, pause)
        if failures:
            raise InputError(
                [
                    *(f"{failure}." for failure in failures),
                    f"{dest}: {record.title} could not be downloaded. Name another address with --mirror or "
                    f"{record.mirrors_variable}, or put {record.archive} into that folder yourself, and run the same "
                    "command again.",
                ]
            )
        _unpack(record, archive, target, progress)
    except OSError as error:
        raise InputError(f"{dest}: cannot be written ({error.strerror or error}). Name another place.") from None
    finally:
        if not had_folder and dest.is_dir() and not any(dest.iterdir()):
            dest.rmdir()
    if not had_archive:
        archive.unlink()
    return result


def _unpack(record: Published, archive: Path, target: Path, progress: Progress | None) -> None:
    """Makes `target` of the archive, whole or not at all."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of one that was killed
    most, clips = _UNPACKED * max(archive.stat().st_size, 1 << 20), 0
    try:
        with members(archive) as inside:
            for parts, size, source in inside:
                place = record.place(parts)
                if place is None:
                    continue
                most -= size
                if most < 0:
                    raise BadArchive(f"it becomes more than {_UNPACKED} times as large")
                (unfinished / place).parent.mkdir(parents=True, exist_ok=True)
                with (unfinished / place).open("wb") as file:
                    shutil.copyfileobj(source, file)
                clips += is_audio(place)
                if progress:
                    progress("Unpacking", clips, max(clips, record.clips))
        if record.rows and record.table:
            write_atomically(unfinished / record.table, _table(record, unfinished, archive))
        _check(record, unfinished, archive)
        unfinished.rename(target)
    except BadArchive as error:
        raise InputError(f"{archive}: cannot be unpacked ({error}). Remove it and run the command again.") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _table(record: Published, folder: Path, archive: Path) -> str:
    """The set's CSV, in the order of its paths."""
    assert record.rows is not None
    try:
        rows = sorted(record.rows(folder), key=lambda row: row["path"])
    except (OSError, KeyError, ValueError) as error:  # metadata that is missing, or is something else
        raise InputError(
            f"{archive}: must hold {record.title} as it was published, got another layout ({error}). Remove it and run "
            "the command again."
        ) from None
    text = io.StringIO()
    columns = [name for name in ("path", "label", "group", "fold", "split") if any(name in row for row in rows)]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _check(record: Published, folder: Path, shown: Path) -> None:
    """Refuses a folder that does not hold what was published."""
    counts, per_class = _counts(record, folder), record.clips // record.classes
    uneven = [f"{counts[label]} of {label}" for label in record.labels or sorted(counts) if counts[label] != per_class]
    right = sum(counts.values()) == record.clips and len(counts) == record.classes
    if right and not (record.even and uneven):
        return
    wanted = f"{record.title}'s {record.clips} clips in {record.classes} classes"
    found = f"{sum(counts.values())} in {len(counts)}"
    if record.even and uneven:
        wanted, found = f"{per_class} clips of each of {record.title}'s {record.classes} classes", ", ".join(uneven)
    raise InputError(f"{shown}: must hold {wanted}, got {found}. Remove it and run the command again.")


def _counts(record: Published, folder: Path) -> Counter[str]:
    """How many clips of each class are there."""
    if record.table is None:
        return Counter(path.parent.name for path in folder.glob("*/*") if is_audio(path.name))
    try:
        with (folder / record.table).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return Counter()
    return Counter(row["label"] for row in rows if (folder / row["path"]).is_file())


# GTZAN. Its genres are the folders; files are only taken from these.
_GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")


def _gtzan(parts: Parts) -> str | None:
    *_, genre, name = ("", "", *parts)
    return f"{genre}/{name}" if genre in _GENRES and is_audio(name) else None


# ESC-50. Names are FOLD-RECORDING-TAKE-CLASS.wav.
_ESC_NAME = re.compile(r"(\d)-(\d+)-[A-Z]-(\d+)\.wav")
_ESC_10 = ("0", "1", "10", "11", "12", "20", "21", "38", "40", "41")  # dog to sea waves, crying baby to fire crackling


def _esc(classes: tuple[str, ...] = ()) -> Callable[[Parts], str | None]:
    def place(parts: Parts) -> str | None:
        if parts[-2:] == ("meta", "esc50.csv"):
            return "meta/esc50.csv"
        found = _ESC_NAME.fullmatch(parts[-1]) if parts[-2:-1] == ("audio",) else None
        return f"audio/{parts[-1]}" if found and (not classes or found[3] in classes) else None

    return place


def _esc_rows(folder: Path) -> Iterable[Row]:
    with (folder / "meta" / "esc50.csv").open(newline="", encoding="utf-8") as file:
        names = {row["target"]: row["category"] for row in csv.DictReader(file)}
    for clip in (folder / "audio").iterdir():
        fold, recording, target = _parsed(_ESC_NAME, clip.name)
        yield {"path": f"audio/{clip.name}", "label": names[target], "group": recording, "fold": fold}


# UrbanSound8K. Names are RECORDING-CLASS-OCCURRENCE-SLICE.wav, in a folder for each fold.
_URBAN_NAME = re.compile(r"(\d+)-(\d)-\d+-\d+\.wav")
_URBAN_FOLD = re.compile(r"fold(\d+)")
_URBAN = (
    "air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling", "engine_idling", "gun_shot",
    "jackhammer", "siren", "street_music",
)  # fmt: skip


def _urban(parts: Parts) -> str | None:
    *_, fold, name = ("", *parts)
    return f"audio/{fold}/{name}" if _URBAN_FOLD.fullmatch(fold) and _URBAN_NAME.fullmatch(name) else None


def _urban_rows(folder: Path) -> Iterable[Row]:
    for clip in (folder / "audio").glob("*/*.wav"):
        recording, number = _parsed(_URBAN_NAME, clip.name)
        (fold,) = _parsed(_URBAN_FOLD, clip.parent.name)
        path = clip.relative_to(folder).as_posix()
        yield {"path": path, "label": _URBAN[int(number)], "group": recording, "fold": fold}


# FSDD. Names are DIGIT_SPEAKER_TAKE.wav; takes 0 to 4 are the official test.
_FSDD_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")
_FSDD_TEST = 5


def _fsdd(parts: Parts) -> str | None:
    return f"recordings/{parts[-1]}" if parts[-2:-1] == ("recordings",) and _FSDD_NAME.fullmatch(parts[-1]) else None


def _fsdd_rows(folder: Path) -> Iterable[Row]:
    for clip in (folder / "recordings").iterdir():
        digit, speaker, take = _parsed(_FSDD_NAME, clip.name)
        split = "test" if int(take) < _FSDD_TEST else "train"
        yield {"path": f"recordings/{clip.name}", "label": digit, "group": speaker, "split": split}


# Speech Commands. Names are SPEAKER_nohash_TAKE.wav in a folder for each word; two lists say what is not for training.
_WORD = re.compile(r"[a-z]+")
_WORD_NAME = re.compile(r"([0-9a-f]+)_nohash_\d+\.wav")
_WORD_LISTS = {"testing_list.txt": "test", "validation_list.txt": "val"}


def _words(parts: Parts) -> str | None:
    *_, word, name = ("", *parts)
    if name in _WORD_LISTS:
        return name
    return f"{word}/{name}" if _WORD.fullmatch(word) and _WORD_NAME.fullmatch(name) else None


def _words_rows(folder: Path) -> Iterable[Row]:
    parts = {line: part for name, part in _WORD_LISTS.items() for line in (folder / name).read_text().split()}
    for clip in folder.glob("*/*.wav"):
        (speaker,) = _parsed(_WORD_NAME, clip.name)
        path = clip.relative_to(folder).as_posix()
        yield {"path": path, "label": clip.parent.name, "group": speaker, "split": parts.get(path, "train")}


# Emo-DB. Names are two digits for the speaker, the text, a letter for the emotion (in German), and a version.
_EMO_NAME = re.compile(r"(\d\d)[ab]\d\d([WLEAFTN])[a-z]?\.wav")
_EMOTIONS = {
    "W": "anger", "L": "boredom", "E": "disgust", "A": "fear", "F": "happiness", "T": "sadness", "N": "neutral",
}  # fmt: skip


def _emo(parts: Parts) -> str | None:
    return f"wav/{parts[-1]}" if parts[-2:-1] == ("wav",) and _EMO_NAME.fullmatch(parts[-1]) else None


def _emo_rows(folder: Path) -> Iterable[Row]:
    for clip in (folder / "wav").iterdir():
        speaker, emotion = _parsed(_EMO_NAME, clip.name)
        yield {"path": f"wav/{clip.name}", "label": _EMOTIONS[emotion], "group": speaker}


def _parsed(pattern: re.Pattern[str], name: str) -> tuple[str, ...]:
    """What the groups of `pattern` are in a name that `place` has let through."""
    found = pattern.fullmatch(name)
    if found is None:
        raise ValueError(f"a file is called {name}")
    return tuple(found.groups())


_ESC_CITATION = "K. J. Piczak, ESC: Dataset for Environmental Sound Classification, ACM Multimedia 2015"
_ESC_ADDRESSES = ("https://github.com/karolpiczak/ESC-50/archive/master.zip",)
CATALOGUE = (
    Published(
        "gtzan", "GTZAN", ("http://opihi.cs.uvic.ca/sound/genres.tar.gz",),
        "sha256:24347e0223d2ba798e0a558c4c172d9d4a19c00bb7963fe055d183dadb4ef2c6",  # torchaudio's
        1_225, "genres.tar.gz", "genres_original", 1_000, 10,
        "none stated: recordings under copyright, used for research",
        "G. Tzanetakis and P. Cook, Musical Genre Classification of Audio Signals, IEEE TSAP 10(5), 2002",
        _GENRES, True, _gtzan,
    ),
    Published(
        "esc-50", "ESC-50", _ESC_ADDRESSES, None, 650, "ESC-50-master.zip", "ESC-50", 2_000, 50,
        "CC BY-NC 3.0", _ESC_CITATION, (), True, _esc(), _esc_rows,
    ),
    Published(
        "esc-10", "ESC-10", _ESC_ADDRESSES, None, 650, "ESC-50-master.zip", "ESC-10", 400, 10,
        "CC BY 3.0", _ESC_CITATION, (), True, _esc(_ESC_10), _esc_rows,
    ),
    Published(
        "fsdd", "FSDD", ("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip",),
        None, 30, "fsdd-1.0.10.zip", "FSDD", 3_000, 10,
        "CC BY-SA 4.0", "Z. Jackson and others, Free Spoken Digit Dataset, v1.0.10, doi:10.5281/zenodo.1342401",
        tuple("0123456789"), True, _fsdd, _fsdd_rows,
    ),
    Published(
        "speech-commands", "Speech Commands", ("http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",),
        "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",  # torchaudio's
        2_430, "speech_commands_v0.02.tar.gz", "SpeechCommands", 105_829, 35,
        "CC BY 4.0", "P. Warden, Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition, 2018",
        (), False, _words, _words_rows,
    ),
    Published(
        "urbansound8k", "UrbanSound8K", ("https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz?download=1",),
        "md5:9aa69802bbf37fb986f71ec1483a196e",  # Zenodo's
        6_020, "UrbanSound8K.tar.gz", "UrbanSound8K", 8_732, 10,
        "CC BY-NC 4.0", "J. Salamon, C. Jacoby and J. P. Bello, A Dataset and Taxonomy for Urban Sound Research, 2014",
        _URBAN, False, _urban, _urban_rows,
    ),
    Published(
        "emo-db", "Emo-DB", ("http://emodb.bilderbar.info/download/download.zip",), None, 40, "emodb.zip", "EmoDB",
        535, 7, "free of charge, no licence stated by its authors",
        "F. Burkhardt and others, A Database of German Emotional Speech, Interspeech 2005",
        tuple(_EMOTIONS.values()), False, _emo, _emo_rows,
    ),
)  # fmt: skip
