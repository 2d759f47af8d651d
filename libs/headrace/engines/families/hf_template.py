"""The chat template of a Hugging Face directory: Jinja in a sandbox, with what templates of the field expect to find.

The reference is transformers' apply_chat_template: trimmed blocks, loop controls, a generation tag, raise_exception,
strftime_now, tojson without escapes, and the names of the special tokens.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Environment, Template, TemplateError, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from headrace.core.errors import InvalidInput, Unavailable
from headrace.engines.families import Tool, ToolCall
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf_config import optional_json, text_file
from headrace.engines.families.hf_tokens import Vocabulary
from headrace.engines.families.tool_prompt import called

Message = dict[
    str, Any
]  # {"role": ..., "content": text, or a list of {"type": "text", "text": ...} and {"type": "image"}}
_REFUSALS = (TemplateError, TypeError, ValueError, LookupError)  # what a template does with messages it cannot take
_PROBE = "What the probe says"

# For tokenizers that have its two tokens: what nearly every model with them was taught.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class _Generation(Extension):
    """{% generation %} marks the assistant's words for training; here they are only written."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass(frozen=True)
class ChatTemplate:
    name: str  # of the model, for messages
    template: Template
    special: Mapping[str, str]
    takes_parts: bool  # content may be a list of parts; else it must be one text
    calls_tools: bool = False  # it tells of tools, and of calls as headrace.engines.toolcalls writes them

    def render(self, messages: Sequence[Message], tools: Sequence[Message] = ()) -> str:
        """The prompt up to the assistant's next turn.

        Raises:
            InvalidInput: the template refuses the messages, as many do with roles that do not alternate.
        """
        try:
            return _render(self.template, messages, self.special, tools)
        except _REFUSALS as error:
            raise InvalidInput(
                f"the chat template of {self.name} refuses these messages: {error}", field="messages"
            ) from error


def load_template(directory: Directory, vocabulary: Vocabulary) -> ChatTemplate:
    """Raises Unavailable: there is no template, or it is broken."""
    source = _source(directory) or _fallback(directory, vocabulary)
    try:
        template = environment().from_string(source)
    except TemplateSyntaxError as error:
        raise Unavailable(f"{directory.path}: the chat template is broken: {error}") from error
    takes_parts, calls_tools = _takes_parts(template, vocabulary.special), _calls_tools(template, vocabulary.special)
    return ChatTemplate(directory.name, template, vocabulary.special, takes_parts, calls_tools)


def environment() -> Environment:
    found = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    found.filters["tojson"] = _tojson
    found.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    return found


def _source(directory: Directory) -> str:
    """chat_template.jinja, else the processor's chat_template.json, else tokenizer_config.json's default."""
    file = directory.path / "chat_template.jinja"
    if file.is_file():
        return text_file(file)
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = optional_json(directory, name).get("chat_template")
        if isinstance(found, list):  # several by name
            found = {entry["name"]: entry["template"] for entry in found}.get("default")
        if isinstance(found, str):
            return found
    return ""


def _fallback(directory: Directory, vocabulary: Vocabulary) -> str:
    if None in map(vocabulary.tokenizer.token_to_id, ("<|im_start|>", "<|im_end|>")):
        raise Unavailable(f"{directory.path} has no chat template: put one beside config.json, as chat_template.jinja")
    return CHATML


def _takes_parts(template: Template, special: Mapping[str, str]) -> bool:
    """Templates that only know texts refuse a list, or print it as Python would."""
    try:
        shown = _render(template, [{"role": "user", "content": [{"type": "text", "text": _PROBE}]}], special)
    except _REFUSALS:
        return False
    return _PROBE in shown and "'type'" not in shown


def _calls_tools(template: Template, special: Mapping[str, str]) -> bool:
    """Whether it writes a call to the byte as ours. Arguments come as a value, as transformers' own examples do."""
    call = ToolCall("call_0", "probe", '{"a": 1}')
    turns: list[Message] = [
        {"role": "user", "content": _PROBE},
        {"role": "assistant", "content": "", "tool_calls": [call_field(call, str)]},
        {"role": "tool", "content": _PROBE},
    ]
    try:
        shown = _render(template, turns, special, [tool_field(Tool("probe", "", '{"type": "object"}'), str)])
    except _REFUSALS:
        return False
    return called(call) in shown and shown.count('"probe"') > 1 and shown.count(_PROBE) > 1


def tool_field(tool: Tool, said: Callable[[str], str]) -> Message:
    """A tool as templates expect it; said: what becomes of its texts."""
    function = {"name": said(tool.name), "description": said(tool.description)}
    return {"type": "function", "function": {**function, "parameters": json.loads(said(tool.parameters))}}


def call_field(call: ToolCall, said: Callable[[str], str]) -> Message:
    function = {"name": said(call.name), "arguments": json.loads(said(call.arguments or "{}"))}
    return {"id": call.id, "type": "function", "function": function}


def _render(
    template: Template, messages: Sequence[Message], special: Mapping[str, str], tools: Sequence[Message] = ()
) -> str:
    return template.render(
        messages=list(messages),
        tools=list(tools) or None,
        documents=None,
        add_generation_prompt=True,
        **dict(special),
    )


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
