"""From a conversation and options to the message that the gateway takes."""

import json
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.client import errors
from headrace.client.types import Audio, Image, Media, Message, Tool, Video
from headrace.v1 import common_pb2, gateway_pb2

MediaLike = Media | bytes | str | Path  # bytes, or the path of a file
Conversation = str | Sequence[Message]


@dataclass(frozen=True, slots=True)
class Options:
    """How to generate. Zeros and empty strings leave the choice to the gateway."""

    model: str = ""
    max_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 0.0
    top_k: int = 0
    seed: int | None = None
    stop: Sequence[str] = ()
    repetition_penalty: float = 0.0
    ignore_eos: bool = False
    logprobs: int | None = None  # 0: of the tokens; n: of the n likeliest beside each, too
    # What the answer must be, at most one of them: JSON of this schema, any JSON object, a text that the whole
    # expression matches, one of these texts.
    json_schema: Mapping[str, Any] | None = None
    json_object: bool = False
    regex: str = ""
    choice: Sequence[str] = ()
    tools: Sequence[Tool] = ()
    # auto, required, none, or the tool that must be called; empty: auto.
    tool_choice: str | Tool = ""
    parallel_tool_calls: bool = True  # False: at most one call; else at most 8
    n: int = 1  # answers, each a request of its own; at most 8
    slo_class: str = ""
    ttft_target_s: float = 0.0  # wanted until the first token; 0: the class's
    tbt_target_s: float = 0.0  # wanted between two tokens; 0: the class's
    priority: int = 0  # -3 .. 3, higher is sooner; what is beyond is clamped
    flow: str = ""  # whose share the request counts against, among this tenant's
    timeout_s: float = 0.0
    idempotency_key: str = ""
    keep_on_disconnect: bool = False


def media_of(
    images: Sequence[MediaLike] = (), audio: Sequence[MediaLike] = (), videos: Sequence[MediaLike] = ()
) -> list[Media]:
    """What a client was given by name, in this order."""
    return [_as(kind, one) for kind, given in ((Image, images), (Audio, audio), (Video, videos)) for one in given]


def build(conversation: Conversation, media: Sequence[Media], options: Options) -> gateway_pb2.GenerateRequest:
    """A request with a key of its own, so that trying again is the same request."""
    messages = [Message("user", conversation)] if isinstance(conversation, str) else list(conversation)
    if media:
        if not messages:
            raise errors.InvalidInput("media need a message to belong to", field="messages")
        last = messages[-1]
        texts = [last.content] if isinstance(last.content, str) else list(last.content)
        messages[-1] = replace(last, content=[*media, *texts])
    seed = options.seed if options.seed is not None else random.getrandbits(62) + 1 if options.temperature else 0
    sampling = common_pb2.Sampling(
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=seed,
        repetition_penalty=options.repetition_penalty,
        max_tokens=options.max_tokens,
        stop=options.stop,
        ignore_eos=options.ignore_eos,
        logprobs=options.logprobs,
        grammar=_grammar(options),
    )
    return gateway_pb2.GenerateRequest(
        model=options.model,
        messages=[_message(message) for message in messages],
        sampling=sampling,
        slo_class=options.slo_class,
        ttft_target_s=options.ttft_target_s,
        tbt_target_s=options.tbt_target_s,
        priority=options.priority,
        flow=options.flow,
        timeout_s=options.timeout_s,
        idempotency_key=options.idempotency_key or uuid.uuid4().hex,
        keep_on_disconnect=options.keep_on_disconnect,
        tools=[_tool(tool) for tool in options.tools],
        tool_choice=_tool_choice(options.tool_choice),
        one_call=not options.parallel_tool_calls,
        n=options.n,
    )


def _tool(tool: Tool) -> gateway_pb2.Tool:
    parameters = "" if tool.parameters is None else json.dumps(tool.parameters)
    return gateway_pb2.Tool(name=tool.name, description=tool.description, parameters=parameters)


def _tool_choice(choice: str | Tool) -> gateway_pb2.ToolChoice | None:
    if isinstance(choice, Tool):
        return gateway_pb2.ToolChoice(name=choice.name)
    return gateway_pb2.ToolChoice(mode=choice) if choice else None


def _grammar(options: Options) -> bytes:
    said: dict[str, Any] = {
        "json_schema": options.json_schema,
        "json_object": options.json_object or None,
        "regex": options.regex or None,
        "choice": list(options.choice) or None,
    }
    asked = {kind: value for kind, value in said.items() if value is not None}
    if len(asked) > 1:
        raise errors.InvalidInput(f"{' and '.join(asked)} exclude one another", field="sampling.grammar")
    return json.dumps(asked).encode() if asked else b""


def _as(kind: type[Image | Audio | Video], given: MediaLike) -> Media:
    if isinstance(given, Image | Audio | Video):
        return given
    return kind(given) if isinstance(given, bytes) else kind.read(given)


def _message(message: Message) -> gateway_pb2.Message:
    content = [message.content] if isinstance(message.content, str) else message.content
    calls = [gateway_pb2.ToolCall(id=one.id, name=one.name, arguments=one.arguments) for one in message.tool_calls]
    parts = [_part(part) for part in content]
    return gateway_pb2.Message(role=message.role, content=parts, tool_calls=calls, tool_call_id=message.tool_call_id)


_MODALITIES = {Image: "image", Audio: "audio", Video: "video"}


def _part(part: str | Media) -> gateway_pb2.ContentPart:
    if isinstance(part, str):
        return gateway_pb2.ContentPart(text=part)
    return gateway_pb2.ContentPart(media=gateway_pb2.MediaInput(modality=_MODALITIES[type(part)], data=part.data))
