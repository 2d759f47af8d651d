"""The JSON bodies of /v1/responses, as far as Headrace speaks it: bodies.py in the words of the Responses API."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from services.gateway import bodies
from services.gateway.bodies import Doc


class Part(msgspec.Struct):
    """Of an item's content: input_text, output_text, input_image, input_audio."""

    type: str
    text: str = ""
    image_url: Annotated[str | None, Doc(description="data: URI, or an http(s) URL where fetching is allowed")] = None
    input_audio: bodies.InputAudio | None = None
    refusal: str | None = None


class Item(msgspec.Struct):
    """Of the input: message, function_call, function_call_output. What an answer's items carry beside is ignored."""

    type: str = "message"
    role: str = ""
    content: str | list[Part] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = "{}"
    output: str | list[Part] | None = None


class Format(bodies.Request, omit_defaults=False):
    type: Annotated[str, Doc(description="text, json_object, json_schema")] = "text"
    name: str | None = None
    schema: Annotated[dict[str, Any] | None, Doc(description="JSON Schema; at most 64 KiB")] = None
    description: str | None = None
    strict: Annotated[bool | None, Doc(description="Accepted; the schema is always kept")] = None


class Text(bodies.Request, omit_defaults=False):
    format: Format | None = None
    verbosity: str | None = None


class FlatTool(msgspec.Struct):
    type: Annotated[str, Doc(description="function")]
    name: str = ""
    description: str | None = None
    parameters: Annotated[dict[str, Any] | None, Doc(description="JSON Schema of an object; always kept")] = None
    strict: bool | None = None


class FlatToolChoice(msgspec.Struct):
    type: str
    name: str = ""


class ResponseStreamOptions(bodies.Request):
    include_obfuscation: bool = False


class ResponsesRequest(bodies.Asked, kw_only=True):
    """POST /v1/responses."""

    input: str | list[Item]
    instructions: str | None = None
    max_output_tokens: int | None = None
    text: Text | None = None
    tools: Annotated[list[FlatTool] | None, Doc(description="At most 128 functions that the model may call")] = None
    tool_choice: Annotated[
        FlatToolChoice | str | None, Doc(description="auto, none, required, or one function by its name; absent: auto")
    ] = None
    parallel_tool_calls: Annotated[bool | None, Doc(description="false: at most one call; else at most 8")] = None
    top_logprobs: Annotated[int | None, Doc(description="0 to 20: of the likeliest tokens beside each")] = None
    include: Annotated[list[str] | None, Doc(description="message.output_text.logprobs; others are ignored")] = None
    stream_options: ResponseStreamOptions | None = None
    # Accepted with the value that means "off"; anything else is an error
    store: Annotated[bool | None, Doc(description="false: nothing is kept to be asked for later")] = None
    previous_response_id: Annotated[str | None, Doc(description="null: send the conversation as input")] = None
    conversation: msgspec.Raw | UnsetType = UNSET
    prompt: msgspec.Raw | UnsetType = UNSET
    background: bool | None = None
    max_tool_calls: int | None = None
    reasoning: msgspec.Raw | UnsetType = UNSET
    truncation: str | None = None
    moderation: msgspec.Raw | UnsetType = UNSET


class OutputText(msgspec.Struct):
    text: str
    type: Literal["output_text"] = "output_text"
    annotations: list[str] = []
    logprobs: list[bodies.TokenLogprob] = []


class OutputMessage(msgspec.Struct, tag="message", tag_field="type"):
    id: str
    status: str
    content: list[OutputText]
    role: Literal["assistant"] = "assistant"


class OutputCall(msgspec.Struct, tag="function_call", tag_field="type"):
    id: str
    call_id: str
    name: str
    arguments: str
    status: str


class InputDetails(msgspec.Struct):
    cached_tokens: int
    cache_write_tokens: int = 0
    image_tokens: int = 0
    audio_tokens: int = 0
    video_tokens: int = 0


class OutputDetails(msgspec.Struct):
    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int
    joules: Annotated[float | UnsetType, Doc(description="Estimate; absent where nothing can be read")] = UNSET


class Incomplete(msgspec.Struct):
    reason: str


class Failed(msgspec.Struct):
    code: str
    message: str


class Response(msgspec.Struct, kw_only=True):
    id: str
    created_at: int
    status: Annotated[str, Doc(description="in_progress, completed, incomplete, failed")]
    model: str
    output: list[OutputMessage | OutputCall]
    usage: ResponseUsage | None = None
    error: Failed | None = None
    incomplete_details: Incomplete | None = None
    object: Literal["response"] = "response"
    # As asked for
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str] | None
    parallel_tool_calls: bool
    temperature: float
    top_p: float
    text: Text
    tool_choice: FlatToolChoice | str
    tools: list[FlatTool]
    previous_response_id: None = None
    store: Literal[False] = False
    background: Literal[False] = False
    truncation: Literal["disabled"] = "disabled"
    headrace: bodies.Headrace | UnsetType = UNSET


class Event(msgspec.Struct):
    """One of a stream; which members it has depends on its type."""

    type: str
    sequence_number: int
    response: Response | UnsetType = UNSET
    output_index: int | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    content_index: int | UnsetType = UNSET
    item: OutputMessage | OutputCall | UnsetType = UNSET
    part: OutputText | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    logprobs: list[bodies.TokenLogprob] | UnsetType = UNSET
