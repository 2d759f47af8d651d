"""A prefill worker that begins on a request's first pictures: the others follow, or do not, and it answers the same."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from headrace.core.commands import PartsCommand, PrefillCommand
from headrace.core.errors import StageError
from headrace.core.types import Key, MediaSpan, Prompt, StageName, StageSpan, TensorHandle
from headrace.engines.base import SequenceInput
from headrace.engines.families import family
from headrace.engines.profile import ProfileEngine
from headrace.profiles import engine_profile
from headrace.v1 import common_pb2
from headrace.wire.convert import handle_from_proto
from headrace.worker.app import Worker
from tests.worker.kit import ATTEMPT, MODEL, Mesh, Peer, command, is_empty, picture, prefill, request_id, until

pytestmark = pytest.mark.timeout(60)
COLOURS = ("red", "green", "blue", "white")
SPANS = (StageSpan("encode", 1.0, 2.0, "encoder-0", 3),)


def made(engine: type[ProfileEngine] = ProfileEngine) -> ProfileEngine:
    """Of small chunks: every picture has some of its own."""
    kind = family(MODEL)
    return engine(kind.spec, kind.pieces, engine_profile("zero"), slots=8, blocks=512, chunk_tokens=16)


class Scene:
    """Pictures that an encoder has, and a prompt about them."""

    def __init__(self, mesh: Mesh, peer: Peer) -> None:
        self.mesh = mesh
        self.peer = peer
        self.key = Key(request_id(), ATTEMPT)
        self.handles: list[TensorHandle] = []
        self.stack = AsyncExitStack()

    async def open(self, *, decode: bool = False, host: str = "here", engine: ProfileEngine | None = None) -> "Scene":
        mesh, enter = self.mesh, self.stack.enter_async_context
        await enter(mesh.worker("encoder-0", "encode"))
        stages: tuple[StageName, ...] = ("prefill",) if decode else ("prefill", "decode")
        self.prefiller: Worker = await enter(mesh.worker("llm-0", *stages, engine=engine or made(), host=host))
        self.decoder = "llm-0"
        if decode:
            await enter(mesh.worker("decode-0", "decode", engine=made()))
            self.decoder = "decode-0"
        await self.encode()
        return self

    async def encode(self) -> None:
        for part, colour in enumerate(COLOURS):
            self.peer.send("encoder-0", encode=await command(self.mesh, self.key, part, picture(colour)))
        await until(lambda: all((self.key, part) in self.peer.encoded for part in range(len(COLOURS))))
        encoded = [self.peer.encoded[self.key, part] for part in range(len(COLOURS))]
        self.handles = [handle_from_proto(each.embedding) for each in encoded]

    def prefill(self, parts: int) -> PrefillCommand:
        spec, tokens, spans = family(MODEL).spec, list[int](), list[MediaSpan]()
        for part, handle in enumerate(self.handles):
            spans.append(MediaSpan(part, len(tokens), handle.length))
            tokens += [*(spec.placeholder_id,) * handle.length, 65 + part]
        prompt = Prompt((*tokens, 90, 91), tuple(spans))
        return prefill(self.key, self.decoder, prompt=prompt, embeddings=tuple(self.handles[:parts]), max_tokens=12)

    def feed(self, first: int, last: int, timeline: Sequence[StageSpan] = ()) -> None:
        more = PartsCommand(self.key, first, tuple(self.handles[first : last + 1]), tuple(timeline))
        self.peer.send("llm-0", parts=more)

    async def begin(self, parts: int) -> None:
        """It has computed what it can."""
        self.peer.send("llm-0", prefill=self.prefill(parts))
        await self.until_pulled(parts)
        held = self.prefiller.holds.requests[self.key.request_id]
        await until(lambda: held.place == "inside" and not self.prefiller._loaded.engine.has_work())  # type: ignore[union-attr]
        assert held.state in ("waiting", "prefill")

    async def until_pulled(self, parts: int) -> None:
        holds = self.prefiller.holds.requests
        await until(
            lambda: self.key.request_id in holds and len(holds[self.key.request_id].sequence.embeddings) == parts
        )

    async def answer(self) -> list[int]:
        await until(lambda: self.key in self.peer.ended)
        for worker in self.mesh.workers:
            self.peer.send(worker, release=self.key)
        await until(lambda: all(is_empty(self.mesh, worker) for worker in self.mesh.workers if worker != "encoder-0"))
        await until(lambda: not self.mesh.workers["encoder-0"].holds)
        return self.peer.text(self.key)


@pytest.fixture
async def at_once(mesh: Mesh, peer: Peer) -> list[int]:
    """The answer when all pictures are there from the beginning."""
    scene = await Scene(mesh, peer).open()
    async with scene.stack:
        peer.send("llm-0", prefill=scene.prefill(len(COLOURS)))
        return await scene.answer()


@pytest.mark.parametrize("decode", [False, True], ids=["colocated", "handed over"])
@pytest.mark.parametrize("host", ["here", "there"], ids=["mapped file", "gRPC"])
async def test_part_by_part_gives_the_same_tokens(
    mesh: Mesh, peer: Peer, at_once: list[int], decode: bool, host: str
) -> None:
    scene = await Scene(mesh, peer).open(decode=decode, host=host)
    async with scene.stack:
        await scene.begin(1)
        assert scene.prefiller.state().slots_used == 1
        scene.feed(1, 1)
        await scene.until_pulled(2)
        scene.feed(2, 3, SPANS)
        assert await scene.answer() == at_once
        timeline = peer.ended[scene.key][0].end.timeline
        assert [(span.stage, span.part) for span in timeline if span.stage == "encode"] == [("encode", 3)]


async def test_repeated_and_too_late_ones_change_nothing(mesh: Mesh, peer: Peer, at_once: list[int]) -> None:
    scene = await Scene(mesh, peer).open()
    async with scene.stack:
        scene.feed(1, 1)  # of a request that is not here yet
        await scene.begin(2)
        scene.feed(3, 3)  # the one before was lost
        scene.feed(0, 1)
        await until(lambda: any(hold.lacks == 2 for hold in peer.holds("llm-0")))
        assert len(scene.prefiller.holds.requests[scene.key.request_id].command.embeddings) == 2
        scene.feed(1, 2)
        scene.feed(1, 2)
        await scene.until_pulled(3)
        scene.feed(0, 3)
        assert await scene.answer() == at_once
        scene.feed(0, 3)


async def test_one_that_waits_for_media_stops_nobody(mesh: Mesh, peer: Peer) -> None:
    scene, other = await Scene(mesh, peer).open(), Key(request_id(), ATTEMPT)
    async with scene.stack:
        await scene.begin(1)
        steps = scene.prefiller._tally.iterations
        peer.send("llm-0", prefill=prefill(other, "llm-0", max_tokens=5))
        await until(lambda: other in peer.ended)
        assert scene.prefiller._tally.iterations - steps < 10, "it does not step for the one that waits"
        peer.send("llm-0", cancel=scene.key)
        await until(lambda: scene.key in peer.ended)
        assert peer.ended[scene.key][0].end.reason == common_pb2.FINISH_REASON_CANCELLED
        peer.send("llm-0", release=other)
        assert await scene.answer() == []


async def test_released_while_it_waits(mesh: Mesh, peer: Peer) -> None:
    """It goes on elsewhere, or as another attempt here."""
    scene = await Scene(mesh, peer).open()
    async with scene.stack:
        await scene.begin(2)
        peer.send("llm-0", cancel=scene.key, release=scene.key)
        await until(lambda: is_empty(mesh, "llm-0"))
        scene.feed(2, 3)
        peer.send("encoder-0", release=scene.key)
        await until(lambda: not mesh.workers["encoder-0"].holds)
    assert scene.key not in peer.ended
    assert scene.key not in peer.failed


async def test_a_part_that_is_gone_fails_the_attempt(mesh: Mesh, peer: Peer) -> None:
    scene = await Scene(mesh, peer).open()
    async with scene.stack:
        await scene.begin(1)
        peer.send("encoder-0", release=scene.key)
        await until(lambda: not mesh.workers["encoder-0"].holds)
        scene.feed(1, 3)
        await until(lambda: scene.key in peer.failed)
        assert peer.failed[scene.key].retryable
        await until(lambda: is_empty(mesh, "llm-0"))


class Refusing(ProfileEngine):
    """Refuses what comes later, as real engines refuse embeddings that are not finite."""

    def feed(self, sequence: SequenceInput) -> None:
        raise StageError("the embeddings of media part 1 are not finite")


async def test_a_part_that_holds_no_numbers_fails_the_attempt(mesh: Mesh, peer: Peer) -> None:
    """Nothing of it is left, in the engine or outside."""
    scene = await Scene(mesh, peer).open(engine=made(Refusing))
    async with scene.stack:
        await scene.begin(1)
        scene.feed(1, 1)
        await until(lambda: scene.key in peer.failed)
        assert "media part 1" in peer.failed[scene.key].failure.message
        await until(lambda: is_empty(mesh, "llm-0"))
        peer.send("encoder-0", release=scene.key)
        await until(lambda: not mesh.workers["encoder-0"].holds)


async def test_who_can_says_so(mesh: Mesh, peer: Peer) -> None:
    scene = await Scene(mesh, peer).open(decode=True)
    async with scene.stack:
        await until(lambda: {"llm-0", "decode-0", "encoder-0"} <= peer.beats.keys())
        told = {name: beats[-1].overlaps for name, beats in peer.beats.items()}
        assert told == {"llm-0": True, "decode-0": False, "encoder-0": False}
        peer.send("encoder-0", release=scene.key)
        await until(lambda: not mesh.workers["encoder-0"].holds)
