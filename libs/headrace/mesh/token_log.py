"""One request's token log as Redis keeps it: a list of chunks, each appended whole, by one attempt or by several.

Chunks may come twice, late, or after the log before them was lost: join() sorts that out.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from headrace.core.types import Key, Logprobs, TokenLogprobs

_HEAD = struct.Struct("<QII")  # attempt, index of the first token, tokens; log-probabilities stand behind the tokens
_decode = msgspec.msgpack.Decoder(Logprobs).decode
_encode = msgspec.msgpack.Encoder().encode


class TokenChunk(NamedTuple):
    key: Key
    start: int  # index of the first token
    tokens: Sequence[int]
    logprobs: Logprobs = ()  # of these tokens, by output index


class Logged(NamedTuple):
    """What a log tells: tokens from index 0 on, without gaps."""

    tokens: tuple[int, ...] = ()
    logprobs: Logprobs = ()


def pack(chunk: TokenChunk) -> bytes:
    head = _HEAD.pack(chunk.key.attempt, chunk.start, len(chunk.tokens))
    told = _encode(chunk.logprobs) if chunk.logprobs else b""
    return head + struct.pack(f"<{len(chunk.tokens)}I", *chunk.tokens) + told


def join(chunks: Iterable[bytes]) -> Logged:
    """Chunks in the order of their writing -> tokens from index 0 on, up to the first gap.

    A later attempt overwrites from where it starts; what an older one writes after it (a worker that was
    paused) does not count.
    """
    tokens: list[int] = []
    logprobs: dict[int, TokenLogprobs] = {}
    newest = 0
    for chunk in chunks:
        attempt, start, count = _HEAD.unpack_from(chunk)
        if attempt < newest or start > len(tokens):
            continue
        newest = attempt
        tokens[start:] = struct.unpack_from(f"<{count}I", chunk, _HEAD.size)
        if logprobs:
            logprobs = {index: told for index, told in logprobs.items() if index < start}
        if len(chunk) > (end := _HEAD.size + 4 * count):
            logprobs.update(_decode(chunk[end:]))
    return Logged(tuple(tokens), tuple(logprobs.items()))
