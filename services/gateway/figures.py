"""What is counted of one model's requests, and the vllm:* families that it makes. Observing costs an index and two
additions; families are made when somebody scrapes. Of traced requests each bucket remembers the newest, as its
exemplar: from a slow bucket to the trace of one that was slow.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client.samples import Exemplar

from headrace.core.types import End
from services.gateway.live import Facts, Live

Bucket = tuple[str, float] | tuple[str, float, Exemplar]  # upper bound, cumulative count

LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0, 300.0, 3600.0)
GAP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 10.0)
TOKENS = (1, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 32768)
STAGE_TIMES = {"queue": "queue_s", "prefill": "prefill_s", "decode": "decode_s"}
EVICTED = "evicted"  # the stage of a request whose KV cache has left the engine for host memory


class Histogram:
    __slots__ = ("_bounds", "_counts", "_traced", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._traced: dict[int, tuple[Facts, float, float]] = {}  # bucket -> the newest traced: whose, value, when
        self.total = 0.0

    def observe(self, value: float, facts: Facts) -> None:
        at = bisect_left(self._bounds, value)
        self._counts[at] += 1
        self.total += value
        if facts.traceparent:
            self._traced[at] = facts, value, time.time()

    def buckets(self) -> list[Bucket]:
        """Cumulative, as Prometheus wants them."""
        buckets: list[Bucket] = []
        total = 0.0
        for at, (bound, count) in enumerate(zip((*map(float, self._bounds), "+Inf"), self._counts, strict=True)):
            total += count
            traced = self._traced.get(at)
            buckets.append((str(bound), total) if traced is None else (str(bound), total, _exemplar(*traced)))
        return buckets


def _exemplar(facts: Facts, value: float, at_s: float) -> Exemplar:
    return Exemplar({"trace_id": facts.traceparent[3:35], "request_id": facts.id}, value, at_s)


class Figures:
    """Of one model."""

    def __init__(self) -> None:
        self.ttft, self.e2e = Histogram(LATENCY_S), Histogram(LATENCY_S)
        self.inter_token, self.per_token = Histogram(GAP_S), Histogram(GAP_S)
        self.queue_s, self.prefill_s = Histogram(LATENCY_S), Histogram(LATENCY_S)
        self.decode_s, self.inference_s = Histogram(LATENCY_S), Histogram(LATENCY_S)
        self.prompt, self.generated = Histogram(TOKENS), Histogram(TOKENS)
        self.ends: Counter[str] = Counter()
        self.prompt_tokens = self.generated_tokens = self.cached_tokens = self.evictions = 0

    def ended(self, live: Live, end: End, now_s: float) -> None:
        facts, tokens = live.facts, len(live.stream.tokens)
        self.ends[end.reason] += 1
        self.generated_tokens += tokens
        self.prompt_tokens += end.usage.prompt_tokens
        self.cached_tokens += end.usage.cached_tokens
        self.prompt.observe(end.usage.prompt_tokens, facts)
        self.generated.observe(tokens, facts)
        if live.received_s:
            self.e2e.observe(now_s - live.opened_s, facts)
        if tokens > 1 and live.first_token_s is not None:
            self.per_token.observe((now_s - live.first_token_s) / (tokens - 1), facts)
        self._stages(end, facts)

    def _stages(self, end: End, facts: Facts) -> None:
        """Once a request: one that was evicted, or begun anew, was in a stage several times."""
        took_s: dict[str, float] = {}
        for span in end.timeline:
            self.evictions += span.stage == EVICTED
            if span.stage in STAGE_TIMES:
                took_s[span.stage] = took_s.get(span.stage, 0.0) + max(0.0, span.end_s - span.start_s)
        for stage, stage_s in took_s.items():
            getattr(self, STAGE_TIMES[stage]).observe(stage_s, facts)
        self.inference_s.observe(sum(stage_s for stage, stage_s in took_s.items() if stage != "queue"), facts)

    def histograms(self) -> Iterator[tuple[str, str, Histogram]]:
        yield from (
            ("vllm:time_to_first_token_seconds", "Arrival to first token, at the gateway", self.ttft),
            ("vllm:inter_token_latency_seconds", "Between tokens, at the gateway", self.inter_token),
            ("vllm:request_time_per_output_token_seconds", "Mean time between tokens of a request", self.per_token),
            ("vllm:e2e_request_latency_seconds", "Arrival to end, at the gateway", self.e2e),
            ("vllm:request_queue_time_seconds", "Time in the queue", self.queue_s),
            ("vllm:request_inference_time_seconds", "Time in prefill and decode", self.inference_s),
            ("vllm:request_prefill_time_seconds", "Time in prefill", self.prefill_s),
            ("vllm:request_decode_time_seconds", "Time in decode", self.decode_s),
            ("vllm:request_prompt_tokens", "Prompt tokens of a request", self.prompt),
            ("vllm:request_generation_tokens", "Tokens generated for a request", self.generated),
            ("headrace_time_to_first_token_seconds", "Arrival to first token", self.ttft),
            ("headrace_request_seconds", "Arrival to end", self.e2e),
        )

    def counters(self) -> Iterator[tuple[str, str, int]]:
        yield from (
            ("vllm:prompt_tokens", "Prompt tokens of ended requests", self.prompt_tokens),
            ("vllm:generation_tokens", "Tokens generated for ended requests", self.generated_tokens),
            ("vllm:prefix_cache_queries", "Prompt tokens looked up in cached prefixes", self.prompt_tokens),
            ("vllm:prefix_cache_hits", "Prompt tokens found in cached prefixes", self.cached_tokens),
            ("vllm:num_preemptions", "Times that ended requests had been taken out of an engine", self.evictions),
        )
