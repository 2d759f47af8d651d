"""inference.GRPCInferenceService: the Open Inference Protocol over gRPC, with Triton's ModelStreamInfer."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from importlib import metadata
from typing import Any

from headrace.core.errors import HeadraceError, InvalidInput
from headrace.oip import open_inference_pb2 as pb
from headrace.oip import open_inference_pb2_grpc
from services.gateway.ask import Caller
from services.gateway.chat_route import caller_of
from services.gateway.oip import EXTENSIONS, TEXT_OUT, VERSION, Inference
from services.gateway.oip_tensors import Answer, Output, Parameters, Question, Value, checked, unpacked
from services.gateway.rpc import Context, abort

SERVICE = "inference.GRPCInferenceService"


class OipServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._inference.server_ready())

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="headrace", version=metadata.version("headrace"), extensions=EXTENSIONS)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        try:
            self._caller(context)
            return pb.ModelReadyResponse(ready=self._inference.model_ready(request.name, request.version))
        except HeadraceError as error:
            await abort(context, error)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        try:
            self._caller(context)
            platform, inputs, outputs = self._inference.metadata(request.name, request.version)
        except HeadraceError as error:
            await abort(context, error)
        facts = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=[VERSION],
            platform=platform,
            inputs=[facts(name=one.name, datatype=one.datatype, shape=one.shape) for one in inputs],
            outputs=[facts(name=one.name, datatype=one.datatype, shape=one.shape) for one in outputs],
        )

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        try:
            caller = self._caller(context)
            return _response(request, await self._inference.infer(_question(request), caller))
        except HeadraceError as error:
            self._inference.front.gateway.metrics.refused[error.code] += 1
            await abort(context, error)

    async def ModelStreamInfer(self, requests: AsyncIterator[pb.ModelInferRequest], context: Context) -> None:
        """One request after the other; an error is told in its place, and the next request is answered."""
        try:
            caller = self._caller(context)
        except HeadraceError as error:
            await abort(context, error)
        async for request in requests:
            try:
                await self._stream(request, caller, context)
            except HeadraceError as error:
                self._inference.front.gateway.metrics.refused[error.code] += 1
                failed = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
                await context.write(pb.ModelStreamInferResponse(error_message=error.message, infer_response=failed))

    async def _stream(self, request: pb.ModelInferRequest, caller: Caller, context: Context) -> None:
        async with aclosing(self._inference.stream(_question(request), caller)) as pieces:
            async for piece in pieces:
                last = piece.parameters is not None
                told: dict[str, Value] = {**(piece.parameters or {}), "triton_final_response": last}
                output = Output(TEXT_OUT, (1,), (piece.text.encode(),))
                response = _response(request, Answer((output,), told))
                await context.write(pb.ModelStreamInferResponse(infer_response=response))

    def _caller(self, context: Context) -> Caller:
        """Raises Unauthenticated."""
        said = dict(context.invocation_metadata() or ())
        headers = {name.encode(): value.encode() for name, value in said.items() if isinstance(value, str)}
        return caller_of(self._inference.front, headers)


def _question(request: pb.ModelInferRequest) -> Question:
    """Raises InvalidInput: naming the tensor."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(f"{len(raw)} raw contents of {len(request.inputs)} inputs", field="raw_input_contents")
    inputs = {}
    for i, one in enumerate(request.inputs):
        elements = unpacked(one.name, raw[i]) if raw and one.datatype == "BYTES" else one.contents.bytes_contents
        inputs[one.name] = checked(one.name, one.datatype, one.shape, elements)
    return Question(
        model=request.model_name,
        version=request.model_version,
        id=request.id,
        parameters=_values(request.parameters),
        inputs=inputs,
        outputs=frozenset(one.name for one in request.outputs),
    )


def _values(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is not None:
            found[name] = getattr(parameter, kind)
    return found


def _response(request: pb.ModelInferRequest, answer: Answer) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=VERSION, id=request.id)
    _tell(response.parameters, answer.parameters)
    for output in answer.outputs:
        response.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        response.raw_output_contents.append(output.raw())
    return response


def _tell(parameters: Any, told: Parameters) -> None:
    for name, value in told.items():
        if isinstance(value, bool):
            parameters[name].bool_param = value
        elif isinstance(value, int):
            parameters[name].int64_param = value
        elif isinstance(value, float):
            parameters[name].double_param = value
        else:
            parameters[name].string_param = value
