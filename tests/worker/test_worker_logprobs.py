"""Log-probabilities through workers: streamed sparsely, handed over, resent, logged, replayed, told with the end."""

import math
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.core.commands import ResendCommand
from headrace.core.types import Key, Prompt, Sampling, TokenLogprobs
from headrace.mesh.bus import Bus
from headrace.mesh.store import Store
from headrace.v1 import queue_pb2
from headrace.wire.convert import logprobs_from_proto
from headrace.worker.energy import Account
from headrace.worker.holds import Held
from headrace.worker.outbox import TOLD_ROWS_MAX, Outbox
from headrace.worker.spans import Spans
from tests.engines import tiny_llama
from tests.worker.kit import ATTEMPT, Mesh, Peer, prefill, request_id, until
from tests.worker.test_outbox import Wire, held

pytestmark = pytest.mark.timeout(60)
TOLD = Sampling(32, ignore_eos=True, logprobs=2)


@pytest.fixture
async def peer(nats_url: str) -> AsyncIterator[Peer]:
    bus = await Bus.connect(nats_url, "peer")
    peer = Peer(bus)
    await peer.listen("gateway-0", "gateway-1")
    yield peer
    await bus.close()


def fits(told: TokenLogprobs, token: int) -> bool:
    """What the profile engine tells: all plain tokens are equally likely, the drawn one stands first."""
    return told.logprob < -1.0 and len(told.top) == 2 and told.top[0] == (token, told.logprob)


def all_told(logprobs: dict[int, TokenLogprobs], tokens: list[int], first: int = 0) -> bool:
    return list(logprobs) == list(range(first, len(tokens))) and all(fits(logprobs[n], tokens[n]) for n in logprobs)


async def test_handed_over_they_come_with_every_token_and_with_the_end(mesh: Mesh, peer: Peer) -> None:
    key, plain = Key(request_id(), ATTEMPT), Key(request_id(), ATTEMPT)
    async with mesh.worker("prefill-0", "prefill"), mesh.worker("decode-0", "decode"):
        peer.send("prefill-0", prefill=prefill(plain, "decode-0"))
        peer.send("prefill-0", prefill=prefill(key, "decode-0", sampling=TOLD))
        await until(lambda: key in peer.ended and plain in peer.ended)
    assert len(peer.text(key)) == 32
    assert all_told(peer.logprobs[key], peer.text(key))
    ended = peer.ended[key][0]
    assert dict(logprobs_from_proto(ended.logprobs)) == peer.logprobs[key], "the first one from prefill included"
    assert plain not in peer.logprobs, "nobody pays who did not ask"
    assert not peer.ended[plain][0].logprobs


async def test_resent_to_another_gateway(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode"):
        peer.send("both-0", prefill=prefill(key, "both-0", sampling=TOLD))
        await until(lambda: key in peer.ended)
        first, peer.logprobs = peer.logprobs, {}
        peer.send("both-0", resend=ResendCommand(key, 5, "gateway-1"))
        await until(lambda: "gateway-1" in peer.gateways[key] and key in peer.logprobs)
    assert peer.logprobs[key] == {index: told for index, told in first[key].items() if index >= 5}


async def test_a_new_attempt_keeps_what_is_known_and_leaves_out_what_is_not(mesh: Mesh, peer: Peer) -> None:
    key, again = Key(request_id(), ATTEMPT), Key(request_id(), ATTEMPT + 1)
    async with mesh.worker("both-0", "prefill", "decode"):
        peer.send("both-0", prefill=prefill(key, "both-0", sampling=TOLD))
        await until(lambda: key in peer.ended)
        tokens, told = peer.text(key), peer.logprobs[key]
        known = tuple((index, told[index]) for index in range(10) if index != 4)
        command = prefill(again, "both-0", sampling=TOLD, emitted=tuple(tokens[:10]), emitted_logprobs=known)
        peer.send("both-0", prefill=command)
        await until(lambda: again in peer.ended)
    assert list(peer.ended[again][0].tokens) == tokens
    assert sorted(peer.logprobs[again]) == list(range(10, 32)), "replayed tokens are not sent again"
    assert dict(logprobs_from_proto(peer.ended[again][0].logprobs)) == {n: told[n] for n in told if n != 4}


async def test_the_token_log_keeps_them(mesh: Mesh, peer: Peer, redis_url: str) -> None:
    key = Key(request_id(), ATTEMPT)
    store = await Store.connect(redis_url, f"test-{mesh.directory.name}")
    async with mesh.worker("both-0", "prefill", "decode", profile="h100-qwen3-8b"):
        peer.send("both-0", prefill=prefill(key, "both-0", sampling=replace(TOLD, max_tokens=400)))
        await until(lambda: len(peer.tokens.get(key, ())) > 30)
        log = (await store.read_tokens([key.request_id]))[key.request_id]
        assert len(log.tokens) >= 16
        assert log.logprobs == tuple(sorted(peer.logprobs[key].items()))[: len(log.tokens)]
        peer.send("both-0", cancel=key)
    await store.close()


async def test_of_a_real_model_they_are_the_log_softmax(mesh: Mesh, peer: Peer, tmp_path: Path) -> None:
    """Prefill and decode apart; the reference is the model's forward pass in numpy over the whole sequence."""
    prompt, sampling = [5, 9, 60, 2, 33], Sampling(6, temperature=0.7, seed=4, ignore_eos=True, logprobs=3)
    key = Key(request_id(), ATTEMPT)
    engines = [tiny_llama.engine(tmp_path) for _ in range(2)]
    async with (
        mesh.worker("prefill-0", "prefill", engine=engines[0]),
        mesh.worker("decode-0", "decode", engine=engines[1]),
    ):
        peer.send("prefill-0", prefill=prefill(key, "decode-0", prompt=Prompt(tuple(prompt)), sampling=sampling))
        await until(lambda: key in peer.ended)
    tokens, weights = peer.text(key), tiny_llama.weights()
    for index, told in peer.logprobs[key].items():
        rows = weights["model.embed_tokens.weight"][[*prompt, *tokens[:index]]]
        row = tiny_llama.reference_logits(weights, rows)[-1].astype(np.float64)
        row -= row.max() + math.log(np.exp(row - row.max()).sum())
        assert told.logprob == pytest.approx(row[tokens[index]], abs=1e-4)
        assert [token for token, _ in told.top] == np.argsort(-row)[:3].tolist()
        np.testing.assert_allclose([value for _, value in told.top], -np.sort(-row)[:3], atol=1e-4)
    assert sorted(peer.logprobs[key]) == list(range(6))


def test_a_long_resend_is_cut_and_rows_count_from_each_messages_start() -> None:
    wire, one = Wire(), held("a")
    outbox = Outbox(wire, "w-0", "1", lambda _: False)
    count = TOLD_ROWS_MAX + 7
    one.tokens += range(count)
    top = tuple((token, -float(token)) for token in range(20))
    one.logprobs |= {index: TokenLogprobs(-index / 8, top) for index in range(0, count, 2)}
    one.end = Spans("w-0", Account()).end(one, "length", None)
    outbox.resend(one, 1)
    outbox.report_end(one)
    outbox.report_end(held_with_end("b"))
    outbox.flush()
    batches = wire.batches("hr.v1.tokens.gateway-0")
    heard = {batch.index[row]: told for batch in batches for row, told in logprobs_from_proto(batch.logprobs)}
    assert heard == {index: told for index, told in one.logprobs.items() if index >= 1}
    assert [len(batch.token) for batch in batches] == [TOLD_ROWS_MAX, 6]
    events: list[queue_pb2.EventBatch] = wire.events()
    assert [[ended.key.request_id[0] for ended in batch.ended] for batch in events] == [["b"], ["a"]]
    assert max(len(data) for _, data in wire.sent) < 1 << 20


def held_with_end(name: str) -> Held:
    one = held(name)
    one.end = Spans("w-0", Account()).end(one, "length", None)
    return one
