"""Routing of media parts to encoders, by least pending media tokens (ModServe, arXiv 2502.00937), or to where the same
content was encoded lately; and what that is compared with, which looks at no load.

Parts are placed one by one and count at once, so the parts of one request spread by themselves.
"""

import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, Protocol, TypeVar

from headrace.core.stages.content import Home


class EncoderLoad(Protocol):
    """The books of one encoder, in media tokens."""

    @property
    def id(self) -> str: ...
    @property
    def incarnation(self) -> str: ...
    @property
    def media_pending(self) -> int:
        """Tokens of parts sent and not yet encoded."""
        ...

    @property
    def media_held(self) -> int:
        """Tokens of embeddings it keeps for prefill."""
        ...

    @property
    def encode_speed(self) -> float:
        """As a share of full speed, less where a governor would have it do less."""
        ...

    @property
    def risky(self) -> bool:
        """It gets nothing new while others have room."""
        ...


E = TypeVar("E", bound=EncoderLoad)
W = TypeVar("W")

Routing = Literal["least-pending", "round-robin", "random"]


def blindly(workers: Sequence[W], routing: Routing, turn: int, name: str) -> W | None:
    """Whatever their load. round-robin: the turn-th of them; random: as the name of what is routed falls."""
    if not workers:
        return None
    assert routing != "least-pending", "that looks at the load"
    return workers[(turn if routing == "round-robin" else zlib.crc32(name.encode())) % len(workers)]


def roomy(encoders: Iterable[E], tokens: int, window_tokens: int) -> list[E]:
    """Those with room for `tokens` more, as least_pending has it."""
    return [
        encoder
        for encoder in encoders
        if not (used := encoder.media_pending + encoder.media_held) or used + tokens <= window_tokens
    ]


def least_pending(encoders: Iterable[E], tokens: int, window_tokens: int, memory_tokens: int = 0) -> E | None:
    """The encoder with least pending media tokens, for its speed and weight, that has room for `tokens` more.

    Room is bounded twice. Pending: what has been sent is out of the queue's order, so no more than window_tokens is.
    Pending and kept until prefill has it: memory_tokens, at least the window. A part larger than either goes to an
    encoder that has nothing of it.
    """
    memory_tokens = max(memory_tokens, window_tokens)
    best: E | None = None
    least = (0.0, "")
    for encoder in encoders:
        pending = encoder.media_pending
        place = ((pending + tokens) / encoder.encode_speed, encoder.id)
        if best is not None and place > least:
            continue
        used = pending + encoder.media_held
        in_window = not pending or pending + tokens <= window_tokens
        if in_window and (not used or used + tokens <= memory_tokens):
            best, least = encoder, place
    return best


def least_pending_at_home(
    encoders: Sequence[E],
    homes: Collection[Home],
    tokens: int,
    window_tokens: int,
    factor: float,
    memory_tokens: int = 0,
) -> E | None:
    """Among the `homes` of the part's content; any encoder, where none of them lives, has room and is not overloaded.

    Overloaded: more is pending there than `factor` times what would be at the least loaded encoder with this part. What
    is kept at home costs nothing, but it may have been forgotten, and a home whose line is long is no quick one then.
    """
    if homes and encoders:
        limit_s = factor * min((encoder.media_pending + tokens) / encoder.encode_speed for encoder in encoders)
        near = [
            encoder
            for encoder in encoders
            if Home(encoder.id, encoder.incarnation) in homes
            and not encoder.risky
            and encoder.media_pending <= limit_s * encoder.encode_speed
        ]
        found = least_pending(near, tokens, window_tokens, memory_tokens)
        if found is not None:
            return found
    return least_pending(encoders, tokens, window_tokens, memory_tokens)
