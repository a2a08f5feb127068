"""Whether an OGG file is whole, which libsndfile does not say: it skips damage and ends where the file ends."""

from __future__ import annotations

import zlib
from pathlib import Path

_PAGE = b"OggS"  # how every page begins
_LAST = 0x04  # a flag: this page is the last of its stream
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_damage(path: str | Path) -> str:
    """What an OGG file has lost, "" where its pages are all there; this takes a hundredth of decoding them.

    What follows the last page, such as a tag, is left alone. A file that ends with a whole page is whole, although not
    marked as the last one: recorders of radio streams never mark it.

    Source: RFC 3533, section 6.
    """
    content = Path(path).read_bytes()
    position = whole_until = gaps = 0
    marked = broken = False  # whether the last whole page says that it is the last, and whether one begins after it
    while (begin := content.find(_PAGE, position)) >= 0:
        segments = content[begin + 27 : begin + 27 + content[begin + 26]] if begin + 26 < len(content) else b""
        end = begin + 27 + len(segments) + sum(segments)
        if _is_whole(content[begin:end], end - begin):
            gaps += begin > whole_until
            position = whole_until = end
            marked, broken = bool(content[begin + 5] & _LAST), False
        else:  # its length may be what is wrong, so the next page is looked for everywhere
            position, broken = begin + 1, True
    if not whole_until or (broken and not marked):
        return "truncated: its last page is missing or damaged"
    return f"damaged: pages are missing or damaged in {gaps} place{'s' * (gaps > 1)}" if gaps else ""


def _is_whole(page: bytes, length: int) -> bool:
    """Whether a page has all its bytes, and they give its checksum.

    That is a CRC-32 from the highest bit down: zlib's, with the bits of every byte and of the result mirrored.
    """
    if len(page) < length:
        return False
    blank = page[:22] + bytes(4) + page[26:]  # the checksum's own place counts as zeros
    register = zlib.crc32(blank.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{register:032b}"[::-1], 2) == int.from_bytes(page[22:26], "little")
