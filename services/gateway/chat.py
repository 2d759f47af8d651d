"""A body of /v1/chat/completions to a Question: decoded once by msgspec; only when that fails is it looked at part by
part, to name the field with its index.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.core.errors import InvalidInput, UnsupportedModality
from headrace.engines.families import ChatMessage, MediaPart, TextPart, Tool
from services.gateway import asking, bodies, formats, tools
from services.gateway.ask import MESSAGES_MAX, PARTS_MAX, Ask, MediaSource
from services.gateway.asking import Question
from services.gateway.media import input_audio, source_of_url
from services.gateway.readings import ChatShape

_DECODER = msgspec.json.Decoder(bodies.ChatRequest)
_TYPE_TAG = re.compile(r"^Invalid value .* - at `\$\.?type`$")

_OFF: dict[str, tuple[Any, ...]] = {
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "functions": ([],),
    "function_call": (b"null", b'"none"', b'"auto"'),
    "modalities": (["text"],),
    "audio": (b"null",),
    "prediction": (b"null",),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (b"null",),
    **asking.OFF,
}


def question(body: bytes, headers: Mapping[bytes, bytes], key: str) -> Question:
    """Raises InvalidInput, UnsupportedModality: naming the field, with indices."""
    chat = asking.decode(body, _DECODER, _located)
    ask = to_ask(chat, headers, key)
    usage = chat.stream_options is not None and chat.stream_options.include_usage
    count = chat.n or 1
    return Question((ask,) * count, bool(chat.stream), lambda front, lives: ChatShape(front, lives[0], usage), count)


def to_ask(chat: bodies.ChatRequest, headers: Mapping[bytes, bytes], key: str) -> Ask:
    """Raises InvalidInput, UnsupportedModality: naming the field."""
    asking.check_off(chat, _OFF)
    if chat.top_logprobs is not None and not chat.logprobs:
        raise InvalidInput("top_logprobs needs logprobs: true", field="top_logprobs")
    if chat.stream_options is not None and not chat.stream:
        raise InvalidInput("stream_options needs stream: true", field="stream_options")
    asking.check_count("n", chat.n)
    media: list[MediaSource] = []
    if len(chat.messages) > MESSAGES_MAX:
        raise InvalidInput(f"{len(chat.messages)} messages; at most {MESSAGES_MAX}", field="messages")
    messages = tuple(_message(message, i, media) for i, message in enumerate(chat.messages))
    tools.check_answers(messages)
    rules, told = formats.of_body(chat, chat.response_format), tuple[Tool, ...]()
    if chat.tools or chat.tool_choice is not None:
        told, rules = tools.ruled(tools.offered(chat.tools or ()), chat.tool_choice, chat.parallel_tool_calls, rules)
    name, max_tokens = _max_tokens(chat)
    drawing = asking.Drawing(max_tokens, chat.stop, (chat.top_logprobs or 0) if chat.logprobs else None, rules)
    return Ask(
        **asking.common(chat, drawing, headers, key),
        messages=messages,
        media=tuple(media),
        tools=told,
        max_tokens_field=name,
        logprobs_field="top_logprobs",
    )


def _message(message: bodies.Message, index: int, media: list[MediaSource]) -> ChatMessage:
    role = "system" if message.role == "developer" else message.role
    content, answers = message.content, message.tool_call_id or ""
    calls = tools.earlier_calls(message, f"messages[{index}]")
    if isinstance(content, str):
        return ChatMessage(role, (TextPart(content),) if content or not calls else (), calls, answers)
    where = f"messages[{index}].content"
    if content is None:
        if not calls:
            raise InvalidInput("the content is missing", field=where)
        return ChatMessage(role, (), calls, answers)
    images = sum(not isinstance(part, bodies.TextPart) for part in content)
    if len(content) > PARTS_MAX and images <= PARTS_MAX:
        raise InvalidInput(f"{len(content)} parts; at most {PARTS_MAX}", field=where)
    parts = tuple(part_of(part, f"{where}[{i}]", media) for i, part in enumerate(content))
    return ChatMessage(role, parts, calls, answers)


def part_of(part: bodies.Part, where: str, media: list[MediaSource]) -> TextPart | MediaPart:
    match part:
        case bodies.TextPart():
            return TextPart(part.text)
        case bodies.ImageUrlPart():
            source = source_of_url("image", _url(part.image_url), f"{where}.image_url")
        case bodies.AudioUrlPart():
            source = source_of_url("audio", _url(part.audio_url), f"{where}.audio_url")
        case bodies.VideoUrlPart():
            source = source_of_url("video", _url(part.video_url), f"{where}.video_url")
        case bodies.MediaUrlPart():
            source = source_of_url(part.modality, _url(part.media_url), f"{where}.media_url")
        case bodies.InputAudioPart():
            source = input_audio(part.input_audio.data, part.input_audio.format, f"{where}.input_audio")
    media.append(source)
    return MediaPart(len(media) - 1)


def _url(value: bodies.ImageUrl | bodies.MediaUrl | str) -> str:
    return value if isinstance(value, str) else value.url


def _max_tokens(chat: bodies.ChatRequest) -> tuple[str, int]:
    for name, value in (("max_completion_tokens", chat.max_completion_tokens), ("max_tokens", chat.max_tokens)):
        if value is not None:
            return name, asking.at_least_one(name, value)
    return "max_tokens", 0


def _located(body: bytes, error: msgspec.ValidationError) -> InvalidInput:
    """msgspec names a list's element "[...]": find which one it was."""
    value = msgspec.json.decode(body)
    messages = value.get("messages") if isinstance(value, dict) else None
    if isinstance(messages, list):
        for i, message in enumerate(messages):
            located = _bad_message(message, f"messages[{i}]")
            if located is not None:
                return located
    return asking.located(error)


def _bad_message(message: Any, where: str) -> InvalidInput | None:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        for i, part in enumerate(content):
            error = _mismatch(part, bodies.Part)
            if error is not None:
                return _part_error(part, error, f"{where}.content[{i}]")
    error = _mismatch(message, bodies.Message)
    return None if error is None else asking.located(error, where)


def _mismatch(value: Any, kind: Any) -> msgspec.ValidationError | None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return error
    return None


def _part_error(part: Any, error: msgspec.ValidationError, where: str) -> InvalidInput:
    if _TYPE_TAG.match(str(error)):
        return UnsupportedModality(f"content of type {str(part['type'])[:32]!r} is not known", field=f"{where}.type")
    return asking.located(error, where)
