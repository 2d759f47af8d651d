"""openapi.json: paths by hand, schemas from the msgspec structs that the gateway reads and writes."""

from typing import Any

import msgspec

from services.gateway import bodies, bodies_responses, completions, openapi_beside
from services.gateway.targets import CLASS_HEADERS, FLOW_HEADERS, TBT_HEADERS, TTFT_HEADERS

JSON = "application/json"
SSE = "text/event-stream"
PLAIN_HEADERS = {
    "x-request-id": "As idempotency-key, which comes first; in an answer, the id that the request got",
    "idempotency-key": "The same key with the same body is the same request; with another body it is a 409",
    "x-headrace-slo-class": "As slo_class, which comes first",
    "x-headrace-trace": "1: traced, whatever the sampling",
    "x-headrace-timeline": "1: the answer says where its time went",
    "x-stainless-read-timeout": "As timeout_s, which comes first",
    "x-stainless-retry-count": "How often the client's library has asked before: retries have a budget in overload",
    "traceparent": "W3C trace context: the request's spans join it",
}
MS_HEADERS = [
    *[(name, "As ttft_target_ms, which comes first") for name in TTFT_HEADERS],
    *[(name, "As tbt_target_ms, which comes first") for name in TBT_HEADERS],
]
NAME_HEADERS = [
    *[(name, "As flow, which comes first") for name in FLOW_HEADERS],
    *[(name, "As slo_class, which comes first; ignored if no class has this name") for name in CLASS_HEADERS],
]
_REF = "#/components/schemas/{name}"


def document(version: str) -> dict[str, Any]:
    roots = (bodies.ChatRequest, bodies.ChatCompletion, bodies.ChatChunk, bodies.ErrorReply, bodies.ModelList)
    more = (bodies.Model, bodies.Cancelled, bodies.Health)
    others: tuple[type, ...] = (completions.CompletionRequest, completions.Completion, *openapi_beside.ROOTS)
    others += (bodies_responses.ResponsesRequest, bodies_responses.Response, bodies_responses.Event)
    _, schemas = msgspec.json.schema_components((*roots, *more, *others), ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headrace", "version": version},
        "paths": _paths(),
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


def _paths() -> dict[str, Any]:
    hexadecimal = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
    request_id = {"name": "request_id", "in": "path", "required": True, "schema": hexadecimal}
    number = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
    next_index = {"name": "next_index", "in": "query", "schema": number}
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/v1/chat/completions": {
            "post": _answer("Answer a conversation", "ChatRequest", "ChatCompletion", "ChatChunk")
        },
        "/v1/completions": {"post": _answer("Go on with a text", "CompletionRequest", "Completion", "Completion")},
        "/v1/responses": {"post": _answer("Answer a conversation", "ResponsesRequest", "Response", "Event")},
        "/v1/requests/{request_id}/events": {
            "get": _operation("Attach to a request's stream", {SSE: "ChatChunk"}, [request_id, next_index])
        },
        "/v1/requests/{request_id}": {"delete": _operation("Cancel a request", {JSON: "Cancelled"}, [request_id])},
        "/v1/models": {"get": _operation("Models served here", {JSON: "ModelList"})},
        "/v1/models/{model}": {"get": _operation("One model", {JSON: "Model"}, [model])},
        **openapi_beside.paths(),
        **openapi_beside.inference_paths(),
        "/health": {"get": _operation("Whether this gateway takes requests", {JSON: "Health"})},
        "/metrics": {"get": _operation("Prometheus metrics", {"text/plain": ""})},
    }


def _answer(summary: str, request: str, whole: str, event: str) -> dict[str, Any]:
    headers = [_header(name, about) for name, about in PLAIN_HEADERS.items()]
    headers += [_header(name.decode(), about, "number") for name, about in MS_HEADERS]
    headers += [_header(name.decode(), about) for name, about in NAME_HEADERS]
    operation = _operation(summary, {JSON: whole, SSE: event}, headers)
    operation["requestBody"] = {"required": True, "content": _content({JSON: request})}
    return operation


def _header(name: str, about: str = "", kind: str = "string") -> dict[str, Any]:
    described = {"description": about} if about else {}
    return {"name": name, "in": "header", "schema": {"type": kind}, **described}


def _operation(summary: str, content: dict[str, str], parameters: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    error = {"description": "Error", "content": _content({JSON: "ErrorReply"})}
    responses = {"200": {"description": "OK", "content": _content(content)}, "default": error}
    return {"summary": summary, "parameters": parameters or [], "responses": responses}


def _content(content: dict[str, str]) -> dict[str, Any]:
    found = dict[str, Any]()
    for mime, name in content.items():
        schema = {"$ref": _REF.format(name=name)} if name else {}
        found[mime] = {"schema": _event(schema) if mime == SSE else schema}
    return found


def _event(schema: dict[str, Any]) -> dict[str, Any]:
    """Of a stream: OpenAPI 3.1 has no word for it, so that tools take the schema for each event's."""
    piece = {"type": "string", "contentMediaType": JSON, "contentSchema": schema}
    data = {"anyOf": [{"const": "[DONE]"}, piece]}  # which ends a stream of chat or completions
    event = {"type": "string", "description": "Its type, where events have one"}
    return {"type": "object", "required": ["data"], "properties": {"data": data, "event": event}}
