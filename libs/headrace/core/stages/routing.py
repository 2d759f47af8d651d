"""Routing of media parts to encoders, by least pending media tokens (ModServe, arXiv 2502.00937).

Parts are placed one by one and count at once, so the parts of one request spread by themselves.
"""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class EncoderLoad(Protocol):
    """The books of one encoder, in media tokens."""

    @property
    def id(self) -> str: ...
    @property
    def media_pending(self) -> int:
        """Tokens of parts sent and not yet encoded."""
        ...

    @property
    def media_held(self) -> int:
        """Tokens of embeddings it keeps for prefill."""
        ...


E = TypeVar("E", bound=EncoderLoad)


def least_pending(encoders: Iterable[E], tokens: int, window_tokens: int) -> E | None:
    """The encoder with least pending media tokens that has room for `tokens` more.

    Room is bounded because an encoder keeps embeddings until prefill has them; a part larger than the whole window
    goes to an encoder that is empty.
    """
    best: E | None = None
    least = 0
    for encoder in encoders:
        pending = encoder.media_pending
        if best is not None and (pending > least or (pending == least and encoder.id > best.id)):
            continue
        used = pending + encoder.media_held
        if not used or used + tokens <= window_tokens:
            best, least = encoder, pending
    return best
