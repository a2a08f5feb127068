"""The built-in demo set: ten genre-like classes, synthesised, so that a search can be tried without any data.

Names and layout are GTZAN's (`genres_original/blues/blues.00000.wav`, 22.05 kHz, mono, PCM16); the music is not.

What differs by class (`band.py`) is a way of playing: on which steps of the bar the drums, the bass, the chords and
the melody fall, straight or swung, whether notes are struck or held, how they move in pitch, which few instruments
play, and which part is played up. Most instruments serve several classes.
What varies within a class: tempo, key, chords, octave, patterns and instruments out of the class's few, the level of
every part, a part that pauses, where in the bar the clip starts, equaliser, room, noise and loudness.

So the average spectrum of a clip says something of its class, and its course in time says much more. With the default
size, a logistic regression on time-averaged log-mel gets 55 to 62% right (a test holds 40 to 75%), and a ResNet18 from
scratch on 64 px of log-mel some 95% after ten epochs.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
from filelock import FileLock

from trainable.cores import allowed_cores
from trainable.data.demo.band import STYLES, play
from trainable.data.demo.synth import RATE
from trainable.errors import InputError
from trainable.progress import Progress

VERSION = 2  # of what is heard; a change of the sound makes another set
CLIPS_PER_CLASS = 60  # 360 to learn from: enough for over 90% from scratch, few enough for epochs of seconds
SECONDS = 5.0  # s: two bars or more at every tempo
_FOLDER = "genres_original"


def demo_folder(progress: Progress | None = None) -> Path:
    """The folder of the demo set's class folders, in the cache; made at the first call, by one process only."""
    from trainable.files import cache_folder

    home = cache_folder() / f"demo-{VERSION}"
    with FileLock(f"{home}.lock"):
        if not (home / _FOLDER).is_dir():
            shutil.rmtree(home, ignore_errors=True)  # what a killed process left
            make_demo(home, progress=progress)
    return home / _FOLDER


def make_demo(
    dest: Path,
    clips_per_class: int = CLIPS_PER_CLASS,
    seconds: float = SECONDS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Writes the set to `dest`/genres_original and returns that folder; it is there whole or not at all.

    A clip depends on seed, class and number alone: the same files come out on one core and on many.

    Raises:
        InputError: the folder is there already, or cannot be written.
    """
    target = dest / _FOLDER
    if target.exists():
        raise InputError(f"{target}: must not be there yet, got a folder. Name another place, or remove it.")
    unfinished = dest / f".{_FOLDER}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # of one that was killed
    jobs = [(label, number) for label in STYLES for number in range(clips_per_class)]

    def write(job: tuple[str, int]) -> None:
        label, number = job
        rng = np.random.default_rng([seed, list(STYLES).index(label), number])
        wave = np.round(play(STYLES[label], seconds, rng) * 32767).astype(np.int16)
        soundfile.write(unfinished / label / f"{label}.{number:05d}.wav", wave, RATE, subtype="PCM_16")

    try:
        for label in STYLES:
            (unfinished / label).mkdir(parents=True)
        with ThreadPoolExecutor(allowed_cores()) as pool:  # NumPy lets go of the interpreter's lock
            for done, _ in enumerate(pool.map(write, jobs), start=1):
                if progress:
                    progress("Making the demo set", done, len(jobs))
        unfinished.rename(target)
    except OSError as error:
        raise InputError(f"{dest}: cannot be written ({error.strerror or error}). Name another place.") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target
