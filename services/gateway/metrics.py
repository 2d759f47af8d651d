"""Prometheus metrics of the gateway: headrace_* and the vllm:* names that dashboards and autoscalers already scrape.

Time to first token is measured here, where the client waits. The label model_name takes the configured models alone,
whatever clients ask for.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.core.errors import Overloaded, TooLate, Unavailable
from headrace.core.slo import BUILT_IN, Classes
from headrace.core.types import FinishReason
from headrace.mesh.metrics import registry
from headrace.v1 import queue_pb2
from services.gateway.figures import Figures
from services.gateway.live import Live
from services.gateway.objectives import Objectives

MODEL = "model_name"


class CellGauges:
    """The last status of the queue manager, for those who scrape the gateway alone."""

    def __init__(self) -> None:
        self.status = queue_pb2.CellStatus()
        self.heard_s = 0.0

    def heard(self, status: queue_pb2.CellStatus) -> None:
        self.status, self.heard_s = status, time.monotonic()

    def families(self, models: Sequence[str]) -> Iterator[Metric]:
        classes = self.status.classes
        queued = {load.slo_class: load.queued for load in classes}
        yield _gauge("headrace_queue_depth", "Requests waiting in the cell", queued, "slo_class")
        waits = {load.slo_class: load.estimated_wait_s for load in classes if load.estimated_wait_s >= 0.0}
        text = "Until the first token of a request that came now, as estimated"
        yield _gauge("headrace_estimated_wait_seconds", text, waits, "slo_class")
        age_s = time.monotonic() - self.heard_s if self.heard_s else -1.0
        text = "Since the queue manager's last status; -1: never heard"
        yield _gauge("headrace_cell_status_age_seconds", text, {"": age_s}, "")
        running, waiting = self._requests(models)
        yield _gauge("vllm:num_requests_running", "Requests in prefill or decode", running, MODEL)
        yield _gauge("vllm:num_requests_waiting", "Requests waiting", waiting, MODEL)
        used = {model: self._used(model) for model in models}
        yield _gauge("vllm:kv_cache_usage_perc", "KV blocks in use, 1 is all", used, MODEL)

    def _requests(self, models: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
        """Running and waiting. A cell of one model counts by class alone; of several only counts by model are told."""
        classes, told = self.status.classes, self.status.models
        running = {model.model: model.running for model in told if model.HasField("running") and model.model in models}
        waiting = {model.model: model.waiting for model in told if model.HasField("waiting") and model.model in models}
        if len(models) == 1:
            running.setdefault(models[0], sum(load.running for load in classes))
            waiting.setdefault(models[0], sum(load.queued for load in classes))
        return running, waiting

    def _used(self, model: str) -> float:
        workers = [worker for worker in self.status.workers if worker.model == model]
        blocks = sum(worker.blocks for worker in workers)
        return sum(worker.blocks_used for worker in workers) / blocks if blocks else 0.0


class GatewayMetrics(Collector):
    def __init__(self, models: Sequence[str], classes: Classes = BUILT_IN) -> None:
        self._models = tuple(models)
        self.objectives = Objectives(classes)
        self._figures = {model: Figures() for model in models}
        self.open_streams: Callable[[], int] = int
        self.cell = CellGauges()
        # Zeros from the beginning: what appears with its first count has no rate then.
        self.refused: Counter[str] = Counter(dict.fromkeys((Overloaded.code, TooLate.code, Unavailable.code), 0))
        self.ends: Counter[str] = Counter(dict.fromkeys(get_args(FinishReason), 0))
        self.accepted = self.untold = 0
        self.registry = registry(self)

    # A stream of another model was attached to here: whoever is configured for that counts it.

    def began(self, live: Live, now_s: float) -> None:
        if (figures := self._figures.get(live.facts.model)) is not None:
            figures.ttft.observe(now_s - live.opened_s, live.facts)
        self.objectives.first_token(live, now_s)

    def gap(self, live: Live, gap_s: float) -> None:
        if (figures := self._figures.get(live.facts.model)) is not None:
            figures.inter_token.observe(gap_s, live.facts)

    def ended(self, live: Live, now_s: float) -> None:
        end = live.end
        assert end is not None
        self.ends[end.reason] += 1
        self.objectives.ended(live)
        if live.facts.logprobs:
            self.untold += len(live.stream.tokens) - len(live.stream.logprobs)
        if (figures := self._figures.get(live.facts.model)) is not None:
            figures.ended(live, end, now_s)

    def collect(self) -> Iterator[Metric]:
        yield from self.cell.families(self._models)
        yield from self._histograms()
        yield from self.objectives.families()
        yield _gauge("headrace_open_streams", "Requests whose stream this gateway holds", {"": self.open_streams()}, "")
        yield _counter("headrace_accepted", "Requests journaled by this gateway", {"": self.accepted}, "")
        yield _counter("headrace_ended", "Requests whose end this gateway has seen", self.ends, "reason")
        yield _counter("headrace_refused", "Requests refused, by error code", self.refused, "code")
        yield _counter(
            "headrace_logprobs_lost", "Tokens whose log-probability nobody knew any more", {"": self.untold}, ""
        )
        success = CounterMetricFamily("vllm:request_success", "Requests ended", labels=[MODEL, "finished_reason"])
        for model, figures in self._figures.items():
            for reason, count in figures.ends.items():
                success.add_metric([model, reason], count)
        yield success
        yield from self._counters()

    def _counters(self) -> Iterator[Metric]:
        for rows in zip(*(figures.counters() for figures in self._figures.values()), strict=True):
            name, text, _ = rows[0]
            yield _counter(name, text, self._by_model(count for _, _, count in rows), MODEL)

    def _histograms(self) -> Iterator[Metric]:
        for rows in zip(*(figures.histograms() for figures in self._figures.values()), strict=True):
            name, text, _ = rows[0]
            family = HistogramMetricFamily(name, text, labels=[MODEL])
            for model, (_, _, histogram) in zip(self._models, rows, strict=True):
                family.add_metric([model], histogram.buckets(), histogram.total)
            yield family

    def _by_model(self, counts: Iterable[int]) -> dict[str, int]:
        return dict(zip(self._models, counts, strict=True))


def _gauge(name: str, text: str, values: Mapping[str, float], label: str) -> GaugeMetricFamily:
    """label empty: one value without any."""
    family = GaugeMetricFamily(name, text, labels=[label] if label else [])
    for key, value in values.items():
        family.add_metric([key] if label else [], value)
    return family


def _counter(name: str, text: str, values: Mapping[str, int], label: str) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label] if label else [])
    for key, value in values.items():
        family.add_metric([key] if label else [], value)
    return family
