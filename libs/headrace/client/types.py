"""What the SDK hands out and takes in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Image:
    """An image as bytes in any common format. Image.read("a.png") reads a file."""

    data: bytes

    @staticmethod
    def read(path: str | Path) -> "Image":
        return Image(Path(path).read_bytes())


@dataclass(frozen=True, slots=True)
class Audio:
    """A sound clip as the bytes of a WAV, FLAC, MP3, Ogg or MP4 file."""

    data: bytes

    @staticmethod
    def read(path: str | Path) -> "Audio":
        return Audio(Path(path).read_bytes())


@dataclass(frozen=True, slots=True)
class Video:
    """A video clip as the bytes of an MP4, WebM, Matroska or GIF file."""

    data: bytes

    @staticmethod
    def read(path: str | Path) -> "Video":
        return Video(Path(path).read_bytes())


Media = Image | Audio | Video


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. parameters: JSON Schema of an object, always kept; None: no arguments."""

    name: str  # at most 64 letters, digits, _ and -
    description: str = ""
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an answer makes. arguments: a JSON object, as text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Text and media may come in any order.

    >>> Message("user", ["Which digit is this?", Image.read("seven.png")])  # doctest: +SKIP
    >>> Message("assistant", tool_calls=answer.tool_calls)  # doctest: +SKIP
    >>> Message("tool", "12 degrees", tool_call_id=answer.tool_calls[0].id)  # doctest: +SKIP
    """

    role: str  # system, user, assistant, tool
    content: str | Sequence[str | Media] = ()
    tool_calls: Sequence[ToolCall] = ()  # of the assistant
    tool_call_id: str = ""  # of a tool: the call that it answers


@dataclass(frozen=True, slots=True)
class LikelyToken:
    """text: what the token adds to the output; special tokens add nothing."""

    token: int
    text: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural log-probabilities at one output token's position, before temperature and cuts."""

    index: int
    drawn: LikelyToken
    top: tuple[LikelyToken, ...]  # as many of the likeliest as were asked for, likeliest first


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """What is added to a call: its id and name with the first piece, arguments piece by piece."""

    index: int  # of the call in its answer
    arguments: str
    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """Tokens index .. index + len(tokens) - 1 and the text and calls that they complete."""

    index: int
    tokens: tuple[int, ...]
    text: str
    # Of those tokens, if asked for. One is missing where it was lost with the worker that drew the token.
    logprobs: tuple[TokenLogprobs, ...] = ()
    tool_calls: tuple[ToolCallDelta, ...] = ()
    choice: int = 0  # which of several answers


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int = 0
    joules: float = 0.0
    audio_tokens: int = 0
    video_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """One interval of the request's life, seconds since the Unix epoch."""

    stage: str
    start_s: float
    end_s: float
    worker: str
    part: int = 0
    cached: bool = False  # of encode: the embedding was there already


@dataclass(frozen=True, slots=True)
class End:
    """How an answer ended: stop, tool_calls, length, cancelled, deadline or error."""

    reason: str
    usage: Usage
    timeline: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Model:
    id: str
    context_tokens: int
    modalities: tuple[str, ...]
    servable: bool
