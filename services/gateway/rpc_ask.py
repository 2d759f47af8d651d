"""GatewayService's GenerateRequest to the Asks that both protocols share; errors name fields as the proto has them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from headrace.core.errors import InvalidInput
from headrace.engines import grammar
from headrace.engines.families import ChatMessage, MediaPart, TextPart, Tool
from headrace.v1 import gateway_pb2
from headrace.wire import convert
from services.gateway import asking, bodies, targets, tools
from services.gateway.ask import MESSAGES_MAX, PARTS_MAX, Ask, MediaSource
from services.gateway.media import source_of_url

SAMPLING = "sampling."
GRAMMAR = f"{SAMPLING}grammar"


def to_asks(request: gateway_pb2.GenerateRequest) -> Sequence[Ask]:
    """One for each answer. Raises InvalidInput, UnsupportedModality: naming the field."""
    count = request.n or 1
    asking.check_count("n", count)
    return (to_ask(request),) * count


def to_ask(request: gateway_pb2.GenerateRequest) -> Ask:
    """Raises InvalidInput, UnsupportedModality: naming the field."""
    media: list[MediaSource] = []
    if len(request.messages) > MESSAGES_MAX:
        raise InvalidInput(f"{len(request.messages)} messages; at most {MESSAGES_MAX}", field="messages")
    messages = tuple([_message(message, i, media) for i, message in enumerate(request.messages)])
    tools.check_answers(messages)
    sampling = convert.sampling_from_proto(request.sampling)
    rules, told = _canonical(sampling.grammar) if sampling.grammar else b"", tuple[Tool, ...]()
    if request.tools or request.HasField("tool_choice"):
        told, rules = _ruled(request, rules)
    if rules != sampling.grammar:
        sampling = replace(sampling, grammar=rules)
    return Ask(
        model=request.model,
        messages=messages,
        media=tuple(media),
        tools=told,
        tools_field="tools[{}].parameters",
        sampling=sampling,
        seeded=bool(sampling.seed) or sampling.temperature == 0.0,
        slo_class=request.slo_class,
        timeout_s=request.timeout_s,
        targets=targets.of_grpc(request),
        idempotency_key=request.idempotency_key,
        keep_on_disconnect=request.keep_on_disconnect,
    )


def _canonical(rules: bytes) -> bytes:
    try:
        return grammar.canonical(rules)
    except InvalidInput as error:
        raise InvalidInput(error.message, field=GRAMMAR) from error


def _ruled(request: gateway_pb2.GenerateRequest, rules: bytes) -> tuple[tuple[Tool, ...], bytes]:
    """The tools that the model is told of, and the grammar of an answer that may call them."""
    try:
        offered = tools.offered([_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools)])
        told, (ruled, _) = tools.ruled(offered, _choice(request.tool_choice), not request.one_call, (rules, GRAMMAR))
    except InvalidInput as error:
        # One level less than in OpenAI's JSON.
        field = error.field.replace("].function", "]").replace("tool_choice.function", "tool_choice")
        raise InvalidInput(error.message, field=field) from error
    return told, ruled


def _tool(tool: gateway_pb2.Tool, where: str) -> bodies.Tool:
    try:
        parameters = msgspec.json.decode(tool.parameters, type=dict[str, Any]) if tool.parameters else None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput(f"not a JSON object: {error}", field=f"{where}.parameters") from error
    return bodies.Tool("function", bodies.Function(tool.name, tool.description, parameters))


def _choice(choice: gateway_pb2.ToolChoice) -> bodies.ToolChoice | str | None:
    if choice.WhichOneof("kind") == "name":
        return bodies.ToolChoice("function", bodies.FunctionName(choice.name))
    return choice.mode or None


def _message(message: gateway_pb2.Message, index: int, media: list[MediaSource]) -> ChatMessage:
    if message.tool_calls and message.role != "assistant":
        raise InvalidInput("only the assistant calls tools", field=f"messages[{index}].tool_calls")
    calls = [
        tools.earlier_call(call.id, call.name, call.arguments, f"messages[{index}].tool_calls[{i}].arguments")
        for i, call in enumerate(message.tool_calls)
    ]
    where = f"messages[{index}].content"
    texts = sum(part.WhichOneof("kind") == "text" for part in message.content)
    if texts > PARTS_MAX:
        raise InvalidInput(f"{texts} text parts; at most {PARTS_MAX}", field=where)
    parts = [_part(part, f"{where}[{i}]", media) for i, part in enumerate(message.content)]
    return ChatMessage(message.role, tuple(parts), tuple(calls), message.tool_call_id)


def _part(part: gateway_pb2.ContentPart, where: str, media: list[MediaSource]) -> TextPart | MediaPart:
    kind = part.WhichOneof("kind")
    if kind is None:
        raise InvalidInput("the part holds neither text nor media", field=where)
    if kind == "text":
        return TextPart(part.text)
    source = part.media
    field = f"{where}.media"
    if bool(source.data) == bool(source.url):
        raise InvalidInput("a media part holds either data or a url", field=field)
    if not source.modality:
        raise InvalidInput("the modality is missing", field=f"{field}.modality")
    if source.url:
        media.append(source_of_url(source.modality, source.url, f"{field}.url"))
    else:
        media.append(MediaSource(source.modality, f"{field}.data", data=source.data))
    return MediaPart(len(media) - 1)


def within(asks: Sequence[Ask], remaining_s: float | None) -> Sequence[Ask]:
    """The context's deadline is one more limit."""
    ask = asks[0]
    if remaining_s is None or (ask.timeout_s and ask.timeout_s <= remaining_s):
        return asks
    # A client library without a deadline may announce years; the class's own time-out is the better answer.
    if remaining_s >= 86_400.0:
        return asks
    return (replace(ask, timeout_s=max(remaining_s, 0.001)),) * len(asks)
