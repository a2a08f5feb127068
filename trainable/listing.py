"""What a folder of class folders says about its clips, before any of them is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainable.errors import InputError

Part = Literal["train", "val", "test"]

AUDIO = frozenset(
    (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".au", ".snd", ".aif", ".aiff", ".aifc", ".caf", ".w64")
)
_FOREIGN = frozenset((".m4a", ".mp4", ".aac", ".wma", ".webm", ".amr", ".ape", ".wv"))  # audio, not for soundfile
_DEPTH = 4  # folders below the named one that are searched for what the user may have meant


@dataclass(frozen=True)
class Entry:
    """One file that should be a clip."""

    path: str  # absolute
    name: str  # relative to the data set's root, with "/"
    label: str
    group: str | None = None
    split: Part | None = None
    fold: int | None = None


@dataclass(frozen=True)
class Listing:
    """All files of a data set; `left_out` are names and reasons."""

    source: str  # the folder or CSV, as the user named it
    name: str
    root: Path
    labels: tuple[str, ...]  # with those that have no entry
    entries: tuple[Entry, ...]
    left_out: tuple[tuple[str, str], ...] = ()


def natural(text: str) -> list[str | int]:
    """A sort key by which "fold 10" comes after "fold 9"."""
    return [int(piece) if number % 2 else piece for number, piece in enumerate(re.split(r"(\d+)", text))]


def list_folder(root: Path, name: str = "") -> Listing:
    """The files in the class folders of `root`, sorted.

    Raises:
        InputError: no audio where it is expected; says where class folders were found instead.
    """
    entries: list[Entry] = []
    left_out: list[tuple[str, str]] = []
    labels = []
    for item in _scan(root):
        if item.name.startswith(".") or item.name == "__MACOSX":
            left_out.append((item.name + "/" * item.is_dir(), "hidden"))
        elif item.is_dir():
            labels.append(item.name)
            for path, reason in _class_files(Path(item.path)):
                relative = path.relative_to(root).as_posix()
                if reason:
                    left_out.append((relative, reason))
                else:
                    entries.append(Entry(str(path), relative, item.name))
        elif is_audio(item.name):
            left_out.append((item.name, "lies outside the class folders"))
    if not entries:
        raise InputError(_no_class_folders(root))
    labels.sort(key=natural)
    return Listing(str(root), name or _name(root), root, tuple(labels), tuple(entries), tuple(left_out))


def _class_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """All files of a class folder with the reason to leave them out, "" where there is none."""
    for item in _scan(folder):
        path = Path(item.path)
        if item.name.startswith("."):
            yield path, "hidden (left behind by macOS)" if item.name.startswith("._") else "hidden"
        elif item.is_dir():
            deeper = (Path(base) / file for base, _, files in os.walk(path) for file in files if is_audio(file))
            yield from ((file, "lies deeper than its class folder") for file in sorted(deeper))
        elif is_audio(item.name):
            yield path, ""
        elif path.suffix.lower() in _FOREIGN:
            yield path, f"{path.suffix} cannot be read; convert it to WAV or FLAC"
        else:
            yield path, "not an audio file by its name"


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return sorted(items, key=lambda item: item.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be opened ({error.strerror}). Check its permissions.") from None


def is_audio(name: str) -> bool:
    """Whether a file is audio by its name, and not hidden."""
    return Path(name).suffix.lower() in AUDIO and not name.startswith(".")


def _name(root: Path) -> str:
    """The folder's name; for GTZAN's generic one with that of the folder above."""
    return root.parent.name if root.name == "genres_original" and root.parent.name else root.name


def _no_class_folders(root: Path) -> str:
    """Why `root` is no data set, and which folder nearby is one."""
    holders = [folder for folder in _walk(root) if any(is_audio(path.name) for path in folder.iterdir())]
    homes = sorted({folder.parent for folder in holders if folder != root})
    table = find_table(root)
    if table is not None:
        return f"{root}: must hold class folders with audio files, got none. Did you mean {table}?"
    if len(homes) == 1:
        return f"{root}: must hold class folders with audio files, got them elsewhere. Did you mean {homes[0]}?"
    if homes:
        places = ", ".join(str(home) for home in homes[:3]) + (", ..." if len(homes) > 3 else "")
        return (
            f"{root}: must hold class folders with audio files, got them in {len(homes)} places ({places}). "
            f"Name one of them, or write a CSV with the columns path, label and split."
        )
    if holders:
        return (
            f"{root}: must hold class folders with audio files, got audio files without class folders. "
            f"Did you mean {find_table(root.parent) or root.parent}? "
            "Otherwise write a CSV with the columns path and label."
        )
    kinds = ", ".join(sorted(AUDIO))
    return f"{root}: must hold class folders with audio files ({kinds}), got no audio file. Check the path."


def _walk(root: Path) -> Iterator[Path]:
    """`root` and the visible folders below it, so deep as a user may have meant one of them."""
    for base, folders, _ in os.walk(root):
        folder = Path(base)
        deep = len(folder.relative_to(root).parts) >= _DEPTH
        folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
        yield folder


def find_table(root: Path) -> Path | None:
    """A CSV in `root` that lists clips, if there is one."""
    for path in sorted(root.glob("*.csv")):
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            header = file.readline().lower()
        if "path" in header and "label" in header:
            return path
    return None
