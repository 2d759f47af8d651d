"""The queue manager's process against real NATS and Redis: what it keeps, over its own death above all."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from headrace.core.events import Governed
from headrace.core.queue import QueueCore
from headrace.core.tape import read_tape
from headrace.core.types import Key
from headrace.mesh import rpc, subjects
from headrace.mesh.blobs import DirectoryBlobs
from headrace.mesh.servers import NatsServer, RedisServer
from headrace.mesh.store import Store
from headrace.mesh.token_log import TokenChunk
from headrace.v1 import common_pb2, governor_pb2, queue_pb2, queue_pb2_grpc
from tests.queue_manager.cellmates import Cell, Manager, cell, make_request, servable, until

pytestmark = pytest.mark.timeout(60)


@pytest_asyncio.fixture
async def mates(nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Cell]:
    async with cell(nats_server.url, redis_server.url, tmp_path / "data") as made:
        yield made


@pytest_asyncio.fixture
async def manager(mates: Cell) -> AsyncIterator[Manager]:
    made = Manager(mates.settings)
    await made.start()
    yield made
    await made.kill()


async def result(mates: Cell, number: int) -> queue_pb2.ResultRecord:
    data = await mates.journal.result(f"{number:032x}")
    assert data is not None
    return queue_pb2.ResultRecord.FromString(data)


async def empty(mates: Cell) -> None:
    for _ in range(500):
        if await mates.journal.live_records() == 0:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("records are left in the journal")


async def test_a_request_from_the_journal_to_oblivion(mates: Cell, manager: Manager) -> None:
    await servable(mates)
    await mates.accept(make_request(1))
    await until(lambda: f"{1:032x}" in mates.released)
    await empty(mates)
    stored = await result(mates, 1)
    assert (list(stored.tokens), stored.end.reason) == ([1, 2, 3, 4], common_pb2.FINISH_REASON_LENGTH)
    await until(lambda: mates.status.ended == 1)
    assert dict(mates.status.ended_by_reason) == {"length": 1}
    assert await manager.stop() == 0


async def test_killed_with_ten_thousand_in_line_it_is_back_in_five_seconds(mates: Cell, manager: Manager) -> None:
    """What was at the worker stays there, what waited waits on in its order, and nothing runs twice."""
    mates.holding, mates.slots = True, 8
    await servable(mates)
    for first in range(1, 10_001, 2500):
        await mates.accept(*(make_request(number) for number in range(first, first + 2500)))
    await until(lambda: mates.queued() == 9_992 and mates.running() == 8, 30.0)
    await manager.kill()
    dead_epoch, before = mates.status.epoch, dict(mates.sent)
    await manager.start()
    took_s = await until(
        lambda: mates.status.epoch > dead_epoch and mates.queued() == 9_992 and mates.running() == 8, 30.0
    )
    assert took_s < 5.0 + START_S
    mates.holding = False
    for request_id in list(mates.prefills):
        mates.end(request_id)
    await until(lambda: len(mates.sent) >= 200, 20.0)
    assert set(before) < set(mates.sent)
    assert all(times == 1 for times in mates.sent.values())


START_S = 2.0  # a Python process with gRPC and OpenTelemetry on a busy machine, before it has read anything


async def test_ends_that_were_stored_but_not_forgotten_do_not_run_again(mates: Cell, manager: Manager) -> None:
    await servable(mates)
    await manager.kill()
    done, waiting = make_request(1), make_request(2)
    await mates.accept(done, waiting)
    await mates.journal.store_result(done.id, queue_pb2.ResultRecord(request_id=done.id).SerializeToString())
    await manager.start()
    await until(lambda: waiting.id in mates.sent)
    await empty(mates)
    assert done.id not in mates.sent


async def test_a_lost_workers_request_goes_on_from_what_was_seen(mates: Cell, manager: Manager) -> None:
    """The token log has two tokens, the gateway three."""
    mates.holding = True
    await servable(mates)
    request = make_request(1)
    await mates.accept(request)
    await until(lambda: request.id in mates.sent)
    store = await Store.connect(mates.settings.redis_url, "local")
    await store.append_tokens([TokenChunk(Key(request.id, mates.prefills[request.id].key.attempt), 0, [7, 8])])
    mates.held[request.id] = queue_pb2.HeldTokens(request_id=request.id, known=True, tokens=[7, 8, 9])
    first = mates.prefills[request.id].key.attempt
    mates.beating = False
    await until(lambda: bool(mates.asked))
    mates.beating = True
    mates.prefills.clear()
    await until(lambda: request.id in mates.prefills)
    again = mates.prefills[request.id]
    assert list(again.emitted) == [7, 8, 9]
    assert again.key.attempt == mates.asked[0].fence[0].attempt > first
    mates.end(request.id)
    await until(lambda: request.id in mates.released)
    await empty(mates)
    assert await store.count("tokens") == 0
    await store.close()


async def test_cancel_frees_within_a_second(mates: Cell, manager: Manager) -> None:
    mates.holding, mates.slots = True, 1
    await servable(mates)
    at_worker, in_line = make_request(1), make_request(2)
    await mates.accept(at_worker)
    await until(lambda: at_worker.id in mates.sent)
    await mates.accept(in_line)
    await until(lambda: mates.queued() == 1)
    for request in (in_line, at_worker):
        mates.control(cancel=queue_pb2.CancelRequest(request_id=request.id, gateway="gateway-t"))
    assert await until(lambda: mates.queued() == mates.running() == 0) < 1.5  # the status itself takes 0.25 s
    assert at_worker.id in mates.cancelled
    ends = [ended.key.request_id for batch in mates.told for ended in batch.ended]
    assert sorted(ends) == [at_worker.id, in_line.id]
    await empty(mates)


async def test_blobs_are_dropped_with_their_request(mates: Cell, manager: Manager) -> None:
    blobs = DirectoryBlobs(mates.settings.data_dir)
    request = make_request(1, deadline_s=0.0)
    sha256 = await blobs.put(request.id, b"picture")
    media = queue_pb2.RequestRecord(media=[common_pb2.Media(modality="image", sha256=sha256, tokens=16)]).media
    await until(lambda: mates.status.epoch > 0)
    record = queue_pb2.RequestRecord(
        request_id=request.id,
        model=request.model,
        slo_class="interactive",
        gateway="gateway-t",
        media=media,
        deadline_s=1,
    )
    await mates.journal.append(request.id, record.SerializeToString())
    await empty(mates)
    assert (await result(mates, 1)).end.reason == common_pb2.FINISH_REASON_DEADLINE
    for _ in range(100):
        if await blobs.count() == 0:
            break
        await asyncio.sleep(0.02)
    assert await blobs.count() == 0


async def test_nats_and_redis_restart_under_it(
    mates: Cell, manager: Manager, nats_server: NatsServer, redis_server: RedisServer
) -> None:
    mates.holding = True
    await servable(mates)
    await mates.accept(make_request(1))
    await until(lambda: len(mates.sent) == 1)
    await asyncio.to_thread(nats_server.restart, kill=True)
    await asyncio.to_thread(redis_server.restart, kill=True)
    await until(lambda: mates.bus.up)
    epoch = mates.status.epoch
    mates.holding = False
    await mates.accept(make_request(2))
    await until(lambda: f"{2:032x}" in mates.released, 20.0)
    mates.end(f"{1:032x}")
    await until(lambda: f"{1:032x}" in mates.released)
    await empty(mates)
    assert mates.status.epoch == epoch
    assert mates.sent == {f"{1:032x}": 1, f"{2:032x}": 1}


async def test_a_standby_takes_over(mates: Cell, manager: Manager) -> None:
    standby = Manager(mates.settings, "qm-1")
    await servable(mates)
    first = mates.status.epoch
    await standby.start()
    try:
        await asyncio.sleep(1.0)
        assert mates.status.leader == "qm-0"
        await manager.kill()
        await until(lambda: mates.status.leader == "qm-1", 15.0)
        assert mates.status.epoch > first
        await mates.accept(make_request(1))
        await until(lambda: f"{1:032x}" in mates.released)
    finally:
        await standby.kill()


async def test_its_order_is_a_setting(mates: Cell, manager: Manager) -> None:
    """Of two that wait the later one is due first: edf sends it first."""
    await manager.kill()
    await manager.start(HEADRACE_ORDER="edf")
    mates.holding, mates.slots = True, 1
    await servable(mates)
    await mates.accept(make_request(1))
    await until(lambda: len(mates.sent) == 1)
    await mates.accept(make_request(2, slo_class="batch-2"))
    await mates.accept(make_request(3, slo_class="interactive"))
    await until(lambda: mates.queued() == 2)
    mates.end(f"{1:032x}")
    await until(lambda: len(mates.sent) == 2)
    assert f"{3:032x}" in mates.sent


async def test_it_explains_and_leaves_a_tape_that_replays(mates: Cell, manager: Manager, tmp_path: Path) -> None:
    await manager.kill()
    tape, ready = tmp_path / "tape", tmp_path / "ready"
    await manager.start(HEADRACE_TAPE=str(tape), HEADRACE_READY_FILE=str(ready))
    mates.holding, mates.slots = True, 1
    await servable(mates)
    await mates.accept(make_request(1))
    await until(lambda: len(mates.sent) == 1)
    await mates.accept(make_request(2))
    await until(lambda: mates.queued() == 1)
    async with rpc.channel(json.loads(ready.read_text())["grpc"]) as channel:
        face = queue_pb2_grpc.QueueManagerServiceStub(channel)  # type: ignore[no-untyped-call]
        told = await face.Explain(queue_pb2.ExplainRequest(request_id=f"{2:032x}"))
        status = await face.GetStatus(queue_pb2.GetStatusRequest())
    assert (told.state, "slot" in told.why) == ("queued", True)
    assert status.status.workers[0].slots_used == 1
    mates.holding = False
    mates.end(f"{1:032x}")
    await until(lambda: mates.status.ended == 2)
    await manager.stop()
    config, frames = read_tape(tape.read_text().splitlines())
    core, effects = QueueCore(config), 0
    for frame in frames:
        done = tuple(core.handle(frame.event, frame.now_s))
        assert done == frame.effects
        effects += len(done)
    assert effects >= 8
    core.check()


@pytest.mark.parametrize("coupling", ["on", "off"])
async def test_the_governors_word_is_on_the_tape_and_told(mates: Cell, tmp_path: Path, coupling: str) -> None:
    """With the coupling, and only then; what cannot be read is left out, and what comes after it is not."""
    manager, tape = Manager(mates.settings), tmp_path / "tape"
    await manager.start(HEADRACE_TAPE=str(tape), HEADRACE_PLANNER="headrace", HEADRACE_GOVERNOR_COUPLING=coupling)
    try:
        await servable(mates)
        worker = mates.status.workers[0].worker
        for sequence, factor in ((1, float("nan")), (2, 0.7)):
            caps = governor_pb2.WorkerCaps(
                worker=worker,
                weight=1.0,
                slots_share=0.5,
                prefill_factor=factor,
                decode_factor=0.9,
            )
            batch = governor_pb2.CapBatch(governor="g", epoch=1, sequence=sequence, lease_s=30.0, workers=[caps])
            await mates.bus.publish(subjects.CAPS, batch.SerializeToString())
        await asyncio.sleep(0.3)
        with tape.open() as lines:
            frames = list(read_tape(lines)[1])
        words = [frame.event.sequence for frame in frames if isinstance(frame.event, Governed)]
        assert words == ([2] if coupling == "on" else [])
    finally:
        await manager.kill()
