"""Who was served how much of late: token-weighted fair sharing within a class, with decay.

The virtual token counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): a prompt token counts
one, an output token two; whoever has waited for nothing is lifted to the least of those that wait, so that nobody saves
up a claim. Counters halve in a while, so that yesterday's load is no debt.

Two levels: tenants share the class, and the flows that a tenant names share what is the tenant's. A thousand names are
a tenant's own affair: they get it no more than one.
"""

from collections import OrderedDict
from collections.abc import Iterable

INPUT_WEIGHT, OUTPUT_WEIGHT = 1.0, 2.0


def tenant_of(flow: str) -> str:
    """A flow's name is "<tenant> <name>", or the tenant's alone; a tenant's has no space in it."""
    return flow.partition(" ")[0]


def within(flow: str) -> str:
    """The counter of a flow among those of its tenant; what a tenant sends without a name is one flow as well."""
    return flow if " " in flow else flow + " "


class Shares:
    """Of one class; the flow that was served longest ago is forgotten first."""

    __slots__ = ("_at_s", "_flows_max", "_half_life_s", "_served")

    def __init__(self, half_life_s: float, flows_max: int) -> None:
        self._half_life_s = half_life_s
        self._flows_max = flows_max
        self._served: OrderedDict[str, float] = OrderedDict()  # in tokens of the moment _at_s
        self._at_s = 0.0

    def served(self, flow: str, now_s: float) -> float:
        return self._served.get(flow, 0.0) * self._fade(now_s)

    def charge(self, flow: str, tokens: float, now_s: float) -> None:
        """Negative: it was charged too much before."""
        self._settle(now_s)
        self._note(flow, max(0.0, self._served.pop(flow, 0.0) + tokens))

    def charge_both(self, flow: str, tokens: float, now_s: float) -> None:
        """The tenant, and the flow within it."""
        self.charge(within(flow), tokens, now_s)
        self.charge(tenant_of(flow), tokens, now_s)

    def claim(self, flow: str, now_s: float) -> tuple[float, float]:
        """Less comes first: the tenant's counter, then the flow's."""
        return self.served(tenant_of(flow), now_s), self.served(within(flow), now_s)

    def lift_both(self, flow: str, waiting: Iterable[str], now_s: float) -> None:
        """This flow begins to wait where those wait already."""
        flows = list(waiting)
        tenants = {tenant_of(other) for other in flows}
        mine = tenant_of(flow)
        if mine in tenants:
            beside = [self.served(within(other), now_s) for other in flows if tenant_of(other) == mine]
            self.lift(within(flow), min(beside), now_s)
        elif tenants:
            self.lift(mine, min(self.served(tenant, now_s) for tenant in tenants), now_s)

    def lift(self, flow: str, least: float, now_s: float) -> None:
        """It begins to wait, where those that wait already were served `least` or more."""
        if self.served(flow, now_s) < least:
            self._settle(now_s)
            self._note(flow, least)

    def _note(self, flow: str, tokens: float) -> None:
        self._served[flow] = tokens
        if len(self._served) > self._flows_max:
            self._served.popitem(last=False)

    def all(self, now_s: float) -> dict[str, float]:
        fade = self._fade(now_s)
        return {flow: tokens * fade for flow, tokens in self._served.items()}

    def _fade(self, now_s: float) -> float:
        return float(0.5 ** (max(0.0, now_s - self._at_s) / self._half_life_s))

    def _settle(self, now_s: float) -> None:
        """All of them to this moment, once in a hundredth of a half-life: in between the error is below a percent."""
        if now_s - self._at_s < 0.01 * self._half_life_s:
            return
        fade = self._fade(now_s)
        for flow in self._served:
            self._served[flow] *= fade
        self._at_s = now_s
