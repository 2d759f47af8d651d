"""Questions about pictures with exactly one right answer, in trained wordings and in wordings kept apart.

A question names its type, so that figures can be given by type; its layout says where the text stands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from headrace.engines.families import ChatMessage, MediaPart, TextPart
from headrace.engines.families.smollm2 import ORDINALS
from headrace.training.pictures import WORDS, Digit, Label

Layout = Literal["after", "before", "between", "around"]


@dataclass(frozen=True, slots=True)
class Question:
    kind: str
    text: str
    answer: str


# kind -> (trained wordings, wordings kept apart)
WORDINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "digit": (
        (
            "What digit is in the image?",
            "Which digit is shown?",
            "What number do you see?",
            "Read the digit in this picture.",
            "Tell me the digit.",
        ),
        ("Which number is in this picture?", "What digit do you see?"),
    ),
    "parity": (
        (
            "Is the digit even or odd?",
            "Is this number odd or even?",
            "Tell me whether the digit is even or odd.",
            "Is it an even or an odd digit?",
            "Even or odd?",
        ),
        ("Is the number in the image even or odd?",),
    ),
    "count": (
        (
            "Count up to the digit.",
            "Count from zero to the digit in the image.",
            "Please count up to this number.",
            "Starting at zero, count up to the digit you see.",
        ),
        ("Count up to the number in the picture.",),
    ),
    "describe": (
        (
            "Describe the image.",
            "What is in the image?",
            "Please describe this picture.",
            "What does this picture show?",
            "What do you see?",
        ),
        ("Describe this image.", "What is in this picture?"),
    ),
    "color": (
        ("What color is the shape?", "Which color do you see?", "Tell me the color of the shape.", "What color is it?"),
        ("What is the color of the shape?",),
    ),
    "shape": (
        ("What shape is in the image?", "Which shape is shown?", "Name the shape.", "What kind of shape is this?"),
        ("What shape do you see?",),
    ),
    "corner": (
        (
            "Where is the shape?",
            "In which corner is the shape?",
            "Tell me where the shape is.",
            "Which corner is it in?",
        ),
        ("Where in the image is the shape?",),
    ),
    "list": (
        (
            "What digits are in the images, in order?",
            "List the digits in order.",
            "Read the digits in these images.",
            "What digits are these, in order?",
            "Tell me the digits one after the other.",
        ),
        ("Which digits are in the images, in order?",),
    ),
    "how_many": (
        ("How many images are there?", "Count the images.", "How many pictures do you see?"),
        ("How many pictures are there?",),
    ),
    "which": (
        (
            "What is in the {} image?",
            "Describe the {} image.",
            "What does the {} image show?",
            "Tell me what the {} picture shows.",
        ),
        ("What do you see in the {} image?",),
    ),
}
_LEAD_INS = ("Look at this.", "Hello!", "Here is something for you.", "I have a question.", "Please look closely.")
_COUNTS = (*WORDS[1:], "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen")


def ask(labels: Sequence[Label], rng: Random, unseen: bool = False) -> Question:
    """A random question about pictures with these labels."""
    kind = rng.choice(_single_kinds(labels[0])) if len(labels) == 1 else _multi_kind(labels, rng)
    text = rng.choice(WORDINGS[kind][unseen])
    if kind == "which":
        place = rng.randrange(len(labels))
        text = text.format(ORDINALS[place])
        return Question(kind, text, f"The {ORDINALS[place]} image shows {_short(labels[place])}.")
    return Question(kind, text, _answer(kind, labels))


def _single_kinds(label: Label) -> tuple[str, ...]:
    if isinstance(label, Digit):
        return ("digit", "parity", "count", "describe")
    return ("color", "shape", "corner", "describe")


def _multi_kind(labels: Sequence[Label], rng: Random) -> str:
    """Counting images is learnt at once; lists and single images of many are the hard ones, so asked more."""
    listable = all(isinstance(label, Digit) for label in labels)
    kinds, weights = (("list", "which", "how_many"), (5, 4, 1)) if listable else (("which", "how_many"), (8, 1))
    return rng.choices(kinds, weights)[0]


def _short(label: Label) -> str:
    return f"the digit {label.word}" if isinstance(label, Digit) else f"a {label.color} {label.kind}"


def _answer(kind: str, labels: Sequence[Label]) -> str:
    if kind == "how_many":
        return f"There are {_COUNTS[len(labels) - 1]} images."
    if kind == "list":
        words = [label.word for label in labels if isinstance(label, Digit)]
        return f"The digits are {', '.join(words[:-1])} and {words[-1]}."
    label = labels[0]
    if isinstance(label, Digit):
        return {
            "digit": f"The digit is {label.word}.",
            "parity": f"The digit {label.word} is {label.parity}.",
            "count": ", ".join(WORDS[: label.value + 1]).capitalize() + ".",
            "describe": f"The image shows the handwritten digit {label.word}, an {label.parity} number.",
        }[kind]
    return {
        "color": f"The shape is {label.color}.",
        "shape": f"It is a {label.kind}.",
        "corner": f"The shape is at the {label.corner}.",
        "describe": f"The image shows a {label.color} {label.kind} at the {label.corner}.",
    }[kind]


def draw_layout(images: int, rng: Random) -> Layout:
    layouts: tuple[Layout, ...] = ("after", "before", "around", "between")
    return rng.choices(layouts, (60, 28, 7, 5 if images > 1 else 0))[0]


def message(text: str, images: int, layout: Layout, rng: Random) -> ChatMessage:
    """A user's turn with this text and images 0 .. images - 1 in order."""
    pictures: list[TextPart | MediaPart] = [MediaPart(i) for i in range(images)]
    if layout == "before":
        return ChatMessage("user", (TextPart(text), *pictures))
    if layout == "around":
        return ChatMessage("user", (TextPart(rng.choice(_LEAD_INS)), *pictures, TextPart(text)))
    if layout == "between":
        cut = rng.randrange(1, images)
        return ChatMessage("user", (*pictures[:cut], TextPart(text), *pictures[cut:]))
    return ChatMessage("user", (*pictures, TextPart(text)))
