"""Constrained answers through workers: handed over, moved, replayed; what cannot go on ends, and says why."""

import json
from dataclasses import replace
from typing import Any

import pytest

from headrace.core.commands import MoveCommand
from headrace.core.types import Key, Sampling
from headrace.engines import grammar
from headrace.engines.families import family
from headrace.worker.handover import Handover
from tests.worker.kit import ATTEMPT, MODEL, Mesh, Peer, prefill, request_id, until
from tests.worker.test_outbox import Wire, held
from tests.worker.test_wire_work import KV

pytestmark = pytest.mark.timeout(60)
PACED = "h100-qwen3-8b"
SCHEMA = {"type": "object", "properties": {"s": {"type": "string", "minLength": 90, "maxLength": 120}}}
BOUND = Sampling(400, grammar=grammar.json_schema(SCHEMA | {"required": ["s"], "additionalProperties": False}))


def said(tokens: list[int]) -> str:
    pieces = family(MODEL).pieces
    return b"".join([pieces[token] for token in tokens]).decode()


async def test_prefill_and_decode_apart_and_then_replayed(mesh: Mesh, peer: Peer) -> None:
    """The first token is drawn by one engine, the others by the next; a later attempt replays a part."""
    key, again = Key(request_id(), ATTEMPT), Key(request_id(), ATTEMPT + 1)
    async with mesh.worker("prefill-0", "prefill"), mesh.worker("decode-0", "decode"):
        peer.send("prefill-0", prefill=prefill(key, "decode-0", sampling=BOUND))
        await until(lambda: key in peer.ended)
        tokens = peer.text(key)
        assert 90 <= len(json.loads(said(tokens))["s"]) <= 120
        peer.send("prefill-0", prefill=prefill(again, "decode-0", sampling=BOUND, emitted=tuple(tokens[:70])))
        await until(lambda: again in peer.ended)
    assert list(peer.ended[again][0].tokens) == tokens


async def test_evicted_and_moved_it_goes_on(mesh: Mesh, peer: Peer) -> None:
    plain, key = Key(request_id(), ATTEMPT), Key(request_id(), ATTEMPT)
    async with mesh.worker("one", "prefill", "decode", profile=PACED), mesh.worker("two", "decode", profile=PACED):
        peer.send("one", prefill=prefill(plain, "one", sampling=BOUND))
        peer.send("one", prefill=prefill(key, "one", sampling=BOUND))
        await until(lambda: len(peer.tokens.get(key, ())) > 5)
        peer.send("one", evict=key)
        await until(lambda: key in peer.evicted)
        peer.send("one", move=MoveCommand(key, "two"))
        await until(lambda: key in peer.ended and plain in peer.ended)
    assert peer.text(key) == peer.text(plain)
    assert json.loads(said(peer.text(key)))


async def test_tokens_that_do_not_fit_end_the_request(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("both", "prefill", "decode"):
        peer.send("both", prefill=prefill(key, "both", sampling=BOUND, emitted=tuple(b"no")))
        await until(lambda: key in peer.failed)
        await until(lambda: not mesh.workers["both"].state().slots_used)
    failed = peer.failed[key]
    assert (failed.failure.code, failed.retryable) == ("stage_error", False)
    assert "the grammar cannot be followed" in failed.failure.message
    assert not peer.text(key)


@pytest.mark.parametrize(("grammar_bytes", "messages"), [(0, 2), (4000, 2), (60_000, 40)])
async def test_joins_fit_into_a_message_of_the_bus(grammar_bytes: int, messages: int) -> None:
    """Long prompts that ended in one iteration, each with its grammar."""
    wire, waiting = Wire(), []
    for number in range(40):
        one = held(f"{number:x}"[-1])
        sampling = replace(one.command.sampling, grammar=b"g" * grammar_bytes)
        prompt = replace(one.command.prompt, tokens=tuple(range(40_000, 48_192)))
        one.command = replace(one.command, sampling=sampling, prompt=prompt, decode_worker="w-1")
        one.exported_kv, one.state = KV, "handover"
        waiting.append(one)
    outbox: Any = None
    await Handover(wire, outbox, outbox, outbox).send_on(waiting, 1)
    assert len(wire.sent) == messages
    assert max(len(data) for _, data in wire.sent) < 1024 * 1024
