"""What both protocols need to answer: the gateway, admission, keys, traces, and how tokens read."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.core.types import StageSpan
from headrace.mesh.bus import Bus
from headrace.mesh.journal import Journal
from services.gateway.admission import Admission, Blobs, Terms
from services.gateway.auth import Keys
from services.gateway.calls import CallReader
from services.gateway.console.managers import Managers
from services.gateway.console.pages import Console
from services.gateway.limits import Limiter
from services.gateway.live import Live
from services.gateway.media import Fetcher
from services.gateway.metrics import GatewayMetrics
from services.gateway.models import Models
from services.gateway.service import Gateway, JournalPort
from services.gateway.text import TextStream
from services.gateway.told import ToldText
from services.gateway.tracing import Tracer


@dataclass(frozen=True, slots=True)
class Parts:
    """What a gateway is made of; the composition root and the tests choose."""

    bus: Bus
    journal: Journal
    blobs: Blobs
    terms: Terms
    keys: Keys
    fetcher: Fetcher
    tracer: Tracer
    limiter: Limiter = field(default_factory=Limiter)
    managers: Managers = field(default_factory=Managers)  # whom the console asks


@dataclass(frozen=True, slots=True)
class Front:
    gateway: Gateway
    admission: Admission
    keys: Keys
    tracer: Tracer
    models: Models
    console: Console
    fetcher: Fetcher
    limiter: Limiter

    @staticmethod
    def of(name: str, parts: Parts) -> "Front":
        journal, models = JournalPort(parts.journal), parts.terms.models
        gateway = Gateway(name, parts.bus, journal, GatewayMetrics(models.known, parts.terms.classes))
        admission = Admission(gateway, parts.terms, journal, parts.blobs, parts.fetcher, parts.limiter)
        console = Console(gateway, parts.keys, parts.terms.classes, parts.managers)
        return Front(gateway, admission, parts.keys, parts.tracer, models, console, parts.fetcher, parts.limiter)

    async def find(self, request_id: str, tenant: str) -> Live:
        """A request of this tenant, wherever it runs or ran, to be listened to here.

        Raises:
            NotFound: there is none.
            ModelNotFound: another gateway took it, for a model that this one is not configured for.
        """
        live = await self.gateway.lookup.get(request_id, tenant)
        self.models.family(live.facts.model)
        return live

    def text_of(self, live: Live) -> TextStream:
        return TextStream(self.models.family(live.facts.model).pieces, live.facts.stop)

    def told_of(self, live: Live) -> ToldText | None:
        """None: the request did not ask for log-probabilities."""
        if not live.facts.logprobs:
            return None
        model = live.facts.model
        ends = self.models.family(model).spec.eos_ids
        return ToldText(self.text_of(live), self.models.names(model), live.stream, ends)

    def calls_of(self, live: Live) -> CallReader | None:
        """None: the answer may not call tools."""
        return CallReader(live.facts.id) if live.facts.calls else None

    def timeline(self, live: Live) -> Sequence[StageSpan]:
        """Every stage's own times, and this gateway's around them when it received the request."""
        stages = live.end.timeline if live.end is not None else ()
        if not live.received_s:
            return stages
        name = self.gateway.name
        admit = StageSpan("admit", live.received_s, live.admitted_s, name)
        return (StageSpan("gateway", live.received_s, time.time(), name), admit, *stages)

    def servable(self, model: str) -> bool:
        cell = self.gateway.cell
        return cell is not None and model in cell.modalities
