"""An OpenAI chat body to an Ask: decoded once by msgspec; only when that fails is it looked at part by part, to name
the field with its index.
"""

import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.core.errors import InvalidInput, UnsupportedModality
from headrace.core.types import Sampling
from headrace.engines.families import ChatMessage, MediaPart, TextPart, Tool
from services.gateway import bodies, formats, targets, tools
from services.gateway.ask import MESSAGES_MAX, PARTS_MAX, Ask, MediaSource
from services.gateway.media import source_of_url
from services.gateway.several import CHOICES_MAX

_DECODER = msgspec.json.Decoder(bodies.ChatRequest)
_PATH = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")
_TYPE_TAG = re.compile(r"^Invalid value .* - at `\$\.?type`$")

_AUDIO_FORMATS = ("wav", "mp3", "flac", "ogg", "opus", "m4a", "mp4", "webm")

# Fields whose every value but these cannot be honoured.
_OFF: dict[str, tuple[Any, ...]] = {
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "functions": (None, []),
    "function_call": (msgspec.UNSET, b"null", b'"none"', b'"auto"'),
    "modalities": (None, ["text"]),
    "audio": (msgspec.UNSET, b"null"),
    "prediction": (msgspec.UNSET, b"null"),
    "reasoning_effort": (None, "none"),
    "verbosity": (None, "medium"),
    "web_search_options": (msgspec.UNSET, b"null"),
    "service_tier": (None, "auto", "default", "flex", "priority"),
}


def decode(body: bytes) -> bodies.ChatRequest:
    """Raises InvalidInput: naming the field, with indices."""
    try:
        try:
            return _DECODER.decode(body)
        except msgspec.ValidationError as error:
            raise _located(body, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error


def to_ask(chat: bodies.ChatRequest, headers: Mapping[bytes, bytes], key: str) -> Ask:
    """Raises InvalidInput, UnsupportedModality: naming the field."""
    _check_off(chat)
    media: list[MediaSource] = []
    if len(chat.messages) > MESSAGES_MAX:
        raise InvalidInput(f"{len(chat.messages)} messages; at most {MESSAGES_MAX}", field="messages")
    messages = tuple(_message(message, i, media) for i, message in enumerate(chat.messages))
    tools.check_answers(messages)
    if not 1 <= (1 if chat.n is None else chat.n) <= CHOICES_MAX:
        raise InvalidInput(f"n is {chat.n}; it must be between 1 and {CHOICES_MAX}", field="n")
    name, max_tokens = _max_tokens(chat)
    rules, told = formats.of_chat(chat), tuple[Tool, ...]()
    if chat.tools or chat.tool_choice is not None:
        told, rules = tools.ruled(tools.offered(chat.tools or ()), chat.tool_choice, chat.parallel_tool_calls, rules)
    return Ask(
        model=chat.model,
        messages=messages,
        media=tuple(media),
        tools=told,
        sampling=_sampling(chat, max_tokens, rules[0]),
        seeded=chat.seed is not None or not chat.temperature,
        max_tokens_field=name,
        logprobs_field="top_logprobs",
        grammar_field=rules[1],
        slo_class=chat.slo_class or headers.get(b"x-headrace-slo-class", b"").decode("latin-1"),
        timeout_s=_timeout_s(chat, headers),
        targets=targets.of_http(chat, headers),
        idempotency_key=key,
        keep_on_disconnect=bool(chat.keep_on_disconnect),
    )


def _check_off(chat: bodies.ChatRequest) -> None:
    for name, allowed in _OFF.items():
        value = getattr(chat, name)
        if value is None or value is msgspec.UNSET:
            continue
        if isinstance(value, msgspec.Raw):
            value = bytes(value)
        if value not in allowed:
            raise InvalidInput(f"{name} is not supported by this server", field=name)
    if chat.top_logprobs is not None and not chat.logprobs:
        raise InvalidInput("top_logprobs needs logprobs: true", field="top_logprobs")
    if chat.stream_options is not None and not chat.stream:
        raise InvalidInput("stream_options needs stream: true", field="stream_options")


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
    parts = tuple(_part(part, f"{where}[{i}]", media) for i, part in enumerate(content))
    return ChatMessage(role, parts, calls, answers)


def _part(part: bodies.Part, where: str, media: list[MediaSource]) -> TextPart | MediaPart:
    match part:
        case bodies.TextPart():
            return TextPart(part.text)
        case bodies.ImageUrlPart():
            source = source_of_url("image", _url(part.image_url), f"{where}.image_url")
        case bodies.AudioUrlPart():
            source = source_of_url("audio", _url(part.audio_url), f"{where}.audio_url")
        case bodies.VideoUrlPart():
            source = source_of_url("video", _url(part.video_url), f"{where}.video_url")
        case bodies.InputAudioPart():
            source = _input_audio(part.input_audio, f"{where}.input_audio")
    media.append(source)
    return MediaPart(len(media) - 1)


def _url(value: bodies.ImageUrl | bodies.MediaUrl | str) -> str:
    return value if isinstance(value, str) else value.url


def _input_audio(audio: bodies.InputAudio, where: str) -> MediaSource:
    if audio.format not in _AUDIO_FORMATS:
        message = f"format {audio.format[:32]!r} is not one of {', '.join(_AUDIO_FORMATS)}"
        raise InvalidInput(message, field=f"{where}.format")
    try:
        data = binascii.a2b_base64(audio.data, strict_mode=True)
    except ValueError as error:
        raise InvalidInput(f"broken base64: {error}", field=f"{where}.data") from error
    return MediaSource("audio", where, data=data)


def _max_tokens(chat: bodies.ChatRequest) -> tuple[str, int]:
    for name, value in (("max_completion_tokens", chat.max_completion_tokens), ("max_tokens", chat.max_tokens)):
        if value is not None:
            if value < 1:
                raise InvalidInput(f"{name} is {value}; it must be at least 1", field=name)
            return name, value
    return "max_tokens", 0


def _sampling(chat: bodies.ChatRequest, max_tokens: int, rules: bytes) -> Sampling:
    stop = chat.stop
    return Sampling(
        max_tokens=max_tokens,
        temperature=0.0 if chat.temperature is None else chat.temperature,  # greedy unless asked otherwise
        top_p=1.0 if chat.top_p is None else chat.top_p,
        top_k=chat.top_k or 0,
        seed=chat.seed or 0,
        repetition_penalty=1.0 if chat.repetition_penalty is None else chat.repetition_penalty,
        stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        ignore_eos=bool(chat.ignore_eos),
        logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        grammar=rules,
    )


def _timeout_s(chat: bodies.ChatRequest, headers: Mapping[bytes, bytes]) -> float:
    """The body's own; else how long the SDK says that it will wait."""
    if chat.timeout_s is not None:
        if not chat.timeout_s > 0:
            raise InvalidInput(f"timeout_s is {chat.timeout_s}; it must be above 0", field="timeout_s")
        return chat.timeout_s
    try:
        waits_s = float(headers.get(b"x-stainless-read-timeout", b"0"))
    except ValueError:
        return 0.0
    return waits_s if 0.0 < waits_s < 86_400.0 else 0.0


def _located(body: bytes, error: msgspec.ValidationError) -> InvalidInput:
    """msgspec names a list's element "[...]": find which one it was."""
    value = msgspec.json.decode(body)
    messages = value.get("messages") if isinstance(value, dict) else None
    if isinstance(messages, list):
        for i, message in enumerate(messages):
            located = _bad_message(message, f"messages[{i}]")
            if located is not None:
                return located
    return _error(error, "")


def _bad_message(message: Any, where: str) -> InvalidInput | None:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        for i, part in enumerate(content):
            error = _mismatch(part, bodies.Part)
            if error is not None:
                return _part_error(part, error, f"{where}.content[{i}]")
    error = _mismatch(message, bodies.Message)
    return None if error is None else _error(error, where)


def _mismatch(value: Any, kind: Any) -> msgspec.ValidationError | None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return error
    return None


def _part_error(part: Any, error: msgspec.ValidationError, where: str) -> InvalidInput:
    if _TYPE_TAG.match(str(error)):
        return UnsupportedModality(f"content of type {str(part['type'])[:32]!r} is not known", field=f"{where}.type")
    return _error(error, where)


def _error(error: msgspec.ValidationError, where: str) -> InvalidInput:
    text = str(error)
    path = _PATH.search(text)
    names = [where, path.group(1) if path else ""]
    for pattern in (_UNKNOWN, _MISSING):
        if found := pattern.search(text):
            names.append(found.group(1))
    field = ".".join(name for name in names if name).replace(".[", "[")
    return InvalidInput(_PATH.sub("", text), field=field)
