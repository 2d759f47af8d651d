"""What the demo asks: text, images in order, sound, a video, text and media together, several at once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources

from headrace.client import Audio, Image, Video
from headrace.client.types import Media

Part = str | Media
_KINDS: dict[str, Callable[[bytes], Media]] = {"png": Image, "flac": Audio, "mp4": Video}


@dataclass(frozen=True, slots=True)
class Question:
    parts: tuple[Part, ...]
    shown: str  # the same for a reader: media by their names
    max_tokens: int = 64


def image(name: str) -> bytes:
    """One of the demo's pictures; its name says what is in it."""
    return asset(f"{name}.png")


def asset(file: str) -> bytes:
    """One of the demo's files; its name says what is in it."""
    return (resources.files("headrace") / "assets" / "demo" / file).read_bytes()


def _media(name: str) -> Media:
    """A picture by its name alone, everything else with the ending of its file."""
    file = name if "." in name else f"{name}.png"
    return _KINDS[file.rpartition(".")[2]](asset(file))


def _question(*words: str, max_tokens: int = 64) -> Question:
    """Words in brackets are media."""
    parts = tuple(_media(word[1:-1]) if word.startswith("[") else word for word in words)
    return Question(parts, " ".join(words), max_tokens)


def one_by_one() -> Iterator[tuple[str, Question]]:
    yield "text", _question("What is the capital of France?")
    yield "one image", _question("[digit-7]", "What digit is in the image?")
    yield (
        "three images, in order",
        _question("[digit-3]", "[digit-5]", "[digit-0]", "What digits are in the images, in order?"),
    )
    yield "text and image together", _question("Look at this.", "[red-circle-top-left]", "Describe the image.")
    yield "sound", _question("[turn-on-the-light-in-the-kitchen.flac]", "Transcribe the audio.")
    yield "spoken digits", _question("[seven-two-nine.flac]", "Which digits are spoken?")
    yield "video", _question("[digits-4-9-2.mp4]", "What digits are in the video, in order?")
    yield (
        "image and sound together",
        _question("[digit-7]", "[turn-on-the-light-in-the-kitchen.flac]", "What is in the image and what is said?"),
    )


def all_at_once() -> list[Question]:
    return [
        _question("What is the opposite of hot?", max_tokens=32),
        _question("[digit-5]", "Count up to the digit."),
        _question("[blue-square-bottom-right]", "Where is the shape?"),
        _question("[digit-7]", "[digit-0]", "What digits are in the images, in order?"),
    ]
