"""What the SDK hands out and takes in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Image:
    """An image as bytes in any common format. Image.read("a.png") reads a file."""

    data: bytes

    @staticmethod
    def read(path: str | Path) -> "Image":
        return Image(Path(path).read_bytes())


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Text and images may come in any order.

    >>> Message("user", ["Which digit is this?", Image.read("seven.png")])  # doctest: +SKIP
    """

    role: str
    content: str | Sequence[str | Image]


@dataclass(frozen=True, slots=True)
class Delta:
    """Tokens index .. index + len(tokens) - 1 and the text that they complete."""

    index: int
    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int = 0
    joules: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One interval of the request's life, seconds since the Unix epoch."""

    stage: str
    start_s: float
    end_s: float
    worker: str
    part: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """How the request ended: stop, length, cancelled, deadline or error."""

    reason: str
    usage: Usage
    timeline: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Model:
    id: str
    context_tokens: int
    modalities: tuple[str, ...]
    servable: bool
