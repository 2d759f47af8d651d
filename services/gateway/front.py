"""What both protocols need to answer: the gateway, admission, keys, traces, and how tokens read."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.core.types import StageSpan
from headrace.engines.families import Family
from headrace.mesh.bus import Bus
from headrace.mesh.journal import Journal
from services.gateway.admission import Admission, Blobs
from services.gateway.auth import Keys
from services.gateway.live import Live
from services.gateway.media import Fetcher
from services.gateway.metrics import GatewayMetrics
from services.gateway.service import Gateway, JournalPort
from services.gateway.text import TextStream
from services.gateway.told import Names, ToldText, names_of
from services.gateway.tracing import Tracer


@dataclass(frozen=True, slots=True)
class Parts:
    """What a gateway is made of; the composition root and the tests choose."""

    bus: Bus
    journal: Journal
    blobs: Blobs
    family: Family
    keys: Keys
    fetcher: Fetcher
    tracer: Tracer


@dataclass(frozen=True, slots=True)
class Front:
    gateway: Gateway
    admission: Admission
    keys: Keys
    tracer: Tracer
    family: Family
    names: Names

    @staticmethod
    def of(name: str, parts: Parts) -> "Front":
        journal, family = JournalPort(parts.journal), parts.family
        gateway = Gateway(name, parts.bus, journal, GatewayMetrics(family.spec.name))
        admission = Admission(gateway, family, journal, parts.blobs, parts.fetcher)
        return Front(gateway, admission, parts.keys, parts.tracer, family, names_of(family))

    def text_of(self, live: Live) -> TextStream:
        return TextStream(self.family.pieces, live.facts.stop)

    def told_of(self, live: Live) -> ToldText | None:
        """None: the request did not ask for log-probabilities."""
        if not live.facts.logprobs:
            return None
        return ToldText(self.text_of(live), self.names, live.stream, self.family.spec.eos_ids)

    def timeline(self, live: Live) -> Sequence[StageSpan]:
        """Every stage's own times, and this gateway's around them when it received the request."""
        stages = live.end.timeline if live.end is not None else ()
        if not live.received_s:
            return stages
        name = self.gateway.name
        admit = StageSpan("admit", live.received_s, live.admitted_s, name)
        return (StageSpan("gateway", live.received_s, time.time(), name), admit, *stages)

    def servable(self) -> bool:
        cell = self.gateway.cell
        return cell is not None and self.family.spec.name in cell.modalities
