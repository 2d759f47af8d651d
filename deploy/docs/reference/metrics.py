"""Metrics: what each process exports, from the registries that it exports."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

from prometheus_client.core import Metric

from headrace.mesh.config import Settings
from headrace.mesh.health import StreamWatch, common_readings, redis_reading
from headrace.mesh.metrics import Reading
from headrace.v1.worker_pb2 import WorkerState
from headrace.worker.energy import Account
from headrace.worker.readings import worker_registry
from reference.words import cell, code, table
from services.gateway.batch_desk import Desk
from services.gateway.embedding import Embedding
from services.gateway.metrics import GatewayMetrics
from services.governor.power_readings import power_readings
from services.governor.readings import readings
from services.queue_manager.metrics import queue_registry

Row = tuple[str, str, str, str]  # name, kind, labels, help


def page(root: Path) -> str:
    parts = [
        "# Metrics\n",
        "Prometheus text at `/metrics`: the gateway's on its HTTP port, the others' on `HEADRACE_METRICS_ADDR`. Names "
        "that begin with `vllm:` mean what they mean in vLLM, so that its dashboards and autoscalers can read them. A "
        "counter's name ends in `_total`; a histogram has `_bucket`, `_sum` and `_count`.\n",
    ]
    for title, rows in families().items():
        lines = [
            (code(name), kind, ", ".join(map(code, labels.split())), cell(text)) for name, kind, labels, text in rows
        ]
        parts.append(f"## {title}\n\n{table(('Metric', 'Kind', 'Labels', 'Meaning'), lines)}")
    return "\n".join(parts)


def families() -> dict[str, list[Row]]:
    """Of processes that have just begun: names, labels and help are there before any value is."""
    worker = worker_registry("worker", WorkerState, Account())
    queue = queue_registry(lambda: None, lambda: None)
    return {
        "Gateway": [
            *_rows(GatewayMetrics(["model"]).collect()),
            *_rows(Embedding.collect(SimpleNamespace(_tokens=Counter(), _inputs=Counter()))),
            *_rows(Desk.collect(SimpleNamespace(_crew=_NoBatches()))),
        ],
        "Queue manager": [
            *_rows(queue.collect()),
            *map(_read, (*StreamWatch(None, ()).readings(), redis_reading(dict))),
        ],
        "Workers (encoder, prefill, decode)": list(_rows(worker.collect())),
        "Every process": [_read(reading) for reading in common_readings(None, Settings())],
        "Governor": [_read(reading) for reading in (*readings(None), *power_readings(None))],
    }


class _NoBatches(list):
    """A crew without work."""

    def __init__(self) -> None:
        self.lines = Counter()


def _rows(families: Iterable[Metric]) -> Iterator[Row]:
    for family in families:
        total = "_total" if family.type == "counter" else ""
        yield family.name + total, family.type, " ".join(family._labelnames), family.documentation


def _read(reading: Reading) -> Row:
    """Not read: there is no governor behind it."""
    kind = "counter" if reading.name.endswith("_total") else "gauge"
    return reading.name, kind, " ".join(reading.labels), reading.help
