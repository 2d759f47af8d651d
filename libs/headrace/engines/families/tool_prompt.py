"""Tools in a conversation for models whose template has no place for them: told in the system message, called and
answered in text (headrace.engines.toolcalls says how a call reads).
"""

import json
from collections.abc import Iterator, Sequence

from headrace.engines import toolcalls
from headrace.engines.families import ChatMessage, MediaPart, TextPart, Tool, ToolCall

ANSWER_BEGIN, ANSWER_END = "<tool_response>\n", "\n</tool_response>"
OFFER = (
    "You can call the functions below. Each line is one of them: its name, what it is for, and the JSON schema of its"
    " arguments.\n"
)
HOW = (
    f"\nTo call one, write\n{toolcalls.BEGIN}{toolcalls.NAME}the name{toolcalls.ARGUMENTS}{{its arguments}}"
    f"{toolcalls.END}\nThe result comes in the next message. Without a call, just answer."
)


def plainly(messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> Sequence[ChatMessage]:
    """The same conversation in texts of system, user and assistant alone."""
    if not tools and not any(message.calls or message.role == "tool" for message in messages):
        return messages
    plain = list(_turns(messages))
    if not tools:
        return plain
    how = TextPart(OFFER + "\n".join(map(_line, tools)) + HOW)
    if plain and plain[0].role == "system":
        return [ChatMessage("system", (*plain[0].parts, TextPart("\n\n"), how)), *plain[1:]]
    return [ChatMessage("system", (how,)), *plain]


def called(call: ToolCall) -> str:
    """A call as the model would have written it."""
    name = f"{toolcalls.BEGIN}{toolcalls.NAME}{call.name}{toolcalls.ARGUMENTS}"
    return f"{name}{call.arguments or '{}'}{toolcalls.END}"


def _turns(messages: Sequence[ChatMessage]) -> Iterator[ChatMessage]:
    """Answers of tools that follow one another are one user turn, as their calls are one assistant turn."""
    answers: list[TextPart | MediaPart] = []
    for message in messages:
        if message.role == "tool":
            answers += [TextPart("\n")] if answers else []
            answers += [TextPart(ANSWER_BEGIN), *message.parts, TextPart(ANSWER_END)]
            continue
        if answers:
            yield ChatMessage("user", tuple(answers))
            answers = []
        yield ChatMessage(message.role, _with_calls(message)) if message.calls else message
    if answers:
        yield ChatMessage("user", tuple(answers))


def _with_calls(message: ChatMessage) -> tuple[TextPart | MediaPart, ...]:
    lines = [*(["".join(_texts(message))] if message.parts else []), *map(called, message.calls)]
    return (TextPart(toolcalls.BETWEEN.join(lines)),)


def _texts(message: ChatMessage) -> Iterator[str]:
    return (part.text for part in message.parts if isinstance(part, TextPart))


def _line(tool: Tool) -> str:
    parameters = json.loads(tool.parameters)
    return json.dumps(
        {"name": tool.name, "description": tool.description, "parameters": parameters}, ensure_ascii=False
    )
