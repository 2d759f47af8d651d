"""Prometheus metrics of the gateway: headrace_* and the vllm:* names that dashboards and autoscalers already scrape.

Time to first token is measured here, where the client waits. Observing costs an index and two additions; families
are made when somebody scrapes.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.core.types import End
from headrace.v1 import queue_pb2
from services.gateway.live import Live

LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0, 300.0, 3600.0)
GAP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 10.0)
TOKENS = (1, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 32768)
STAGE_TIMES = {"queue": "queue_s", "prefill": "prefill_s", "decode": "decode_s"}


class Histogram:
    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self, name: str, text: str, model: str) -> HistogramMetricFamily:
        buckets, total = [], 0
        for bound, count in zip((*map(str, map(float, self._bounds)), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        family = HistogramMetricFamily(name, text, labels=["model_name"])
        family.add_metric([model], buckets, self._sum)
        return family


class CellGauges:
    """The last status of the queue manager, for those who scrape the gateway alone."""

    def __init__(self) -> None:
        self.status = queue_pb2.CellStatus()
        self.heard_s = 0.0

    def heard(self, status: queue_pb2.CellStatus) -> None:
        self.status, self.heard_s = status, time.monotonic()

    def families(self, model: str) -> Iterator[Metric]:
        classes, workers = self.status.classes, self.status.workers
        depth = GaugeMetricFamily("headrace_queue_depth", "Requests waiting in the cell", labels=["slo_class"])
        for load in classes:
            depth.add_metric([load.slo_class], load.queued)
        yield depth
        age_s = time.monotonic() - self.heard_s if self.heard_s else -1.0
        yield _gauge(
            "headrace_cell_status_age_seconds", "Since the queue manager's last status; -1: never heard", age_s
        )
        blocks = sum(worker.blocks for worker in workers)
        used = sum(worker.blocks_used for worker in workers) / blocks if blocks else 0.0
        for name, text, value in (
            ("num_requests_running", "Requests in prefill or decode", sum(load.running for load in classes)),
            ("num_requests_waiting", "Requests waiting", sum(load.queued for load in classes)),
            ("kv_cache_usage_perc", "KV blocks in use, 1 is all", used),
        ):
            yield _gauge(f"vllm:{name}", text, value, model)


class GatewayMetrics(Collector):
    def __init__(self, model: str) -> None:
        self._model = model
        self.open_streams: Callable[[], int] = int
        self.cell = CellGauges()
        self.ttft, self.e2e = Histogram(LATENCY_S), Histogram(LATENCY_S)
        self.inter_token, self.per_token = Histogram(GAP_S), Histogram(GAP_S)
        self.queue_s, self.prefill_s = Histogram(LATENCY_S), Histogram(LATENCY_S)
        self.decode_s, self.inference_s = Histogram(LATENCY_S), Histogram(LATENCY_S)
        self.prompt, self.generated = Histogram(TOKENS), Histogram(TOKENS)
        self.ends: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.accepted = self.prompt_tokens = self.generated_tokens = self.cached_tokens = self.untold = 0
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def ended(self, live: Live, now_s: float) -> None:
        end = live.end
        assert end is not None
        tokens = len(live.stream.tokens)
        self.ends[end.reason] += 1
        self.generated_tokens += tokens
        self.prompt_tokens += end.usage.prompt_tokens
        self.cached_tokens += end.usage.cached_tokens
        if live.facts.logprobs:
            self.untold += tokens - len(live.stream.logprobs)
        self.prompt.observe(end.usage.prompt_tokens)
        self.generated.observe(tokens)
        if live.received_s:
            self.e2e.observe(now_s - live.opened_s)
        if tokens > 1 and live.first_token_s is not None:
            self.per_token.observe((now_s - live.first_token_s) / (tokens - 1))
        self._stages(end)

    def _stages(self, end: End) -> None:
        inference_s = 0.0
        for span in end.timeline:
            name = STAGE_TIMES.get(span.stage)
            if name is not None:
                length_s = max(0.0, span.end_s - span.start_s)
                getattr(self, name).observe(length_s)
                inference_s += length_s if span.stage != "queue" else 0.0
        self.inference_s.observe(inference_s)

    def collect(self) -> Iterator[Metric]:
        yield from self.cell.families(self._model)
        yield from self._histograms()
        yield _gauge("headrace_open_streams", "Requests whose stream this gateway holds", self.open_streams())
        yield _counter("headrace_accepted", "Requests journaled by this gateway", {"": self.accepted}, "")
        yield _counter("headrace_ended", "Requests whose end this gateway has seen", self.ends, "reason")
        yield _counter("headrace_refused", "Requests refused, by error code", self.refused, "code")
        yield _counter(
            "headrace_logprobs_lost", "Tokens whose log-probability nobody knew any more", {"": self.untold}, ""
        )
        success = {reason: self.ends[reason] for reason in self.ends}
        yield _counter("vllm:request_success", "Requests ended", success, "finished_reason", self._model)
        for name, text, value in (
            ("prompt_tokens", "Prompt tokens of ended requests", self.prompt_tokens),
            ("generation_tokens", "Tokens generated for ended requests", self.generated_tokens),
            ("prefix_cache_queries", "Prompt tokens looked up in cached prefixes", self.prompt_tokens),
            ("prefix_cache_hits", "Prompt tokens found in cached prefixes", self.cached_tokens),
            ("num_preemptions", "Sequences evicted to make room: this engine never does", 0),
        ):
            yield _counter(f"vllm:{name}", text, {"": value}, "", self._model)

    def _histograms(self) -> Iterator[Metric]:
        for name, text, histogram in (
            ("time_to_first_token_seconds", "Arrival to first token, at the gateway", self.ttft),
            ("inter_token_latency_seconds", "Between tokens, at the gateway", self.inter_token),
            ("request_time_per_output_token_seconds", "Mean time between tokens of a request", self.per_token),
            ("e2e_request_latency_seconds", "Arrival to end, at the gateway", self.e2e),
            ("request_queue_time_seconds", "Time in the queue", self.queue_s),
            ("request_inference_time_seconds", "Time in prefill and decode", self.inference_s),
            ("request_prefill_time_seconds", "Time in prefill", self.prefill_s),
            ("request_decode_time_seconds", "Time in decode", self.decode_s),
            ("request_prompt_tokens", "Prompt tokens of a request", self.prompt),
            ("request_generation_tokens", "Tokens generated for a request", self.generated),
        ):
            yield histogram.family(f"vllm:{name}", text, self._model)
        yield self.ttft.family("headrace_time_to_first_token_seconds", "Arrival to first token", self._model)
        yield self.e2e.family("headrace_request_seconds", "Arrival to end", self._model)


def _gauge(name: str, text: str, value: float, model: str = "") -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["model_name"] if model else [])
    family.add_metric([model] if model else [], value)
    return family


def _counter(name: str, text: str, values: dict[str, int] | Counter[str], label: str, model: str = "") -> Metric:
    labels = [*(["model_name"] if model else []), *([label] if label else [])]
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric([*([model] if model else []), *([key] if label else [])], value)
    return family
