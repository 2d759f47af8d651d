"""The tokens of one request as this gateway has them: in order, without gaps, without duplicates, newest attempt only.

Pure state: no I/O, no clock. Core NATS may lose, repeat and reorder what comes in here.
"""

from collections.abc import Sequence

from headrace.core.types import End, Logprobs, TokenLogprobs

HELD_BACK_MAX = 8192  # tokens beyond a gap; the longest context: more than that no request can have


class Stream:
    """Tokens 0 .. len(tokens) - 1 are final: a newer attempt continues after them, it never changes them."""

    __slots__ = ("_beyond", "_count", "_pending_end", "attempt", "end", "logprobs", "tokens")

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.logprobs: dict[int, TokenLogprobs] = {}  # by index, of requests that asked; may run ahead of the tokens
        self.attempt = 0
        self.end: End | None = None
        self._beyond: dict[int, int] = {}  # index -> token, waiting for a gap to be filled
        self._pending_end: End | None = None
        self._count = 0  # tokens the pending end says there are

    @property
    def next_index(self) -> int:
        return len(self.tokens)

    @property
    def has_gap(self) -> bool:
        """Something is known to be missing: tokens lie beyond next_index, or an end counts more of them."""
        return self.end is None and (bool(self._beyond) or self._pending_end is not None)

    def accept(self, attempt: int, index: int, token: int) -> bool:
        """One token off the wire. True: the stream grew."""
        if self.end is not None or not self._newest(attempt):
            return False
        tokens = self.tokens
        if index != len(tokens):
            if index > len(tokens) and len(self._beyond) < HELD_BACK_MAX:
                self._beyond[index] = token
            return False
        tokens.append(token)
        if self._beyond:
            self._close_gap()
        if self._pending_end is not None:
            self._end_if_complete()
        return True

    def tell(self, attempt: int, index: int, logprobs: TokenLogprobs) -> None:
        """What is known of a token that comes with the same message, or came before."""
        if self.end is None and self._newest(attempt) and index < len(self.tokens) + HELD_BACK_MAX:
            self.logprobs.setdefault(index, logprobs)

    def accept_end(self, attempt: int, count: int, end: End) -> bool:
        """The end of an attempt that has `count` tokens in all. True: the stream ended now."""
        if self.end is not None or not self._newest(attempt):
            return False
        self._pending_end, self._count = end, count
        return self._end_if_complete()

    def settle(self, tokens: Sequence[int], end: End, logprobs: Logprobs = ()) -> bool:
        """What RESULTS holds: the whole request, final. True: the stream ended now."""
        if self.end is not None:
            return False
        self._drop_untold()
        self.tokens.extend(tokens[len(self.tokens) :])
        self.logprobs.update(logprobs)
        self._beyond.clear()
        self.end = end
        return True

    def fence(self, attempt: int) -> None:
        """Refuse attempts older than this from now on."""
        if self.end is None:
            self._newest(attempt)

    def _newest(self, attempt: int) -> bool:
        if attempt > self.attempt:
            self.attempt = attempt
            self._beyond.clear()
            self._drop_untold()
            self._pending_end = None
        return attempt == self.attempt

    def _drop_untold(self) -> None:
        """Of tokens held back, which may come out otherwise."""
        if self.logprobs:
            self.logprobs = {index: told for index, told in self.logprobs.items() if index < len(self.tokens)}

    def _close_gap(self) -> None:
        while (token := self._beyond.pop(len(self.tokens), None)) is not None:
            self.tokens.append(token)

    def _end_if_complete(self) -> bool:
        if len(self.tokens) < self._count:
            return False
        self.end, self._pending_end = self._pending_end, None
        self._beyond.clear()
        return True
