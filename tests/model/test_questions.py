"""The pictures and questions that figures are taken from: splits that share nothing, answers that are true."""

from random import Random

import numpy as np
import pytest

from headrace.engines.families import MediaPart, TextPart
from headrace.training.pictures import (
    COLORS,
    CORNERS,
    KINDS,
    Digit,
    Label,
    Shape,
    Split,
    digit_indices,
    draw_digits,
    draw_shape,
    draw_shapes,
)
from headrace.training.questions import WORDINGS, Layout, ask, draw_layout, message
from loadtest.benches.answers import EXAM, exam

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def test_splits_share_no_digit_and_leave_none_out() -> None:
    parts = [set(digit_indices(split).tolist()) for split in SPLITS]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 1797
    assert [len(part) for part in parts] == [1257, 180, 360]


def test_splits_draw_other_shapes() -> None:
    drawn = [draw_shapes(split, 20, seed=1) for split in SPLITS]
    seen = {picture.pixels.tobytes() for pictures in drawn for picture in pictures}
    assert len(seen) == 60


def test_the_same_seed_draws_the_same_pictures() -> None:
    once, again = (draw_shapes("train", 5, seed=3) for _ in range(2))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(once, again, strict=True))


def test_every_digit_is_drawn_with_its_own_value() -> None:
    pictures = draw_digits("validation", copies=1, seed=1)
    assert len(pictures) == 180
    assert {p.label.value for p in pictures if isinstance(p.label, Digit)} == set(range(10))


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("corner", CORNERS)
def test_a_shape_is_where_and_what_its_label_says(color: str, corner: str) -> None:
    for kind in KINDS:
        pixels = draw_shape(Shape(color, kind, corner), Random(4)).pixels.astype(float)
        height, width, _ = pixels.shape
        y, x = np.nonzero(pixels.max(axis=2) > 100)
        assert (y.mean() < height / 2) == ("top" in corner)
        assert (x.mean() < width / 2) == ("left" in corner)
        ink = pixels[y, x].mean(axis=0) / 255
        nearest = min(COLORS, key=lambda name: np.abs(ink - np.array(COLORS[name])).sum())
        assert nearest == color


def test_unseen_wordings_are_not_trained() -> None:
    trained = {text for seen, _ in WORDINGS.values() for text in seen}
    unseen = {text for _, apart in WORDINGS.values() for text in apart}
    assert not trained & unseen
    assert all(len(seen) >= 3 and apart for seen, apart in WORDINGS.values())


SEVEN, FOUR, ZERO = Digit(7), Digit(4), Digit(0)
CIRCLE = Shape("red", "circle", "top left")
RIGHT: list[tuple[tuple[Label, ...], str, str]] = [
    ((SEVEN,), "digit", "The digit is seven."),
    ((SEVEN,), "parity", "The digit seven is odd."),
    ((ZERO,), "parity", "The digit zero is even."),
    ((FOUR,), "count", "Zero, one, two, three, four."),
    ((ZERO,), "count", "Zero."),
    ((FOUR,), "describe", "The image shows the handwritten digit four, an even number."),
    ((CIRCLE,), "color", "The shape is red."),
    ((CIRCLE,), "shape", "It is a circle."),
    ((CIRCLE,), "corner", "The shape is at the top left."),
    ((CIRCLE,), "describe", "The image shows a red circle at the top left."),
    ((SEVEN, FOUR), "list", "The digits are seven and four."),
    ((SEVEN, FOUR, ZERO), "list", "The digits are seven, four and zero."),
    ((SEVEN, CIRCLE), "how_many", "There are two images."),
    ((CIRCLE,) * 16, "how_many", "There are sixteen images."),
]


@pytest.mark.parametrize(("labels", "kind", "answer"), RIGHT, ids=lambda value: value if isinstance(value, str) else "")
def test_answers_are_true(labels: tuple[Label, ...], kind: str, answer: str) -> None:
    drawn = (ask(labels, Random(seed)) for seed in range(200))
    assert {question.answer for question in drawn if question.kind == kind} == {answer}


def test_which_image_names_the_right_one() -> None:
    labels = (SEVEN, CIRCLE)
    drawn = [ask(labels, Random(seed)) for seed in range(50)]
    answers = {question.text.split(" image")[0].split()[-1]: question.answer for question in drawn}
    assert answers["first"] == "The first image shows the digit seven."
    assert answers["second"] == "The second image shows a red circle."


@pytest.mark.parametrize(
    ("layout", "shape"), [("after", "MMT"), ("before", "TMM"), ("between", "MTM"), ("around", "TMMT")]
)
def test_layouts(layout: Layout, shape: str) -> None:
    parts = message("Which?", 2, layout, Random(1)).parts
    assert "".join("T" if isinstance(part, TextPart) else "M" for part in parts) == shape
    assert [part.index for part in parts if isinstance(part, MediaPart)] == [0, 1]


def test_one_image_has_nothing_to_stand_between() -> None:
    assert {draw_layout(1, Random(seed)) for seed in range(300)} == {"after", "before", "around"}


def test_the_exam_is_400_questions_and_never_changes() -> None:
    once = exam("validation", 1.0)
    assert len(once) == 400 == sum(trained + unseen for _, trained, unseen in EXAM)
    assert [item.content for item in once] == [item.content for item in exam("validation", 1.0)]
    assert {item.group for item in exam("validation", 1 / 8)} == {"single_image", "multi_image", "unseen_wordings"}
