"""What a gateway offers beside the OpenAI chat: files, batches, embeddings, the Open Inference Protocol; put together
here, started and stopped as one.
"""

from collections.abc import Sequence

from starlette.routing import Route

from headrace.mesh.config import Settings
from headrace.mesh.tls import Tls
from headrace.predictor import sentences
from services.gateway import bodies, embeddings_route
from services.gateway.batch_desk import Desk
from services.gateway.embedders import Embedders
from services.gateway.embedding import Embedding
from services.gateway.embeddings_route import EmbeddingsRoute
from services.gateway.front import Front
from services.gateway.http_reply import Disconnects
from services.gateway.oip import Inference
from services.gateway.oip_rest import OipPages
from services.gateway.oip_rpc import OipServicer


class Beside:
    def __init__(self, front: Front, settings: Settings, tls: Tls | None) -> None:
        """Raises BadSetup: settings of batches that make no sense."""
        self._front = front
        self._embedders = Embedders(front.gateway.bus, tls)
        embedding = self.embedding = Embedding(self._embedders, list(front.models), front.fetcher, front.limiter)
        path = embeddings_route.PATH
        self._desk = Desk(front, settings, {path: lambda posing, _: EmbeddingsRoute(posing, embedding)})
        inference, self._disconnects = Inference(front, embedding), Disconnects()
        self.oip = OipServicer(inference)
        self.routes: Sequence[Route] = [
            *self._desk.routes(),
            *OipPages(inference, self._disconnects).routes(),
            Route(path, EmbeddingsRoute(front, embedding), methods=["POST"]),
        ]

    def listed(self) -> list[bodies.Model]:
        """Models that embed and do not answer, as far as encoders are heard now."""
        known = self._front.models.known
        offers = [offer for offer in self._embedders.offers().values() if offer.name not in known]
        context = sentences.CONTEXT_TOKENS
        return [bodies.Model(one.name, "model", 0, "headrace", context, sorted(one.modalities), True) for one in offers]

    async def start(self) -> None:
        """Raises BadSetup: NATS has no room for the streams."""
        await self._embedders.start()
        self._front.gateway.metrics.registry.register(self.embedding)
        self._front.gateway.on_sweep.append(self._disconnects.sweep)
        await self._desk.start()

    async def stop_batches(self) -> None:
        """Before the gateway drains: their requests go on without it."""
        await self._desk.stop()

    async def stop(self) -> None:
        await self._embedders.stop()
