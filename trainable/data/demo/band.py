"""How the classes of the demo set are played: which part falls on which step of the bar, and what varies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainable.data.demo.synth import DRUMS, PLAYERS, RATE, Rng, Wave, colour, glide, hiss


@dataclass(frozen=True)
class Style:
    """How a class is played. A pattern is one bar of four beats: x a hit, o a soft one, . nothing.

    Twelve steps to the bar swing, sixteen are straight. Of several patterns or instruments each clip draws one.
    """

    tempo: tuple[float, float]  # beats per minute
    kick: tuple[str, ...] = ()
    snare: tuple[str, ...] = ()
    hat: tuple[str, ...] = ()
    bass: tuple[str, ...] = ()
    bass_hold: float = 0.9  # length of a bass note, as a share of the time to the next
    bass_line: str = "root"  # root, octave, fifth, walk or glide
    chords: tuple[str, ...] = ()
    chord_hold: float = 0.9
    chord_players: tuple[str, ...] = ("organ",)
    chord_kind: tuple[str, ...] = ("major", "minor")
    lead: tuple[str, ...] = ()
    lead_hold: float = 0.9
    lead_players: tuple[str, ...] = ("reed",)
    lead_move: str = "plain"  # plain, bend or arpeggio
    loud: str = ""  # the part that is played up


STYLES: dict[str, Style] = {
    "blues": Style(
        tempo=(84, 126),
        kick=("x.....x.....", "x.....x....o"), snare=("...x.....x..",), hat=("x.xx.xx.xx.x",),
        bass=("x.xx.xx.xx.x", "x..x..x..x.."), bass_line="walk",
        chords=("x...........",), chord_players=("organ", "piano"), chord_kind=("seventh",),
        lead=("x...x.x.....", "..x.x...x..."), lead_players=("reed", "guitar"), lead_move="bend",
        loud="lead",
    ),
    "classical": Style(
        tempo=(70, 120),
        bass=("x.......x.......", "x..............."),
        chords=("x.......x.......", "x..............."), chord_hold=1.0, chord_players=("strings", "organ"),
        lead=("x.x.x.x.x.x.x.x.", "x...x.x.x...x.x."), lead_players=("strings", "piano"), lead_move="arpeggio",
        loud="chords",
    ),
    "country": Style(
        tempo=(90, 130),
        kick=("x.......x.......",), snare=("ooxoooxoooxoooxo", "..xo..xo..xo..xo"),
        bass=("x.......x.......", "x...x...x...x..."), bass_hold=0.4, bass_line="fifth",
        chords=("....x.......x...", "....x.o.....x.o."), chord_hold=0.25,
        chord_players=("guitar", "piano"), chord_kind=("major",),
        lead=("x.xxx.xxx.xxx.xx",), lead_hold=0.5, lead_players=("guitar", "piano"), lead_move="arpeggio",
        loud="chords",
    ),
    "disco": Style(
        tempo=(104, 132),
        kick=("x...x...x...x...",), snare=("....x.......x...",), hat=("..x...x...x...x.",),
        bass=("x.x.x.x.x.x.x.x.",), bass_hold=0.7, bass_line="octave",
        chords=("x.......x.......", "x..x....x..x...."),
        chord_players=("strings", "organ"), chord_kind=("minor", "major"),
        loud="hat",
    ),
    "hiphop": Style(
        tempo=(72, 98),
        kick=("x.....x..x......", "x..x......x....."), snare=("....x.......x...",), hat=("x.x.x.x.x.x.xxx.",),
        bass=("x.....x.........", "x.........x....."), bass_line="glide",
        chords=("x...............",), chord_players=("piano", "strings"), chord_kind=("minor",), chord_hold=0.3,
        lead=("x.xx.xx.x.xx.x..", "xx.x.xx.xx.x.xx."), lead_hold=0.6, lead_players=("voice",),
        loud="bass",
    ),
    "jazz": Style(
        tempo=(100, 150),
        hat=("x..x.xx..x.x",), kick=("o..o..o..o..",),
        bass=("x..x..x..x..",), bass_line="walk",
        chords=("..x.....x...", ".....x...x..", "..x..x......"), chord_hold=0.3,
        chord_players=("piano", "guitar"), chord_kind=("ninth",),
        lead=("x.xx.x...x.x", "..x.xx.x.x.."), lead_players=("reed",),
        loud="lead",
    ),
    "metal": Style(
        tempo=(110, 150),
        kick=("xxxxxxxxxxxxxxxx", "x.xxx.xxx.xxx.xx"), snare=("....x.......x...",), hat=("x...x...x...x...",),
        bass=("x.xxx.xxx.xxx.xx",), bass_hold=0.6,
        chords=("x.xxx.xxx.xxx.xx", "xxx.xxx.xxx.xxx."), chord_hold=0.5,
        chord_players=("distorted",), chord_kind=("power",),
        loud="kick",
    ),
    "pop": Style(
        tempo=(92, 128),
        kick=("x.......x.x.....",), snare=("....x.......x...",), hat=("x.x.x.x.x.x.x.x.",),
        bass=("x.......x.......", "x.....x.x......."),
        chords=("x...............",), chord_hold=1.0, chord_players=("organ", "strings"), chord_kind=("major",),
        lead=("x...x.x...x.x...", "x.x...x.x.x....."), lead_players=("voice", "reed"),
        loud="lead",
    ),
    "reggae": Style(
        tempo=(66, 90),
        kick=("........x.......",), snare=("........x.......",), hat=("x.x.x.x.x.x.x.x.",),
        bass=("x..x..x...x.x...", "..x.x.x...x..x.."), bass_hold=0.6,
        chords=("..x...x...x...x.", "..xo..xo..xo..xo"), chord_hold=0.3, chord_players=("guitar", "organ", "piano"),
        loud="bass",
    ),
    "rock": Style(
        tempo=(100, 140),
        kick=("x.......x.......", "x.......x.x....."), snare=("....x.......x...",), hat=("x.x.x.x.x.x.x.x.",),
        bass=("x.x.x.x.x.x.x.x.",),
        chords=("x.....x.x.......", "x...x...x.....x."), chord_hold=1.0,
        chord_players=("distorted", "guitar"), chord_kind=("power", "major"),
        loud="chords",
    ),
}  # fmt: skip
_CHORDS: dict[str, tuple[int, ...]] = {  # semitones above the root
    "major": (0, 4, 7), "minor": (0, 3, 7), "seventh": (0, 4, 7, 10), "ninth": (0, 4, 10, 14), "power": (0, 7, 12),
}  # fmt: skip
_MISSING = 0.05  # chance that a part pauses for the whole clip
_BALANCE = 3.0  # dB by which a part is louder or softer than its neighbours
_LOUD = 5.0  # dB by which a class plays up one part
_TILT, _BUMP, _WET = 2.0, 5.0, 0.4  # of `colour`


def play(style: Style, seconds: float, rng: Rng) -> Wave:
    """One clip [n] of `style`, in [-1, 1]."""
    band = _Band(style, seconds, rng)
    parts = {name: band.drum(name) for name in DRUMS}
    parts |= {"bass": band.bass(), "chords": band.chords(), "lead": band.lead()}
    mix = np.zeros(int(seconds * RATE))
    for name, part in parts.items():
        power = np.sqrt((part**2).mean())
        level = rng.uniform(-_BALANCE, _BALANCE) + (_LOUD if name == style.loud else 0)
        if power > 0 and (rng.random() >= _MISSING or name == style.loud):
            mix += part / power * 10 ** (level / 20)
    mix = colour(mix, rng, _TILT, _BUMP, _WET)
    mix += mix.std() * 10 ** (-rng.uniform(10, 40) / 20) * hiss(mix.size, rng)
    loudest = float(np.abs(mix).max()) + 1e-9
    return mix * (10 ** (-rng.uniform(1, 14) / 20) / loudest)


class _Band:
    """What the parts of one clip share: tempo, where in the bar it starts, key, and the chord of each bar."""

    def __init__(self, style: Style, seconds: float, rng: Rng) -> None:
        self.style, self.rng = style, rng
        self.samples = int(seconds * RATE)
        self.bar = 240 / rng.uniform(*style.tempo)  # s: four beats
        self.start = -rng.uniform(0, self.bar)  # s: when the first bar began
        self.bars = int(np.ceil((seconds - self.start) / self.bar))
        self.key = int(rng.integers(33, 45))  # MIDI number of the bass's root: A1 to G#2
        self.roots = rng.choice([0, 5, 7, 9, 2], size=self.bars)
        self.chord = _CHORDS[str(rng.choice(style.chord_kind))]

    def drum(self, name: str) -> Wave:
        """The part of one drum."""
        sound = DRUMS[name](self.rng)
        return self._render(getattr(self.style, name), lambda bar, hit, length: sound)

    def bass(self) -> Wave:
        """The part of the bass."""
        style = self.style

        def note(bar: int, hit: int, length: float) -> Wave:
            offset = {
                "octave": (0, 12)[hit % 2], "fifth": (0, 7)[hit % 2], "walk": (0, 4, 7, 9, 10, 7, 4, 2)[hit % 8],
            }.get(style.bass_line, 0)  # fmt: skip
            wave = self._note("bass", self.key + int(self.roots[bar]) + offset, length * style.bass_hold)
            return glide(wave, -5) if style.bass_line == "glide" else wave

        return self._render(style.bass, note)

    def chords(self) -> Wave:
        """The part of the chords."""
        style = self.style
        player = str(self.rng.choice(style.chord_players))
        octave = int(self.rng.choice([12, 24]))
        cache: dict[tuple[int, int], Wave] = {}

        def note(bar: int, hit: int, length: float) -> Wave:
            root = self.key + octave + int(self.roots[bar])
            seconds = length * style.chord_hold
            key = (root, int(seconds * 1000))
            if key not in cache:
                cache[key] = np.sum([self._note(player, root + step, seconds) for step in self.chord], axis=0)
            return cache[key]

        return self._render(style.chords, note)

    def lead(self) -> Wave:
        """The part of the melody."""
        style = self.style
        player = str(self.rng.choice(style.lead_players))

        def note(bar: int, hit: int, length: float) -> Wave:
            steps = (*self.chord, 12)
            step = (
                steps[hit % len(steps)] if style.lead_move == "arpeggio" else int(self.rng.choice([0, 2, 4, 7, 9, 12]))
            )
            wave = self._note(player, self.key + 24 + int(self.roots[bar]) + step, length * style.lead_hold)
            return glide(wave, -2) if style.lead_move == "bend" else wave

        return self._render(style.lead, note)

    def _note(self, player: str, midi: int, seconds: float) -> Wave:
        return PLAYERS[player](440 * 2 ** ((midi - 69) / 12), max(0.05, seconds), self.rng)

    def _render(self, patterns: tuple[str, ...], sound: Callable[[int, int, float], Wave]) -> Wave:
        """The sum of `sound(bar, hit, length)` over all hits of one of the patterns, `length` in s to the next hit."""
        part = np.zeros(self.samples)
        if not patterns:
            return part
        pattern = str(self.rng.choice(patterns))
        hits = [step for step, mark in enumerate(pattern) if mark != "."]
        for bar in range(self.bars):
            for hit, step in enumerate(hits):
                following = hits[hit + 1] if hit + 1 < len(hits) else len(pattern) + hits[0]
                length = (following - step) * self.bar / len(pattern)
                begin = self.start + (bar + step / len(pattern)) * self.bar + self.rng.normal(0, 0.004)
                level = (0.45 if pattern[step] == "o" else 1.0) * self.rng.uniform(0.8, 1.0)
                _add(part, level * sound(bar, hit, length), int(begin * RATE))
        return part


def _add(part: Wave, wave: Wave, at: int) -> None:
    """Adds `wave` to `part` from sample `at`, which may lie outside."""
    first, last = max(0, at), min(part.size, at + wave.size)
    if first < last:
        part[first:last] += wave[first - at : last - at]
