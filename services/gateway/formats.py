"""What the answer must be, in each client's dialect, as the grammar that travels with the request.

OpenAI's response_format and text.format; vLLM's structured_outputs and its older guided_* fields. At most one of them.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from headrace.core.errors import InvalidInput
from headrace.engines import grammar
from services.gateway import bodies

FREE = (b"", "response_format")
Asked = tuple[bytes, str]  # the grammar, and the field that it stood in


def of_body(body: bodies.Asked, own: bodies.ResponseFormat | None, field: str = "response_format") -> Asked:
    """own: what its endpoint calls `field`. Raises InvalidInput: naming the field."""
    others = _others(body)
    if own is None and not others:
        return FREE  # nearly every request
    said = [of_format(own, field)] if own is not None else []
    for name, build in others.items():
        said.append((_built(name, build), name))
    asked = [one for one in said if one[0]]
    if len(asked) > 1:
        raise InvalidInput(f"{asked[1][1]} and {asked[0][1]} exclude one another", field=asked[1][1])
    return asked[0] if asked else FREE


def of_format(asked: bodies.ResponseFormat, field: str) -> Asked:
    """Raises InvalidInput: naming the field."""
    match asked.type:
        case "text":
            return b"", field
        case "json_object":
            return grammar.json_object(), f"{field}.type"
        case "json_schema":
            if asked.json_schema is None:
                raise InvalidInput("json_schema is missing", field=f"{field}.json_schema")
            where = f"{field}.json_schema.schema"
            schema = asked.json_schema.schema
            return _built(where, lambda: grammar.json_schema(schema)), where
    raise InvalidInput(f"{asked.type[:32]!r} is not one of text, json_object, json_schema", field=f"{field}.type")


def _others(body: bodies.Asked) -> dict[str, Callable[[], bytes]]:
    found: dict[str, Callable[[], bytes]] = {}
    if (json := body.guided_json) is not None:
        found["guided_json"] = lambda: grammar.json_schema(_schema(json))
    if (regex := body.guided_regex) is not None:
        found["guided_regex"] = lambda: grammar.regex(regex)
    if (choice := body.guided_choice) is not None:
        found["guided_choice"] = lambda: grammar.choice(choice)
    if (structured := body.structured_outputs) is not None:
        found["structured_outputs"] = lambda: _structured(structured)
    return found


def _structured(asked: bodies.StructuredOutputs) -> bytes:
    said = [
        *([grammar.json_schema(_schema(asked.json))] if asked.json is not None else []),
        *([grammar.regex(asked.regex)] if asked.regex is not None else []),
        *([grammar.choice(asked.choice)] if asked.choice is not None else []),
        *([grammar.json_object()] if asked.json_object else []),
    ]
    if len(said) != 1:
        raise InvalidInput("one of json, regex, choice and json_object is needed, and no more")
    return said[0]


def _schema(json: dict[str, Any] | str) -> dict[str, Any]:
    if isinstance(json, dict):
        return json
    try:
        return msgspec.json.decode(json, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput(f"the schema is not a JSON object: {error}") from error


def _built(field: str, build: Callable[[], bytes]) -> bytes:
    try:
        return build()
    except InvalidInput as error:
        raise InvalidInput(error.message, field=field) from error
