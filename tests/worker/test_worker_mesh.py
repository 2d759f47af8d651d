"""Workers over a real NATS and Redis: one request colocated, handed over by file, handed over by gRPC; and repairs."""

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import redis as redis_sync

from headrace.core.commands import JoinCommand, ResendCommand
from headrace.core.errors import StageError
from headrace.core.types import Key, Sampling
from headrace.engines.base import KvSink, SequenceInput
from headrace.engines.families import family
from headrace.engines.profile import ProfileEngine
from headrace.mesh.bus import Bus
from headrace.mesh.servers import RedisServer
from headrace.mesh.store import Store
from headrace.profiles import engine_profile
from headrace.v1 import common_pb2, queue_pb2
from headrace.wire.convert import handle_from_proto
from tests.worker.kit import ATTEMPT, MODEL, Mesh, Peer, is_empty, prefill, request_id, until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def peer(nats_url: str) -> AsyncIterator[Peer]:
    bus = await Bus.connect(nats_url, "peer")
    peer = Peer(bus)
    await peer.listen("gateway-0", "gateway-1")
    yield peer
    await bus.close()


async def colocated(mesh: Mesh, peer: Peer, max_tokens: int = 32) -> list[int]:
    """The undisturbed run that every other must equal."""
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode"):
        peer.send("both-0", prefill=prefill(key, "both-0", max_tokens=max_tokens))
        await until(lambda: key in peer.ended)
        peer.send("both-0", release=key)
        await until(lambda: not mesh.workers["both-0"].holds.requests)
    return peer.text(key)


async def test_colocated_hands_nothing_over(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode"):
        peer.send("both-0", prefill=prefill(key, "both-0"))
        await until(lambda: key in peer.ended and key in peer.stream_ends)
        ended = peer.ended[key][0]
        assert peer.text(key) == list(ended.tokens)
        assert len(ended.tokens) == peer.stream_ends[key].count == 32
        assert ended.end.reason == common_pb2.FINISH_REASON_LENGTH
        assert ended.end.usage.completion_tokens == 32
        assert not peer.prefilled
        assert not peer.joined
        peer.send("both-0", release=key)
        await until(lambda: is_empty(mesh, "both-0"))


@pytest.mark.parametrize("hosts", [("here", "here"), ("here", "there")], ids=["mapped file", "gRPC"])
async def test_handed_over_gives_the_same_tokens(mesh: Mesh, peer: Peer, hosts: tuple[str, str]) -> None:
    want = await colocated(mesh, peer)
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("prefill-0", "prefill", host=hosts[0]), mesh.worker("decode-0", "decode", host=hosts[1]):
        peer.send("prefill-0", prefill=prefill(key, "decode-0"))
        await until(lambda: key in peer.ended)
        assert peer.text(key) == want
        assert key in peer.prefilled
        assert key in peer.joined
        assert mesh.workers["prefill-0"].state().handles == 1, "kept until released"
        assert mesh.workers["decode-0"].holds.requests[key.request_id].pulled_kv is None, "unmapped after the import"
        for worker in ("prefill-0", "decode-0"):
            peer.send(worker, release=key)
        await until(lambda: is_empty(mesh, "prefill-0") and is_empty(mesh, "decode-0"))
    spans = [(span.stage, span.worker) for span in peer.ended[key][0].end.timeline]
    assert spans == [("prefill", "prefill-0"), ("transfer", "decode-0"), ("decode", "decode-0")]


async def test_no_gap_in_the_timeline(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("prefill-0", "prefill"), mesh.worker("decode-0", "decode"):
        peer.send("prefill-0", prefill=prefill(key, "decode-0", max_tokens=200))
        await until(lambda: key in peer.ended)
    timeline = peer.ended[key][0].end.timeline
    assert all(abs(after.start_s - before.end_s) < 0.005 for before, after in pairwise(timeline))


async def test_resumes_where_an_earlier_attempt_stopped(mesh: Mesh, peer: Peer) -> None:
    want = await colocated(mesh, peer)
    key = Key(request_id(), ATTEMPT + 1)
    async with mesh.worker("both-0", "prefill", "decode"):
        peer.send("both-0", prefill=prefill(key, "both-0", emitted=tuple(want[:10])))
        await until(lambda: key in peer.ended)
    assert list(peer.ended[key][0].tokens) == want
    assert sorted(peer.tokens[key]) == list(range(10, 32)), "replayed tokens are not sent again"


async def test_an_attempt_that_died_before_its_end_is_only_ended(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT + 1)
    async with mesh.worker("both-0", "prefill", "decode"):
        peer.send("both-0", prefill=prefill(key, "both-0", max_tokens=3, emitted=(1, 2, 3)))
        await until(lambda: key in peer.ended)
    assert list(peer.ended[key][0].tokens) == [1, 2, 3]
    assert key not in peer.tokens


async def test_cancel_frees_everything_at_once(mesh: Mesh, peer: Peer) -> None:
    keys = [Key(request_id(), ATTEMPT) for _ in range(8)]
    async with mesh.worker("both-0", "prefill", "decode"):
        for key in keys:
            peer.send("both-0", prefill=prefill(key, "both-0", max_tokens=8000))
        await until(lambda: all(len(peer.tokens.get(key, ())) > 5 for key in keys))
        for key in keys:
            peer.send("both-0", cancel=key)
        await until(lambda: all(key in peer.ended for key in keys), wait_s=1.0)
        await until(lambda: mesh.workers["both-0"].state().slots_used == 0, wait_s=1.0)
        assert mesh.workers["both-0"].state().blocks_used == 0
        for key in keys:
            assert peer.ended[key][0].end.reason == common_pb2.FINISH_REASON_CANCELLED
            assert peer.text(key) == list(peer.ended[key][0].tokens)
            peer.send("both-0", release=key)
        await until(lambda: is_empty(mesh, "both-0"))


async def test_a_deadline_is_told_as_one(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode"):
        peer.send("both-0", prefill=prefill(key, "both-0", max_tokens=8000, deadline_s=1.0))
        await until(lambda: peer.tokens.get(key))
        peer.send("both-0", cancel=key)
        await until(lambda: key in peer.ended)
    assert peer.ended[key][0].end.reason == common_pb2.FINISH_REASON_DEADLINE


async def test_what_is_cancelled_and_released_at_once_says_nothing(mesh: Mesh, peer: Peer) -> None:
    """It goes on elsewhere as another attempt: the stream must not hear of an end."""
    key, other = Key(request_id(), ATTEMPT), Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode"):
        peer.send("both-0", prefill=prefill(key, "both-0", max_tokens=8000))
        await until(lambda: peer.tokens.get(key))
        peer.send("both-0", cancel=key, release=key)
        await until(lambda: is_empty(mesh, "both-0"))
        peer.send("both-0", prefill=prefill(other, "both-0", max_tokens=1))
        await until(lambda: other in peer.ended)
    assert key not in peer.ended
    assert key not in peer.stream_ends


async def test_duplicates_older_attempts_and_older_epochs(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    newer = replace(key, attempt=ATTEMPT + 1)
    async with mesh.worker("both-0", "prefill", "decode"):
        peer.epoch = 2
        for attempt in (key, key, newer, key, newer):
            peer.send("both-0", prefill=prefill(attempt, "both-0"))
        peer.epoch = 1
        peer.send("both-0", cancel=newer)
        peer.epoch = 2
        await until(lambda: newer in peer.ended)
        assert peer.ended[newer][0].end.reason == common_pb2.FINISH_REASON_LENGTH, "the older epoch's cancel is refused"
        assert key not in peer.ended, "the newer attempt has replaced it"
        assert peer.copies == 0
        peer.send("both-0", release=newer)
        await until(lambda: is_empty(mesh, "both-0"))
        peer.send("both-0", prefill=prefill(newer, "both-0"))
        peer.send("both-0", prefill=prefill(other := Key(request_id(), ATTEMPT), "both-0", max_tokens=1))
        await until(lambda: other in peer.ended)
        assert newer.request_id not in mesh.workers["both-0"].holds.requests, "a late duplicate of what is over"


async def test_resend_to_another_gateway(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode"):
        peer.send("both-0", prefill=prefill(key, "both-0"))
        await until(lambda: key in peer.stream_ends)
        want = peer.text(key)
        peer.stream_ends.clear()
        peer.tokens.clear()
        peer.send("both-0", resend=ResendCommand(key, 20, "gateway-1"))
        await until(lambda: key in peer.stream_ends)
        assert sorted(peer.tokens[key]) == list(range(20, 32))
        assert [peer.tokens[key][index] for index in range(20, 32)] == want[20:]
        assert peer.gateways[key] == {"gateway-0", "gateway-1"}


async def test_an_end_is_repeated_until_it_is_released(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode"):
        peer.send("both-0", prefill=prefill(key, "both-0"))
        await until(lambda: len(peer.ended.get(key, ())) >= 3)
        hold = next(iter(peer.holds("both-0")))
        assert hold.state == queue_pb2.HOLD_STATE_ENDED
        peer.send("both-0", release=key)
        await until(lambda: not peer.holds("both-0"))


async def test_a_lost_join_is_repaired_from_the_hold(mesh: Mesh, peer: Peer) -> None:
    """The decode worker is not there when prefill tells it; the heartbeat's hold has all that a new Join needs."""
    want = await colocated(mesh, peer)
    key = Key(request_id(), ATTEMPT)
    command = prefill(key, "decode-0")
    async with mesh.worker("prefill-0", "prefill"):
        peer.send("prefill-0", prefill=command)
        await until(lambda: peer.holds("prefill-0"))
        hold = peer.holds("prefill-0")[0]
        assert (hold.state, hold.next_index, hold.decode_worker) == (queue_pb2.HOLD_STATE_HANDOVER, 1, "decode-0")
        async with mesh.worker("decode-0", "decode"):
            join = JoinCommand(replace(command, emitted=tuple(want[:1])), handle_from_proto(hold.handle))
            peer.send("decode-0", join=join)
            peer.send("decode-0", join=join)
            await until(lambda: key in peer.ended)
            assert peer.text(key) == want
            assert peer.copies == 0


async def test_a_kv_cache_that_is_gone_fails_the_attempt(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    command = prefill(key, "decode-0")
    async with mesh.worker("decode-0", "decode"):
        async with mesh.worker("prefill-0", "prefill"):
            peer.send("prefill-0", prefill=command)
            await until(lambda: key in peer.prefilled)
            kv = handle_from_proto(peer.prefilled[key].kv)
            peer.send("decode-0", cancel=key, release=key)
            peer.send("prefill-0", release=key)
            await until(lambda: is_empty(mesh, "prefill-0"))
        again = replace(command, key=replace(key, attempt=ATTEMPT + 1), emitted=(5,))
        peer.send("decode-0", join=JoinCommand(again, kv))
        await until(lambda: again.key in peer.failed)
        assert peer.failed[again.key].retryable
        assert is_empty(mesh, "decode-0")


async def test_a_corrupt_kv_cache_fails_the_attempt(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("decode-0", "decode"), mesh.worker("prefill-0", "prefill"):
        command = prefill(key, "decode-9")
        peer.send("prefill-0", prefill=command)
        await until(lambda: key in peer.prefilled)
        kv = handle_from_proto(peer.prefilled[key].kv)
        for wrong in (replace(kv, xxh3=kv.xxh3 ^ 1), replace(kv, layout="else"), replace(kv, length=kv.length + 1)):
            key = replace(key, attempt=key.attempt + 1)
            peer.send("decode-0", join=JoinCommand(replace(command, key=key, emitted=(5,)), wrong))
            await until(partial(peer.failed.get, key))
            assert peer.failed[key].retryable
        key = replace(key, attempt=key.attempt + 1)
        peer.send("decode-0", join=JoinCommand(replace(command, key=key, emitted=(5, 6)), kv))
        await until(partial(peer.failed.get, key))
        assert "positions" in peer.failed[key].failure.message, "a KV cache that ends before its tokens is refused"
        await until(lambda: is_empty(mesh, "decode-0"))


async def test_more_requests_than_slots_wait_their_turn(mesh: Mesh, peer: Peer) -> None:
    keys = [Key(request_id(), ATTEMPT) for _ in range(10)]
    async with mesh.worker("both-0", "prefill", "decode", slots=2):
        for key in keys:
            peer.send("both-0", prefill=prefill(key, "both-0"))
        await until(lambda: all(key in peer.ended for key in keys))
        assert all(len(peer.ended[key][0].tokens) == 32 for key in keys)


async def test_a_request_that_can_never_fit_is_refused(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode", blocks=4):
        peer.send("both-0", prefill=prefill(key, "both-0", max_tokens=100))
        await until(lambda: key in peer.failed)
        assert not peer.failed[key].retryable


class Squeamish(ProfileEngine):
    """Refuses long prompts, as the ONNX engine refuses embeddings that are not finite."""

    def add(self, sequence: SequenceInput, sink: KvSink | None = None) -> None:
        if sequence.prompt_len > 100:
            raise StageError("the embeddings of media part 0 are not finite")
        super().add(sequence, sink)


async def test_what_the_engine_refuses_fails_alone(mesh: Mesh, peer: Peer) -> None:
    tiny = family(MODEL)
    engine = Squeamish(tiny.spec, tiny.pieces, engine_profile("zero"), slots=4, blocks=256, chunk_tokens=512)
    bad, good = Key(request_id(), ATTEMPT), Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode", engine=engine):
        peer.send("both-0", prefill=prefill(bad, "both-0", prompt="x" * 200))
        peer.send("both-0", prefill=prefill(good, "both-0"))
        await until(lambda: bad in peer.failed and good in peer.ended)
        assert "not finite" in peer.failed[bad].failure.message
        peer.send("both-0", release=good)
        peer.send("both-0", release=bad)
        await until(lambda: is_empty(mesh, "both-0"))


async def test_the_token_log_follows(mesh: Mesh, peer: Peer, redis_url: str) -> None:
    key = Key(request_id(), ATTEMPT)
    store = await Store.connect(redis_url, f"test-{mesh.directory.name}")
    async with mesh.worker("both-0", "prefill", "decode", profile="h100-qwen3-8b"):
        peer.send("both-0", prefill=prefill(key, "both-0", max_tokens=400))
        await until(lambda: len(peer.tokens.get(key, ())) > 30)
        logged = list((await store.read_tokens([key.request_id]))[key.request_id].tokens)
        assert len(logged) >= 16
        assert list(logged) == peer.text(key)[: len(logged)]
        peer.send("both-0", cancel=key)
    await store.close()


@pytest.mark.parametrize("lost", [0, 2], ids=["all of it", "the newest"])
async def test_the_token_log_is_rebuilt(mesh: Mesh, peer: Peer, redis_url: str, lost: int) -> None:
    """Redis forgets in the middle of a request, by a flush or by a failover to a replica that lacked the last chunks:
    what the worker keeps is written again."""
    key = Key(request_id(), ATTEMPT)
    store = await Store.connect(redis_url, f"test-{mesh.directory.name}")
    async with mesh.worker("both-0", "prefill", "decode", profile="h100-qwen3-8b"):
        peer.send("both-0", prefill=prefill(key, "both-0", max_tokens=400))
        await until(lambda: len(peer.tokens.get(key, ())) > 20)
        if lost:
            with redis_sync.Redis.from_url(redis_url) as client:
                client.ltrim(store.key("tokens", key.request_id), 0, -1 - lost)
        else:
            await store.drop([key.request_id])
        seen = len(peer.tokens[key])
        await until(lambda: len(peer.tokens[key]) > seen + 20)
        logged = list((await store.read_tokens([key.request_id]))[key.request_id].tokens)
        assert len(logged) > seen
        assert logged == peer.text(key)[: len(logged)]
        peer.send("both-0", cancel=key)
    await store.close()


async def test_goes_on_without_redis(nats_url: str, redis_server: RedisServer, tmp_path: Path, peer: Peer) -> None:
    key, later = Key(request_id(), ATTEMPT), Key(request_id(), ATTEMPT)
    mesh = Mesh(nats_url, redis_server.url, tmp_path)
    async with mesh.worker("prefill-0", "prefill"), mesh.worker("decode-0", "decode"):
        redis_server.kill()
        peer.send("prefill-0", prefill=prefill(key, "decode-0", max_tokens=400))
        await until(lambda: key in peer.ended)
        assert len(peer.ended[key][0].tokens) == 400
        redis_server.start()
        peer.send("prefill-0", prefill=prefill(later, "decode-0", max_tokens=400))
        await until(lambda: later in peer.ended)
        for name in ("prefill-0", "decode-0"):
            for one in (key, later):
                peer.send(name, release=one)
            await until(partial(is_empty, mesh, name))


async def test_the_workers_state_over_grpc(mesh: Mesh, peer: Peer) -> None:
    import grpc.aio

    from headrace.v1 import worker_pb2, worker_pb2_grpc

    async with mesh.worker("both-0", "prefill", "decode") as worker:
        async with grpc.aio.insecure_channel(worker.identity.grpc_address) as channel:
            stub = worker_pb2_grpc.WorkerServiceStub(channel)  # type: ignore[no-untyped-call]
            state = (await stub.GetState(worker_pb2.GetStateRequest())).state
        assert (state.worker, list(state.stages), state.slots) == ("both-0", ["prefill", "decode"], 64)


async def test_stop_string(mesh: Mesh, peer: Peer) -> None:
    want = await colocated(mesh, peer)
    from headrace.engines.families import family

    pieces = family("profile-tiny").pieces
    stop = (pieces[want[6]] + pieces[want[7]]).decode()
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode"):
        sampling = Sampling(32, ignore_eos=True, stop=(stop,))
        peer.send("both-0", prefill=prefill(key, "both-0", sampling=sampling))
        await until(lambda: key in peer.ended)
    assert peer.ended[key][0].end.reason == common_pb2.FINISH_REASON_STOP
    text = b"".join(pieces[token] for token in peer.text(key)).decode()
    assert text.endswith(stop)
    assert text.find(stop) == len(text) - len(stop)
