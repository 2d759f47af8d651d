"""A family without weights: a token is a byte. With the profile engine it lets a whole mesh run on any machine, also
one of several models, which are this one under other names.

Its template is ChatML, its media are placeholders of the length that their modality counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from headrace.core.types import Media, MediaSpan, Prompt
from headrace.engines.base import ModelSpec
from headrace.engines.families import ChatMessage, MediaPart, Tool
from headrace.engines.families.tool_prompt import plainly
from headrace.modalities import REGISTRY, Modality, modality

START, END, MEDIA = "<|im_start|>", "<|im_end|>", "<|media|>"
SPECIAL = (START, END, MEDIA)  # ids 256, 257, 258: they follow the 256 bytes

SPEC = ModelSpec(
    name="profile-tiny",
    family="profile-tiny",
    context_tokens=8192,
    vocab_size=256 + len(SPECIAL),
    eos_ids=frozenset({256 + SPECIAL.index(END)}),
    placeholder_id=256 + SPECIAL.index(MEDIA),
    embed_width=576,  # as the default model's: the same encoder serves both
    kv_bytes_per_token=0,
    block_tokens=16,
    modalities=tuple(REGISTRY),
    max_media=16,
    prefix_tokens={},
)


def build_tokenizer() -> Tokenizer:
    """Byte-level BPE without merges, ids in byte order."""
    stand_ins = _characters_of_bytes()
    tokenizer = Tokenizer(models.BPE({character: byte for byte, character in enumerate(stand_ins)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    return tokenizer


def _characters_of_bytes() -> list[str]:
    """GPT-2's printable stand-in of each byte: 188 are themselves, the rest follow from U+0100."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(shifted)) for byte in range(256)]


@dataclass(frozen=True, slots=True)
class ProfileTiny:
    spec: ModelSpec
    tokenizer: Tokenizer
    pieces: list[bytes]

    def modality(self, name: str) -> Modality:
        return modality(name)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def continuing(self, text: str) -> Prompt:
        return Prompt(tuple(self.encode(text)))

    def render(self, messages: Sequence[ChatMessage], media: Sequence[Media], tools: Sequence[Tool] = ()) -> Prompt:
        messages = plainly(messages, tools)
        tokens, spans = list[int](), list[MediaSpan]()
        for segment in _template(messages):
            if isinstance(segment, str):
                tokens += self.encode(segment)
                continue
            part = media[segment.index]
            rows = part.tokens
            spans.append(MediaSpan(segment.index, len(tokens), rows, modality=part.meta.modality))
            tokens += [self.spec.placeholder_id] * rows
        assert sorted(span.part for span in spans) == list(range(len(media))), "every media part is used exactly once"
        return Prompt(tuple(tokens), tuple(spans))


def _template(messages: Sequence[ChatMessage]) -> Iterator[str | MediaPart]:
    for message in messages:
        yield f"{START}{message.role}\n"
        for part in message.parts:
            yield part if isinstance(part, MediaPart) else part.text
        yield f"{END}\n"
    yield f"{START}assistant\n"


@lru_cache(maxsize=1)
def load() -> ProfileTiny:
    pieces = [bytes([byte]) for byte in range(256)] + [b""] * len(SPECIAL)
    return ProfileTiny(SPEC, build_tokenizer(), pieces)


def named(name: str) -> ProfileTiny:
    """The same under another name: the profile engine answers differently for each."""
    return replace(load(), spec=replace(SPEC, name=name))
