"""Proto <-> core nouns of a request: the only place where the two meet, with wire.work for the work subjects.

Names are <noun>_to_proto and <noun>_from_proto. Lists of numbers are copied whole, never appended one by one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.core.types import (
    End,
    Failure,
    FinishReason,
    Key,
    Logprobs,
    Media,
    MediaMeta,
    MediaSpan,
    Prompt,
    Request,
    Sampling,
    StageSpan,
    TensorHandle,
    TokenLogprobs,
    Usage,
)
from headrace.engines.grammar import calls_tools
from headrace.v1 import common_pb2, queue_pb2

_REASON_TO_PROTO: dict[FinishReason, common_pb2.FinishReason] = {
    "stop": common_pb2.FINISH_REASON_STOP,
    "length": common_pb2.FINISH_REASON_LENGTH,
    "cancelled": common_pb2.FINISH_REASON_CANCELLED,
    "deadline": common_pb2.FINISH_REASON_DEADLINE,
    "error": common_pb2.FINISH_REASON_ERROR,
}
# An unspecified reason comes from a peer that speaks a newer protocol: to the user it is an error.
_REASON_FROM_PROTO: dict[int, FinishReason] = {int(value): name for name, value in _REASON_TO_PROTO.items()}


def key_to_proto(key: Key) -> common_pb2.Attempt:
    return common_pb2.Attempt(request_id=key.request_id, attempt=key.attempt)


def key_from_proto(message: common_pb2.Attempt) -> Key:
    return Key(message.request_id, message.attempt)


def sampling_to_proto(sampling: Sampling) -> common_pb2.Sampling:
    return common_pb2.Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        repetition_penalty=sampling.repetition_penalty,
        max_tokens=sampling.max_tokens,
        stop=sampling.stop,
        ignore_eos=sampling.ignore_eos,
        logprobs=sampling.logprobs,
        grammar=sampling.grammar,
    )


def sampling_from_proto(message: common_pb2.Sampling) -> Sampling:
    return Sampling(
        message.max_tokens,
        message.temperature,
        message.top_p or 1.0,
        message.top_k,
        message.seed,
        message.repetition_penalty or 1.0,
        tuple(message.stop),
        message.ignore_eos,
        message.logprobs if message.HasField("logprobs") else None,
        message.grammar,
    )


def media_to_proto(media: Media) -> common_pb2.Media:
    meta = media.meta
    return common_pb2.Media(
        modality=meta.modality,
        sha256=media.sha256,
        mime=meta.mime,
        width=meta.width,
        height=meta.height,
        tokens=media.tokens,
        size_bytes=meta.size_bytes,
        duration_s=meta.duration_s,
    )


def media_from_proto(message: common_pb2.Media) -> Media:
    meta = MediaMeta(
        message.modality, message.mime, message.width, message.height, message.size_bytes, message.duration_s
    )
    return Media(meta, message.sha256, message.tokens)


def media_span_to_proto(span: MediaSpan) -> common_pb2.MediaSpan:
    return common_pb2.MediaSpan(
        part=span.part,
        offset=span.offset,
        length=span.length,
        grid=span.grid,
        rows=span.rows,
        kv_tokens=span.kv_tokens,
        modality=span.modality,
    )


def media_span_from_proto(message: common_pb2.MediaSpan) -> MediaSpan:
    return MediaSpan(
        message.part,
        message.offset,
        message.length,
        tuple(message.grid),
        message.rows,
        message.modality,
        message.kv_tokens,
    )


def prompt_from_proto(tokens: Sequence[int], spans: Sequence[common_pb2.MediaSpan], prefix: str) -> Prompt:
    return Prompt(tuple(tokens), tuple(map(media_span_from_proto, spans)) if spans else (), prefix)


def failure_to_proto(failure: Failure) -> common_pb2.Failure:
    return common_pb2.Failure(
        code=failure.code, message=failure.message, field=failure.field, retry_after_s=failure.retry_after_s
    )


def failure_from_proto(message: common_pb2.Failure) -> Failure:
    return Failure(message.code, message.message, message.field, message.retry_after_s)


def usage_to_proto(usage: Usage) -> common_pb2.Usage:
    return common_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        image_tokens=usage.image_tokens,
        cached_tokens=usage.cached_tokens,
        joules=usage.joules,
        audio_tokens=usage.audio_tokens,
        video_tokens=usage.video_tokens,
    )


def usage_from_proto(message: common_pb2.Usage) -> Usage:
    return Usage(
        message.prompt_tokens,
        message.completion_tokens,
        message.image_tokens,
        message.cached_tokens,
        message.joules,
        message.audio_tokens,
        message.video_tokens,
    )


def logprobs_to_proto(logprobs: Iterable[tuple[int, TokenLogprobs]]) -> list[common_pb2.TokenLogprobs]:
    """Rows are the numbers that come with them: output indexes, or rows of a batch."""
    return [_token_logprobs_to_proto(row, told) for row, told in logprobs]


def _token_logprobs_to_proto(row: int, told: TokenLogprobs) -> common_pb2.TokenLogprobs:
    tokens, values = zip(*told.top, strict=True) if told.top else ((), ())
    return common_pb2.TokenLogprobs(row=row, logprob=told.logprob, top=tokens, top_logprob=values)


def logprobs_from_proto(messages: Iterable[common_pb2.TokenLogprobs]) -> Logprobs:
    return tuple(
        [
            (told.row, TokenLogprobs(told.logprob, tuple(zip(told.top, told.top_logprob, strict=False))))
            for told in messages
        ]
    )


def stage_span_to_proto(span: StageSpan) -> common_pb2.StageSpan:
    return common_pb2.StageSpan(
        stage=span.stage,
        start_s=span.start_s,
        end_s=span.end_s,
        worker=span.worker,
        part=span.part,
        cached=span.cached,
        joules=span.joules,
    )


def stage_span_from_proto(message: common_pb2.StageSpan) -> StageSpan:
    return StageSpan(
        message.stage, message.start_s, message.end_s, message.worker, message.part, message.cached, message.joules
    )


def end_to_proto(end: End) -> common_pb2.End:
    return common_pb2.End(
        reason=_REASON_TO_PROTO[end.reason],
        failure=failure_to_proto(end.failure) if end.failure is not None else None,
        usage=usage_to_proto(end.usage),
        timeline=[stage_span_to_proto(span) for span in end.timeline],
    )


def end_from_proto(message: common_pb2.End) -> End:
    return End(
        _REASON_FROM_PROTO.get(message.reason, "error"),
        failure_from_proto(message.failure) if message.HasField("failure") else None,
        usage_from_proto(message.usage),
        tuple([stage_span_from_proto(span) for span in message.timeline]),
    )


def handle_to_proto(handle: TensorHandle) -> common_pb2.TensorHandle:
    return common_pb2.TensorHandle(
        id=handle.id,
        owner=handle.owner,
        incarnation=handle.incarnation,
        path=handle.path,
        host=handle.host,
        grpc_address=handle.grpc_address,
        dtype=handle.dtype,
        shape=handle.shape,
        layout=handle.layout,
        size_bytes=handle.size_bytes,
        xxh3=handle.xxh3,
        length=handle.length,
        next_position=handle.next_position,
        cross_length=handle.cross_length,
        codec=handle.codec,
    )


def handle_from_proto(message: common_pb2.TensorHandle) -> TensorHandle:
    return TensorHandle(
        message.id,
        message.owner,
        message.incarnation,
        message.path,
        message.host,
        message.grpc_address,
        message.dtype,
        tuple(message.shape),
        message.layout,
        message.size_bytes,
        message.xxh3,
        message.length,
        message.next_position,
        message.cross_length,
        message.codec,
    )


def request_to_proto(request: Request) -> queue_pb2.RequestRecord:
    prompt = request.prompt
    return queue_pb2.RequestRecord(
        request_id=request.id,
        tenant=request.tenant,
        idempotency_key=request.idempotency_key,
        body_hash=request.body_hash,
        model=request.model,
        slo_class=request.slo_class,
        accepted_s=request.accepted_s,
        deadline_s=request.deadline_s,
        prompt=prompt.tokens,
        spans=[media_span_to_proto(span) for span in prompt.spans],
        media=[media_to_proto(media) for media in request.media],
        prefix=prompt.prefix,
        sampling=sampling_to_proto(request.sampling),
        gateway=request.gateway,
        traceparent=request.traceparent,
        keep_on_disconnect=request.keep_on_disconnect,
        question=request.question,
        ttft_s=request.ttft_s,
        tbt_s=request.tbt_s,
        priority=request.priority,
        flow=request.flow,
        choices=request.choices,
    )


def request_from_proto(record: queue_pb2.RequestRecord) -> Request:
    return Request(
        record.request_id,
        record.tenant,
        record.model,
        record.slo_class,
        record.accepted_s,
        record.deadline_s,
        prompt_from_proto(record.prompt, record.spans, record.prefix),
        tuple(map(media_from_proto, record.media)) if record.media else (),
        sampling_from_proto(record.sampling),
        record.gateway,
        record.body_hash,
        record.idempotency_key,
        record.traceparent,
        record.keep_on_disconnect,
        record.question,
        record.ttft_s,
        record.tbt_s,
        record.priority,
        record.flow,
        record.choices,
    )


@dataclass(frozen=True, slots=True)
class Result:
    """What is kept of an ended request: enough to attach, to answer a retry and to read a batch."""

    request_id: str
    tenant: str
    model: str
    attempt: int
    tokens: tuple[int, ...]
    end: End
    accepted_s: float
    ended_s: float
    idempotency_key: str = ""
    body_hash: bytes = b""
    stop: tuple[str, ...] = ()
    logprobs: Logprobs = ()
    calls: bool = False
    choices: int = 0


def result_to_proto(
    request: Request, attempt: int, tokens: Sequence[int], end: End, ended_s: float, logprobs: Logprobs = ()
) -> queue_pb2.ResultRecord:
    return queue_pb2.ResultRecord(
        request_id=request.id,
        tenant=request.tenant,
        idempotency_key=request.idempotency_key,
        body_hash=request.body_hash,
        model=request.model,
        attempt=attempt,
        tokens=tokens,
        end=end_to_proto(end),
        accepted_s=request.accepted_s,
        ended_s=ended_s,
        stop=request.sampling.stop,
        logprobs=logprobs_to_proto(logprobs),
        calls=calls_tools(request.sampling.grammar),
        choices=request.choices,
    )


def result_from_proto(record: queue_pb2.ResultRecord) -> Result:
    return Result(
        record.request_id,
        record.tenant,
        record.model,
        record.attempt,
        tuple(record.tokens),
        end_from_proto(record.end),
        record.accepted_s,
        record.ended_s,
        record.idempotency_key,
        record.body_hash,
        tuple(record.stop),
        logprobs_from_proto(record.logprobs),
        record.calls,
        record.choices,
    )
