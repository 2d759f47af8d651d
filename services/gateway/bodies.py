"""The JSON bodies of the OpenAI API as Headrace speaks it: what is read, what is written, and openapi.json's source.

Fields that OpenAI knows and this gateway cannot honour are declared here so that asking for them is an error.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Doc = Meta


class Request(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Base of what clients send: an unknown field is an error that names it."""


# Parts do not forbid unknown fields: SDKs decorate them (cache_control, uuid) without changing what they mean.
class TextPart(msgspec.Struct, tag="text", tag_field="type"):
    text: str


class ImageUrl(msgspec.Struct):
    url: Annotated[str, Doc(description="data: URI, or an http(s) URL where the gateway allows fetching")]
    detail: Annotated[str | None, Doc(description="Accepted; every image gets the same resolution")] = None


class ImageUrlPart(msgspec.Struct, tag="image_url", tag_field="type"):
    image_url: ImageUrl | str


class InputAudio(msgspec.Struct):
    data: Annotated[str, Doc(description="base64")]
    format: Annotated[str, Doc(description="wav, mp3, flac, ogg, opus, m4a, mp4 or webm; the data decides")] = "wav"


class InputAudioPart(msgspec.Struct, tag="input_audio", tag_field="type"):
    input_audio: InputAudio


class MediaUrl(msgspec.Struct):
    url: str


class AudioUrlPart(msgspec.Struct, tag="audio_url", tag_field="type"):
    audio_url: MediaUrl | str


class VideoUrlPart(msgspec.Struct, tag="video_url", tag_field="type"):
    video_url: MediaUrl | str


class MediaUrlPart(msgspec.Struct, tag="media_url", tag_field="type"):
    """Of any modality that the model takes, by its name."""

    modality: str
    media_url: MediaUrl | str


Part = TextPart | ImageUrlPart | InputAudioPart | AudioUrlPart | VideoUrlPart | MediaUrlPart


class FunctionCall(msgspec.Struct):
    name: str
    arguments: Annotated[str, Doc(description="A JSON object")] = "{}"


class ToolCall(msgspec.Struct):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class Message(Request):
    role: str
    content: Annotated[str | list[Part] | None, Doc(description="null beside tool_calls")] = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall] | None, Doc(description="Of the assistant")] = None
    tool_call_id: Annotated[str | None, Doc(description="Of a tool: the call that it answers")] = None
    # What answers of this API and of OpenAI's carry beside, and clients send back
    refusal: str | None = None
    annotations: list[msgspec.Raw] | None = None
    audio: None = None
    function_call: None = None


class Function(Request):
    name: Annotated[str, Doc(description="At most 64 letters, digits, _ and -")]
    description: str | None = None
    parameters: Annotated[dict[str, Any] | None, Doc(description="JSON Schema of an object; always kept")] = None
    strict: bool | None = None


class Tool(Request):
    type: Annotated[str, Doc(description="function")]
    function: Function


class FunctionName(msgspec.Struct):
    name: str


class ToolChoice(msgspec.Struct):
    type: str
    function: FunctionName | None = None


class StreamOptions(Request):
    include_usage: bool = False
    include_obfuscation: bool = False


class JsonSchemaFormat(Request):
    name: str
    schema: Annotated[dict[str, Any], Doc(description="JSON Schema; at most 64 KiB; what cannot be kept is an error")]
    description: str | None = None
    strict: Annotated[bool | None, Doc(description="Accepted; the schema is always kept")] = None


class ResponseFormat(Request):
    type: Annotated[str, Doc(description="text, json_object, json_schema")] = "text"
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(Request):
    """As in vLLM: one of them."""

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: list[str] | None = None
    json_object: bool | None = None


# What is not ours: members that nobody here knows are none of our business.
class AgentHints(msgspec.Struct):
    priority: Annotated[int | None, Doc(description="Higher is sooner; added to strict_priority")] = None
    strict_priority: Annotated[int | None, Doc(description="Higher is sooner")] = None


class NvExt(msgspec.Struct):
    agent_hints: AgentHints | None = None


class Asked(Request, kw_only=True):
    """What every endpoint that answers takes."""

    model: str = ""
    stream: bool | None = None
    temperature: Annotated[float | None, Doc(description="Absent: 0, greedy")] = None
    top_p: float | None = None
    seed: int | None = None
    service_tier: Annotated[
        str | None, Doc(description="auto, default; flex: class batch-1 where there is one; priority: sooner by a step")
    ] = None
    # Headrace's own (extra_body in the OpenAI SDK)
    top_k: int | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    slo_class: Annotated[str | None, Doc(description="interactive, batch-1, batch-2, or what is configured")] = None
    timeout_s: Annotated[float | None, Doc(description="The request ends after so long; absent: its class's")] = None
    ttft_target_ms: Annotated[
        float | None,
        Doc(description="Wanted until the first token; clamped to 50 ms .. 1 day; absent or 0: its class's"),
    ] = None
    tbt_target_ms: Annotated[
        float | None, Doc(description="Wanted between two tokens; clamped to 1 ms .. 60 s; absent or 0: its class's")
    ] = None
    flow: Annotated[
        str | None, Doc(description="Whose share this counts against, among this tenant's; at most 256 characters")
    ] = None
    keep_on_disconnect: bool | None = None
    # Of other servers (vLLM, Dynamo)
    priority: Annotated[int | None, Doc(description="As in vLLM: lower is sooner; clamped to -3 .. 3")] = None
    nvext: NvExt | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    # Labels that change nothing
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class ChatRequest(Asked, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[Message]
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    logprobs: Annotated[bool | None, Doc(description="Tell the log-probability of each token of the answer")] = None
    top_logprobs: Annotated[int | None, Doc(description="0 to 20: of the likeliest tokens beside each")] = None
    n: Annotated[int | None, Doc(description="1 to 8 answers")] = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool] | None, Doc(description="At most 128 functions that the model may call")] = None
    tool_choice: Annotated[
        ToolChoice | str | None, Doc(description="auto, none, required, or one function by its name; absent: auto")
    ] = None
    parallel_tool_calls: Annotated[bool | None, Doc(description="false: at most one call; else at most 8")] = None
    store: bool | None = None
    # Accepted with the value that means "off"; anything else is an error
    logit_bias: dict[str, float] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    functions: list[msgspec.Raw] | None = None
    function_call: msgspec.Raw | UnsetType = UNSET
    modalities: list[str] | None = None
    audio: msgspec.Raw | UnsetType = UNSET
    prediction: msgspec.Raw | UnsetType = UNSET
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: msgspec.Raw | UnsetType = UNSET


class PromptTokensDetails(msgspec.Struct):
    image_tokens: int
    cached_tokens: int
    text_tokens: int
    audio_tokens: int = 0
    video_tokens: int = 0


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    joules: Annotated[float | UnsetType, Doc(description="Estimate; absent where nothing can be read")] = UNSET


class Stage(msgspec.Struct):
    """One interval of the request's life, seconds since the Unix epoch."""

    stage: str
    start_s: float
    end_s: float
    worker: str
    part: int
    cached: Annotated[bool, Doc(description="Of encode: the embedding was there already")] = False


class Headrace(msgspec.Struct):
    """Present when asked for with x-headrace-timeline: 1 or x-headrace-trace: 1."""

    request_id: str
    trace_id: str
    timeline: list[Stage]


class DeltaFunction(msgspec.Struct):
    arguments: str
    name: str | UnsetType = UNSET


class DeltaCall(msgspec.Struct):
    """The first one of a call has its id and name; arguments follow in pieces."""

    index: int
    function: DeltaFunction
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class Delta(msgspec.Struct):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[DeltaCall] | UnsetType = UNSET


class TopLogprob(msgspec.Struct):
    token: Annotated[str, Doc(description="Its text, or the name of a special token")]
    logprob: float
    bytes: Annotated[list[int] | None, Doc(description="What it adds to the text; null: it is a special token")]


class TokenLogprob(msgspec.Struct):
    token: str
    logprob: Annotated[float | None, Doc(description="null: lost with the worker that drew the token")]
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(msgspec.Struct):
    """Of the tokens that the content is made of, before temperature and cuts."""

    content: list[TokenLogprob]
    refusal: None = None


class ChunkChoice(msgspec.Struct):
    delta: Delta
    finish_reason: str | None
    index: int = 0
    logprobs: ChoiceLogprobs | None = None


class ChatChunk(msgspec.Struct):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    headrace: Headrace | UnsetType = UNSET


class AnswerMessage(msgspec.Struct):
    content: Annotated[str | None, Doc(description="null where there are tool_calls alone")]
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    tool_calls: list[ToolCall] | UnsetType = UNSET


class Choice(msgspec.Struct):
    message: AnswerMessage
    finish_reason: str
    index: int = 0
    logprobs: ChoiceLogprobs | None = None


class ChatCompletion(msgspec.Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    headrace: Headrace | UnsetType = UNSET


class ErrorBody(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str


class ErrorReply(msgspec.Struct):
    error: ErrorBody


class Model(msgspec.Struct):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_tokens: int
    modalities: list[str]
    servable: bool


class ModelList(msgspec.Struct):
    object: Literal["list"]
    data: list[Model]


class Cancelled(msgspec.Struct):
    id: str
    object: Literal["chat.completion.cancelled"]
    known: bool


class Health(msgspec.Struct, omit_defaults=True):
    status: Literal["ok", "starting", "draining", "bus_down"]
    models: Annotated[dict[str, bool], Doc(description="Whether workers serve it, or could, right now")] = {}
