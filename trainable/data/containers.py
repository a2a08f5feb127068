"""How much sound a file holds by its own structure, whatever the length in its header says.

Headers lie: writers to a pipe leave a length of 0 or of the highest number, MP3 often has none and decoders guess one,
recordings are copied one behind the other, and downloads break off. A decoder that believes such a length gives a part
of the sound and no error; what it would give is therefore compared with what is found here.
"""

from __future__ import annotations

import itertools
import mmap
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

_TRUNCATED = 0.01  # share of the promised samples that may be missing; careless writers miscount by a header's length
_TRUNCATED_MP3 = 0.1  # the same for MP3, whose headers count frames that its writer dropped
_SLACK = 4096  # bytes that no header and no sample accounts for, and that nobody misses: annotations, padding, tags

Content = bytes | mmap.mmap


@dataclass(frozen=True)
class Held:
    """What a file's structure says of it; zeros and "" where it says nothing."""

    frames: int = 0  # samples per channel that are there
    slack: int = 0  # samples: so many fewer are still all of them
    bytes: int = 0  # that hold samples, or that nothing else accounts for
    damage: str = ""  # why no decoder can give the whole sound
    misleading: bool = False  # libsndfile would give less than there is, although nothing is damaged
    checked: bool = False  # checksums say that every byte is right

    def lacks(self, frames: int, bytes_per_frame: float = 0) -> bool:
        """Whether so many `frames` leave out some of the sound; `bytes_per_frame` is 0 where their size varies."""
        if bytes_per_frame and self.bytes - frames * bytes_per_frame > _SLACK + _TRUNCATED * self.bytes:
            return True
        return self.frames - frames > max(self.slack, _TRUNCATED * self.frames)


def held(path: str | Path, mp3: bool) -> Held:
    """What the structure of the file at `path` says, nothing decoded; `mp3`: whether a decoder takes it for an MP3.

    Raises:
        OSError: the file cannot be opened.
    """
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        begin = _after_id3(content)
        if mp3:
            return _mp3(content, begin)
        magic = bytes(content[begin : begin + 4])
        if magic == _PAGE:
            return _ogg(content)
        several = _recordings(content)
        if several > 1:
            return Held(damage=f"{several} recordings one behind the other in one file: split it")
        if magic == b"fLaC":
            return _flac(content, begin)
        if magic in _CHUNKED:
            return _chunked(content, magic)
        if magic == b".snd":
            start, length = (int.from_bytes(content[place : place + 4], "big") for place in (4, 8))
            rest = max(0, len(content) - start)
            return Held(bytes=rest, damage=_lost(length, rest, 1 << 32))
        return Held(bytes=len(content))


def _after_id3(content: Content) -> int:
    """Where the sound begins: behind ID3v2 tags, whose sizes have seven bits a byte."""
    begin = 0
    while content[begin : begin + 3] == b"ID3" and len(content) > begin + 10:
        size = sum((byte & 0x7F) << 7 * (3 - place) for place, byte in enumerate(content[begin + 6 : begin + 10]))
        begin += 10 + size + 10 * bool(content[begin + 5] & 0x10)  # the flag says that the tag's header is repeated
    return begin


# How recordings begin. One that stands behind another is heard by no decoder, or its header is heard as sound.
_BEGINNING = re.compile(
    rb"(?s)(?:RIFF|RIFX|RF64).{4}WAVE|FORM.{4}(?:AIFF|AIFC|8SVX|16SV)|caff\0[\1\2]\0\0desc|fLaC[\0\x80]\0\0\x22"
    rb"|riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0|Creative Voice File\x1a|NIST_1A\n   "
    rb"|Extended Instrument: "
)


def _recordings(content: Content) -> int:
    """How many recordings of the first one's kind stand in the file, one behind the other."""
    first = _BEGINNING.search(content, 0, _after_id3(content) + 64)
    if first is None:
        return 1
    return 1 + sum(found[0][:4] == first[0][:4] for found in _BEGINNING.finditer(content, first.end()))


def _lost(promised: int, there: int, top: int) -> str:
    """What a file says that has fewer bytes of samples than its header promises, "" where it has them.

    Sizes in the upper half of the range, which ends at `top`, and 0 are what writers to a pipe put there: no promise.
    """
    if promised >= top // 2 - (1 << 16) or there >= promised or 1 - there / promised <= _TRUNCATED:
        return ""
    return truncated(1 - there / promised)


def truncated(missing: float) -> str:
    """What is said of a file of whose promised samples a share is `missing`."""
    return f"truncated: {missing:.0%} of the samples that its header promises are missing"


class _Layout(NamedTuple):
    """How a format of chunks is laid out."""

    first: int  # where the first chunk stands
    name: int  # bytes of a chunk's name
    size: int  # bytes of a chunk's size
    order: Literal["little", "big"]
    whole: bool  # sizes count the chunk's own header
    align: int  # chunks begin at multiples of so many bytes
    data: tuple[bytes, ...]  # the chunks that hold samples


_CHUNKED = {
    b"RIFF": _Layout(12, 4, 4, "little", False, 2, (b"data",)),
    b"RIFX": _Layout(12, 4, 4, "big", False, 2, (b"data",)),
    b"RF64": _Layout(12, 4, 4, "little", False, 2, (b"data",)),
    b"FORM": _Layout(12, 4, 4, "big", False, 2, (b"SSND", b"BODY")),
    b"caff": _Layout(8, 4, 8, "big", False, 1, (b"data",)),
    b"riff": _Layout(40, 16, 8, "little", True, 8, (b"data",)),
}


def _chunked(content: Content, magic: bytes) -> Held:
    """WAV, RF64, AIFF, 8SVX, CAF and W64: the bytes of their samples, and those behind that are no chunk of theirs."""
    layout, end = _CHUNKED[magic], len(content)
    samples, damage, long = 0, "", 0
    position = layout.first
    while position + layout.name + layout.size <= end:
        name = content[position : position + layout.name]
        if not all(32 <= byte < 127 for byte in name[:4]) and any(name):
            break
        body = position + layout.name + layout.size
        size = int.from_bytes(content[body - layout.size : body], layout.order)
        size -= (layout.name + layout.size) * layout.whole
        if magic == b"RF64" and name == b"ds64":
            long = int.from_bytes(content[body + 8 : body + 16], "little")
        if name[:4] in layout.data:
            size = long if magic == b"RF64" and size == 0xFFFFFFFF else size
            damage = _lost(size, end - body, 1 << 8 * (8 if magic == b"RF64" else layout.size))
            samples += min(max(size, 0), end - body)
        elif size < 0 or body + size > end + _SLACK:
            break
        position = min(end, body + max(size, 0))
        position += -position % layout.align
    rest = max(0, end - position)
    return Held(bytes=samples + rest, damage=damage)


_PAGE = b"OggS"  # how every page begins
_FIRST, _LAST = 0x02, 0x04  # flags: this page is the first, the last of its stream
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_MOST_ON_A_PAGE = 255 * 8192  # samples: so many packets, each of at most so many


def _ogg(content: Content) -> Held:
    """What an OGG file has lost, and whether its counts can be believed; takes a hundredth of decoding it.

    What follows the last page, such as a tag, is left alone. A file that ends with a whole page is whole, although not
    marked as the last one: recorders of radio streams never mark it. libsndfile reads the first of streams that stand
    one behind the other, and every decoder believes the position that the last page gives.

    Source: RFC 3533, section 6.
    """
    position = whole_until = gaps = 0
    marked = broken = False  # whether the last whole page says that it is the last, and whether one begins after it
    chained = sounding = wrong = False
    reached: dict[bytes, int] = {}  # by stream, the position that its last page gives, in samples
    while (begin := content.find(_PAGE, position)) >= 0:
        segments = content[begin + 27 : begin + 27 + content[begin + 26]] if begin + 26 < len(content) else b""
        end = begin + 27 + len(segments) + sum(segments)
        if not _is_whole(content[begin:end], end - begin):
            position, broken = begin + 1, True  # its length may be what is wrong: the next one is looked for everywhere
            continue
        gaps += begin > whole_until
        position = whole_until = end
        flags, serial = content[begin + 5], content[begin + 14 : begin + 18]
        marked, broken = bool(flags & _LAST), False
        reaches = int.from_bytes(content[begin + 6 : begin + 14], "little", signed=True)
        before = reached.get(serial, 0)
        if flags & _FIRST:
            chained |= sounding
            sounding, before = False, 0
        else:
            sounding |= reaches > 0
        closed = not segments or segments[-1] < 255  # a packet ends with the page, which then says how far it reaches
        wrong |= (closed and reaches < before) or reaches - before > _MOST_ON_A_PAGE
        reached[serial] = reaches if closed else before
    if not whole_until or (broken and not marked):
        return Held(damage="truncated: its last page is missing or damaged")
    damage = f"damaged: pages are missing or damaged in {gaps} place{'s' * (gaps > 1)}" if gaps else ""
    if wrong and not damage:
        damage = "damaged: its pages say wrongly where they stand"
    return Held(damage=damage, misleading=chained, checked=not damage)


def _is_whole(page: bytes, length: int) -> bool:
    """Whether a page has all its bytes, and they give its checksum.

    That is a CRC-32 from the highest bit down: zlib's, with the bits of every byte and of the result mirrored.
    """
    if len(page) < length:
        return False
    blank = page[:22] + bytes(4) + page[26:]  # the checksum's own place counts as zeros
    register = zlib.crc32(blank.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{register:032b}"[::-1], 2) == int.from_bytes(page[22:26], "little")


def _flac(content: Content, begin: int) -> Held:
    """The samples of a FLAC file by its last frame, against those that its header promises.

    Source: RFC 9639, sections 8.2 and 9.1.
    """
    fixed = content[begin + 8 : begin + 10] == content[begin + 10 : begin + 12]  # smallest and largest block
    block = int.from_bytes(content[begin + 10 : begin + 12], "big")
    promised = int.from_bytes(content[begin + 18 : begin + 26], "big") & ((1 << 36) - 1)
    start = begin + 4
    last = False
    while not last and start + 4 <= len(content):  # over the blocks of metadata
        last = bool(content[start] & 0x80)
        start += 4 + int.from_bytes(content[start + 1 : start + 4], "big")
    kind = content[start + 2 : start + 4]  # of the first frame: rate, channels and bits stay the same
    place = len(content)
    while (place := content.rfind(b"\xff", start, place)) >= 0:
        frame = _flac_frame(content[place : place + 16], kind)
        if frame:
            number, samples = frame
            there = number * (block if fixed else 1) + samples
            missing = 1 - there / promised if promised else 0.0
            damage = truncated(missing) if missing > _TRUNCATED else ""
            return Held(there, damage=damage, misleading=promised < there)
    return Held(damage="no samples" if not promised else truncated(1))


def _flac_frame(header: bytes, kind: bytes) -> tuple[int, int] | None:
    """A frame's number (of its first sample, where blocks vary) and samples; None where no frame begins here."""
    if len(header) < 6 or header[1] & 0xFE != 0xF8 or (header[2] ^ kind[0]) & 0x0F or (header[3] ^ kind[1]) & 0x0F:
        return None
    lead = header[4]
    ones = 8 - (lead ^ 0xFF).bit_length()  # as in UTF-8: that many bytes, but 0 is one byte and 1 is none
    if ones in (1, 8):
        return None
    more = max(0, ones - 1)
    number = lead & ((1 << 7 - ones) - 1)
    for byte in header[5 : 5 + more]:
        number = number << 6 | byte & 0x3F
    end = 5 + more
    code, rate = header[2] >> 4, header[2] & 0x0F
    wide = {6: 1, 7: 2}.get(code, 0)
    samples = int.from_bytes(header[end : end + wide], "big") + 1
    if not wide:
        samples = 192 if code == 1 else 576 << code - 2 if 2 <= code <= 5 else 256 << code - 8 if code >= 8 else 0
    end += wide + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if not samples or end >= len(header) or _crc8(header[:end]) != header[end]:
        return None
    return number, samples


def _crc8(data: bytes) -> int:
    """The checksum of a FLAC frame's header: polynomial x^8 + x^2 + x + 1."""
    register = 0
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register << 1 ^ 0x07) & 0xFF if register & 0x80 else register << 1
    return register


class _Mp3Frame(NamedTuple):
    """What the header of a frame says."""

    length: int  # bytes
    samples: int
    kind: tuple[int, int, int]  # version, layer and rate, which stay the same


_KBITS = {  # by the first version or a later one, and the layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8000)}  # Hz, by version


def _mp3_frame(content: Content, place: int) -> _Mp3Frame | None:
    """The frame that begins at `place`, None where none does."""
    header = content[place : place + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    kbits, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or not 0 < kbits < 15 or rate == 3:
        return None
    first = version == 3
    hertz, bits = _RATES[version][rate], 1000 * _KBITS[first, layer][kbits - 1]
    samples = 384 if layer == 1 else 1152 if layer == 2 or first else 576
    padding = (header[2] >> 1 & 1) * (4 if layer == 1 else 1)
    length = 12 * bits // hertz * 4 + padding if layer == 1 else samples // 8 * bits // hertz + padding
    return _Mp3Frame(length, samples, (version, layer, rate))


def _mp3(content: Content, begin: int) -> Held:
    """The samples of an MP3 by counting its frames, against those that its header (Xing, Info or VBRI) promises."""
    frames = itertools.chain.from_iterable(_mp3_runs(content, begin))
    first = next(frames, None)
    if first is None:
        return Held()
    place, frame = first
    tag = content[place : place + frame.length]
    found = max(tag.find(b"Xing", 4, 64), tag.find(b"Info", 4, 64))
    promised = 0
    if found > 0 and tag[found + 7] & 1:
        promised = int.from_bytes(tag[found + 8 : found + 12], "big") * frame.samples
    elif tag[36:40] == b"VBRI":
        promised = int.from_bytes(tag[50:54], "big") * frame.samples
    tagged = found > 0 or tag[36:40] == b"VBRI"
    there = frame.samples * (not tagged) + sum(frame.samples for _, frame in frames)
    missing = 1 - there / promised if promised else 0.0
    damage = truncated(missing) if missing > _TRUNCATED_MP3 else ""
    # An encoder's silence before and after the sound is cut off where the tag tells how long it is.
    return Held(there, slack=4 * frame.samples, damage=damage)


def _mp3_runs(content: Content, place: int) -> Iterator[list[tuple[int, _Mp3Frame]]]:
    """The frames of an MP3 and their places, in runs without a gap; two in a row are needed to believe in one."""
    run: list[tuple[int, _Mp3Frame]] = []
    end = len(content)
    while 0 <= place < end - 3:
        frame = _mp3_frame(content, place)
        if frame and (not run or run[-1][1].kind[:2] == frame.kind[:2]):
            run.append((place, frame))
            place += frame.length
            continue
        if len(run) > 1:
            yield run
        else:
            place = run[0][0] + 1 if run else place + 1
        run = []
        place = content.find(b"\xff", place)
    if len(run) > 1:
        yield run
