"""Tokens to text, one at a time: incomplete UTF-8 and possible beginnings of stop strings wait for what follows.

The text that a sequence of tokens completes does not depend on where a client attached.
"""

import codecs
from collections.abc import Sequence


class TextStream:
    """Feed every token from index 0; what feed() returns is ready to be shown."""

    __slots__ = ("_decode", "_held", "_pieces", "_stop", "stopped")

    def __init__(self, pieces: Sequence[bytes], stop: Sequence[str] = ()) -> None:
        self._pieces = pieces
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False  # a stop string was met: nothing more is shown

    @property
    def held(self) -> int:
        """Characters that wait because a stop string may begin with them."""
        return len(self._held)

    def feed(self, token: int) -> str:
        text = self._decode(self._pieces[token] if token < len(self._pieces) else b"")
        return self._before_stop(text) if self._stop else text

    def finish(self) -> str:
        """What was held back and turned out to be the end."""
        text = self._decode(b"", True)
        if self._stop:
            text = self._before_stop(text) + ("" if self.stopped else self._held)
            self._held = ""
        return text

    def _before_stop(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of text that stop begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
