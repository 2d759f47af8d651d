"""How a model is told of tools and of earlier calls: in texts, or by a chat template that writes calls as we do."""

from pathlib import Path
from typing import Any

import pytest

from headrace.engines.families import ChatMessage, TextPart, Tool, ToolCall, family
from headrace.engines.families.hf_template import call_field, environment, tool_field
from headrace.engines.families.tool_prompt import called, plainly
from tests import checkpoints

ADD = Tool("add", "Adds two.", '{"type": "object", "properties": {"a": {"type": "integer"}}}')
CALL = ToolCall("call_1", "add", '{"a": 1}')
WRITTEN = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
# As the templates of Qwen 2.5 and Hermes do it, in short.
HERMES = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}{% if message.content or not loop.first %}\n{% endif %}"
    '<tool_call>\n{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def turn(role: str, text: str = "", **more: Any) -> ChatMessage:
    return ChatMessage(role, (TextPart(text),) if text else (), **more)


def shown(messages: Any) -> list[tuple[str, str]]:
    return [(message.role, "".join(part.text for part in message.parts)) for message in messages]


def test_without_tools_nothing_changes() -> None:
    messages = [turn("system", "a"), turn("user", "b")]
    assert plainly(messages, ()) is messages


def test_tools_follow_the_system_message_or_make_one() -> None:
    (system, user), (made, _) = (
        shown(plainly(messages, [ADD]))
        for messages in ([turn("system", "Be brief."), turn("user", "b")], [turn("user", "b")])
    )
    assert (system[0], user) == ("system", ("user", "b"))
    assert system[1].startswith("Be brief.\n\nYou can call")
    assert system[1].endswith(made[1])
    assert '{"name": "add", "description": "Adds two.", "parameters": {"type": "object"' in made[1]
    assert '<tool_call>\n{"name": "the name", "arguments": {its arguments}}\n</tool_call>' in made[1]


def test_calls_and_their_answers() -> None:
    conversation = [
        turn("user", "1+1?"),
        turn("assistant", "Well.", calls=(CALL, CALL)),
        turn("tool", "2", answers="call_1"),
        turn("tool", "two", answers="call_1"),
        turn("assistant", "2"),
        turn("user", "sure?"),
    ]
    assert called(CALL) == WRITTEN
    assert shown(plainly(conversation, ())) == [
        ("user", "1+1?"),
        ("assistant", f"Well.\n{WRITTEN}\n{WRITTEN}"),
        ("user", "<tool_response>\n2\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"),
        ("assistant", "2"),
        ("user", "sure?"),
    ]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    pytest.importorskip("transformers")
    return checkpoints.build("qwen2", tmp_path)


def text_of(path: Path, messages: list[ChatMessage], tools: list[Tool]) -> str:
    family.cache_clear()
    kind = family(str(path))
    return str(kind.tokenizer.decode(list(kind.render(messages, [], tools).tokens), skip_special_tokens=False))


def test_a_template_that_knows_tools_is_told_of_them(directory: Path) -> None:
    conversation = [turn("user", "1+1?"), turn("assistant", calls=(CALL,)), turn("tool", "2", answers="call_1")]
    (directory / "chat_template.jinja").write_text(HERMES)
    told = text_of(directory, conversation, [ADD])
    rendered = (
        environment()
        .from_string(HERMES)
        .render(
            messages=[
                {"role": "user", "content": "1+1?"},
                {"role": "assistant", "content": "", "tool_calls": [call_field(CALL, str)]},
                {"role": "tool", "content": "2"},
            ],
            tools=[tool_field(ADD, str)],
        )
    )
    assert told == rendered
    assert WRITTEN in told


def test_any_other_template_gets_them_as_texts(directory: Path) -> None:
    """Also one that would write calls in another way than the grammar has them."""
    for template in (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
        HERMES.replace(": {{", ":{{"),
    ):
        (directory / "chat_template.jinja").write_text(template)
        told = text_of(directory, [turn("user", "1+1?")], [ADD])
        assert "You can call the functions below" in told
