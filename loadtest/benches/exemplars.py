"""What exemplars cost a gateway.

Processor time of a request's observations (one request: 40 gaps between tokens and ten others), traced and not, as
ratios to a histogram that knows no exemplars; and of a scrape of two models with every bucket's exemplar, against the
older text that has none.
"""

import argparse
import sys
import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from headrace.mesh.metrics import OPEN_METRICS, exposition
from headrace.report.provenance import plain
from loadtest.benches.report import finish, say
from services.gateway.figures import GAP_S, LATENCY_S, Histogram
from services.gateway.live import Facts
from services.gateway.metrics import GatewayMetrics

GAPS, OTHERS = 40, 10
ROUNDS, REQUESTS = 31, 2_000
QUICK_ROUNDS, QUICK_REQUESTS = 7, 500


class Bare:
    """A histogram as it would be without exemplars."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float, _: Facts) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value


def request_us(kind: type[Histogram] | type[Bare], facts: Facts, requests: int) -> float:
    """Of all that one request lets be observed."""
    gaps, others = kind(GAP_S), kind(LATENCY_S)
    began = time.process_time()
    for n in range(requests):
        for at in range(GAPS):
            gaps.observe(0.001 * (1 + at % 40), facts)
        for at in range(OTHERS):
            others.observe(0.01 * (1 + (n + at) % 300), facts)
    return (time.process_time() - began) / requests * 1e6


def of(traceparent: str) -> Facts:
    return Facts("0" * 32, "tenant", "model", b"", (), 100, 0, "interactive", traceparent)


def filled() -> GatewayMetrics:
    """Two models, an exemplar in every bucket of every histogram."""
    metrics = GatewayMetrics(("one", "two"))
    facts = of(f"00-{'ab' * 16}-{'cd' * 8}-01")
    for figures in metrics._figures.values():  # the bench fills what requests would
        for _, _, histogram in figures.histograms():
            for bound in (*histogram._bounds, 1e9):
                histogram.observe(bound, facts)
    return metrics


def scrape(metrics: GatewayMetrics, accept: str) -> tuple[float, int]:
    """ms of processor time, bytes."""
    began = time.process_time()
    _, body = exposition(metrics.registry, accept)
    return (time.process_time() - began) * 1e3, len(body)


def figures(rounds: int, requests: int) -> dict[str, Any]:
    """In turns, and the least of each: what others do to a shared machine only ever adds."""
    untold, traced = of(""), of(f"00-{'ab' * 16}-{'cd' * 8}-01")
    metrics = filled()
    bare, untraced, sampled, text, openmetrics = zip(
        *[
            (
                request_us(Bare, untold, requests),
                request_us(Histogram, untold, requests),
                request_us(Histogram, traced, requests),
                scrape(metrics, "")[0],
                scrape(metrics, OPEN_METRICS)[0],
            )
            for _ in range(rounds)
        ],
        strict=True,
    )
    sizes = scrape(metrics, "")[1], scrape(metrics, OPEN_METRICS)[1]
    return {
        "observe_us_per_request": {"without": min(bare), "untraced": min(untraced), "traced": min(sampled)},
        "ratio_to_without": {"untraced": min(untraced) / min(bare), "traced": min(sampled) / min(bare)},
        "scrape_ms": {"text": min(text), "openmetrics": min(openmetrics)},
        "scrape_bytes": {"text": sizes[0], "openmetrics": sizes[1], "ratio": sizes[1] / sizes[0]},
    }


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench exemplars", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    found = figures(QUICK_ROUNDS, QUICK_REQUESTS) if args.quick else figures(ROUNDS, REQUESTS)
    for name, values in found.items():
        say(f"{name:<24} " + ", ".join([f"{key} {value:,.2f}" for key, value in values.items()]))
    if args.json:
        finish("exemplars", argv, [], plain(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
