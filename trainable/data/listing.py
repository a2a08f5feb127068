"""What a folder of class folders, or a CSV, says about its clips, before any of them is opened."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Literal

from trainable.data.decode import FOREIGN
from trainable.data.stretches import Stretch
from trainable.errors import InputError, visible

Part = Literal["train", "val", "test"]
AUDIO = FOREIGN | {
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".au", ".snd", ".aif", ".aiff", ".aifc", ".caf",
    ".w64", ".rf64", ".sph", ".nist", ".voc", ".sf", ".ircam", ".avr", ".paf", ".pvf", ".svx", ".8svx",
}  # fmt: skip
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
    stretch: Stretch | None = None  # which part of the file it is; None: all of it


@dataclass(frozen=True)
class Listing:
    """All files of a data set; `left_out` are names and reasons."""

    source: str  # the folder or CSV, as the user named it
    name: str
    root: Path
    labels: tuple[str, ...]  # with those that have no entry
    entries: tuple[Entry, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()  # how it was understood
    warnings: tuple[str, ...] = ()  # what may be meant otherwise


def natural(text: str) -> tuple[tuple[object, ...], str]:
    """A sort key by which "fold 10" comes after "fold 9", and no two texts are equal ("1" and "01" neither)."""
    pieces: list[object] = list(re.split(r"(\d+)", text))
    for place in range(1, len(pieces), 2):  # not int, which refuses thousands of digits
        digits = "".join(str(unicodedata.decimal(digit)) for digit in str(pieces[place])).lstrip("0")
        pieces[place] = (len(digits), digits)
    return tuple(pieces), text


_BACKGROUND = "_background_noise_"  # of Speech Commands: minutes of noise to mix in, and no class
_LISTS: dict[str, Part] = {"testing_list.txt": "test", "validation_list.txt": "val"}  # of Speech Commands


def list_folder(root: Path, name: str = "") -> Listing:
    """The files in the class folders of `root`, sorted; with the lists of Speech Commands also their parts.

    Raises:
        InputError: no audio where it is expected; says where class folders were found instead.
    """
    entries: list[Entry] = []
    left_out: list[tuple[str, str]] = []
    labels = []
    for item in _scan(root):
        folder = is_folder(item)
        if item.name.startswith(".") or item.name == "__MACOSX":
            left_out.append((visible(item.name) + "/" * folder, "hidden"))
        elif item.name == _BACKGROUND:
            left_out.append((f"{item.name}/", "noise to mix in, and no class, in Speech Commands"))
        elif folder:
            labels.append(visible(item.name))
            for path, reason in _class_files(Path(item.path)):
                relative = path.relative_to(root).as_posix()
                if reason:
                    left_out.append((visible(relative), reason))
                else:
                    entries.append(Entry(str(path), visible(relative), visible(item.name)))
        elif is_audio(item.name):
            left_out.append((visible(item.name), "lies outside the class folders"))
        elif item.is_symlink() and not os.path.exists(item.path):  # noqa: PTH110 (Path's own raises in a loop)
            left_out.append((visible(item.name), "a link that leads nowhere"))
    if not entries:
        raise InputError(_no_class_folders(root))
    _refuse_parts(root, labels)
    labels.sort(key=natural)
    entries, notes = _speech_commands(root, entries)
    return Listing(str(root), name or _name(root), root, tuple(labels), tuple(entries), tuple(left_out), notes)


def holds_class_folders(root: Path) -> bool:
    """Whether any folder in `root` holds audio, as class folders do."""
    folders = (Path(item.path) for item in _scan(root) if is_folder(item) and not item.name.startswith("."))
    return any(is_audio(item.name) for folder in folders for item in _scan(folder))


def _refuse_parts(root: Path, labels: Sequence[str]) -> None:
    """Raises InputError where the folders are folds or parts, and not classes: learned, they would look like them."""
    folds = [label for label in labels if re.fullmatch(r"(fold|split|part|cv)[ _-]?\d+", label, re.IGNORECASE)]
    parts = [
        label for label in labels if re.fullmatch(r"train(ing)?|val(id(ation)?)?|test(ing)?", label, re.IGNORECASE)
    ]
    wrong = folds if len(folds) == len(labels) else parts if len(parts) == len(labels) else []
    if len(wrong) > 1:
        table = next((found for folder in (root, root.parent) if (found := find_table(folder))), None)
        hint = f"Did you mean {table}?" if table else "Write a CSV with the columns path, label and split or fold."
        raise InputError(f"{root}: must hold a folder per class, got {', '.join(wrong[:3])}, ... as of folds. {hint}")


def _speech_commands(root: Path, entries: list[Entry]) -> tuple[list[Entry], tuple[str, ...]]:
    """The entries with the parts that Speech Commands' lists give, speakers as groups; as they are without lists.

    Source: Warden, Speech Commands (arXiv:1804.03209), section 5: a file's name begins with its speaker's.
    """
    parts: dict[str, Part] = {}
    for name, part in _LISTS.items():
        if (root / name).is_file():
            parts |= dict.fromkeys((root / name).read_text(encoding="utf-8", errors="replace").split(), part)
    if not parts:
        return entries, ()
    gone = len(parts.keys() - {entry.name for entry in entries})
    spoken = all("_nohash_" in entry.name for entry in entries)
    made = [
        replace(
            entry, split=parts.get(entry.name, "train"),
            group=PurePath(entry.name).name.partition("_nohash_")[0] if spoken else None,
        )
        for entry in entries
    ]  # fmt: skip
    absent = f", {gone} of the listed files are not here" if gone else ""
    return made, (f"parts after {' and '.join(name for name in _LISTS if (root / name).is_file())}{absent}",)


def _class_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """All files of a class folder with the reason to leave them out, "" where there is none."""
    for item in _scan(folder):
        path = Path(item.path)
        if item.name.startswith("."):
            yield path, "hidden (left behind by macOS)" if item.name.startswith("._") else "hidden"
        elif is_folder(item):
            deeper = (Path(base) / file for base, _, files in os.walk(path) for file in files if is_audio(file))
            yield from ((file, "lies deeper than its class folder") for file in sorted(deeper))
        elif is_audio(item.name):
            yield path, ""
        else:
            yield path, "not an audio file by its name"


def is_folder(item: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; a link that leads back to itself is none."""
    try:
        return item.is_dir()
    except OSError:
        return False


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
    holders = [folder for folder, files in _walk(root) if any(map(is_audio, files))]
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
    kinds = ".wav, .flac, .mp3, .ogg, ..."
    return f"{root}: must hold class folders with audio files ({kinds}), got no audio file. Check the path."


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """`root` and the visible folders below it with their files, so deep as a user may have meant one of them."""
    for base, folders, files in os.walk(root):
        folder = Path(base)
        deep = len(folder.relative_to(root).parts) >= _DEPTH
        folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
        yield folder, files


def find_table(root: Path) -> Path | None:
    """A CSV in `root`, or in its folder of metadata, that lists clips, if there is one."""
    for path in sorted(found for pattern in ("*.csv", "meta/*.csv", "metadata/*.csv") for found in root.glob(pattern)):
        try:
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                header = file.readline(10_000).lower()
        except OSError:  # a folder of such a name, or one that may not be read
            continue
        if any(word in header for word in ("path", "file")) and any(
            word in header for word in ("label", "class", "categ")
        ):
            return path
    return None
