"""When a request is over: end-of-sequence token, stop string, or its length.

Pure. The token that ends a request is emitted like any other; the gateway cuts the text at the stop string.
"""

from collections.abc import Iterable, Sequence

from headrace.core.types import FinishReason, Sampling


class Finish:
    """Watches the output tokens of one request, in order, replayed ones included."""

    __slots__ = ("_count", "_eos", "_max_tokens", "_pieces", "_stop", "_tail", "_tail_bytes")

    def __init__(self, sampling: Sampling, eos_ids: frozenset[int], pieces: Sequence[bytes]) -> None:
        self._max_tokens = sampling.max_tokens
        self._eos: frozenset[int] = frozenset() if sampling.ignore_eos else eos_ids
        self._stop = tuple(text.encode() for text in sampling.stop if text)
        self._pieces = pieces
        self._tail = b""  # what the start of a stop string may still stand in
        self._tail_bytes = max(map(len, self._stop), default=1) - 1
        self._count = 0

    def after(self, token: int) -> FinishReason | None:
        """Why the request ends with this token, or None if it goes on."""
        self._count += 1
        if token in self._eos or (self._stop and self._completes_stop(token)):
            return "stop"
        return "length" if self._count >= self._max_tokens else None

    def after_all(self, tokens: Iterable[int]) -> FinishReason | None:
        """The first end among replayed tokens: a worker may die between the last token and the end."""
        return next((reason for token in tokens if (reason := self.after(token))), None)

    def _completes_stop(self, token: int) -> bool:
        text = self._tail + self._pieces[token]
        self._tail = text[len(text) - self._tail_bytes :] if len(text) > self._tail_bytes else text
        return any(stop in text for stop in self._stop)
