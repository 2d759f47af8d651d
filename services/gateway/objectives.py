"""Whether promises were kept, class by class: what the alerts on error budgets are made of.

Two objectives. `ttft`: the first token came within the target of the request, or of its class. `available`: the
request was let in, and did not end with an error or at its deadline. What a client cancels, asks wrongly, or asks
beyond its own key's limits breaks no promise. Each request counts at the gateway that received it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client.core import CounterMetricFamily, Metric

from headrace.core.errors import Overloaded, RateLimited, Unavailable
from headrace.core.slo import Classes
from services.gateway.live import Live

TTFT, AVAILABLE = "ttft", "available"
BROKEN = frozenset({"error", "deadline"})  # ends that break a promise


class Objectives:
    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        # Zeros from the beginning: a counter that appears with its first miss has no rate then.
        pairs = [(name, objective) for name in classes.named for objective in (TTFT, AVAILABLE)]
        self.judged, self.missed = dict.fromkeys(pairs, 0), dict.fromkeys(pairs, 0)

    def first_token(self, live: Live, now_s: float) -> None:
        slo = self._classes.named.get(live.facts.slo_class)
        if slo is not None:
            self._judge(slo.name, TTFT, kept=now_s - live.opened_s <= (live.facts.ttft_s or slo.ttft_s))

    def ended(self, live: Live) -> None:
        assert live.end is not None
        name, broken = live.facts.slo_class, live.end.reason in BROKEN
        if name not in self._classes.named or not live.received_s or live.end.reason == "cancelled":
            return
        self._judge(name, AVAILABLE, kept=not broken)
        if broken and live.first_token_s is None:
            self._judge(name, TTFT, kept=False)

    @contextmanager
    def admitting(self, slo_class: str) -> Iterator[None]:
        """Counts a refusal for which the mesh is to blame."""
        try:
            yield
        except (Overloaded, Unavailable) as error:
            if not isinstance(error, RateLimited):
                self._judge(slo_class, AVAILABLE, kept=False)
            raise

    def _judge(self, slo_class: str, objective: str, *, kept: bool) -> None:
        self.judged[slo_class, objective] += 1
        self.missed[slo_class, objective] += not kept

    def families(self) -> Iterator[Metric]:
        labels = ["slo_class", "objective"]
        judged = CounterMetricFamily("headrace_slo_judged", "Requests that could keep a promise", labels=labels)
        missed = CounterMetricFamily("headrace_slo_missed", "Those that broke it", labels=labels)
        for family, counts in ((judged, self.judged), (missed, self.missed)):
            for pair, count in counts.items():
                family.add_metric(pair, count)
        yield from (judged, missed)
