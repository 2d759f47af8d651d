"""What embeddings cost a key: what was computed, and nothing where no encoder answers; and who may ask for them."""

import time
from dataclasses import replace
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from headrace.core.access import ASKING, Key, Limits
from headrace.core.errors import RateLimited, Unavailable
from headrace.mesh import keyfile
from headrace.predictor import sentences
from headrace.v1 import encoder_pb2 as pb
from services.gateway.ask import Caller
from services.gateway.auth import Keys
from services.gateway.batch_errand import Errand, Terms
from services.gateway.embedders import Embedders
from services.gateway.embedding import Embedding
from services.gateway.embeddings_route import PATH, EmbeddingsRoute
from services.gateway.fetch import NoFetcher
from services.gateway.http_reply import Disconnects
from services.gateway.limits import Limiter
from tests.gateway.conftest import Edge

pytestmark = pytest.mark.timeout(30)


async def test_what_no_encoder_computed_is_given_back(edge: Edge) -> None:
    limiter = Limiter()
    embedders = Embedders(edge.front.gateway.bus)
    nobody = pb.Embedder(worker="encoder-9", grpc_address="127.0.0.1:1")
    nobody.models.add(name=sentences.NAME, width=384, modalities=["text"])
    embedders.on_word(nobody.SerializeToString())
    embedding = Embedding(embedders, [], NoFetcher(), limiter)
    key = Key("k", b"", "alice", ASKING, Limits(requests_per_min=2, tokens_per_min=60, concurrent=1))
    caller = Caller("alice", 0.0, 0.0, key=key)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await embedding.embed(sentences.NAME, ["a cat on a mat"] * 8, caller)
    assert limiter._local["k"].tokens == pytest.approx(60, abs=0.01)
    assert not limiter._local["k"].running
    with pytest.raises(RateLimited):  # a try is a request
        await embedding.embed(sentences.NAME, ["a cat"], caller)
    await embedders.stop()


@pytest.mark.parametrize(("scope", "at_once"), [("generate", 503), ("batch", 403)])
async def test_a_batch_key_embeds_in_batches_alone(edge: Edge, scope: Any, at_once: int) -> None:
    """503: it was let in, and there is no encoder."""
    shown, key = keyfile.make("alice", [scope])
    front = replace(edge.front, keys=Keys([key]))
    embedders = Embedders(edge.front.gateway.bus)
    embedding = Embedding(embedders, [], NoFetcher(), Limiter())
    app: Any = EmbeddingsRoute(front, embedding)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://gateway") as http:
        reply = await http.post(PATH, json={"input": "hi"}, headers={"authorization": f"Bearer {shown}"})
    assert reply.status_code == at_once
    terms = Terms("alice", "batch-1", time.time() + 60, key.id)
    line = Errand(front, Disconnects(), PATH, lambda posing, _: EmbeddingsRoute(posing, embedding), terms)
    assert (await line.post(b'{"input": "hi"}', "line-1")).status == 503
    await embedders.stop()
