"""The Open Inference Protocol over HTTP: /v2/..., JSON with Triton's binary tensors, and the two generate calls.

Errors have this protocol's form, {"error": "..."}; their statuses are those of the other APIs.
"""

import binascii
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import wraps
from importlib import metadata
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from headrace.core.errors import HeadraceError, InvalidInput
from services.gateway import render
from services.gateway.chat_route import caller_of
from services.gateway.http_reply import SSE_HEADERS, Disconnects, read_body
from services.gateway.live import Listener
from services.gateway.oip import EXTENSIONS, TEXT_IN, TEXT_OUT, VERSION, Inference, Piece
from services.gateway.oip_tensors import Answer, Output, Question, TensorFacts, Value, checked, unpacked

HEADER_LENGTH = b"inference-header-content-length"  # Triton's: the JSON's bytes, binary tensors follow
DIGITS_MAX = 12  # of that length: Python refuses to read numbers of thousands of digits
_encode = msgspec.json.Encoder().encode
Page = Callable[[Request], Awaitable[Response]]


class Param(msgspec.Struct):
    """Only what is looked at; a tensor's other parameters are its client's own."""

    binary_data_size: int | None = None
    binary_data: bool | None = None
    content_type: str | None = None


class InputBody(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: Param = msgspec.field(default_factory=Param)


class OutputBody(msgspec.Struct):
    name: str
    parameters: Param = msgspec.field(default_factory=Param)


class InferBody(msgspec.Struct):
    inputs: list[InputBody]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[OutputBody] = []


class GenerateBody(msgspec.Struct):
    text_input: str
    id: str = ""
    parameters: dict[str, Any] = {}
    stream: bool | None = None


_infer = msgspec.json.Decoder(InferBody).decode
_generate = msgspec.json.Decoder(GenerateBody).decode


def _answering(
    page: Callable[["OipPages", Request], Awaitable[Response]],
) -> Callable[["OipPages", Request], Awaitable[Response]]:
    @wraps(page)
    async def answered(self: "OipPages", request: Request) -> Response:
        try:
            return await page(self, request)
        except HeadraceError as error:
            self.inference.front.gateway.metrics.refused[error.code] += 1
            headers = {name.decode(): value.decode() for name, value in render.error_headers(error)}
            return Response(_encode({"error": error.message}), render.http_status(error), headers)

    return answered


class OipPages:
    def __init__(self, inference: Inference, disconnects: Disconnects) -> None:
        self.inference = inference
        self._disconnects = disconnects

    def routes(self) -> list[Route]:
        model = "/v2/models/{model}"
        versioned = model + "/versions/{version}"
        both = [
            route
            for path in (model, versioned)
            for route in (
                Route(path, self.metadata, methods=["GET"]),
                Route(path + "/ready", self.model_ready, methods=["GET"]),
                Route(path + "/infer", self.infer, methods=["POST"]),
                Route(path + "/generate", self.generate, methods=["POST"]),
                Route(path + "/generate_stream", self.generate_stream, methods=["POST"]),
            )
        ]
        return [
            Route("/v2", self.server, methods=["GET"]),
            Route("/v2/health/live", self.live, methods=["GET"]),
            Route("/v2/health/ready", self.ready, methods=["GET"]),
            *both,
        ]

    async def server(self, request: Request) -> Response:
        version = metadata.version("headrace")
        return _json({"name": "headrace", "version": version, "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self.inference.server_ready()
        return _json({"live": True, "ready": ready}, 200 if ready else 503)

    @_answering
    async def model_ready(self, request: Request) -> Response:
        caller_of(self.inference.front, dict(request.headers.raw))
        model, version = _model(request)
        ready = self.inference.model_ready(model, version)
        return _json({"name": model, "ready": ready}, 200 if ready else 503)

    @_answering
    async def metadata(self, request: Request) -> Response:
        caller_of(self.inference.front, dict(request.headers.raw))
        model, version = _model(request)
        platform, inputs, outputs = self.inference.metadata(model, version)
        told = {"inputs": _facts(inputs), "outputs": _facts(outputs)}
        return _json({"name": model, "versions": [VERSION], "platform": platform, **told})

    @_answering
    async def infer(self, request: Request) -> Response:
        headers = dict(request.headers.raw)
        caller = caller_of(self.inference.front, headers)
        body, binary = _parted(await read_body(request.receive, headers), headers)
        asked = _decoded(_infer, body)
        model, version = _model(request)
        question = _question(asked, model, version, binary)
        answer = await self.inference.infer(question, caller, self._watch(request))
        return _reply(asked, model, answer)

    @_answering
    async def generate(self, request: Request) -> Response:
        headers = dict(request.headers.raw)
        caller = caller_of(self.inference.front, headers)
        asked = _decoded(_generate, await read_body(request.receive, headers))
        model, version = _model(request)
        question = _generating(asked, model, version)
        self.inference.check_answers(question)
        answer = await self.inference.infer(question, caller, self._watch(request))
        (output,) = answer.outputs
        assert isinstance(output.data, tuple)
        return _json(_generated(asked, model, output.data[0].decode()) | dict(answer.parameters))

    @_answering
    async def generate_stream(self, request: Request) -> Response:
        """Its status waits for the first piece, so that early errors have one of their own."""
        headers = dict(request.headers.raw)
        caller = caller_of(self.inference.front, headers)
        asked = _decoded(_generate, await read_body(request.receive, headers))
        model, version = _model(request)
        pieces = self.inference.stream(_generating(asked, model, version), caller, self._watch(request))
        first = await anext(pieces, None)
        if first is None:
            raise InvalidInput("the client has left")

        async def events() -> Any:
            async with aclosing(pieces):
                try:
                    yield _event(asked, model, first)
                    async for piece in pieces:
                        yield _event(asked, model, piece)
                except HeadraceError as error:
                    yield render.event({"error": error.message})

        plain = {name.decode(): value.decode() for name, value in SSE_HEADERS}
        return StreamingResponse(events(), headers=plain)

    def _watch(self, request: Request) -> Callable[[Listener], None]:
        return lambda listener: self._disconnects.watch(listener, request.receive)


def _model(request: Request) -> tuple[str, str]:
    return request.path_params["model"], request.path_params.get("version", "")


def _decoded(decode: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not a request: {error}", field="body") from error


def _parted(body: bytes, headers: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """The JSON, and the binary tensors behind it."""
    length = headers.get(HEADER_LENGTH, b"")
    if not length:
        return body, b""
    if not length.isdigit() or len(length) > DIGITS_MAX or int(length) > len(body):
        raise InvalidInput("the JSON is longer than the body", field=HEADER_LENGTH.decode())
    return body[: int(length)], body[int(length) :]


def _question(asked: InferBody, model: str, version: str, binary: bytes) -> Question:
    inputs, at = {}, 0
    for one in asked.inputs:
        size = one.parameters.binary_data_size
        if size is not None:
            if not 0 <= size <= len(binary) - at:
                raise InvalidInput(f"{one.name}: more binary data than there is", field=one.name)
            elements = unpacked(one.name, binary[at : at + size])
            at += size
        else:
            elements = [_element(one, element) for element in one.data or ()]
        inputs[one.name] = checked(one.name, one.datatype, one.shape, elements)
    outputs = frozenset(one.name for one in asked.outputs)
    return Question(model, version, asked.id, _values(asked.parameters), inputs, outputs)


def _element(one: InputBody, element: Any) -> bytes:
    """A string; of a tensor whose content_type is base64, bytes in that."""
    if not isinstance(element, str):
        raise InvalidInput(f"{one.name}: an element of BYTES is a string", field=one.name)
    if one.parameters.content_type != "base64":
        return element.encode()
    try:
        return binascii.a2b_base64(element, strict_mode=True)
    except ValueError as error:
        raise InvalidInput(f"{one.name}: broken base64: {error}", field=one.name) from error


def _values(parameters: dict[str, Any]) -> dict[str, Value]:
    """A list, which only JSON has, as gRPC's parameters write it."""
    found: dict[str, Value] = {}
    for name, value in parameters.items():
        if value is None:
            continue
        found[name] = value if isinstance(value, str | int | float | bool) else json.dumps(value)
    return found


def _generating(asked: GenerateBody, model: str, version: str) -> Question:
    inputs = {TEXT_IN: (asked.text_input.encode(),)}
    return Question(model, version, asked.id, _values(asked.parameters), inputs, frozenset())


def _generated(asked: GenerateBody, model: str, text: str) -> dict[str, Any]:
    named = {"id": asked.id} if asked.id else {}
    return {**named, "model_name": model, "model_version": VERSION, TEXT_OUT: text}


def _event(asked: GenerateBody, model: str, piece: Piece) -> bytes:
    last = piece.parameters is not None
    return render.event(_generated(asked, model, piece.text) | {"done": last} | dict(piece.parameters or {}))


def _facts(tensors: Sequence[TensorFacts]) -> list[dict[str, Any]]:
    return [{"name": one.name, "datatype": one.datatype, "shape": one.shape} for one in tensors]


def _reply(asked: InferBody, model: str, answer: Answer) -> Response:
    """Binary where an output asks for it, or all of them do."""
    every = asked.parameters.get("binary_data_output") is True
    wanted = {one.name: one.parameters.binary_data for one in asked.outputs}
    outputs, binary = [], []
    for output in answer.outputs:
        said = wanted.get(output.name)
        if every if said is None else said:
            binary.append(output.raw())
            outputs.append(_output(output) | {"parameters": {"binary_data_size": len(binary[-1])}})
        else:
            outputs.append(_output(output) | {"data": _data(output)})
    told = {"parameters": dict(answer.parameters)} if answer.parameters else {}
    body = {"id": asked.id, "model_name": model, "model_version": VERSION, **told, "outputs": outputs}
    if not binary:
        return _json(body)
    head = _encode(body)
    headers = {HEADER_LENGTH.decode(): str(len(head))}
    return Response(b"".join([head, *binary]), headers=headers, media_type="application/octet-stream")


def _output(output: Output) -> dict[str, Any]:
    return {"name": output.name, "datatype": output.datatype, "shape": output.shape}


def _data(output: Output) -> list[Any]:
    if isinstance(output.data, tuple):
        return [one.decode("utf-8", "replace") for one in output.data]
    found: list[Any] = output.data.ravel().tolist()
    return found


def _json(body: object, status: int = 200) -> Response:
    return Response(_encode(body), status, media_type="application/json")
