"""Requests that leave the engine in the middle of their answer and go on, here or elsewhere: not a token changes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise

import pytest

from headrace.core.commands import MoveCommand, ResendCommand
from headrace.core.cost import Curve, StepCost
from headrace.core.types import Key, MediaSpan, Prompt, Sampling
from headrace.engines.base import Engine
from headrace.engines.families import family
from headrace.mesh import subjects
from headrace.mesh.store import Store
from headrace.profiles import EngineProfile
from headrace.v1 import common_pb2, governor_pb2, queue_pb2
from headrace.wire.convert import handle_from_proto
from tests.worker.kit import (
    ATTEMPT,
    MODEL,
    Gate,
    GatedProfile,
    Mesh,
    Peer,
    command,
    gated_onnx,
    is_empty,
    picture,
    prefill,
    request_id,
    until,
)

pytestmark = pytest.mark.timeout(90)

TOKENS = 120
PACED = EngineProfile("paced", "[I] for tests", kv_bytes_per_token=64, cost=StepCost(Curve((0.0,), (0.002,))))
PROMPT = Prompt(tuple(range(2, 72)))
MORE = 6  # tokens between two evictions
Make = Callable[[], Engine]


@pytest.fixture
def gate() -> Gate:
    """Shut: no token comes before the test lets it."""
    shut = Gate()
    shut.let(0)
    return shut


@pytest.fixture
def paced(gate: Gate) -> Make:
    """Its tokens come in modelled time."""

    def make() -> GatedProfile:
        tiny = family(MODEL)
        engine = GatedProfile(tiny.spec, tiny.pieces, PACED, slots=4, blocks=256, chunk_tokens=512)
        engine.gate = gate
        return engine

    return make


@pytest.fixture(params=["profile", "onnx"])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, gate: Gate, paced: Make) -> Make:
    if request.param == "profile":
        return paced
    folder = tmp_path_factory.getbasetemp() / "graphs"
    return lambda: gated_onnx(folder, gate)


def drawn(key: Key, worker: str) -> dict[str, object]:
    """A prompt whose answer is drawn, so that a lost token or seed shows."""
    sampling = Sampling(TOKENS, temperature=0.8, seed=7, repetition_penalty=1.1, ignore_eos=True)
    return {"prefill": prefill(key, worker, prompt=PROMPT, sampling=sampling)}


async def undisturbed(mesh: Mesh, peer: Peer, make: Make, gate: Gate) -> list[int]:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("calm-0", "prefill", "decode", engine=make()):
        peer.send("calm-0", **drawn(key, "calm-0"))
        gate.open()
        await until(lambda: key in peer.ended)
        gate.let(0)
    return list(peer.ended[key][0].tokens)


async def evict(peer: Peer, gate: Gate, worker: str, key: Key) -> None:
    """Once it has some tokens more than now."""
    seen, times = len(peer.tokens.get(key, ())), len(peer.evicted.get(key, ()))
    gate.let(MORE)
    await until(lambda: len(peer.tokens.get(key, ())) == seen + MORE)
    peer.send(worker, evict=key)
    await until(lambda: len(peer.evicted.get(key, ())) > times)


def stages(peer: Peer, key: Key) -> list[tuple[str, str]]:
    return [(span.stage, span.worker) for span in peer.ended[key][0].end.timeline]


async def released(mesh: Mesh, peer: Peer, key: Key, *workers: str) -> None:
    for worker in workers:
        peer.send(worker, release=key)
    await until(lambda: all(is_empty(mesh, worker) for worker in workers))


async def test_evicted_and_resumed_twice(mesh: Mesh, peer: Peer, make: Make, gate: Gate) -> None:
    want, key = await undisturbed(mesh, peer, make, gate), Key(request_id(), ATTEMPT)
    told = list[governor_pb2.Telemetry]()
    await peer.bus.subscribe(subjects.TELEMETRY, lambda data, _: told.append(governor_pb2.Telemetry.FromString(data)))
    async with mesh.worker("both-0", "prefill", "decode", engine=make()) as worker:
        peer.send("both-0", **drawn(key, "both-0"))
        for turn in (1, 2):
            await evict(peer, gate, "both-0", key)
            event = peer.evicted[key][-1]
            assert event.next_index == len(peer.text(key))
            await until(lambda: worker.state().slots_used == 0)
            assert (worker.state().blocks_used, worker.state().handles, worker.state().mapped_files) == (0, 1, 1)
            listed = (queue_pb2.HOLD_STATE_EVICTED, event.next_index)
            await until(lambda: [(each.state, each.next_index) for each in peer.holds("both-0")] == [listed])  # noqa: B023
            assert peer.holds("both-0")[0].handle == event.kv
            peer.joined.discard(key)
            peer.send("both-0", resume=key)
            await until(lambda: key in peer.joined)
            assert turn == len(peer.evicted[key])
            assert worker.state().mapped_files == 0, "its file goes as soon as the engine has it"
        gate.open()
        await until(lambda: key in peer.ended)
        assert peer.text(key) == list(peer.ended[key][0].tokens) == want
        assert peer.copies == 0
        assert [stage for stage, _ in stages(peer, key)] == ["prefill", *["decode", "evicted"] * 2, "decode"]
        timeline = peer.ended[key][0].end.timeline
        assert all(after.start_s == before.end_s for before, after in pairwise(timeline)), "a gap that is nobody's"
        await released(mesh, peer, key, "both-0")
        await until(lambda: told[-1].worker == "both-0" and told[-1].evictions == 2)


async def test_with_a_picture(mesh: Mesh, peer: Peer, gate: Gate, paced: Make) -> None:
    """Its embeddings need not come back: they are in the KV cache."""
    answers = []
    for evicts in (False, True):
        key = Key(request_id(), ATTEMPT)
        async with mesh.worker("all-0", "encode", "prefill", "decode", engine=paced()) as worker:
            peer.send("all-0", encode=await command(mesh, key, 0, picture("red")))
            await until(lambda: (key, 0) in peer.encoded)  # noqa: B023
            handle = handle_from_proto(peer.encoded[key, 0].embedding)
            placeholder = family(MODEL).spec.placeholder_id
            prompt = Prompt((*(placeholder,) * handle.length, 65, 66), (MediaSpan(0, 0, handle.length),))
            asked = prefill(key, "all-0", prompt=prompt, embeddings=(handle,), max_tokens=TOKENS)
            peer.send("all-0", prefill=asked)
            if evicts:
                await evict(peer, gate, "all-0", key)
                peer.send("all-0", resume=key)
                await until(lambda: worker.holds.requests[key.request_id].state == "running")  # noqa: B023
                assert worker.holds.requests[key.request_id].sequence.embeddings == ()
            gate.open()
            await until(lambda: key in peer.ended)  # noqa: B023
            await released(mesh, peer, key, "all-0")
        answers.append(list(peer.ended[key][0].tokens))
    assert answers[0] == answers[1]


@asynccontextmanager
async def pair(mesh: Mesh, make: Make, hosts: tuple[str, str] = ("here", "here")) -> AsyncIterator[None]:
    async with AsyncExitStack() as running:
        for name, host in zip(("a-0", "b-0"), hosts, strict=True):
            await running.enter_async_context(mesh.worker(name, "prefill", "decode", engine=make(), host=host))
        yield


async def move(peer: Peer, key: Key, source: str, target: str) -> None:
    peer.joined.discard(key)
    peer.send(source, move=MoveCommand(key, target))
    await until(lambda: key in peer.joined)


@pytest.mark.parametrize("hosts", [("here", "here"), ("here", "there")], ids=["mapped file", "gRPC"])
async def test_moved_to_another_worker_and_back(
    mesh: Mesh, peer: Peer, make: Make, hosts: tuple[str, str], gate: Gate
) -> None:
    want, key = await undisturbed(mesh, peer, make, gate), Key(request_id(), ATTEMPT)
    async with pair(mesh, make, hosts):
        peer.send("a-0", **drawn(key, "a-0"))
        await evict(peer, gate, "a-0", key)
        await move(peer, key, "a-0", "b-0")
        (hold,) = mesh.workers["a-0"].holds.listed()
        assert (hold.state, hold.decode_worker) == ("handover", "b-0")
        peer.send("a-0", release=key)
        await until(lambda: is_empty(mesh, "a-0"))
        await evict(peer, gate, "b-0", key)
        await move(peer, key, "b-0", "a-0")
        gate.open()
        await until(lambda: key in peer.ended)
        assert peer.text(key) == list(peer.ended[key][0].tokens) == want
        assert not peer.failed
        assert stages(peer, key) == [
            *(("prefill", "a-0"), ("decode", "a-0"), ("evicted", "a-0"), ("transfer", "b-0")),
            *(("decode", "b-0"), ("evicted", "b-0"), ("transfer", "a-0"), ("decode", "a-0")),
        ]
        timeline = peer.ended[key][0].end.timeline
        assert all(abs(after.start_s - before.end_s) < 0.005 for before, after in pairwise(timeline))
        await released(mesh, peer, key, "a-0", "b-0")


async def test_a_lost_join_is_said_again(mesh: Mesh, peer: Peer, gate: Gate, paced: Make) -> None:
    want, key = await undisturbed(mesh, peer, paced, gate), Key(request_id(), ATTEMPT)
    async with mesh.worker("a-0", "prefill", "decode", engine=paced()):
        peer.send("a-0", **drawn(key, "a-0"))
        await evict(peer, gate, "a-0", key)
        peer.send("a-0", move=MoveCommand(key, "b-0"))
        await until(lambda: any(hold.state == queue_pb2.HOLD_STATE_HANDOVER for hold in peer.holds("a-0")))
        async with mesh.worker("b-0", "decode", engine=paced()):
            for _ in range(2):
                peer.send("a-0", move=MoveCommand(key, "b-0"))
            gate.open()
            await until(lambda: key in peer.ended)
            assert peer.text(key) == want
            assert peer.copies == 0
            await released(mesh, peer, key, "a-0", "b-0")


@pytest.mark.parametrize("end", ["cancel", "release"])
async def test_over_in_the_moment_in_which_it_is_moved(
    mesh: Mesh, peer: Peer, gate: Gate, paced: Make, end: str
) -> None:
    """Its KV cache is gone before the other worker has been told of it."""
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode", engine=paced()):
        peer.send("both-0", **drawn(key, "both-0"))
        await evict(peer, gate, "both-0", key)
        peer.send("both-0", move=MoveCommand(key, "b-0"))
        peer.send("both-0", **{end: key})
        peer.send("both-0", release=key)
        await until(lambda: is_empty(mesh, "both-0"))


async def test_at_a_worker_that_only_decodes(mesh: Mesh, peer: Peer, make: Make, gate: Gate) -> None:
    want, key = await undisturbed(mesh, peer, make, gate), Key(request_id(), ATTEMPT)
    async with (
        mesh.worker("prefill-0", "prefill", engine=make()) as prefiller,
        mesh.worker("decode-0", "decode", engine=make()) as decoder,
    ):
        assert (prefiller.identity.host_bytes, decoder.identity.host_bytes) == (0, 1 << 29)
        peer.send("prefill-0", **drawn(key, "decode-0"))
        gate.let(1)
        await until(lambda: key in peer.joined)
        peer.send("prefill-0", release=key)
        await evict(peer, gate, "decode-0", key)
        peer.send("decode-0", resume=key)
        gate.open()
        await until(lambda: key in peer.ended)
        assert peer.text(key) == want
        await released(mesh, peer, key, "prefill-0", "decode-0")


async def test_what_finds_no_room_goes_on(mesh: Mesh, peer: Peer, gate: Gate, paced: Make) -> None:
    first, second = (Key(request_id(), ATTEMPT) for _ in range(2))
    room = 64 * (len(PROMPT.tokens) + 60)  # for one, in the first half of its answer; not for two
    async with mesh.worker("both-0", "prefill", "decode", engine=paced(), evicted_bytes=room) as worker:
        for key in (first, second):
            peer.send("both-0", **drawn(key, "both-0"))
        await evict(peer, gate, "both-0", first)
        peer.send("both-0", evict=second)
        peer.send("both-0", evict=first)  # heard behind the other
        await until(lambda: len(peer.evicted[first]) == 2)
        gate.open()
        await until(lambda: second in peer.ended)
        assert second not in peer.evicted
        assert len(peer.text(second)) == TOKENS
        peer.send("both-0", resume=first)
        await until(lambda: first in peer.ended)
        assert worker.identity.host_bytes == room
        for key in (first, second):
            peer.send("both-0", release=key)
        await until(lambda: is_empty(mesh, "both-0"))


async def cancelled(peer: Peer, key: Key) -> None:
    peer.send("both-0", cancel=key)
    await until(lambda: key in peer.ended)
    assert peer.ended[key][0].end.reason == common_pb2.FINISH_REASON_CANCELLED
    assert peer.text(key) == list(peer.ended[key][0].tokens)
    peer.send("both-0", release=key)


async def dropped(peer: Peer, key: Key) -> None:
    peer.send("both-0", release=key)


async def dropped_on_its_way_back(peer: Peer, key: Key) -> None:
    peer.send("both-0", resume=key)
    peer.send("both-0", release=key)


async def replaced(peer: Peer, key: Key) -> None:
    newer = Key(key.request_id, key.attempt + 1)
    peer.send("both-0", prefill=prefill(newer, "both-0", max_tokens=3))
    await until(lambda: newer in peer.ended)
    peer.send("both-0", release=newer)


@pytest.mark.parametrize("finish", [cancelled, dropped, dropped_on_its_way_back, replaced])
async def test_everything_is_freed(
    mesh: Mesh, peer: Peer, finish: Callable[[Peer, Key], Awaitable[None]], gate: Gate, paced: Make
) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode", engine=paced()):
        peer.send("both-0", **drawn(key, "both-0"))
        await evict(peer, gate, "both-0", key)
        gate.open()
        await finish(peer, key)
        await until(lambda: is_empty(mesh, "both-0"))


@pytest.mark.parametrize("end", ["cancel", "release"])
async def test_an_end_in_the_very_moment(mesh: Mesh, peer: Peer, end: str, gate: Gate, paced: Make) -> None:
    keys = [Key(request_id(), ATTEMPT) for _ in range(4)]
    async with mesh.worker("both-0", "prefill", "decode", engine=paced()):
        for key in keys:
            peer.send("both-0", **drawn(key, "both-0"))
        gate.let(20)
        await until(lambda: all(len(peer.tokens.get(key, ())) > 3 for key in keys))
        for key in keys:
            peer.send("both-0", evict=key)
            peer.send("both-0", **{end: key})
            peer.send("both-0", release=key)
        await until(lambda: is_empty(mesh, "both-0"))


async def test_said_twice_or_of_nothing(mesh: Mesh, peer: Peer, gate: Gate, paced: Make) -> None:
    """Resumed twice, evicted twice, of what is unknown, joins, or is over: a table of what is ignored."""
    want, key, unknown = (
        await undisturbed(mesh, peer, paced, gate),
        Key(request_id(), ATTEMPT),
        Key(request_id(), ATTEMPT),
    )
    async with mesh.worker("both-0", "prefill", "decode", engine=paced()):
        peer.send("both-0", **drawn(key, "both-0"), evict=key)  # it has not begun
        for _ in range(2):
            peer.send("both-0", evict=unknown)
            peer.send("both-0", resume=unknown)
            peer.send("both-0", move=MoveCommand(unknown, "b-0"))
        gate.let(MORE)
        await until(lambda: len(peer.tokens.get(key, ())) == MORE)
        assert key not in peer.evicted
        peer.send("both-0", resume=key)  # it runs
        peer.send("both-0", move=MoveCommand(key, "b-0"))
        await evict(peer, gate, "both-0", key)
        peer.send("both-0", evict=key)
        await until(lambda: len(peer.evicted[key]) == 2)
        assert peer.evicted[key][0] == peer.evicted[key][1]
        for _ in range(3):
            peer.send("both-0", resume=key)
        gate.open()
        await until(lambda: key in peer.ended)
        peer.send("both-0", evict=key)  # it is over
        peer.send("both-0", resume=key)
        await released(mesh, peer, key, "both-0")
        assert peer.text(key) == want
        assert (peer.copies, len(peer.evicted[key]), peer.failed) == (0, 2, {})
        assert unknown not in peer.evicted


async def test_its_stream_can_be_asked_for_again(
    mesh: Mesh, peer: Peer, redis_url: str, gate: Gate, paced: Make
) -> None:
    key = Key(request_id(), ATTEMPT)
    store = await Store.connect(redis_url, f"test-{mesh.directory.name}")
    async with mesh.worker("both-0", "prefill", "decode", engine=paced()):
        peer.send("both-0", **drawn(key, "both-0"))
        await evict(peer, gate, "both-0", key)
        seen = peer.text(key)
        peer.tokens.clear()
        peer.send("both-0", resend=ResendCommand(key, 2, "gateway-0"))
        await until(lambda: len(peer.tokens.get(key, ())) == len(seen) - 2)
        assert [peer.tokens[key][index] for index in range(2, len(seen))] == seen[2:]
        await asyncio.sleep(0.2)
        logged = (await store.read_tokens([key.request_id]))[key.request_id].tokens
        assert list(logged) == seen, "the log does not end before the eviction"
    await store.close()


async def test_a_draining_worker_lets_them_go(mesh: Mesh, peer: Peer, gate: Gate, paced: Make) -> None:
    want, key = await undisturbed(mesh, peer, paced, gate), Key(request_id(), ATTEMPT)
    async with pair(mesh, paced):
        peer.send("a-0", **drawn(key, "a-0"))
        await evict(peer, gate, "a-0", key)
        mesh.stop["a-0"].set()
        await until(lambda: peer.beats["a-0"][-1].draining)
        await move(peer, key, "a-0", "b-0")
        peer.send("a-0", release=key)
        await mesh.tasks["a-0"]
        gate.open()
        await until(lambda: key in peer.ended)
        assert peer.text(key) == want
        await released(mesh, peer, key, "b-0")
