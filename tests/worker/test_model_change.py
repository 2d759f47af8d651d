"""One model after another on one worker: what is kept meanwhile, what is told, what fails, and that answers stay."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from headrace.core.commands import MoveCommand
from headrace.core.cost import Curve, StepCost
from headrace.core.errors import Unavailable
from headrace.core.instance import Done, Loadable, Pace
from headrace.core.types import Key, Prompt
from headrace.engines.base import StepResult
from headrace.engines.families import family
from headrace.engines.onnx_model import Llama, graph_folder
from headrace.engines.profile_encoder import ProfileEncoder
from headrace.modalities import modality
from headrace.profiles import EngineProfile
from headrace.v1 import queue_pb2
from headrace.wire.work import heartbeat_from_proto
from headrace.worker.app import Stock, Worker
from headrace.worker.outfit import Outfit
from tests.engines import tiny_llama
from tests.worker.kit import (
    ATTEMPT,
    MODEL,
    Gate,
    GatedOnnx,
    GatedProfile,
    Mesh,
    Peer,
    card,
    command,
    is_empty,
    picture,
    prefill,
    request_id,
    until,
)

pytestmark = pytest.mark.timeout(90)

A, B, C = MODEL, f"{MODEL}-b", f"{MODEL}-c"
TOKENS, STEP_S = 100, 0.006
PACE = Pace(STEP_S, 0.0, 0.0)
PACED = EngineProfile("paced", "[I] for tests", kv_bytes_per_token=64, cost=StepCost(Curve((0.0,), (STEP_S,))))


class Shop:
    """Opens models, and remembers how often."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.gate = Gate()
        self.takes_s = 0.0
        self.broken: set[str] = set()

    def open(self, model: str, slots: int = 4) -> Outfit:
        self.opened.append(model)
        time.sleep(self.takes_s)
        if model in self.broken:
            raise Unavailable(f"no weights of {model}")
        kind = family(model)
        engine = GatedProfile(kind.spec, kind.pieces, PACED, slots=slots, blocks=256, chunk_tokens=512)
        engine.gate = self.gate
        encoders = {"image": ProfileEncoder(modality("image"), kind.spec.embed_width)}
        return Outfit(kind.spec, kind.pieces, engine, encoders, pace=PACE)

    def stock(self, warm_max: int = 1, **known: object) -> Stock:
        cards = (
            card(lambda: self.open(A), A, slots=4, blocks=256, pace=PACE, **known),
            card(lambda: self.open(B, slots=2), B, slots=2, blocks=256, pace=PACE, **known),
            card(lambda: self.open(C), C, slots=4, blocks=256, pace=PACE, **known),
        )
        return Stock(self.open(A), cards, warm_max)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@asynccontextmanager
async def serving(mesh: Mesh, shop: Shop, warm_max: int = 1, **given: object) -> AsyncIterator[Worker]:
    stock = shop.stock(warm_max)
    async with mesh.worker("w-0", "encode", "prefill", "decode", stock=stock, **given) as worker:  # type: ignore[arg-type]
        yield worker


async def load(peer: Peer, model: str) -> None:
    peer.send("w-0", load=model)
    await until(lambda: "w-0" in peer.beats and (beat := peer.beats["w-0"][-1]).model == model and not beat.loading)


async def asked(peer: Peer, model: str, key: Key | None = None, max_tokens: int = TOKENS) -> Key:
    key = key or Key(request_id(), ATTEMPT)
    peer.send("w-0", prefill=prefill(key, "w-0", model=model, max_tokens=max_tokens))
    return key


async def answer(peer: Peer, model: str) -> list[int]:
    key = await asked(peer, model)
    await until(lambda: key in peer.ended)
    peer.send("w-0", release=key)
    return peer.text(key)


async def begun(peer: Peer, shop: Shop, model: str) -> Key:
    """Some tokens of an answer; then nobody gets any until the gate is opened again."""
    shop.gate.let(0)
    key = await asked(peer, model)

    def some() -> bool:
        if len(peer.tokens.get(key, ())) >= 6:
            return True
        if shop.gate.shut:  # others had their turn before this one was there
            shop.gate.let(1)
        return False

    await until(some)
    shop.gate.let(0)
    return key


async def evicted(peer: Peer, shop: Shop, model: str) -> Key:
    key = await begun(peer, shop, model)
    peer.send("w-0", evict=key)
    await until(lambda: key in peer.evicted)
    shop.gate.open()
    return key


def told(peer: Peer) -> list[tuple[str, str]]:
    """What the heartbeats said of model and loading, each change once."""
    said = [(beat.model, beat.loading) for beat in peer.beats["w-0"]]
    return said[:1] + [after for before, after in pairwise(said) if after != before]


async def test_there_and_back_with_what_was_evicted(mesh: Mesh, peer: Peer, shop: Shop) -> None:
    async with serving(mesh, shop) as worker:
        want = {A: await answer(peer, A)}
        key = await evicted(peer, shop, A)
        await load(peer, B)
        assert heartbeat_from_proto(peer.beats["w-0"][-1]).done == Done()
        assert (peer.beats["w-0"][-1].slots, peer.beats["w-0"][-1].blocks) == (2, 256)
        assert [hold.state for hold in peer.holds("w-0")] == [queue_pb2.HOLD_STATE_EVICTED]
        want[B] = await answer(peer, B)
        await until(lambda: peer.beats["w-0"][-1].done.decode_tokens >= TOKENS - 1)
        await load(peer, A)
        assert await answer(peer, A) == want[A]
        peer.send("w-0", resume=key)
        await until(lambda: key in peer.ended)
        assert peer.text(key) == want[A]
        assert want[A] != want[B]
        assert shop.opened == [A, B], "back from host memory"
        assert told(peer) == [(A, ""), (A, B), (B, ""), (B, A), (A, "")]
        peer.send("w-0", release=key)
        await until(lambda: is_empty(mesh, "w-0"))
        assert worker.state().slots == 4


async def test_what_it_says_that_it_could_load(mesh: Mesh, peer: Peer, shop: Shop) -> None:
    async with serving(mesh, shop):
        await until(lambda: "w-0" in peer.beats)
        first = heartbeat_from_proto(peer.beats["w-0"][-1])
        assert first.pace == PACE
        assert first.kv_bytes_per_token == 64
        assert first.loadable == (
            Loadable(B, 10.0, warm=False, slots=2, blocks=256, block_tokens=16, pace=PACE),
            Loadable(C, 10.0, warm=False, slots=4, blocks=256, block_tokens=16, pace=PACE),
        )
        await load(peer, B)
        told = {each.model: each for each in heartbeat_from_proto(peer.beats["w-0"][-1]).loadable}
        assert told.keys() == {A, C}
        assert (told[A].warm, told[A].load_s) == (True, 1.0), "a guess: none has been measured"
        assert not told[C].warm
        assert 0 < told[C].load_s < 10.0, "as long as the other cold load took"
        await load(peer, C)
        warm = {each.model: each.warm for each in heartbeat_from_proto(peer.beats["w-0"][-1]).loadable}
        assert warm == {A: False, B: True}, "one is kept warm, the one used last"


@pytest.mark.parametrize(("warm_max", "opened"), [(0, [A, B, A]), (1, [A, B]), (2, [A, B])])
async def test_how_many_stay_warm(mesh: Mesh, peer: Peer, shop: Shop, warm_max: int, opened: list[str]) -> None:
    async with serving(mesh, shop, warm_max):
        await load(peer, B)
        await load(peer, A)
        assert shop.opened == opened


async def test_whatever_still_decodes_is_evicted(mesh: Mesh, peer: Peer, shop: Shop) -> None:
    """A safety net: nobody orders a load over running requests."""
    async with serving(mesh, shop):
        want = await answer(peer, A)
        keys = [await begun(peer, shop, A) for _ in range(3)]
        await load(peer, B)
        shop.gate.open()
        assert set(keys) <= peer.evicted.keys()
        assert await answer(peer, B)
        await load(peer, A)
        for key in keys:
            peer.send("w-0", resume=key)
        await until(lambda: all(key in peer.ended for key in keys))
        assert [peer.text(key) for key in keys] == [want] * 3
        assert not peer.failed
        for key in keys:
            peer.send("w-0", release=key)
        await until(lambda: is_empty(mesh, "w-0"))


async def test_what_finds_no_room_goes_elsewhere(mesh: Mesh, peer: Peer, shop: Shop) -> None:
    async with serving(mesh, shop, evicted_bytes=1):
        running = await begun(peer, shop, A)
        waiting = [await asked(peer, A) for _ in range(8)]  # of which three wait for a slot
        await load(peer, B)
        assert not peer.evicted
        shop.gate.open()
        await until(lambda: {running, *waiting} <= peer.failed.keys())
        assert all(peer.failed[key].retryable for key in (running, *waiting))
        await until(lambda: is_empty(mesh, "w-0"))
        assert await answer(peer, B)


async def test_a_model_that_is_not_loaded_fails_retryable(mesh: Mesh, peer: Peer, shop: Shop) -> None:
    async with serving(mesh, shop), mesh.worker("b-0", "decode", engine=shop.open(A).engine):
        want, kept, moved = await answer(peer, A), await evicted(peer, shop, A), await evicted(peer, shop, A)
        await load(peer, B)
        wrong = await asked(peer, A)
        peer.send("w-0", resume=kept)
        await until(lambda: {wrong, kept} <= peer.failed.keys())
        assert all(peer.failed[key].retryable for key in (wrong, kept))
        assert "not profile-tiny" in peer.failed[wrong].failure.message
        peer.send("w-0", move=MoveCommand(moved, "b-0"))  # to a worker that has it
        await until(lambda: moved in peer.ended)
        assert peer.text(moved) == want
        for name in ("b-0", "w-0"):
            peer.send(name, release=moved)
        await until(lambda: is_empty(mesh, "b-0") and is_empty(mesh, "w-0"))


async def test_heartbeats_go_on_while_it_loads(mesh: Mesh, peer: Peer, shop: Shop) -> None:
    shop.takes_s = 0.0
    async with serving(mesh, shop):
        await until(lambda: "w-0" in peer.beats)
        shop.takes_s = 1.8
        peer.send("w-0", load=B)
        await until(lambda: peer.beats["w-0"][-1].loading == B)
        early = await asked(peer, B)
        await until(lambda: early in peer.failed)
        assert "is loading" in peer.failed[early].failure.message
        for _ in range(3):
            peer.send("w-0", load=B)  # said again: nothing new
        await until(lambda: peer.beats["w-0"][-1].model == B)
        assert sum(beat.loading == B for beat in peer.beats["w-0"]) >= 3
        assert shop.opened == [A, B]


async def test_a_load_that_fails(mesh: Mesh, peer: Peer, shop: Shop) -> None:
    async with serving(mesh, shop):
        want, key = await answer(peer, A), await evicted(peer, shop, A)
        shop.broken.add(B)
        peer.send("w-0", load=B)
        await until(lambda: peer.beats["w-0"][-1].load_error)
        beat = peer.beats["w-0"][-1]
        assert (beat.model, beat.loading, beat.load_error) == (A, "", f"{B}: no weights of {B}")
        peer.send("w-0", resume=key)
        await until(lambda: key in peer.ended)
        assert peer.text(key) == want
        shop.broken.clear()
        await load(peer, B)
        assert not peer.beats["w-0"][-1].load_error
        peer.send("w-0", load="llama-9")
        await until(lambda: peer.beats["w-0"][-1].load_error.startswith("llama-9: "))
        assert peer.beats["w-0"][-1].model == B


async def test_the_last_of_several_orders_counts(mesh: Mesh, peer: Peer, shop: Shop) -> None:
    async with serving(mesh, shop):
        shop.takes_s = 0.1
        for model in (B, C, A, C):
            peer.send("w-0", load=model)
        await until(lambda: peer.beats.get("w-0") and peer.beats["w-0"][-1].model == C)
        await asyncio.sleep(0.5)
        assert (peer.beats["w-0"][-1].model, peer.beats["w-0"][-1].loading) == (C, "")
        assert await answer(peer, C)


async def test_an_order_is_taken_back_while_the_model_loads(mesh: Mesh, peer: Peer, shop: Shop) -> None:
    async with serving(mesh, shop):
        await until(lambda: "w-0" in peer.beats)
        shop.takes_s = 0.5
        peer.send("w-0", load=B)
        await until(lambda: peer.beats["w-0"][-1].loading == B)
        for model in (C, B):
            peer.send("w-0", load=model)
        await until(lambda: peer.beats["w-0"][-1].model == B)
        await asyncio.sleep(0.2)
        assert shop.opened == [A, B]


async def test_encoders_go_with_their_model(mesh: Mesh, peer: Peer, shop: Shop) -> None:
    async with serving(mesh, shop):
        await load(peer, B)
        old, new = Key(request_id(), ATTEMPT), Key(request_id(), ATTEMPT)
        for key, model in ((old, A), (new, B)):
            part = replace(await command(mesh, key, 0, picture("red")), model=model)
            peer.send("w-0", encode=part)
        await until(lambda: old in peer.failed and (new, 0) in peer.encoded)
        assert peer.failed[old].retryable
        for key in (old, new):
            peer.send("w-0", release=key)
        await until(lambda: is_empty(mesh, "w-0"))


async def test_modelled_seconds_pass(mesh: Mesh, peer: Peer, shop: Shop) -> None:
    stock = shop.stock(modelled_s={False: 0.6, True: 0.2})
    async with mesh.worker("w-0", "prefill", "decode", stock=stock):
        await until(lambda: "w-0" in peer.beats)
        took_s = []
        for model in (B, A):
            began_s = time.monotonic()
            await load(peer, model)
            took_s.append(time.monotonic() - began_s)
        assert took_s[0] >= 0.6
        assert took_s[1] >= 0.2


class SlowOnnx(GatedOnnx):
    def step(self) -> StepResult:
        time.sleep(STEP_S)
        return super().step()


def tiny(folder: Path, seed: int, model: str, gate: Gate) -> Outfit:
    """A real graph; of another model by other weights."""
    checkpoint = replace(
        tiny_llama.CHECKPOINT,
        name=f"tiny{seed}",
        fingerprint=f"tiny seed {seed}",
        load_weights=lambda: tiny_llama.weights(seed),
    )
    graph = Llama(graph_folder(checkpoint, folder), tiny_llama.SHAPE, threads=1)
    engine = SlowOnnx(
        tiny_llama.SPEC, checkpoint, graph, slots=4, blocks=256, chunk_tokens=32, prefix_cache_bytes=1 << 20
    )
    engine.gate = gate
    return Outfit(replace(tiny_llama.SPEC, name=model), family(MODEL).pieces, engine, {})


async def test_real_weights_there_and_back(mesh: Mesh, peer: Peer, tmp_path: Path) -> None:
    gate = Gate()
    opens: dict[str, Callable[[], Outfit]] = {
        A: lambda: tiny(tmp_path, 0, A, gate),
        B: lambda: tiny(tmp_path, 1, B, gate),
    }
    cards = tuple(card(opens[model], model) for model in (A, B))
    prompt = Prompt(tuple(range(2, 72)))
    async with mesh.worker("w-0", "prefill", "decode", stock=Stock(opens[A](), cards, 1)):

        async def says(model: str, evicts: bool = False) -> Key:
            key = Key(request_id(), ATTEMPT)
            if evicts:
                gate.let(6)
            peer.send("w-0", prefill=prefill(key, "w-0", model=model, prompt=prompt, max_tokens=TOKENS))
            await until(lambda: len(peer.tokens.get(key, ())) == 6 if evicts else key in peer.ended)
            if evicts:
                peer.send("w-0", evict=key)
                await until(lambda: key in peer.evicted)
                gate.open()
            return key

        want, key = peer.text(await says(A)), await says(A, evicts=True)
        await load(peer, B)
        other = peer.text(await says(B))
        beat = heartbeat_from_proto(peer.beats["w-0"][-1])
        assert [(each.model, each.warm) for each in beat.loadable] == [(A, True)]
        measured = beat.loadable[0].pace
        assert measured.step_s + measured.sequence_s > STEP_S, "as it was measured before it went"
        await load(peer, A)
        assert heartbeat_from_proto(peer.beats["w-0"][-1]).pace == measured
        peer.send("w-0", resume=key)
        await until(lambda: key in peer.ended)
        assert peer.text(key) == want == peer.text(await says(A))
        assert other != want
