"""From a checked Ask and its media to everything that the journal's record says of them: prompt, limits, question."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace.core.errors import ContextTooLong, InvalidInput
from headrace.core.types import Media, Prompt, Sampling
from headrace.engines.families import Family, TextPart
from services.gateway.ask import LOGPROBS_MAX, Ask
from services.gateway.media import MediaInput

MAX_TOKENS_DEFAULT = 1024  # of a request that names no max_tokens: a long answer, and a bounded promise of KV blocks
# Of the last user turn, in the journal: 128 and 384 tokens, as the length predictor reads.
QUESTION_CHARS = (512, 1_536)
RENDER_INLINE_BYTES = 16_384  # tokenising more than this would hold up the other streams: a thread does it


@dataclass(frozen=True, slots=True)
class Draft:
    """A request whose every part has been checked."""

    model: str
    prompt: Prompt
    media: tuple[Media, ...]
    data: tuple[bytes, ...]
    sampling: Sampling


async def draft(family: Family, ask: Ask, inputs: Sequence[MediaInput], prefix: str) -> Draft:
    media = tuple(Media(part.meta, hashlib.sha256(part.data).hexdigest(), part.tokens) for part in inputs)
    size = sum(len(part.text) for message in ask.messages for part in message.parts if isinstance(part, TextPart))
    if ask.prompt is not None:
        prompt = await _as_it_is(family, ask.prompt, ask.prompt_field)
    elif size > RENDER_INLINE_BYTES:
        prompt = await asyncio.to_thread(family.render, ask.messages, media, ask.tools)
    else:
        prompt = family.render(ask.messages, media, ask.tools)
    spec = family.spec
    used = len(prompt.tokens) + spec.prefix_tokens.get(prompt.prefix, 0)
    room = spec.context_tokens - used
    if room < 1:
        raise ContextTooLong(
            f"the prompt has {used} tokens; {spec.name} has a context of {spec.context_tokens}",
            field=ask.messages_field if ask.prompt is None else ask.prompt_field,
        )
    wanted = ask.sampling.max_tokens
    if wanted > room:
        raise ContextTooLong(
            f"{used} prompt tokens and {wanted} to generate do not fit a context of {spec.context_tokens}",
            field=prefix + ask.max_tokens_field,
        )
    sampling = ask.sampling if wanted else replace(ask.sampling, max_tokens=min(room, MAX_TOKENS_DEFAULT))
    told = 0 if sampling.logprobs is None else (1 + sampling.logprobs) * sampling.max_tokens
    if told > LOGPROBS_MAX:
        message = f"{told} log-probabilities over {sampling.max_tokens} tokens; at most {LOGPROBS_MAX} an answer"
        raise InvalidInput(message, field=prefix + ask.logprobs_field)
    return Draft(spec.name, prompt, media, tuple(part.data for part in inputs), sampling)


async def _as_it_is(family: Family, prompt: tuple[int, ...] | str, field: str) -> Prompt:
    if isinstance(prompt, str):
        if len(prompt) > RENDER_INLINE_BYTES:
            return await asyncio.to_thread(family.continuing, prompt)
        return family.continuing(prompt)
    size = family.spec.vocab_size
    if not all(0 <= token < size for token in prompt):
        raise InvalidInput(f"a token id is not between 0 and {size - 1}", field=field)
    return Prompt(prompt)


def question(ask: Ask) -> str:
    """The last user turn; of a long one the beginning and the end, where the task usually stands."""
    if ask.prompt is not None:
        return _ends(ask.prompt) if isinstance(ask.prompt, str) else ""
    last = next((message for message in reversed(ask.messages) if message.role == "user"), ask.messages[-1])
    text = " ".join(part.text for part in last.parts if isinstance(part, TextPart))
    return _ends(text)


def _ends(text: str) -> str:
    return text if len(text) <= sum(QUESTION_CHARS) else f"{text[: QUESTION_CHARS[0]]} {text[-QUESTION_CHARS[1] :]}"
