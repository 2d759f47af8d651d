"""/v1/completions: a text, or token ids, to be gone on with; several prompts are several choices of one response."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from headrace.core.errors import HeadraceError, InvalidInput
from headrace.core.types import Usage
from services.gateway import asking, bodies, formats, render
from services.gateway.ask import Ask
from services.gateway.asking import Question
from services.gateway.bodies import Doc
from services.gateway.front import Front
from services.gateway.live import Live
from services.gateway.readings import created_s
from services.gateway.several import CHOICES_MAX
from services.gateway.told import ToldText

MAX_TOKENS_DEFAULT = 16  # OpenAI's: whoever wants more says so


class CompletionRequest(bodies.Asked, kw_only=True):
    """POST /v1/completions."""

    prompt: Annotated[
        str | list[str | int | list[int]], Doc(description="A text, token ids, or a list of either: at most 8 choices")
    ]
    stream_options: bodies.StreamOptions | None = None
    max_tokens: Annotated[int | None, Doc(description="Absent: 16")] = None
    stop: str | list[str] | None = None
    logprobs: Annotated[int | None, Doc(description="0 to 20: of the likeliest tokens beside each")] = None
    n: Annotated[int | None, Doc(description="1 to 8 answers to each prompt")] = None
    response_format: bodies.ResponseFormat | None = None
    # Accepted with the value that means "off"; anything else is an error
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None
    logit_bias: dict[str, float] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class Logprobs(msgspec.Struct):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float]]
    text_offset: Annotated[list[int], Doc(description="Characters of the answer before each token")]


class CompletionChoice(msgspec.Struct):
    text: str
    index: int
    finish_reason: str | None
    logprobs: Logprobs | None = None


class Completion(msgspec.Struct):
    """Whole, or a piece of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: bodies.Usage | UnsetType | None = UNSET
    headrace: bodies.Headrace | UnsetType = UNSET


_DECODER = msgspec.json.Decoder(CompletionRequest)
_OFF: dict[str, tuple[Any, ...]] = {
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    **asking.OFF,
}


def question(body: bytes, headers: Mapping[bytes, bytes], key: str) -> Question:
    """Raises InvalidInput: naming the field."""
    asked = asking.decode(body, _DECODER)
    asking.check_off(asked, _OFF)
    if asked.stream_options is not None and not asked.stream:
        raise InvalidInput("stream_options needs stream: true", field="stream_options")
    asking.check_count("n", asked.n)
    prompts, each = _prompts(asked.prompt), asked.n or 1
    if len(prompts) * each > CHOICES_MAX:
        raise InvalidInput(f"{len(prompts) * each} choices; at most {CHOICES_MAX}", field="prompt")
    most = MAX_TOKENS_DEFAULT if asked.max_tokens is None else asking.at_least_one("max_tokens", asked.max_tokens)
    drawing = asking.Drawing(most, asked.stop, asked.logprobs, formats.of_body(asked, asked.response_format))
    fields = asking.common(asked, drawing, headers, key)
    asks = [Ask(**fields, messages=(), media=(), prompt=prompt, prompt_field=where) for prompt, where in prompts]
    usage = asked.stream_options is not None and asked.stream_options.include_usage
    several = [ask for ask in asks for _ in range(each)]
    return Question(several, bool(asked.stream), lambda front, lives: CompletionShape(front, lives[0], usage), each)


def _prompts(prompt: str | list[str | int | list[int]]) -> list[tuple[str | tuple[int, ...], str]]:
    """Each with where it stands. Raises InvalidInput."""
    if isinstance(prompt, str):
        return [(prompt, "prompt")]
    if not prompt:
        raise InvalidInput("at least one prompt is needed", field="prompt")
    if all(isinstance(token, int) for token in prompt):
        return [(tuple(token for token in prompt if isinstance(token, int)), "prompt")]
    if len({type(one) for one in prompt}) > 1:
        raise InvalidInput("texts, token ids and lists of token ids do not mix", field="prompt")
    if len(prompt) > CHOICES_MAX:
        raise InvalidInput(f"{len(prompt)} prompts; at most {CHOICES_MAX}", field="prompt")
    texts = [one if isinstance(one, str) else tuple(one) for one in prompt if not isinstance(one, int)]
    return [(text, f"prompt[{index}]") for index, text in enumerate(texts)]


class CompletionReading:
    def __init__(self, shape: "CompletionShape", live: Live, index: int) -> None:
        self._shape, self._index = shape, index
        self._told = shape.front.told_of(live)
        self._text: Any = self._told or shape.front.text_of(live)
        self._offset = 0  # characters shown

    def token(self, token: int, first: bool) -> bytes:
        text = self._text.feed(token)
        return self._shape.event(CompletionChoice(text, self._index, None, self._logprobs(text, self._entries())))

    def terminal(self, reason: str, extras: render.Extras | None) -> bytes:
        rest = self._rest(reason)
        return self._shape.event(
            CompletionChoice(rest.text, self._index, reason, self._logprobs(rest.text, rest.logprobs)), extras
        )

    def whole(self, tokens: Sequence[int], reason: str) -> CompletionChoice:
        texts, entries = list[str](), list[bodies.TokenLogprob]()
        for token in tokens:
            texts.append(self._text.feed(token))
            entries += self._entries()
        rest = self._rest(reason)
        text = "".join([*texts, rest.text])
        return CompletionChoice(text, self._index, reason, self._logprobs(text, [*entries, *rest.logprobs]))

    def _entries(self) -> list[bodies.TokenLogprob]:
        return self._told.entries if isinstance(self._told, ToldText) else []

    def _rest(self, reason: str) -> render.Rest:
        return render.Rest(self._text.finish()) if self._told is None else self._told.finish(reason)

    def _logprobs(self, text: str, entries: Sequence[bodies.TokenLogprob]) -> Logprobs | None:
        if self._told is None:
            return None
        told = Logprobs([], [], [], [])
        for entry in entries:
            told.tokens.append(entry.token)
            told.token_logprobs.append(entry.logprob)
            told.top_logprobs.append({likely.token: likely.logprob for likely in entry.top_logprobs})
            told.text_offset.append(self._offset)
            self._offset += len(bytes(entry.bytes or ()).decode("utf-8", "ignore"))
        return told


class CompletionShape:
    def __init__(self, front: Front, live: Live, include_usage: bool) -> None:
        """live: of the first choice."""
        self.front = front
        self._id, self._model, self._created = f"cmpl-{live.facts.id}", live.facts.model, created_s(live)
        self._include_usage = include_usage

    def reading(self, live: Live, index: int) -> CompletionReading:
        return CompletionReading(self, live, index)

    def opening(self) -> bytes:
        return b""

    def event(self, choice: CompletionChoice, extras: render.Extras | None = None) -> bytes:
        usage: UnsetType | None = None if self._include_usage else UNSET
        return render.event(self._completion([choice], usage, extras))

    def closing(self, error: HeadraceError | None, usage: Usage | None) -> list[bytes]:
        events = [] if error is None else [render.event(render.error_body(error))]
        if self._include_usage and usage is not None:
            events.append(render.event(self._completion([], render.usage_body(usage), None)))
        return [*events, render.DONE]

    def body(self, choices: list[Any], usage: Usage, extras: render.Extras | None) -> bytes:
        return msgspec.json.encode(self._completion(choices, render.usage_body(usage), extras))

    def _completion(
        self, choices: list[CompletionChoice], usage: bodies.Usage | UnsetType | None, extras: render.Extras | None
    ) -> Completion:
        headrace = render.headrace_body(extras)
        return Completion(self._id, "text_completion", self._created, self._model, choices, usage, headrace)
