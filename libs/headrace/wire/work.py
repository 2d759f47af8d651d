"""Proto <-> core commands, events and heartbeats: what queue manager and workers say to each other."""

from collections.abc import Iterator

from headrace.core.commands import (
    EncodeCommand,
    Hold,
    HoldState,
    JoinCommand,
    MoveCommand,
    OfferCommand,
    PartsCommand,
    PrefillCommand,
    ResendCommand,
    WorkBatch,
)
from headrace.core.events import (
    Attach,
    Cancel,
    Ended,
    Event,
    Evicted,
    Heartbeat,
    Joined,
    PartEncoded,
    Prefilled,
    StageFailed,
    Stalled,
)
from headrace.core.instance import Done, Encoded, Loadable, Pace
from headrace.core.types import StageSpan
from headrace.v1 import queue_pb2
from headrace.wire import convert
from headrace.wire.convert import (
    end_from_proto,
    failure_from_proto,
    handle_from_proto,
    handle_to_proto,
    key_from_proto,
    key_to_proto,
    media_from_proto,
    media_span_to_proto,
    media_to_proto,
    sampling_from_proto,
    sampling_to_proto,
    stage_span_from_proto,
    stage_span_to_proto,
)

_HOLD_TO_PROTO: dict[HoldState, queue_pb2.HoldState] = {
    "encoding": queue_pb2.HOLD_STATE_ENCODING,
    "encoded": queue_pb2.HOLD_STATE_ENCODED,
    "prefill": queue_pb2.HOLD_STATE_PREFILL,
    "handover": queue_pb2.HOLD_STATE_HANDOVER,
    "decode": queue_pb2.HOLD_STATE_DECODE,
    "evicted": queue_pb2.HOLD_STATE_EVICTED,
    "ended": queue_pb2.HOLD_STATE_ENDED,
}
_HOLD_FROM_PROTO: dict[int, HoldState] = {int(value): name for name, value in _HOLD_TO_PROTO.items()}


def encode_to_proto(command: EncodeCommand) -> queue_pb2.EncodeCommand:
    return queue_pb2.EncodeCommand(
        key=key_to_proto(command.key),
        part=command.part,
        media=media_to_proto(command.media),
        model=command.model,
        traceparent=command.traceparent,
        cache_scope=command.cache_scope,
        due_s=command.due_s,
    )


def encode_from_proto(message: queue_pb2.EncodeCommand) -> EncodeCommand:
    return EncodeCommand(
        key_from_proto(message.key),
        message.part,
        media_from_proto(message.media),
        message.model,
        message.traceparent,
        message.cache_scope,
        message.due_s,
    )


def prefill_to_proto(command: PrefillCommand) -> queue_pb2.PrefillCommand:
    prompt = command.prompt
    return queue_pb2.PrefillCommand(
        key=key_to_proto(command.key),
        model=command.model,
        prompt=prompt.tokens,
        spans=[media_span_to_proto(span) for span in prompt.spans],
        embeddings=[handle_to_proto(handle) for handle in command.embeddings],
        prefix=prompt.prefix,
        sampling=sampling_to_proto(command.sampling),
        emitted=command.emitted,
        gateway=command.gateway,
        decode_worker=command.decode_worker,
        traceparent=command.traceparent,
        deadline_s=command.deadline_s,
        timeline=[stage_span_to_proto(span) for span in command.timeline],
        cached_tokens=command.cached_tokens,
        emitted_logprobs=convert.logprobs_to_proto(command.emitted_logprobs),
    )


def prefill_from_proto(message: queue_pb2.PrefillCommand) -> PrefillCommand:
    return PrefillCommand(
        key=key_from_proto(message.key),
        model=message.model,
        prompt=convert.prompt_from_proto(message.prompt, message.spans, message.prefix),
        sampling=sampling_from_proto(message.sampling),
        gateway=message.gateway,
        decode_worker=message.decode_worker,
        deadline_s=message.deadline_s,
        embeddings=tuple(map(handle_from_proto, message.embeddings)),
        emitted=tuple(message.emitted),
        traceparent=message.traceparent,
        timeline=tuple(map(stage_span_from_proto, message.timeline)),
        cached_tokens=message.cached_tokens,
        emitted_logprobs=convert.logprobs_from_proto(message.emitted_logprobs),
    )


def parts_to_proto(command: PartsCommand) -> queue_pb2.PartsCommand:
    return queue_pb2.PartsCommand(
        key=key_to_proto(command.key),
        first=command.first,
        embeddings=[handle_to_proto(handle) for handle in command.embeddings],
        timeline=[stage_span_to_proto(span) for span in command.timeline],
    )


def parts_from_proto(message: queue_pb2.PartsCommand) -> PartsCommand:
    return PartsCommand(
        key_from_proto(message.key),
        message.first,
        tuple(map(handle_from_proto, message.embeddings)),
        tuple(map(stage_span_from_proto, message.timeline)),
    )


def join_to_proto(command: JoinCommand) -> queue_pb2.JoinCommand:
    return queue_pb2.JoinCommand(request=prefill_to_proto(command.request), kv=handle_to_proto(command.kv))


def join_from_proto(message: queue_pb2.JoinCommand) -> JoinCommand:
    return JoinCommand(prefill_from_proto(message.request), handle_from_proto(message.kv))


def offer_to_proto(command: OfferCommand) -> queue_pb2.OfferCommand:
    return queue_pb2.OfferCommand(
        key=key_to_proto(command.key), kv=handle_to_proto(command.kv) if command.kv is not None else None
    )


def offer_from_proto(message: queue_pb2.OfferCommand) -> OfferCommand:
    kv = handle_from_proto(message.kv) if message.HasField("kv") else None
    return OfferCommand(key_from_proto(message.key), kv)


def resend_to_proto(command: ResendCommand) -> queue_pb2.ResendCommand:
    return queue_pb2.ResendCommand(
        key=key_to_proto(command.key), from_index=command.from_index, gateway=command.gateway
    )


def resend_from_proto(message: queue_pb2.ResendCommand) -> ResendCommand:
    return ResendCommand(key_from_proto(message.key), message.from_index, message.gateway)


def move_to_proto(command: MoveCommand) -> queue_pb2.MoveCommand:
    return queue_pb2.MoveCommand(key=key_to_proto(command.key), worker=command.worker)


def move_from_proto(message: queue_pb2.MoveCommand) -> MoveCommand:
    return MoveCommand(key_from_proto(message.key), message.worker)


def work_batch_to_proto(batch: WorkBatch) -> queue_pb2.WorkBatch:
    return queue_pb2.WorkBatch(
        epoch=batch.epoch,
        encode=[encode_to_proto(command) for command in batch.encode],
        prefill=[prefill_to_proto(command) for command in batch.prefill],
        join=[join_to_proto(command) for command in batch.join],
        cancel=[key_to_proto(key) for key in batch.cancel],
        release=[key_to_proto(key) for key in batch.release],
        resend=[resend_to_proto(command) for command in batch.resend],
        offer=[offer_to_proto(command) for command in batch.offer],
        evict=[key_to_proto(key) for key in batch.evict],
        resume=[key_to_proto(key) for key in batch.resume],
        move=[move_to_proto(command) for command in batch.move],
        parts=[parts_to_proto(command) for command in batch.parts],
        load=batch.load,
        dismiss=batch.dismiss,
    )


def work_batch_from_proto(message: queue_pb2.WorkBatch) -> WorkBatch:
    return WorkBatch(
        epoch=message.epoch,
        encode=tuple(map(encode_from_proto, message.encode)),
        prefill=tuple(map(prefill_from_proto, message.prefill)),
        join=tuple(map(join_from_proto, message.join)),
        cancel=tuple(map(key_from_proto, message.cancel)),
        release=tuple(map(key_from_proto, message.release)),
        resend=tuple(map(resend_from_proto, message.resend)),
        offer=tuple(map(offer_from_proto, message.offer)),
        evict=tuple(map(key_from_proto, message.evict)),
        resume=tuple(map(key_from_proto, message.resume)),
        move=tuple(map(move_from_proto, message.move)),
        parts=tuple(map(parts_from_proto, message.parts)),
        load=message.load,
        dismiss=message.dismiss,
    )


def events_from_proto(batch: queue_pb2.EventBatch) -> Iterator[Event]:
    """In the order of a request's life, so that a batch that holds several of one request reads right."""
    worker = batch.worker
    for part in batch.encoded:
        handle = handle_from_proto(part.embedding)
        yield PartEncoded(worker, key_from_proto(part.key), part.part, handle, _timeline(part))
    for prefilled in batch.prefilled:
        kv = handle_from_proto(prefilled.kv) if prefilled.HasField("kv") else None
        yield Prefilled(worker, key_from_proto(prefilled.key), prefilled.next_index, kv, _timeline(prefilled))
    for joined in batch.joined:
        yield Joined(worker, key_from_proto(joined.key))
    for out in batch.evicted:
        yield Evicted(worker, key_from_proto(out.key), out.next_index, handle_from_proto(out.kv), _timeline(out))
    for ended in batch.ended:
        logprobs = convert.logprobs_from_proto(ended.logprobs)
        yield Ended(worker, key_from_proto(ended.key), end_from_proto(ended.end), tuple(ended.tokens), logprobs)
    for failed in batch.failed:
        failure = failure_from_proto(failed.failure)
        yield StageFailed(worker, key_from_proto(failed.key), failure, failed.retryable, _timeline(failed))


def _timeline(
    event: queue_pb2.PartEncoded | queue_pb2.Prefilled | queue_pb2.Evicted | queue_pb2.StageFailed,
) -> tuple[StageSpan, ...]:
    return tuple(map(stage_span_from_proto, event.timeline))


def hold_to_proto(hold: Hold) -> queue_pb2.Hold:
    return queue_pb2.Hold(
        key=key_to_proto(hold.key),
        state=_HOLD_TO_PROTO[hold.state],
        next_index=hold.next_index,
        part=hold.part,
        handle=handle_to_proto(hold.handle) if hold.handle is not None else None,
        decode_worker=hold.decode_worker,
        lacks=hold.lacks,
    )


def hold_from_proto(message: queue_pb2.Hold) -> Hold:
    return Hold(
        key_from_proto(message.key),
        _HOLD_FROM_PROTO[message.state],
        message.next_index,
        message.part,
        handle_from_proto(message.handle) if message.HasField("handle") else None,
        message.decode_worker,
        message.lacks,
    )


def pace_to_proto(pace: Pace) -> queue_pb2.Pace:
    return queue_pb2.Pace(step_s=pace.step_s, sequence_s=pace.sequence_s, prefill_token_s=pace.prefill_token_s)


def pace_from_proto(message: queue_pb2.Pace) -> Pace:
    return Pace(message.step_s, message.sequence_s, message.prefill_token_s)


def done_to_proto(done: Done) -> queue_pb2.Done:
    return queue_pb2.Done(
        busy_s=done.busy_s,
        iterations=done.iterations,
        prefill_tokens=done.prefill_tokens,
        decode_tokens=done.decode_tokens,
    )


def done_from_proto(message: queue_pb2.Done) -> Done:
    return Done(message.busy_s, message.iterations, message.prefill_tokens, message.decode_tokens)


def loadable_to_proto(loadable: Loadable) -> queue_pb2.Loadable:
    return queue_pb2.Loadable(
        model=loadable.model,
        load_s=loadable.load_s,
        warm=loadable.warm,
        slots=loadable.slots,
        blocks=loadable.blocks,
        block_tokens=loadable.block_tokens,
        pace=pace_to_proto(loadable.pace),
    )


def loadable_from_proto(message: queue_pb2.Loadable) -> Loadable:
    return Loadable(
        model=message.model,
        load_s=message.load_s,
        warm=message.warm,
        slots=message.slots,
        blocks=message.blocks,
        block_tokens=max(1, message.block_tokens),
        pace=pace_from_proto(message.pace),
    )


def heartbeat_to_proto(heartbeat: Heartbeat) -> queue_pb2.Heartbeat:
    return queue_pb2.Heartbeat(
        worker=heartbeat.worker,
        incarnation=heartbeat.incarnation,
        stages=heartbeat.stages,
        model=heartbeat.model,
        host=heartbeat.host,
        grpc_address=heartbeat.grpc_address,
        slots=heartbeat.slots,
        blocks=heartbeat.blocks,
        block_tokens=heartbeat.block_tokens,
        draining=heartbeat.draining,
        leaving=heartbeat.leaving,
        epoch=heartbeat.epoch,
        holds=[hold_to_proto(hold) for hold in heartbeat.holds],
        sent_s=heartbeat.sent_s,
        modalities=heartbeat.modalities,
        pace=pace_to_proto(heartbeat.pace),
        done=done_to_proto(heartbeat.done),
        encoded=queue_pb2.Encoded(busy_s=heartbeat.encoded.busy_s, tokens=heartbeat.encoded.tokens),
        kv_bytes_per_token=heartbeat.kv_bytes_per_token,
        host_bytes=heartbeat.host_bytes,
        loadable=map(loadable_to_proto, heartbeat.loadable),
        loading=heartbeat.loading,
        load_error=heartbeat.load_error,
        overlaps=heartbeat.overlaps,
    )


def heartbeat_from_proto(message: queue_pb2.Heartbeat) -> Heartbeat:
    """Holds in a state that this version does not know are left out: they are not ours to judge."""
    holds = tuple([hold_from_proto(hold) for hold in message.holds if hold.state in _HOLD_FROM_PROTO])
    return Heartbeat(
        worker=message.worker,
        incarnation=message.incarnation,
        stages=tuple(message.stages),
        model=message.model,
        host=message.host,
        grpc_address=message.grpc_address,
        slots=message.slots,
        blocks=message.blocks,
        block_tokens=max(1, message.block_tokens),
        draining=message.draining,
        leaving=message.leaving,
        epoch=message.epoch,
        holds=holds,
        sent_s=message.sent_s,
        modalities=tuple(message.modalities),
        pace=pace_from_proto(message.pace),
        done=done_from_proto(message.done),
        encoded=Encoded(message.encoded.busy_s, message.encoded.tokens),
        kv_bytes_per_token=message.kv_bytes_per_token,
        host_bytes=message.host_bytes,
        loadable=tuple(map(loadable_from_proto, message.loadable)),
        loading=message.loading,
        load_error=message.load_error,
        overlaps=message.overlaps,
    )


def control_from_proto(batch: queue_pb2.ControlBatch) -> Iterator[Event]:
    for attach in batch.attach:
        yield Attach(attach.request_id, attach.gateway or batch.gateway, attach.next_index)
    for cancel in batch.cancel:
        yield Cancel(cancel.request_id, cancel.gateway, cancel.deadline)
    for stalled in batch.stalled:
        yield Stalled(stalled.request_id, batch.gateway, stalled.attempt, stalled.next_index)
