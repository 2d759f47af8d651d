"""Pictures whose content is known: scikit-learn's handwritten digits and drawn shapes, split three ways.

The test split is for `headrace bench answers` alone; tuning looks at the validation split.
"""

from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "validation", "test"]
Pixels = NDArray[np.uint8]  # [height, width, 3]

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (1.0, 0.1, 0.1),
    "green": (0.1, 0.9, 0.1),
    "blue": (0.15, 0.2, 1.0),
    "yellow": (1.0, 1.0, 0.1),
    "white": (1.0, 1.0, 1.0),
    "purple": (0.7, 0.1, 0.9),
}
KINDS = ("circle", "square", "triangle")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
_TEST, _VALIDATION = 360, 180  # of 1,797 digits
_SPLIT_SEED = 20261123
_SHAPE_SEEDS: dict[Split, int] = {"train": 1_000_003, "validation": 2_000_003, "test": 3_000_017}


@dataclass(frozen=True, slots=True)
class Digit:
    value: int

    @property
    def word(self) -> str:
        return WORDS[self.value]

    @property
    def parity(self) -> str:
        return "odd" if self.value % 2 else "even"


@dataclass(frozen=True, slots=True)
class Shape:
    color: str
    kind: str
    corner: str


Label = Digit | Shape


@dataclass(frozen=True, slots=True)
class Picture:
    pixels: Pixels
    label: Label


@lru_cache(maxsize=1)
def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images.astype(np.float32) / 16, data.target.astype(np.int64)


def digit_indices(split: Split) -> NDArray[np.int64]:
    """Indices into scikit-learn's digits; the three splits are disjoint and never change."""
    order = np.random.RandomState(_SPLIT_SEED).permutation(1797)
    parts = {"test": order[:_TEST], "validation": order[_TEST : _TEST + _VALIDATION]}
    return parts.get(split, order[_TEST + _VALIDATION :])


def draw_digit(index: int, rng: Random, distort: bool) -> Picture:
    """One handwritten digit, 20-97 pixels a side, bright on dark or (one in four) dark on bright."""
    glyphs, values = _digits()
    side = rng.randint(20, 72)
    glyph = Image.fromarray(glyphs[index]).resize((side, side), Image.Resampling.BILINEAR)
    if distort:
        glyph = glyph.transform(
            (side, side), Image.Transform.AFFINE, _affine(side, rng), Image.Resampling.BILINEAR, fillcolor=0
        )
    height, width = rng.randint(side, int(side * 1.35)), rng.randint(side, int(side * 1.35))
    top, left = rng.randint(0, height - side), rng.randint(0, width - side)
    ink = np.zeros((height, width), np.float32)
    ink[top : top + side, left : left + side] = np.asarray(glyph)
    paper, pen = (rng.uniform(0.85, 1.0), rng.uniform(0.0, 0.2)) if rng.random() < 0.25 else (0.0, 1.0)
    grey = paper + (pen - paper) * ink
    return Picture(_to_pixels(np.repeat(grey[..., None], 3, axis=2)), Digit(int(values[index])))


def _affine(side: int, rng: Random) -> tuple[float, float, float, float, float, float]:
    """A small rotation, shear, stretch and shift about the centre (output to input, as Pillow wants it)."""
    angle, shear = rng.gauss(0, 0.12), rng.gauss(0, 0.1)
    stretch_x, stretch_y = rng.uniform(0.85, 1.15), rng.uniform(0.85, 1.15)
    cos, sin = np.cos(angle), np.sin(angle)
    a, b, d, e = cos * stretch_x, (shear * cos - sin) * stretch_x, sin * stretch_y, (cos + shear * sin) * stretch_y
    centre = side / 2
    shift_x, shift_y = rng.gauss(0, 0.04) * side, rng.gauss(0, 0.04) * side
    return a, b, centre - a * centre - b * centre + shift_x, d, e, centre - d * centre - e * centre + shift_y


def draw_shape(label: Shape, rng: Random) -> Picture:
    """One coloured shape in a corner of a dark, noisy canvas of 28-110 pixels a side."""
    height = rng.randint(28, 96)
    width = min(110, max(24, int(height * rng.uniform(0.75, 1.33))))
    centre_y = height * ((0.27 if "top" in label.corner else 0.73) + rng.uniform(-0.06, 0.06))
    centre_x = width * ((0.27 if "left" in label.corner else 0.73) + rng.uniform(-0.06, 0.06))
    radius = min(height, width) * rng.uniform(0.14, 0.21)
    y, x = np.mgrid[0:height, 0:width] - np.array([centre_y, centre_x])[:, None, None]
    canvas = np.random.RandomState(rng.randrange(2**31)).rand(height, width, 3) * 0.12
    canvas[_inside(label.kind, y, x, radius)] = np.array(COLORS[label.color]) * rng.uniform(0.85, 1.0)
    return Picture(_to_pixels(canvas), label)


def _inside(kind: str, y: NDArray[np.float64], x: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    if kind == "circle":
        return np.asarray(y**2 + x**2 <= radius**2)
    if kind == "square":
        return np.asarray(np.maximum(abs(y), abs(x)) <= radius * 0.88)
    return np.asarray((y <= radius) & (2 * abs(x) <= y + radius))


def _to_pixels(values: NDArray[np.floating]) -> Pixels:
    return np.asarray(np.clip(values * 255 + 0.5, 0, 255), np.uint8)


def draw_digits(split: Split, copies: int, seed: int) -> list[Picture]:
    """Every digit of a split, `copies` times at other sizes and places; training copies are distorted too."""
    rng = Random(seed)
    return [draw_digit(int(i), rng, split == "train") for i in digit_indices(split) for _ in range(copies)]


def draw_shapes(split: Split, count: int, seed: int) -> list[Picture]:
    """Shapes of a split's own random stream."""
    rng = Random(_SHAPE_SEEDS[split] + seed)
    return [
        draw_shape(Shape(rng.choice(list(COLORS)), rng.choice(KINDS), rng.choice(CORNERS)), rng) for _ in range(count)
    ]
