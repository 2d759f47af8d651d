"""Grammars as bytes: one way to write each, bounds, and what is refused before anything is compiled."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import InvalidInput
from headrace.engines import grammar

TOOL = {"name": "add", "parameters": {"type": "object"}}
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("written", "bytes_of_it"),
    [
        (grammar.json_schema({"type": "object", "b": 1, "a": 2}), b'{"json_schema":{"type":"object","b":1,"a":2}}'),
        (grammar.json_object(), b'{"json_object":true}'),
        (grammar.regex("[a-z]+é"), '{"regex":"[a-z]+é"}'.encode()),
        (grammar.choice(["yes", "no"]), b'{"choice":["yes","no"]}'),
        (
            grammar.tools([("add", {"type": "object"})], text=False, calls=1),
            b'{"tools":{"tools":[{"name":"add","parameters":{"type":"object"}}],"text":false,"calls":1}}',
        ),
    ],
)
def test_one_way_to_write_each(written: bytes, bytes_of_it: bytes) -> None:
    """The order of properties stays: it is the order of generation."""
    assert written == bytes_of_it
    assert grammar.canonical(json.dumps(json.loads(written), indent=3).encode()) == written
    assert grammar.calls_tools(written) == (b"tools" in written)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_written_is_read(schema: dict[str, Any]) -> None:
    written = grammar.json_schema(schema)
    assert grammar.read(written) == ("json_schema", schema)
    assert grammar.canonical(written) == written


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b'{"json_schema": {"const": NaN}}', "no JSON number"),
        (b"[]", "one member"),
        (b"{}", "one member"),
        (b'{"lark": "start: /a/"}', "one of json_schema"),
        (b'{"json_object": true, "regex": "a"}', "one member"),
        (b'{"json_schema": true}', "not a JSON object"),
        (b'{"json_object": false}', "not true"),
        (b'{"regex": 3}', "not a text"),
        (b'{"choice": []}', "list of 1 to 1024 texts"),
        (b'{"choice": ["a", 1]}', "list of 1 to 1024 texts"),
        (b'{"regex": "\\ud800"}', "surrogates"),
        (b'{"regex": "%s"}' % (b"a" * grammar.BYTES_MAX), "bytes of grammar"),
        (json.dumps({"json_schema": nested(grammar.DEPTH_MAX + 1)}).encode(), "more than 64 deep"),
        (b'{"tools": {"tools": [], "text": true, "calls": 1}}', "no tool"),
        (json.dumps({"tools": {"tools": [TOOL, TOOL], "text": True, "calls": 1}}).encode(), "one name"),
        (json.dumps({"tools": {"tools": [TOOL], "text": True, "calls": 9}}).encode(), "calls 1 to 8"),
        (json.dumps({"tools": {"tools": [{**TOOL, "name": "a b"}], "text": True, "calls": 1}}).encode(), "letters"),
    ],
)
def test_refused(data: bytes, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        grammar.canonical(data)


def test_as_deep_as_allowed() -> None:
    assert grammar.read(grammar.json_schema(nested(grammar.DEPTH_MAX)))[0] == "json_schema"
