"""Makes the demo's sound and video in assets/demo: `python -m headrace.training.demo_clips`. Needs espeak-ng.

The words, the voices and the pictures are of the training split; a file's name says what is in it.
"""

from pathlib import Path
from random import Random

from headrace.training.clip_files import flac, mp4
from headrace.training.pictures import Digit, digit_indices, draw_digit
from headrace.training.speech import say, voices_of

_FOLDER = Path(__file__).parents[1] / "assets" / "demo"
_SPOKEN = {"seven two nine": "en-us+f2", "turn on the light in the kitchen": "en-gb+m3"}
_FRAMES = (4, 9, 2)
_WORDS_PER_MINUTE, _PITCH = 150, 50
_SEED = 11


def main() -> None:
    assert set(_SPOKEN.values()) <= set(voices_of("train"))
    for text, voice in _SPOKEN.items():
        name = text.replace(" ", "-")
        (_FOLDER / f"{name}.flac").write_bytes(flac(say(text, voice, _WORDS_PER_MINUTE, _PITCH)))
    rng = Random(_SEED)
    indices = [int(index) for index in digit_indices("train")]
    rng.shuffle(indices)
    drawn = [draw_digit(index, rng, distort=False) for index in indices[:200]]
    frames = [next(picture for picture in drawn if picture.label == Digit(value)) for value in _FRAMES]
    (_FOLDER / f"digits-{'-'.join(map(str, _FRAMES))}.mp4").write_bytes(mp4(frames))


if __name__ == "__main__":
    main()
