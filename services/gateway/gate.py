"""What the gateway learns of its own refusals and promises: how far waits exceed what was expected when a request was
let in, and when those who were refused are to come back.
"""

from dataclasses import dataclass, field, replace

from headrace.core.errors import Overloaded
from services.gateway import capacity
from services.gateway.ask import Caller
from services.gateway.capacity import RETRY_S_MAX, Bid, Cell
from services.gateway.live import Live
from services.gateway.retries import Retries
from services.gateway.streams import Streams

# Waits over expected waits: this share of them is to be within the class's promise. The queue's order is not first come
# first served, and a machine that others use slows down; how much that matters is measured.
IN_TIME = 0.97
STRETCH_STEP = 0.1  # a late one makes the stretch longer by this, one in time shorter by 1/32 of it
STRETCH_LEAST, STRETCH_FIRST, STRETCH_MOST = 1.0, 1.25, 4.0
LONG = 0.25  # of what may be waited: shorter waits say more of a request's own prefill than of the queue


@dataclass(slots=True)
class Gate:
    """One gateway's."""

    # By class, model, and whether media of it are encoded first: the quantile IN_TIME of waits over expected ones.
    _stretch: dict[tuple[str, str, bool], float] = field(default_factory=dict)
    _retries: Retries = field(default_factory=Retries)
    _last_s: dict[str, float] = field(default_factory=dict)  # class -> when the last one was told to come back

    def admit(self, cell: Cell | None, now_s: float, bid: Bid, streams: Streams, caller: Caller) -> float:
        """The seconds that its first token is expected to take.

        Raises:
            Overloaded, Unavailable: with a time after which trying again makes sense.
        """
        tenant = caller.tenant
        self._retries.arrived(caller.again, now_s)
        stretch = self.stretch(bid.slo_class, bid.model, bool(bid.modalities))
        patient = replace(bid, patience_s=bid.patience_s / stretch)
        try:
            if caller.key.id:  # tenants with keys leave each other room
                capacity.leave_room(cell, bid, lambda: streams.of_tenant(bid.slo_class, tenant))
            return capacity.admit(
                cell,
                now_s,
                patient,
                lambda: streams.of_class(bid.slo_class),
                lambda: streams.modest(bid.slo_class, tenant),
            )
        except Overloaded as error:
            each_s = cell.served.each_s if cell is not None else 0.0
            error.come_back = not self._retries.spent
            error.retry_after_s = self._comes_back_s(bid.slo_class, error.retry_after_s, each_s, now_s)
            raise

    def stretch(self, slo_class: str, model: str, media: bool = False) -> float:
        return self._stretch.get((slo_class, model, media), STRETCH_FIRST)

    def began(self, live: Live, now_s: float) -> None:
        """Its first token has come."""
        if live.expected_s <= LONG * live.patience_s:
            return
        kind = (live.facts.slo_class, live.facts.model, live.media)
        known, waited = self.stretch(*kind), (now_s - live.opened_s) / live.expected_s
        step = IN_TIME if waited > known else IN_TIME - 1.0
        known = min(max(known + STRETCH_STEP * step, STRETCH_LEAST), STRETCH_MOST)
        self._stretch[kind] = known

    def _comes_back_s(self, slo_class: str, wait_s: float, each_s: float, now_s: float) -> float:
        """One after the other, as fast as the cell answers: told the same time, they would all come at once. wait_s:
        after which one would be let in if nobody else had been refused."""
        at_s = max(now_s + wait_s, self._last_s.get(slo_class, 0.0) + each_s)
        self._last_s[slo_class] = at_s = min(at_s, now_s + RETRY_S_MAX)
        return at_s - now_s
