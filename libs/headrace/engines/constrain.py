"""Constrained decoding: which tokens may follow, by llguidance (an Earley parser over a trie of the vocabulary).

A grammar is compiled once and kept among the last ones used; each sequence has a matcher of its own, which is nothing
but a function of the grammar and the tokens emitted so far: it is never shipped, and rebuilt from the tokens whenever
it is not here, after an import, a resume or a move as at the start.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from headrace.core.errors import InvalidInput, StageError
from headrace.core.types import Key, Sampling
from headrace.engines import toolcalls
from headrace.engines.base import ModelSpec
from headrace.engines.batch import Live
from headrace.engines.grammar import read
from headrace.engines.sampling import Mask

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

COMPILED_MAX = 16
MESSAGE_CHARS_MAX = 300
# llguidance's own units: what a compilation may cost (the largest grammar of 64 KiB that we found takes 0.1 s), what
# a token may (some milliseconds), and lexer states, of which a text of bounded length takes up to 18 a token: enough
# for one of 8,000 tokens (64 MB). Compiled grammars stay within 1 to 2 GB, should all of them run full.
LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=250_000,
    max_grammar_size=500_000,
    verbose_errors=False,
)
# At most one space between JSON's tokens: what models write, and nothing that a weak one can get lost in.
JSON_STYLE: "JsonCompileOptions" = {"whitespace_pattern": "[ ]?"}


class Vocabulary(Protocol):
    """What constraining needs of a model: headrace.engines.families.Family has it."""

    @property
    def spec(self) -> ModelSpec: ...
    @property
    def pieces(self) -> Sequence[bytes]: ...
    def encode(self, text: str) -> list[int]: ...


def lark_of(grammar: bytes) -> str:
    """The grammar in llguidance's language. Raises InvalidInput."""
    kind, value = read(grammar)
    match kind:
        case "json_schema":
            return _of_schema(value)
        case "json_object":
            return _of_schema({"type": "object"})
        case "regex":
            return str(LLMatcher.grammar_from_regex(value))
        case "choice":
            texts = (json.dumps(text, ensure_ascii=False) for text in value)
            return str(LLMatcher.grammar_from_lark(f"start: {' | '.join(texts)}"))
        case _:
            return str(LLMatcher.grammar_from_lark(toolcalls.lark(value, JSON_STYLE)))


def _of_schema(schema: Mapping[str, Any]) -> str:
    return str(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=JSON_STYLE))


class _Trie:
    """A vocabulary as llguidance reads it: the very bytes that its tokens add to our output; the rest is special."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        size = vocabulary.spec.vocab_size
        pieces = [*vocabulary.pieces, *[b""] * (size - len(vocabulary.pieces))][:size]
        self.eos_token_id = min(vocabulary.spec.eos_ids)
        self.tokens = [piece or f"<|{token}|>".encode() for token, piece in enumerate(pieces)]
        self.special_token_ids = [token for token, piece in enumerate(pieces) if not piece]
        self._encode = vocabulary.encode

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text if isinstance(text, str) else text.decode())


class Grammars:
    """Compiled grammars of one model. Compiling happens in a thread of its own, outside of Python's lock."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.words = -(-vocabulary.spec.vocab_size // 32)  # of a mask
        self._vocabulary = vocabulary
        self._compiled: OrderedDict[bytes, Future[LLMatcher]] = OrderedDict()
        self._thread: ThreadPoolExecutor | None = None
        self._tokenizer: LLTokenizer | None = None  # a tenth of a second for 49,152 tokens: not before it is needed

    def __len__(self) -> int:
        return len(self._compiled)

    def begin(self, grammar: bytes) -> Future[LLMatcher]:
        """A matcher at its start, to be copied; its result raises InvalidInput."""
        known = self._compiled.get(grammar)
        if known is not None:
            self._compiled.move_to_end(grammar)
            return known
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "grammars")
        begun = self._compiled[grammar] = self._thread.submit(self._compile, grammar)
        if len(self._compiled) > COMPILED_MAX:
            self._compiled.popitem(last=False)
        return begun

    def matcher(self, grammar: bytes) -> LLMatcher:
        """A fresh one, waited for. Raises InvalidInput."""
        return self.begin(grammar).result().deep_copy()

    def forget(self, grammar: bytes) -> None:
        """Copies share their lexer's states: one that has run full is not used again."""
        self._compiled.pop(grammar, None)

    def _compile(self, grammar: bytes) -> LLMatcher:
        if self._tokenizer is None:
            trie: Any = _Trie(self._vocabulary)
            self._tokenizer = LLTokenizer(trie, eos_token=sorted(self._vocabulary.spec.eos_ids))
        try:
            matcher = LLMatcher(self._tokenizer, lark_of(grammar), limits=LIMITS, log_level=0)
        except ValueError as error:
            raise InvalidInput(str(error)) from error
        if not matcher.is_error():
            matcher.compute_bitmask()  # what is lazy happens here
        if matcher.is_error():
            raise InvalidInput(_one_line(matcher.get_error()))
        return matcher


def _one_line(text: str) -> str:
    return " ".join(text.removesuffix("<non-verbose/>").split())[:MESSAGE_CHARS_MAX]


@dataclass(slots=True)
class Guide:
    """A sequence's matcher, and how many of its output tokens it has seen."""

    matcher: LLMatcher
    seen: int = 0


class Guides:
    """The matchers of an engine's sequences; those without a grammar cost nothing."""

    def __init__(self, grammars: Grammars | None = None) -> None:
        """Without grammars every constrained sequence is refused."""
        self._grammars = grammars
        self._guides: dict[Key, Guide] = {}
        self._failed: list[tuple[Key, str]] = []

    def __len__(self) -> int:
        return len(self._guides)

    def expect(self, sampling: Sampling) -> None:
        """A sequence enters: its grammar is compiled while it is prefilled."""
        if sampling.grammar and self._grammars is not None:
            self._grammars.begin(sampling.grammar)

    def masks(self, lives: Sequence[Live[Any]]) -> list[Mask | None]:
        """Which tokens may come next, of the constrained ones. Who fails is named by take_failed(), and gets no mask:
        what is drawn for it is nothing that the caller may use."""
        return [self._mask_of(live) if live.input.sampling.grammar else None for live in lives]

    def _mask_of(self, live: Live[Any]) -> Mask | None:
        try:
            return self._mask(live, live.input.sampling.grammar)
        except (InvalidInput, StageError) as error:
            self._guides.pop(live.key, None)
            self._failed.append((live.key, error.message))
            return None

    def take_failed(self) -> tuple[tuple[Key, str], ...]:
        failed, self._failed = self._failed, []
        return tuple(failed)

    def drop(self, key: Key) -> None:
        self._guides.pop(key, None)

    def _mask(self, live: Live[Any], grammar: bytes) -> Mask:
        """A shared lexer that has run full is given up: the next try has one of its own."""
        if self._grammars is None:
            raise StageError("this engine constrains no answers")
        guide = self._guides.get(live.key)
        if guide is None:
            guide = self._guides[live.key] = Guide(self._grammars.matcher(grammar))
        if (mask := self._next(guide, live)) is not None:
            return mask
        self._grammars.forget(grammar)
        guide = self._guides[live.key] = Guide(self._grammars.matcher(grammar))
        if (mask := self._next(guide, live)) is not None:
            return mask
        self._grammars.forget(grammar)
        raise StageError(f"the grammar cannot be followed: {_one_line(guide.matcher.get_error())}")

    def _next(self, guide: Guide, live: Live[Any]) -> Mask | None:
        """None: the matcher has failed."""
        assert self._grammars is not None
        fresh = live.next_index - guide.seen
        assert fresh >= 0, "a sequence never loses tokens"
        if fresh:
            guide.matcher.consume_tokens(list(live.tokens[len(live.tokens) - fresh :]))
            guide.seen = live.next_index
        mask = np.empty(self._grammars.words, np.uint32)
        guide.matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        return None if guide.matcher.is_error() else mask
