"""How a call of a tool reads in a model's output, and the grammar that keeps a model to it.

    <tool_call>
    {"name": "add", "arguments": {"a": 1, "b": 2}}
    </tool_call>

This is the way of the Hermes and Qwen models. Everything but the name and the arguments is fixed to the byte, so that
whoever reads it needs no JSON parser. Models without a trained form of their own are told it in the system message.
"""

import json
from collections.abc import Mapping
from typing import Any

BEGIN = "<tool_call>"
NAME = '\n{"name": "'
ARGUMENTS = '", "arguments": '
END = "}\n</tool_call>"
BETWEEN = "\n"


def lark(value: Mapping[str, Any], style: Mapping[str, Any]) -> str:
    """Of a grammar of kind "tools", in llguidance's dialect. style: options of its JSON compiler.

    Text is anything in which BEGIN does not come; behind the calls nothing comes.
    """
    calls = " | ".join(_call(tool, style) for tool in value["tools"])
    more = f"({_text(BETWEEN + BEGIN)} call){{0,{value['calls'] - 1}}}" if value["calls"] > 1 else ""
    rules = [f"call: {_text(NAME)} ({calls}) {_text(END)}", f"calls: call {more}"]
    if isinstance(value["text"], dict):
        rules.append(f"start: {_json(value['text'], style)} | {_text(BEGIN)} calls")
    elif value["text"]:
        rules += ["start: TEXT | begin calls", "TEXT: /(.|\\n)*/", f"begin[lazy]: TEXT {_text(BEGIN)}"]
    else:
        rules.append(f"start: {_text(BEGIN)} calls")
    return "\n".join(["%llguidance {}", *rules])


def _call(tool: Mapping[str, Any], style: Mapping[str, Any]) -> str:
    return f"{_text(tool['name'] + ARGUMENTS)} {_json({'type': 'object', **tool['parameters']}, style)}"


def _json(schema: Mapping[str, Any], style: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': dict(style)})}"


def _text(text: str) -> str:
    return json.dumps(text)
