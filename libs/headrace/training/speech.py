"""Speech whose words are known: recorded digits (the Free Spoken Digit Dataset) and sentences that espeak-ng says.

A closed grammar: digits, and sentences of six patterns. The test split is for `headrace bench answers` alone: a
speaker, sentences and voices that training never met; tuning looks at the validation split.
"""

import subprocess
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np

from headrace.modalities.audio import decode_sound
from headrace.modalities.mel import Sound
from headrace.training.pictures import WORDS, Split

ClipKind = Literal["digit", "sequence", "sentence"]
TEST_SPEAKER = "theo"
_VALIDATION_TAKES = ("8", "9")  # of ten takes of each digit by each other speaker
_TEST_VOICES = ("en-us+m4", "en-gb+f3", "en-gb-scotland+m6")
_VALIDATION_VOICES = ("en-us+f5", "en-gb+m8")
_ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc", "en-029")
_VARIANTS = ("m1", "m2", "m3", "m5", "m7", "f1", "f2", "f4", "max", "linda", "michael", "steph", "adam", "belinda")
_SPLIT_SEED = 20261123
_PLACES = ("kitchen", "bedroom", "garage", "office", "garden")


@dataclass(frozen=True, slots=True)
class Clip:
    sound: Sound
    words: tuple[str, ...]
    kind: ClipKind
    recorded: bool  # a human's voice, not espeak-ng's

    @property
    def is_digits(self) -> bool:
        return self.kind != "sentence"


def sentences() -> list[str]:
    """Every sentence of the grammar, sorted."""
    made = [
        f"turn {s} the {x} in the {p}"
        for s in ("on", "off")
        for x in ("light", "fan", "heater", "radio", "camera")
        for p in _PLACES
    ]
    made += [
        f"send {n} {x} to {c}"
        for n in WORDS[2:]
        for x in ("boxes", "letters", "apples", "books")
        for c in ("Paris", "London", "Rome", "Berlin", "Tokyo")
    ]
    made += [
        f"the {c} {x} is {w} the {y}"
        for c in ("red", "green", "blue", "yellow", "white")
        for x in ("car", "door", "bird", "ball")
        for w in ("near", "behind", "under")
        for y in ("tree", "table", "house", "river")
    ]
    made += [f"what is {a} {o} {b}" for a in WORDS for o in ("plus", "minus") for b in WORDS]
    made += [
        f"call {x} {d} at {n}"
        for x in ("Anna", "Peter", "Maria", "David")
        for d in ("today", "tomorrow")
        for n in WORDS[1:]
    ]
    made += [f"set a timer for {n} {u}" for n in WORDS[2:] for u in ("minutes", "hours")]
    return sorted(made)


def sentences_of(split: Split) -> list[str]:
    """The three splits are disjoint and never change: a sixth for the test, a twelfth for validation."""
    order = sentences()
    Random(_SPLIT_SEED).shuffle(order)
    test, validation = len(order) // 6, len(order) // 12
    parts = {"test": order[:test], "validation": order[test : test + validation]}
    return parts.get(split, order[test + validation :])


def voices_of(split: Split) -> tuple[str, ...]:
    others = {"test": _TEST_VOICES, "validation": _VALIDATION_VOICES}
    kept = {*_TEST_VOICES, *_VALIDATION_VOICES}
    return others.get(split, tuple(v for a in _ACCENTS for n in _VARIANTS if (v := f"{a}+{n}") not in kept))


class Recordings:
    """The recorded digits of a split: by speaker and digit, the takes."""

    def __init__(self, archive: Path, split: Split) -> None:
        self.takes: dict[tuple[str, int], list[Sound]] = {}
        with tarfile.open(archive) as files:
            for member in files:
                name = Path(member.name)
                if name.suffix != ".wav":
                    continue
                digit, speaker, take = name.stem.split("_")
                if _split_of(speaker, take) != split:
                    continue
                file = files.extractfile(member)
                assert file is not None
                self.takes.setdefault((speaker, int(digit)), []).append(decode_sound(file.read()))
        self.speakers = sorted({speaker for speaker, _ in self.takes})

    def digits(self, rng: Random, copies: int, worn: bool) -> list[Clip]:
        """Every take `copies` times."""
        return [
            Clip(wear(take, rng) if worn else take, (WORDS[digit],), "digit", True)
            for (_, digit), takes in sorted(self.takes.items())
            for take in takes
            for _ in range(copies)
        ]

    def sequence(self, rng: Random, length: int, worn: bool) -> Clip:
        """Digits of one speaker, takes glued with 50-250 ms of silence between them."""
        speaker = rng.choice(self.speakers)
        digits = [rng.randrange(10) for _ in range(length)]
        parts = []
        for digit in digits:
            parts += [rng.choice(self.takes[speaker, digit]), np.zeros(rng.randint(800, 4000), np.float32)]
        sound = np.concatenate(parts[:-1])
        return Clip(wear(sound, rng) if worn else sound, tuple(WORDS[d] for d in digits), "sequence", True)


def _split_of(speaker: str, take: str) -> Split:
    if speaker == TEST_SPEAKER:
        return "test"
    return "validation" if take in _VALIDATION_TAKES else "train"


def say(text: str, voice: str, words_per_minute: int, pitch: int) -> Sound:
    """espeak-ng's speech of a text.

    Raises:
        FileNotFoundError: espeak-ng is not installed.
        CalledProcessError: it failed.
    """
    command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-p", str(pitch), "--stdout", text]
    return decode_sound(subprocess.run(command, capture_output=True, check=True).stdout)


def spoken(split: Split, texts: Sequence[tuple[str, ClipKind]], rng: Random, worn: bool) -> list[Clip]:
    """Each text in a voice of the split, with a random pace and pitch."""
    voices = voices_of(split)
    drawn = [(text, rng.choice(voices), rng.randint(130, 185), rng.randint(30, 70)) for text, _ in texts]
    with ThreadPoolExecutor(2) as pool:
        sounds = list(pool.map(lambda chosen: say(*chosen), drawn))
    return [
        Clip(wear(sound, rng) if worn else sound, tuple(text.split()), kind, False)
        for (text, kind), sound in zip(texts, sounds, strict=True)
    ]


def digit_texts(rng: Random, count: int) -> list[tuple[str, ClipKind]]:
    """One to five digits each."""
    lengths = [rng.choice((1, 2, 2, 3, 3, 4, 5)) for _ in range(count)]
    return [(" ".join(rng.choices(WORDS, k=n)), "digit" if n == 1 else "sequence") for n in lengths]


def wear(sound: Sound, rng: Random) -> Sound:
    """Another pace and pitch (resampled by up to 12 %), loudness, noise and silence around it."""
    pace = rng.uniform(0.88, 1.12)
    at = np.arange(0, len(sound) - 1, pace)
    worn = np.interp(at, np.arange(len(sound)), sound)
    worn = np.concatenate([np.zeros(rng.randint(0, 2400)), worn, np.zeros(rng.randint(0, 2400))])
    peak = max(1e-4, float(np.abs(worn).max()))
    worn = worn * (rng.uniform(0.15, 0.95) / peak)
    if rng.random() < 0.6:
        level = float(np.sqrt(np.mean(worn**2))) * 10 ** (-rng.uniform(12, 40) / 20)
        worn = worn + np.random.RandomState(rng.randrange(2**31)).standard_normal(len(worn)) * level
    return np.asarray(np.clip(worn, -1.0, 1.0), np.float32)
