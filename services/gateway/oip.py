"""What the Open Inference Protocol asks of Headrace, apart from how it is carried: models, metadata, inference.

A model that answers: text_input -> text_output, with pictures and sounds beside the text. One that embeds: `minilm` for
texts, `<model>.<modality>` for the towers of a model that answers.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, NamedTuple

from headrace.core.errors import InvalidInput, ModelNotFound, StageError
from headrace.core.types import Sampling
from headrace.engines.families import ChatMessage, Family, MediaPart, TextPart
from headrace.mesh import genai
from headrace.predictor import sentences
from services.gateway.ask import Ask, Caller, MediaSource
from services.gateway.embedding import Embedding, Input
from services.gateway.front import Front
from services.gateway.live import Listener
from services.gateway.oip_tensors import Answer, Output, Parameters, Question, TensorFacts, Value
from services.gateway.render import end_error

VERSION = "1"
EXTENSIONS = ("binary_tensor_data", "generate", "model_stream_infer")
TEXT_IN, TEXT_OUT, EMBEDDING = "text_input", "text_output", "embedding"
ANSWERS_MAX = 32  # of one request, each a request of the mesh
# What Triton's clients send along, and what changes nothing here.
_IGNORED = frozenset({"binary_data_output", "triton_enable_empty_final_response", "stream"})
_NUMBERS = ("max_tokens", "temperature", "top_p", "top_k", "seed", "repetition_penalty")
_KNOWN = {*_NUMBERS, "stop", "ignore_eos", "slo_class", "timeout_s", *_IGNORED}

Watch = Callable[[Listener], None]


class Piece(NamedTuple):
    """Of one answer as it comes; the last one has parameters."""

    text: str
    parameters: Parameters | None


def _nobody(_: Listener) -> None:
    return


class Inference:
    def __init__(self, front: Front, embedding: Embedding) -> None:
        self.front = front
        self._embedding = embedding

    # --- what there is ---

    def server_ready(self) -> bool:
        gateway = self.front.gateway
        return not self.front.admission.draining and gateway.bus.up and gateway.cell is not None

    def model_ready(self, model: str, version: str) -> bool:
        """Raises ModelNotFound."""
        kind = self._resolve(model, version)
        if kind is None:
            return self.front.servable(model)
        return kind[1] in self._modalities(kind[0])

    def _modalities(self, model: str) -> frozenset[str]:
        offer = self._embedding.embedders.offers().get(model)
        return offer.modalities if offer is not None else frozenset()

    def metadata(self, model: str, version: str) -> tuple[str, Sequence[TensorFacts], Sequence[TensorFacts]]:
        """Platform, inputs, outputs. Raises ModelNotFound, Unavailable."""
        kind = self._resolve(model, version)
        if kind is not None:
            name, modality = kind
            field = TEXT_IN if modality == "text" else modality
            width = self._embedding.embedders.offer(name).width
            return (
                "headrace_encoder",
                [TensorFacts(field, "BYTES", (-1,))],
                [TensorFacts(EMBEDDING, "FP32", (-1, width))],
            )
        spec = self.front.models.family(model).spec
        media = [TensorFacts(modality, "BYTES", (-1,)) for modality in spec.modalities]
        return "headrace", [TensorFacts(TEXT_IN, "BYTES", (-1,)), *media], [TensorFacts(TEXT_OUT, "BYTES", (-1,))]

    def _resolve(self, model: str, version: str) -> tuple[str, str] | None:
        """None: it answers; else whose encoder of which modality it is. Raises ModelNotFound."""
        if version not in ("", VERSION):
            raise ModelNotFound(f"{model[:128]!r} has no version {version[:32]!r}; there is {VERSION}", field="version")
        if model in self.front.models.known:
            return None
        if model == sentences.NAME:
            return model, "text"
        name, _, modality = model.rpartition(".")
        if name in self.front.models.known and modality in self.front.models.family(name).spec.modalities:
            return name, modality
        raise ModelNotFound(f"no model {model[:128]!r} here", field="model")

    # --- inference ---

    async def infer(self, question: Question, caller: Caller, watch: Watch = _nobody) -> Answer:
        """watch: is told of each answer that is listened to, so that its client's leaving is noticed.

        Raises:
            HeadraceError: naming the tensor or the parameter.
        """
        kind = self._resolve(question.model, question.version)
        if kind is not None:
            return _with(question, await self._embed(*kind, question, caller))
        family = self.front.models.family(question.model)
        asks = _asks(family, question)
        tasks = [asyncio.ensure_future(self._answer(ask, caller, watch)) for ask in asks]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        texts = tuple([text.encode() for text, _ in found])
        parameters = found[0][1] if len(found) == 1 else _together([told for _, told in found])
        return _with(question, Answer((Output(TEXT_OUT, (len(texts),), texts),), parameters))

    def check_answers(self, question: Question) -> None:
        """Raises ModelNotFound; InvalidInput: the model has vectors, no text."""
        if self._resolve(question.model, question.version) is not None:
            raise InvalidInput(f"{question.model} embeds, it does not generate: call infer", field="model")

    async def _answer(self, ask: Ask, caller: Caller, watch: Watch) -> tuple[str, Parameters]:
        parts: list[str] = []
        async with aclosing(self._pieces(ask, caller, watch, whole=True)) as pieces:
            async for piece in pieces:
                parts.append(piece.text)
                if piece.parameters is not None:
                    return "".join(parts), piece.parameters
        raise StageError("the answer has no end")

    async def stream(self, question: Question, caller: Caller, watch: Watch = _nobody) -> AsyncGenerator[Piece, None]:
        """One answer as it comes. Raises as infer(); also under way."""
        self.check_answers(question)
        asks = _asks(self.front.models.family(question.model), question)
        if len(asks) > 1:
            raise InvalidInput(f"{len(asks)} texts; one is streamed", field=TEXT_IN)
        async with aclosing(self._pieces(asks[0], caller, watch, whole=False)) as pieces:
            async for piece in pieces:
                yield piece

    async def _pieces(self, ask: Ask, caller: Caller, watch: Watch, *, whole: bool) -> AsyncGenerator[Piece, None]:
        """Leaving it cancels what nobody else reads."""
        front = self.front
        with front.tracer.request(caller, ask.model) as trace:
            live = await front.admission.admit(ask, caller, trace.traceparent, "parameters.")
            trace.follow(live)
            listener, text = front.gateway.listen(live, whole=whole), front.text_of(live)
            watch(listener)
            try:
                while not listener.left:  # it may have ended before anybody listened
                    await listener.news()
                    shown = "".join([text.feed(token) for token in listener.take()])
                    if live.end is not None:
                        yield _last(live.end, shown + text.finish())
                        return
                    if shown:
                        yield Piece(shown, None)
            finally:
                front.gateway.leave(listener)

    async def _embed(self, model: str, modality: str, question: Question, caller: Caller) -> Answer:
        self.front.admission.check_beside(caller)
        field = TEXT_IN if modality == "text" else modality
        _only(question, (field,))
        if unknown := question.parameters.keys() - _IGNORED:
            raise InvalidInput(f"{min(unknown)[:64]!r} is not known", field=f"parameters.{min(unknown)[:64]}")
        elements = question.inputs[field]
        inputs: list[Input] = [
            _text(one, field) if modality == "text" else MediaSource(modality, f"{field}[{i}]", data=one)
            for i, one in enumerate(elements)
        ]
        with self.front.tracer.request(caller, question.model, genai.OPERATION_EMBEDDINGS) as trace:
            found = await self._embedding.embed(model, inputs, caller, trace.traceparent)
            trace.input_tokens = found.tokens
        shape = (len(found.vectors), found.vectors.shape[1])
        return Answer((Output(EMBEDDING, shape, found.vectors),), {"prompt_tokens": found.tokens})


def _last(end: Any, text: str) -> Piece:
    """Raises the typed error of an end that is not an answer."""
    if (error := end_error(end)) is not None:
        raise error
    usage = end.usage
    told: dict[str, Value] = {
        "finish_reason": end.reason,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    return Piece(text, told)


def _together(told: Sequence[Parameters]) -> Parameters:
    """Of several answers: sums, and reasons in their order."""
    sums = {name: sum(int(one[name]) for one in told) for name in ("prompt_tokens", "completion_tokens")}
    return {"finish_reason": ",".join(str(one["finish_reason"]) for one in told), **sums}


def _with(question: Question, answer: Answer) -> Answer:
    """The outputs that were asked for. Raises InvalidInput: there is no such one."""
    if not question.outputs:
        return answer
    found = tuple([one for one in answer.outputs if one.name in question.outputs])
    if len(found) < len(question.outputs):
        missing = min(question.outputs - {one.name for one in found})
        raise InvalidInput(f"there is no output {missing[:64]!r}", field="outputs")
    return replace(answer, outputs=found)


def _only(question: Question, names: Sequence[str]) -> None:
    if unknown := question.inputs.keys() - set(names):
        raise InvalidInput(f"there is no input {min(unknown)[:64]!r}; there are {', '.join(names)}", field="inputs")
    if names[0] not in question.inputs:
        raise InvalidInput(f"the input {names[0]} is missing", field="inputs")


def _asks(family: Family, question: Question) -> list[Ask]:
    """One for each text; media belong to a text that is alone."""
    modalities = family.spec.modalities
    _only(question, (TEXT_IN, *modalities))
    texts = [_text(one, TEXT_IN) for one in question.inputs[TEXT_IN]]
    media = [
        MediaSource(modality, f"{modality}[{i}]", data=one)
        for modality in modalities
        for i, one in enumerate(question.inputs.get(modality, ()))
    ]
    if len(texts) > ANSWERS_MAX:
        raise InvalidInput(f"{len(texts)} texts; at most {ANSWERS_MAX}", field=TEXT_IN)
    if media and len(texts) > 1:
        raise InvalidInput("media with several texts: ask for each by itself", field=TEXT_IN)
    sampling, seeded = _sampling(question.parameters)
    parts = tuple(MediaPart(i) for i in range(len(media)))
    return [
        Ask(
            model=question.model,
            messages=(ChatMessage("user", (*parts, TextPart(text))),),
            media=tuple(media),
            sampling=sampling,
            seeded=seeded,
            slo_class=str(question.parameters.get("slo_class", "")),
            timeout_s=_number("timeout_s", question.parameters.get("timeout_s", 0.0)),
        )
        for text in texts
    ]


def _sampling(parameters: Parameters) -> tuple[Sampling, bool]:
    if unknown := parameters.keys() - _KNOWN:
        raise InvalidInput(f"{min(unknown)[:64]!r} is not known", field=f"parameters.{min(unknown)[:64]}")
    given = {name: _number(name, parameters[name]) for name in _NUMBERS if name in parameters}
    for name in ("max_tokens", "top_k", "seed"):
        if name in given and not given[name].is_integer():
            raise InvalidInput(f"{name} is not a whole number", field=f"parameters.{name}")
    sampling = Sampling(
        max_tokens=int(given.get("max_tokens", 0)),
        temperature=given.get("temperature", 0.0),
        top_p=given.get("top_p", 1.0),
        top_k=int(given.get("top_k", 0)),
        seed=int(given.get("seed", 0)),
        repetition_penalty=given.get("repetition_penalty", 1.0),
        stop=_stop(parameters.get("stop", "")),
        ignore_eos=parameters.get("ignore_eos") in (True, "true"),
    )
    return sampling, "seed" in given or sampling.temperature == 0.0


def _number(name: str, value: Value) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{str(value)[:32]!r} is not a number", field=f"parameters.{name}") from None


def _stop(value: Value) -> tuple[str, ...]:
    """A string, or several as a JSON list: parameters of this protocol are no lists."""
    text = str(value)
    if not text.startswith("["):
        return (text,) if text else ()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InvalidInput("stop is a string, or a JSON list of strings", field="parameters.stop")
    return tuple(found)


def _text(data: bytes, field: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{field} is not UTF-8", field=field) from error
