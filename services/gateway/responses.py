"""A body of /v1/responses to a Question. Nothing is kept between responses: a conversation comes whole, as input."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.core.errors import InvalidInput
from headrace.engines.families import ChatMessage, MediaPart, TextPart, Tool
from services.gateway import asking, bodies, formats, tools
from services.gateway.ask import MESSAGES_MAX, PARTS_MAX, Ask, MediaSource
from services.gateway.asking import Question
from services.gateway.bodies_responses import FlatTool, FlatToolChoice, Format, Item, Part, ResponsesRequest
from services.gateway.media import input_audio, source_of_url
from services.gateway.responses_shape import ResponsesShape

LOGPROBS = "message.output_text.logprobs"
_DECODER = msgspec.json.Decoder(ResponsesRequest)
_OFF: dict[str, tuple[Any, ...]] = {
    "store": (False,),
    "previous_response_id": (),
    "conversation": (b"null",),
    "prompt": (b"null",),
    "background": (False,),
    "max_tool_calls": (),
    "reasoning": (b"null", b"{}"),
    "truncation": ("disabled",),
    "moderation": (b"null",),
    **asking.OFF,
}


def question(body: bytes, headers: Mapping[bytes, bytes], key: str) -> Question:
    """Raises InvalidInput, UnsupportedModality: naming the field."""
    asked = asking.decode(body, _DECODER)
    asking.check_off(asked, _OFF)
    if asked.text is not None and asked.text.verbosity not in (None, "medium"):
        raise InvalidInput("text.verbosity is not supported by this server", field="text.verbosity")
    media: list[MediaSource] = []
    messages = _messages(asked, media)
    own = None if asked.text is None or asked.text.format is None else _format(asked.text.format)
    try:
        rules, told = formats.of_body(asked, own, "text.format"), tuple[Tool, ...]()
        if asked.tools or asked.tool_choice is not None:
            offered, choice = tools.offered(_tools(asked.tools or ())), _choice(asked.tool_choice)
            told, rules = tools.ruled(offered, choice, asked.parallel_tool_calls, rules)
    except InvalidInput as error:
        raise InvalidInput(error.message, field=_flat(error.field)) from error
    most = 0 if asked.max_output_tokens is None else asking.at_least_one("max_output_tokens", asked.max_output_tokens)
    drawing = asking.Drawing(most, None, _logprobs(asked), (rules[0], _flat(rules[1])))
    ask = Ask(
        **asking.common(asked, drawing, headers, key),
        messages=messages,
        media=tuple(media),
        tools=told,
        tools_field="tools[{}].parameters",
        max_tokens_field="max_output_tokens",
        logprobs_field="top_logprobs",
        messages_field="input",
    )
    return Question((ask,), bool(asked.stream), lambda front, lives: ResponsesShape(front, lives[0], asked))


def _logprobs(asked: ResponsesRequest) -> int | None:
    if asked.top_logprobs is None and LOGPROBS not in (asked.include or ()):
        return None
    return asked.top_logprobs or 0


def _flat(field: str) -> str:
    """Formats and tools have one level less here than in chat completions."""
    return field.replace("text.format.json_schema", "text.format").replace(".function", "")


def _format(asked: Format) -> bodies.ResponseFormat:
    if asked.type != "json_schema":
        return bodies.ResponseFormat(asked.type)
    if asked.schema is None:
        raise InvalidInput("the schema is missing", field="text.format.schema")
    return bodies.ResponseFormat("json_schema", bodies.JsonSchemaFormat(asked.name or "", asked.schema))


def _tools(asked: Sequence[FlatTool]) -> list[bodies.Tool]:
    return [bodies.Tool(one.type, bodies.Function(one.name, one.description, one.parameters)) for one in asked]


def _choice(asked: FlatToolChoice | str | None) -> bodies.ToolChoice | str | None:
    if isinstance(asked, FlatToolChoice):
        return bodies.ToolChoice(asked.type, bodies.FunctionName(asked.name))
    return asked


# --- input to messages ---


def _messages(asked: ResponsesRequest, media: list[MediaSource]) -> tuple[ChatMessage, ...]:
    messages = [ChatMessage("system", (TextPart(asked.instructions),))] if asked.instructions else []
    if isinstance(asked.input, str):
        return (*messages, ChatMessage("user", (TextPart(asked.input),)))
    if not asked.input:
        raise InvalidInput("at least one item is needed", field="input")
    if len(asked.input) > MESSAGES_MAX:
        raise InvalidInput(f"{len(asked.input)} items; at most {MESSAGES_MAX}", field="input")
    called = set[str]()
    for index, item in enumerate(asked.input):
        _add(messages, item, f"input[{index}]", media, called)
    return tuple(messages)


def _add(messages: list[ChatMessage], item: Item, where: str, media: list[MediaSource], called: set[str]) -> None:
    """Calls join the assistant's turn that they belong to."""
    match item.type:
        case "message":
            role = "system" if item.role == "developer" else item.role
            if role not in ("system", "user", "assistant"):
                raise InvalidInput(
                    f"role {role[:32]!r} is not user, system, developer or assistant", field=f"{where}.role"
                )
            messages.append(ChatMessage(role, _parts(item.content, f"{where}.content", media)))
        case "function_call":
            call = tools.earlier_call(item.call_id, item.name, item.arguments, f"{where}.arguments")
            called.add(call.id)
            if messages and messages[-1].role == "assistant":
                last = messages.pop()
                messages.append(ChatMessage("assistant", last.parts, (*last.calls, call)))
            else:
                messages.append(ChatMessage("assistant", (), (call,)))
        case "function_call_output":
            if item.call_id not in called:
                raise InvalidInput(f"no earlier call has the id {item.call_id[:64]!r}", field=f"{where}.call_id")
            parts = _parts(item.output, f"{where}.output", media)
            messages.append(ChatMessage("tool", parts, answers=item.call_id))
        case _:
            raise InvalidInput(f"items of type {item.type[:32]!r} are not known here", field=f"{where}.type")


def _parts(content: str | list[Part] | None, where: str, media: list[MediaSource]) -> tuple[TextPart | MediaPart, ...]:
    if content is None:
        raise InvalidInput("the content is missing", field=where)
    if isinstance(content, str):
        return (TextPart(content),)
    if len(content) > PARTS_MAX:
        raise InvalidInput(f"{len(content)} parts; at most {PARTS_MAX}", field=where)
    return tuple(_part(part, f"{where}[{index}]", media) for index, part in enumerate(content))


def _part(part: Part, where: str, media: list[MediaSource]) -> TextPart | MediaPart:
    match part:
        case Part(type="input_text" | "output_text"):
            return TextPart(part.text)
        case Part(type="input_image", image_url=str(url)):
            media.append(source_of_url("image", url, f"{where}.image_url"))
        case Part(type="input_audio", input_audio=bodies.InputAudio(data=data, format=kind)):
            media.append(input_audio(data, kind, f"{where}.input_audio"))
        case _:
            message = f"{part.type[:32]!r}: there are input_text, output_text, input_image with a URL and input_audio"
            raise InvalidInput(message, field=f"{where}.type")
    return MediaPart(len(media) - 1)
