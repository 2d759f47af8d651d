"""Who was served how much of late: token-weighted fair sharing within a class, with decay.

The virtual token counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): a prompt token counts
one, an output token two; whoever has waited for nothing is lifted to the least of those that wait, so that nobody saves
up a claim. Counters halve in a while, so that yesterday's load is no debt.
"""

from collections import OrderedDict

INPUT_WEIGHT, OUTPUT_WEIGHT = 1.0, 2.0


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
