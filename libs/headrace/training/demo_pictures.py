"""Draws the demo's pictures from the training split into assets/demo: `python -m headrace.training.demo_pictures`.

A file's name says what is in it; the demo compares nothing, it shows.
"""

from pathlib import Path
from random import Random

from PIL import Image

from headrace.training.pictures import Digit, Label, Picture, Shape, digit_indices, draw_digit, draw_shape

_FOLDER = Path(__file__).parents[1] / "assets" / "demo"
_DIGITS = (3, 7, 5, 0)
_SHAPES = (Shape("red", "circle", "top left"), Shape("blue", "square", "bottom right"))
_SEED = 7


def main() -> None:
    rng = Random(_SEED)
    _FOLDER.mkdir(parents=True, exist_ok=True)
    pictures = [_find_digit(value, rng) for value in _DIGITS] + [draw_shape(shape, rng) for shape in _SHAPES]
    for picture in pictures:
        Image.fromarray(picture.pixels).save(_FOLDER / f"{_name(picture.label)}.png", optimize=True)


def _find_digit(value: int, rng: Random) -> Picture:
    """The first of its kind in a shuffled training split, drawn without distortion."""
    indices = [int(index) for index in digit_indices("train")]
    rng.shuffle(indices)
    drawn = (draw_digit(index, rng, distort=False) for index in indices)
    return next(picture for picture in drawn if picture.label == Digit(value))


def _name(label: Label) -> str:
    if isinstance(label, Digit):
        return f"digit-{label.value}"
    return f"{label.color}-{label.kind}-{label.corner.replace(' ', '-')}"


if __name__ == "__main__":
    main()
