"""What both protocols need to answer: the gateway, admission, keys, traces, and how tokens read."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.core.types import StageSpan
from headrace.engines.families import Family
from services.gateway.admission import Admission
from services.gateway.auth import Keys
from services.gateway.live import Live
from services.gateway.service import Gateway
from services.gateway.text import TextStream
from services.gateway.tracing import Tracer


@dataclass(frozen=True, slots=True)
class Front:
    gateway: Gateway
    admission: Admission
    keys: Keys
    tracer: Tracer
    family: Family

    def text_of(self, live: Live) -> TextStream:
        return TextStream(self.family.pieces, live.facts.stop)

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
