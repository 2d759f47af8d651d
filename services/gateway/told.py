"""What clients are told of tokens beside the text: log-probabilities, in step with the text that they explain.

An entry is shown when the text that its token begins with is shown, so that entries are cut at a stop string where
the text is. The end-of-sequence token that ends an answer is no part of its content.
"""

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from headrace.core.types import TokenLogprobs
from headrace.engines.families import Family
from services.gateway import bodies
from services.gateway.render import Rest
from services.gateway.stream import Stream
from services.gateway.text import TextStream

NAMES_MAX = 65_536  # tokens whose names are kept: most of a vocabulary, about 20 MB


class Names(Protocol):
    def __call__(self, token: int) -> tuple[str, list[int] | None]:
        """The token's text (or the name of a special token), and the bytes that it adds to the output."""
        ...


def names_of(family: Family) -> Names:
    pieces, tokenizer = family.pieces, family.tokenizer

    @lru_cache(NAMES_MAX)
    def name(token: int) -> tuple[str, list[int] | None]:
        piece = pieces[token] if token < len(pieces) else b""
        if piece:
            return piece.decode("utf-8", "replace"), list(piece)
        return tokenizer.id_to_token(token) or "", None

    return name


def entry(token: int, told: TokenLogprobs | None, names: Names) -> bodies.TokenLogprob:
    """told is None where nobody knows it any more."""
    text, piece = names(token)
    if told is None:
        return bodies.TokenLogprob(text, None, piece, [])
    top = []
    for likely, logprob in told.top:
        likely_text, likely_piece = names(likely)
        top.append(bodies.TopLogprob(likely_text, logprob, likely_piece))
    return bodies.TokenLogprob(text, told.logprob, piece, top)


class ToldText:
    """A TextStream whose tokens' entries come out with their text. Feed every token from index 0."""

    def __init__(self, text: TextStream, names: Names, stream: Stream, ends: frozenset[int]) -> None:
        """ends: the model's end-of-sequence tokens."""
        self._text = text
        self._names = names
        self._stream = stream
        self._ends = ends
        self._index = 0
        self._last = -1
        self._shown = 0  # characters
        self._waiting: deque[tuple[int, bodies.TokenLogprob]] = deque()  # with the character that the token begins at
        self._entries: list[bodies.TokenLogprob] = []

    def feed(self, token: int) -> str:
        """As TextStream.feed; the entries that come out with this text stand in `entries` until the next call."""
        self._entries = []
        if not self._text.stopped:
            begin = self._shown + self._text.held
            self._waiting.append((begin, entry(token, self._stream.logprobs.get(self._index), self._names)))
        self._index += 1
        self._last = token
        shown = self._text.feed(token)
        self._show(len(shown))
        return shown

    @property
    def entries(self) -> list[bodies.TokenLogprob]:
        """Of the tokens whose text came out with the last feed()."""
        return self._entries

    def finish(self, reason: str) -> Rest:
        """What was held back and turned out to be the end."""
        self._entries = []
        if self._waiting and reason == "stop" and self._last in self._ends:
            self._waiting.pop()
        rest = self._text.finish()
        self._show(len(rest))
        if not self._text.stopped:
            self._entries += [told for _, told in self._waiting]
        return Rest(rest, self._entries)

    def whole(self, tokens: Sequence[int], reason: str) -> Rest:
        """The text and the entries of all tokens."""
        texts, entries = [], []
        for token in tokens:
            texts.append(self.feed(token))
            entries += self._entries
        rest = self.finish(reason)
        return Rest("".join([*texts, rest.text]), [*entries, *rest.logprobs])

    def _show(self, characters: int) -> None:
        self._shown += characters
        while self._waiting and self._waiting[0][0] < self._shown:
            self._entries.append(self._waiting.popleft()[1])
