"""Everything that queue manager and workers say to each other, there and back."""

import pytest

from headrace.core.commands import Hold, MoveCommand, ResendCommand, WorkBatch
from headrace.core.events import Evicted, Heartbeat, Joined, Prefilled, StageFailed
from headrace.core.instance import Done, Encoded, Loadable, Pace
from headrace.core.types import Failure, Key, StageSpan, TensorHandle
from headrace.v1 import queue_pb2
from headrace.wire.convert import handle_to_proto, key_to_proto, stage_span_to_proto
from headrace.wire.work import (
    events_from_proto,
    heartbeat_from_proto,
    heartbeat_to_proto,
    work_batch_from_proto,
    work_batch_to_proto,
)

KEY, OTHER = Key("a" * 32, 4097), Key("b" * 32, 8193)
KV = TensorHandle(
    id="kv.1",
    owner="w-0",
    incarnation="1",
    path="/dev/shm/kv",
    host="here",
    grpc_address="127.0.0.1:1",
    dtype="float32",
    shape=(6, 2, 70, 16),
    layout="layers",
    size_bytes=53_760,
    xxh3=2**63 + 1,
    length=70,
    next_position=70,
)
PACE = Pace(0.02, 0.001, 0.0002)


@pytest.mark.parametrize(
    "batch",
    [
        WorkBatch(3),
        WorkBatch(3, cancel=(KEY,), release=(OTHER,), resend=(ResendCommand(KEY, 4, "gateway-1"),)),
        WorkBatch(3, evict=(KEY, OTHER)),
        WorkBatch(3, resume=(KEY,)),
        WorkBatch(3, move=(MoveCommand(KEY, "w-1"), MoveCommand(OTHER, "w-2"))),
        WorkBatch(3, evict=(KEY,), load="profile-tiny-b"),
        WorkBatch(3, dismiss=True),
    ],
    ids=["empty", "changes", "evict", "resume", "move", "load", "dismiss"],
)
def test_work_batches(batch: WorkBatch) -> None:
    data = work_batch_to_proto(batch).SerializeToString()
    assert work_batch_from_proto(queue_pb2.WorkBatch.FromString(data)) == batch


def test_heartbeats() -> None:
    heartbeat = Heartbeat(
        worker="w-0",
        incarnation="1",
        stages=("prefill", "decode"),
        model="a",
        host="here",
        grpc_address="127.0.0.1:1",
        slots=8,
        blocks=64,
        block_tokens=16,
        draining=False,
        leaving=False,
        epoch=3,
        holds=(Hold(KEY, "evicted", 12, handle=KV), Hold(OTHER, "decode", 3)),
        sent_s=1.5,
        pace=PACE,
        done=Done(1.25, 40, 700, 390),
        encoded=Encoded(2.5, 96),
        kv_bytes_per_token=768,
        host_bytes=1 << 30,
        loadable=(
            Loadable("b", 0.5, warm=True, slots=8, blocks=64, block_tokens=16, pace=PACE),
            Loadable("c", 12.0, slots=4, blocks=32, block_tokens=8),
        ),
        loading="b",
        load_error="c: no such file",
    )
    data = heartbeat_to_proto(heartbeat).SerializeToString()
    assert heartbeat_from_proto(queue_pb2.Heartbeat.FromString(data)) == heartbeat


def test_a_batch_of_events_reads_in_the_order_of_a_request() -> None:
    span = StageSpan("decode", 1.5, 2.25, "w-0", joules=12.5)
    timeline = [stage_span_to_proto(span)]
    batch = queue_pb2.EventBatch(
        worker="w-0",
        evicted=[queue_pb2.Evicted(key=key_to_proto(KEY), next_index=12, kv=handle_to_proto(KV), timeline=timeline)],
        joined=[queue_pb2.Joined(key=key_to_proto(KEY))],
        prefilled=[queue_pb2.Prefilled(key=key_to_proto(KEY), next_index=1, timeline=timeline)],
        failed=[queue_pb2.StageFailed(key=key_to_proto(KEY), retryable=True, timeline=timeline)],
    )
    assert list(events_from_proto(batch)) == [
        Prefilled("w-0", KEY, 1, None, (span,)),
        Joined("w-0", KEY),
        Evicted("w-0", KEY, 12, KV, (span,)),
        StageFailed("w-0", KEY, Failure("", ""), True, (span,)),
    ]
