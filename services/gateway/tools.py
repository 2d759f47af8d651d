"""Tools of a request: what is offered, which calls its grammar allows, what a conversation says of earlier calls."""

import json
from collections.abc import Sequence

import msgspec

from headrace.core.errors import InvalidInput
from headrace.engines import grammar
from headrace.engines.families import ChatMessage, Tool, ToolCall
from services.gateway import bodies
from services.gateway.formats import Asked

TOOLS_MAX = 128  # OpenAI's
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


def offered(tools: Sequence[bodies.Tool]) -> tuple[Tool, ...]:
    """Raises InvalidInput: naming the tool."""
    if len(tools) > TOOLS_MAX:
        raise InvalidInput(f"{len(tools)} tools; at most {TOOLS_MAX}", field="tools")
    for index, tool in enumerate(tools):
        if tool.type != "function":
            raise InvalidInput(f"{tool.type[:32]!r} is not 'function'", field=f"tools[{index}].type")
    return tuple(_tool(tool.function, f"tools[{index}].function") for index, tool in enumerate(tools))


def _tool(function: bodies.Function, where: str) -> Tool:
    """Its own grammar tells what is wrong with it, by its place."""
    parameters = NO_ARGUMENTS if function.parameters is None else function.parameters
    try:
        grammar.tools([(function.name, parameters)], text=False, calls=1)
    except InvalidInput as error:
        raise InvalidInput(error.message, field=where) from error
    return Tool(function.name, function.description or "", json.dumps(parameters))


def chosen(tools: Sequence[Tool], choice: bodies.ToolChoice | str | None) -> tuple[Sequence[Tool], bool]:
    """Those that may be called, and whether one must be. Raises InvalidInput."""
    match choice:
        case None | "auto":
            return tools, False
        case "none":
            return (), False
        case "required" if tools:
            return tools, True
        case bodies.ToolChoice(type="function", function=bodies.FunctionName(name=name)):
            named = [tool for tool in tools if tool.name == name]
            if named:
                return named, True
            raise InvalidInput(f"no tool is called {name[:64]!r}", field="tool_choice.function.name")
    raise InvalidInput("one of auto, none, required (with tools), or a function's name", field="tool_choice")


def ruled(
    tools: tuple[Tool, ...], choice: bodies.ToolChoice | str | None, parallel: bool | None, asked: Asked
) -> tuple[tuple[Tool, ...], Asked]:
    """The tools that the model is told of, and the grammar of an answer that may call them; asked: of one that does
    not. Raises InvalidInput."""
    callable_tools, must = chosen(tools, choice)
    if not callable_tools:
        return (), asked
    several = parallel is not False and not isinstance(choice, bodies.ToolChoice)
    listed = [(tool.name, json.loads(tool.parameters)) for tool in callable_tools]
    try:
        text = False if must else _text(asked)
        rules = grammar.tools(listed, text=text, calls=grammar.CALLS_MAX if several else 1)
    except InvalidInput as error:
        raise InvalidInput(error.message, field=error.field or "tools") from error
    return tools, (rules, "tools")


def _text(asked: Asked) -> bool | grammar.Schema:
    """What an answer without a call must be."""
    rules, field = asked
    if not rules:
        return True
    kind, value = grammar.read(rules)
    match kind:
        case "json_schema":
            schema: grammar.Schema = value
            return schema
        case "json_object":
            return {"type": "object"}
    raise InvalidInput(f"tools and {field} exclude one another", field=field)


def earlier_calls(message: bodies.Message, where: str) -> tuple[ToolCall, ...]:
    """Raises InvalidInput: arguments that are no JSON object, calls of somebody else."""
    if not message.tool_calls:
        return ()
    if message.role != "assistant":
        raise InvalidInput("only the assistant calls tools", field=f"{where}.tool_calls")
    return tuple(_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(message.tool_calls))


def _call(call: bodies.ToolCall, where: str) -> ToolCall:
    return earlier_call(call.id, call.function.name, call.function.arguments, f"{where}.function.arguments")


def earlier_call(call_id: str, name: str, arguments: str, where: str) -> ToolCall:
    """where: its arguments stand. Raises InvalidInput: they are no JSON object."""
    try:
        msgspec.json.decode(arguments or "{}", type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput(f"not a JSON object: {error}", field=where) from error
    return ToolCall(call_id, name, arguments)


def check_answers(messages: Sequence[ChatMessage]) -> None:
    """Every answer of a tool belongs to an earlier call. Raises InvalidInput."""
    called = set[str]()
    for index, message in enumerate(messages):
        if message.role == "tool" and message.answers not in called:
            where = f"messages[{index}].tool_call_id"
            raise InvalidInput(f"no earlier call has the id {message.answers[:64]!r}", field=where)
        called.update(call.id for call in message.calls)
