"""What the demo asks: text, one image, three images in order, text and image together, several at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

Part = str | bytes  # words, or an image


@dataclass(frozen=True, slots=True)
class Question:
    parts: tuple[Part, ...]
    shown: str  # the same for a reader: images by their names
    max_tokens: int = 64


def image(name: str) -> bytes:
    """One of the demo's pictures; its name says what is in it."""
    return (resources.files("headrace") / "assets" / "demo" / f"{name}.png").read_bytes()


def _question(*words: str, max_tokens: int = 64) -> Question:
    """Words in brackets are pictures."""
    parts = tuple(image(word[1:-1]) if word.startswith("[") else word for word in words)
    return Question(parts, " ".join(words), max_tokens)


def one_by_one() -> Iterator[tuple[str, Question]]:
    yield "text", _question("What is the capital of France?")
    yield "one image", _question("[digit-7]", "What digit is in the image?")
    yield (
        "three images, in order",
        _question("[digit-3]", "[digit-5]", "[digit-0]", "What digits are in the images, in order?"),
    )
    yield "text and image together", _question("Look at this.", "[red-circle-top-left]", "Describe the image.")


def all_at_once() -> list[Question]:
    return [
        _question("What is the opposite of hot?", max_tokens=32),
        _question("[digit-5]", "Count up to the digit."),
        _question("[blue-square-bottom-right]", "Where is the shape?"),
        _question("[digit-7]", "[digit-0]", "What digits are in the images, in order?"),
    ]
