"""What an answer must be, as bytes that travel with a request: JSON of one member, written in one way.

    {"json_schema": {...}}           JSON of this schema
    {"json_object": true}            any JSON object
    {"regex": "..."}                 text that the whole expression matches
    {"choice": ["yes", "no"]}        one of these texts
    {"tools": {"tools": [{"name": ..., "parameters": {...}}, ...], "text": true, "calls": 8}}
                                     text (if it may be), then calls of these tools (headrace.engines.toolcalls);
                                     where text is a schema, JSON of it or else calls

Nothing here compiles a grammar: headrace.engines.constrain does. Property names keep the order of the schema: it is
the order in which they are generated.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from headrace.core.errors import InvalidInput

BYTES_MAX = 64 * 1024
DEPTH_MAX = 64  # of JSON values inside one another; each level of a schema's objects takes two
CHOICES_MAX = 1024
CALLS_MAX = 8  # of tools, in one answer
TOOLS_PREFIX = b'{"tools":'

Schema = Mapping[str, Any]


def json_schema(schema: Schema) -> bytes:
    """Raises InvalidInput, as all of these: too large, too deep, or not JSON."""
    return _written("json_schema", schema)


def json_object() -> bytes:
    return _written("json_object", True)


def regex(pattern: str) -> bytes:
    return _written("regex", pattern)


def choice(texts: Sequence[str]) -> bytes:
    return _written("choice", list(texts))


def tools(offered: Sequence[tuple[str, Schema]], *, text: bool | Schema, calls: int) -> bytes:
    """offered: names and the schemas of their arguments. text: text may come first, or alone; or JSON of this schema
    alone; else a call must come. calls: at most so many."""
    listed = [{"name": name, "parameters": parameters} for name, parameters in offered]
    return _written("tools", {"tools": listed, "text": text, "calls": calls})


def calls_tools(grammar: bytes) -> bool:
    return grammar.startswith(TOOLS_PREFIX)


def canonical(data: bytes) -> bytes:
    """What a client wrote, written as here. Raises InvalidInput."""
    if len(data) > BYTES_MAX:
        raise InvalidInput(f"{len(data)} bytes of grammar; at most {BYTES_MAX}")
    kind, value = read(data)
    return _written(kind, value)


def read(data: bytes) -> tuple[str, Any]:
    """Its kind and what it says. Raises InvalidInput."""
    try:
        said = json.loads(data, parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the grammar is not JSON: {error}") from error
    if not isinstance(said, dict) or len(said) != 1 or not said.keys() <= _CHECKS.keys():
        raise InvalidInput(f"a grammar is a JSON object of one member, one of {', '.join(_CHECKS)}")
    ((kind, value),) = said.items()
    if why := _CHECKS[kind](value):
        raise InvalidInput(f"{kind}: {why}")
    return kind, value


def _written(kind: str, value: Any) -> bytes:
    if _depth(value) > DEPTH_MAX:
        raise InvalidInput(f"{kind}: JSON values lie more than {DEPTH_MAX} deep in one another")
    if why := _CHECKS[kind](value):
        raise InvalidInput(f"{kind}: {why}")
    try:
        data = json.dumps({kind: value}, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:  # a number that JSON does not have, half of a surrogate pair
        raise InvalidInput(f"{kind}: {error}") from error
    if len(data) > BYTES_MAX:
        raise InvalidInput(f"{kind}: {len(data)} bytes; at most {BYTES_MAX}")
    return data


def _depth(value: Any) -> int:
    """Level by level: the depth is a client's, and no recursion limit of ours."""
    depth, level = 0, [value]
    while level and depth <= DEPTH_MAX:
        depth += 1
        containers = [one for one in level if isinstance(one, dict | list)]
        level = [inner for one in containers for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _not_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _no_object(value: Any) -> str:
    return "" if isinstance(value, dict) else "it is not a JSON object"


def _no_choice(value: Any) -> str:
    texts = isinstance(value, list) and value and all(isinstance(text, str) and text for text in value)
    return "" if texts and len(value) <= CHOICES_MAX else f"it is not a list of 1 to {CHOICES_MAX} texts"


def _no_tools(value: Any) -> str:
    if not isinstance(value, dict) or value.keys() != {"tools", "text", "calls"}:
        return "it needs tools, text and calls, and nothing else"
    offered, calls = value["tools"], value["calls"]
    if not isinstance(value["text"], bool | dict) or not isinstance(calls, int) or not 1 <= calls <= CALLS_MAX:
        return f"text is true, false or a schema, calls 1 to {CALLS_MAX}"
    if not isinstance(offered, list) or not offered:
        return "no tool is offered"
    known = all(isinstance(tool, dict) and tool.keys() == {"name", "parameters"} for tool in offered)
    if not known or not all(isinstance(tool["name"], str) and _is_name(tool["name"]) for tool in offered):
        return "a tool has a name, of at most 64 letters, digits, _ and -, and parameters"
    if len({tool["name"] for tool in offered}) < len(offered):
        return "two tools have one name"
    return "" if all(isinstance(tool["parameters"], dict) for tool in offered) else "parameters are a JSON object"


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 64 and name.isascii() and name.replace("_", "a").replace("-", "a").isalnum()


_CHECKS: dict[str, Callable[[Any], str]] = {
    "json_schema": _no_object,
    "json_object": lambda value: "" if value is True else "it is not true",
    "regex": lambda value: "" if isinstance(value, str) and value else "it is not a text",
    "choice": _no_choice,
    "tools": _no_tools,
}
