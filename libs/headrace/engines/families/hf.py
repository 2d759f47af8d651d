"""A Hugging Face directory as a Family: messages through its chat template, media placeholders grown to spans.

What a family adds is data: which token the template writes for a part, and how many positions that becomes.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from tokenizers import Tokenizer

from headrace.core.errors import InvalidInput
from headrace.core.types import Media, MediaSpan, Prompt
from headrace.engines.base import ModelSpec
from headrace.engines.families import ChatMessage, MediaPart, Tool
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf_template import ChatTemplate, Message, call_field, load_template, tool_field
from headrace.engines.families.hf_tokens import Vocabulary, load_vocabulary
from headrace.engines.families.tool_prompt import plainly
from headrace.modalities import Modality

# Code points that are no characters stand for placeholder names in a user's text while the template runs.
_STAND_INS = [chr(point) for point in range(0xFDD0, 0xFDF0)]


def whole(part: int, offset: int, media: Media) -> MediaSpan:
    """A span of as many positions as the part has embedding rows."""
    return MediaSpan(part, offset, media.tokens, modality=media.meta.modality)


@dataclass(frozen=True, slots=True)
class Slot:
    """How a modality's parts stand in a prompt."""

    token: str  # what the chat template writes for a part; it has one id
    place: Callable[[int, int, Media], MediaSpan] = whole  # (part, offset, media) -> the part's span
    before: str = ""  # what the model's processor writes around the positions, where the template does not
    after: str = ""


@dataclass(frozen=True)
class HfFamily:
    spec: ModelSpec
    vocabulary: Vocabulary
    template: ChatTemplate
    slots: Mapping[str, Slot]  # by modality
    modalities: Mapping[str, Modality]
    adds_head: bool  # the reference is a processor: it puts the begin of sequence where the template has not
    reserved: tuple[str, ...] = ()  # other tokens of media: names in a user's text that must stay text

    @property
    def tokenizer(self) -> Tokenizer:
        return self.vocabulary.tokenizer

    @cached_property
    def pieces(self) -> list[bytes]:
        return self.vocabulary.pieces(self.spec.vocab_size)

    def encode(self, text: str) -> list[int]:
        return self.vocabulary.encode(text)

    def modality(self, name: str) -> Modality:
        return self.modalities[name]

    def continuing(self, text: str) -> Prompt:
        return Prompt((*self.vocabulary.head, *self.encode(text)))

    def render(self, messages: Sequence[ChatMessage], media: Sequence[Media], tools: Sequence[Tool] = ()) -> Prompt:
        """See Family.render. A placeholder's name in a user's text stays text. A template that writes calls as
        headrace.engines.toolcalls does is told of the tools itself.

        Raises:
            InvalidInput: the chat template refuses the messages, or does not write each part once.
        """
        if not self.template.calls_tools:
            messages, tools = plainly(messages, tools), ()
        names = self._stand_ins(messages, tools)
        told = [tool_field(tool, lambda text: _replace(text, names)) for tool in tools]
        text = self.template.render([self._message(message, media, names) for message in messages], told)
        written = self._occurrences(text, names)
        for name, stand_in in names.items():
            text = text.replace(stand_in, name)
        return self._grow(self._head(text) + self.encode(text), written, _by_modality(messages, media), media)

    # --- messages for the template ---

    def _stand_ins(self, messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> dict[str, str]:
        """Placeholder name -> its stand-in, where a user's text has the name."""
        texts = [part.text for message in messages for part in message.parts if not isinstance(part, MediaPart)]
        texts += [text for message in messages for call in message.calls for text in (call.name, call.arguments)]
        texts += [text for tool in tools for text in (tool.name, tool.description, tool.parameters)]
        guarded = [*(slot.token for slot in self.slots.values()), *self.reserved]
        named = [name for name in guarded if any(name in text for text in texts)]
        if not named:
            return {}
        free = [point for point in _STAND_INS if not any(point in text for text in texts)]
        if len(free) < len(named):
            raise InvalidInput("the text holds code points that are no characters", field="messages")
        return dict(zip(named, free, strict=False))

    def _message(self, message: ChatMessage, media: Sequence[Media], names: Mapping[str, str]) -> Message:
        said: Message = {"role": message.role}
        if message.calls:
            said["tool_calls"] = [call_field(call, lambda text: _replace(text, names)) for call in message.calls]
        if message.answers:
            said["tool_call_id"] = message.answers
        if self.template.takes_parts and self.slots:
            return said | {"content": list(self._parts(message, media, names))}
        return said | {"content": "".join(self._texts(message, media, names))}

    def _parts(
        self, message: ChatMessage, media: Sequence[Media], names: Mapping[str, str]
    ) -> Iterator[dict[str, str]]:
        for part in message.parts:
            if isinstance(part, MediaPart):
                yield {"type": media[part.index].meta.modality}
            else:
                yield {"type": "text", "text": _replace(part.text, names)}

    def _texts(self, message: ChatMessage, media: Sequence[Media], names: Mapping[str, str]) -> Iterator[str]:
        """For templates that know only texts: a part is its placeholder on a line of its own."""
        for part in message.parts:
            if isinstance(part, MediaPart):
                yield self.slots[media[part.index].meta.modality].token + "\n"
            else:
                yield _replace(part.text, names)

    # --- the template's text to tokens ---

    def _head(self, text: str) -> list[int]:
        bos = self.template.special.get("bos_token", "")
        if not self.adds_head or (bos and text.startswith(bos)):
            return []
        return list(self.vocabulary.head)

    def _occurrences(self, text: str, names: Mapping[str, str]) -> list[tuple[str, bool]]:
        """Every placeholder in the text, in order: its name, and whether the template wrote it."""
        name_of = {stand_in: name for name, stand_in in names.items()}
        known = [*(slot.token for slot in self.slots.values()), *self.reserved, *name_of]
        if not known:
            return []
        pattern = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
        found = (match.group() for match in re.finditer(pattern, text))
        return [(name_of.get(word, word), word not in name_of) for word in found]

    def _grow(
        self,
        ids: list[int],
        written: Sequence[tuple[str, bool]],
        parts: Mapping[str, Sequence[int]],
        media: Sequence[Media],
    ) -> Prompt:
        """The k-th placeholder of a modality is its k-th part; names that users wrote become plain text."""
        modality_of = {self._ids[slot.token]: name for name, slot in self.slots.items()}
        queues = {name: iter(numbers) for name, numbers in parts.items()}
        occurrences, tokens, spans = iter(written), list[int](), list[MediaSpan]()
        for token in ids:
            if token not in self._names:
                tokens.append(token)
                continue
            name, by_template = next(occurrences, ("", False))
            if name != self._names[token]:
                raise InvalidInput(f"the text spells the token {self._names[token]!r}", field="messages")
            if not by_template:
                tokens += self.vocabulary.plainly(name)
                continue
            part = next(queues.get(modality_of.get(token, ""), iter(())), None)
            if part is None:
                raise InvalidInput(f"the text spells the token {name!r}", field="messages")
            spans.append(self._append(tokens, part, media[part]))
        if len(spans) != len(media):
            raise InvalidInput(
                f"the chat template of {self.spec.name} wrote {len(spans)} of {len(media)} media parts",
                field="messages",
            )
        return Prompt(tuple(tokens), tuple(spans))

    def _append(self, tokens: list[int], part: int, media: Media) -> MediaSpan:
        slot = self.slots[media.meta.modality]
        tokens += self.encode(slot.before) if slot.before else ()
        span = slot.place(part, len(tokens), media)
        tokens += [self._ids[slot.token]] * span.length
        tokens += self.encode(slot.after) if slot.after else ()
        return span

    @cached_property
    def _ids(self) -> dict[str, int]:
        known = [*(slot.token for slot in self.slots.values()), *self.reserved]
        return {name: self.vocabulary.token_id(name) for name in known}

    @cached_property
    def _names(self) -> dict[int, str]:
        return {number: name for name, number in self._ids.items()}


def open_hf(
    directory: Directory,
    spec: Callable[[Vocabulary], ModelSpec],
    *,
    slots: Mapping[str, Slot] | None = None,
    modalities: Mapping[str, Modality] | None = None,
    reserved: Sequence[str] = (),
) -> HfFamily:
    """A directory's tokenizer and template around a family's own facts. reserved: those it has are guarded.

    Raises:
        Unavailable: a file is missing or broken, or the tokenizer lacks a placeholder.
    """
    vocabulary = load_vocabulary(directory)
    known = tuple(name for name in reserved if vocabulary.tokenizer.token_to_id(name) is not None)
    template = load_template(directory, vocabulary)
    slots = slots or {}
    family = HfFamily(spec(vocabulary), vocabulary, template, slots, modalities or {}, bool(slots), known)
    assert set(family.slots) == set(family.modalities) == set(family.spec.modalities)
    assert len(family._ids) == len(slots) + len(known)  # also: each placeholder has an id
    return family


def _by_modality(messages: Sequence[ChatMessage], media: Sequence[Media]) -> dict[str, list[int]]:
    """Modality -> its parts in the order of the messages."""
    found: dict[str, list[int]] = {}
    for message in messages:
        for part in message.parts:
            if isinstance(part, MediaPart):
                found.setdefault(media[part.index].meta.modality, []).append(part.index)
    assert sorted(chain(*found.values())) == list(range(len(media))), "every media part is used exactly once"
    return found


def _replace(text: str, names: Mapping[str, str]) -> str:
    for name, stand_in in names.items():
        text = text.replace(name, stand_in)
    return text
