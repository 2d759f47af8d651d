"""The HTTP API: every operation and every field, from the gateway's own OpenAPI document."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reference.words import cell, code, table
from services.gateway.openapi import document

_VERSION = "0.1.0"
Schema = dict[str, Any]


def openapi() -> str:
    return json.dumps(document(_VERSION), indent=1)


def page(root: Path) -> str:
    told = document(_VERSION)
    shared = _shared(told)
    parts = [
        "# HTTP, every field\n",
        "What a gateway says of itself at `/openapi.json` ([the document](../openapi.json){ download }), as tables. "
        "How things work together: [HTTP, explained](../api.md), [files, batches, embeddings](../batches.md).\n\n"
        "With API keys each request needs `Authorization: Bearer KEY`. Errors have the body "
        "[ErrorReply](#errorreply) and the status of their kind; 429 and 503 carry `Retry-After`.\n",
        "## Headers of requests\n\nOf all endpoints that answer.\n",
        table(("Header", "Type", "Meaning"), map(_parameter, shared)),
    ]
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            parts.append(f"## {method.upper()} {path}\n\n{_operation(operation, shared)}")
    parts.append("# Bodies\n")
    for name, schema in sorted(told["components"]["schemas"].items()):
        parts.append(f"## {name}\n\n{_schema(schema)}")
    return "\n".join(parts)


def _shared(told: Schema) -> list[Schema]:
    chat = told["paths"]["/v1/chat/completions"]["post"]["parameters"]
    return [each for each in chat if each["in"] == "header"]


def _operation(operation: Schema, shared: list[Schema]) -> str:
    out = [f"{operation['summary']}.\n"]
    own = [each for each in operation["parameters"] if each not in shared]
    if own:
        out.append(table(("Parameter", "Type", "Meaning"), map(_parameter, own)))
    for title, given in (("Takes", operation.get("requestBody")), ("Gives", operation["responses"]["200"])):
        content = (given or {}).get("content", {})
        kinds = [f"{_type(_piece(body['schema'])) or 'text'} as `{mime}`" for mime, body in content.items()]
        if kinds:
            out.append(f"{title} {', or '.join(kinds)}.\n")
    return "\n".join(out)


def _piece(schema: Schema) -> Schema:
    """Of a stream what its events carry; else itself."""
    data = schema.get("properties", {}).get("data", {})
    return next((each["contentSchema"] for each in data.get("anyOf", ()) if "contentSchema" in each), schema)


def _parameter(each: Schema) -> tuple[str, str, str]:
    place = "" if each["in"] == "header" else f"in the {each['in']}{', required' if each.get('required') else ''}"
    about = "; ".join(filter(None, (place, each.get("description", ""))))
    return code(each["name"]), _type(each["schema"]), cell(about)


def _schema(schema: Schema) -> str:
    if "enum" in schema:
        return f"One of {', '.join(code(each) for each in schema['enum'])}.\n"
    if "properties" not in schema:
        return f"{_type(schema)}\n"
    required = set(schema.get("required", ()))
    rows = [_field(name, each, name in required) for name, each in schema["properties"].items()]
    about = schema.get("description", "")
    return (f"{about}\n\n" if about else "") + table(("Field", "Type", "Default", "Meaning"), rows)


def _field(name: str, schema: Schema, required: bool) -> tuple[str, str, str, str]:
    default = (
        "required" if required else code(json.dumps(schema["default"])) if schema.get("default") is not None else ""
    )
    return code(name), _type(schema), default, cell(schema.get("description", ""))


def _type(schema: Schema) -> str:
    """Names of other bodies are links."""
    return " or ".join(dict.fromkeys(_kinds(schema)))


def _kinds(schema: Schema) -> Iterator[str]:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield f"[{name}](#{name.lower()})"
    elif "anyOf" in schema or "oneOf" in schema:
        for each in schema.get("anyOf") or schema["oneOf"]:
            if each.get("type") != "null":
                yield from _kinds(each)
    elif "enum" in schema:
        yield from (code(json.dumps(each)) for each in schema["enum"])
    elif "const" in schema:
        yield code(json.dumps(schema["const"]))
    elif schema.get("type") == "array":
        inner = _type(schema["items"]) if schema.get("items") else ""
        yield f"list of {inner}" if inner else "list"
    elif "type" in schema:
        yield schema["type"] if isinstance(schema["type"], str) else " or ".join(schema["type"])
