"""Prometheus readings of the queue manager: taken from the core's own view when somebody scrapes."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from headrace.core.queue import QueueCore
from headrace.core.queue.inspect import Inspection
from headrace.core.queue.views import CellView, ClassView, WorkerView
from headrace.core.waiting.errors import WaitErrorRow
from headrace.mesh.metrics import Reading, Values, registry
from services.queue_manager.scaling import Scaling
from services.queue_manager.scaling_shown import scaling_readings


def queue_registry(
    core: Callable[[], QueueCore | None],
    scaling: Callable[[], Scaling | None],
    unreadable: Callable[[], int] = int,
    *more: Reading,
) -> CollectorRegistry:
    """core returns None while this process is a standby: then only headrace_queue_leading is there, and what it knows
    of others."""

    def view() -> CellView | None:
        leading = core()
        return leading.view(time.time()) if leading is not None else None

    def of(values: Callable[[CellView], Values]) -> Callable[[], Values]:
        return lambda: values(shown) if (shown := view()) is not None else {}

    def classes(value: Callable[[ClassView], float]) -> Callable[[], Values]:
        return of(lambda shown: {(load.slo_class,): value(load) for load in shown.classes})

    def workers(value: Callable[[WorkerView], float]) -> Callable[[], Values]:
        return of(lambda shown: {(worker.worker,): value(worker) for worker in shown.workers})

    def total(value: Callable[[CellView], float]) -> Callable[[], Values]:
        return of(lambda shown: {(): value(shown)})

    ends = of(lambda shown: {(reason,): count for reason, count in shown.ended_by_reason.items()})

    def inspected(values: Callable[[Inspection], Values]) -> Callable[[], Values]:
        return lambda: values(leading.inspect(time.time(), 0)) if (leading := core()) is not None else {}

    def errors(value: Callable[[WaitErrorRow], float]) -> Callable[[], Values]:
        return inspected(lambda shown: {(str(row.ahead_from),): value(row) for row in shown.wait_errors})

    operations = inspected(lambda shown: {(name,): count for name, count in shown.operations.items()})
    by_class = ("slo_class",)
    return registry(
        *more,
        *scaling_readings(scaling),
        Reading("headrace_queue_leading", "1: this process leads", lambda: {(): float(core() is not None)}),
        Reading("headrace_queue_epoch", "Leadership epoch", total(lambda shown: shown.epoch)),
        Reading("headrace_queue_accepted_total", "Requests read from the journal", total(lambda shown: shown.accepted)),
        Reading("headrace_queue_ended_total", "Requests whose end is stored", ends, ("reason",)),
        Reading(
            "headrace_queue_set_aside_total",
            "Requests given up since workers died of them",
            total(lambda shown: shown.set_aside),
        ),
        Reading(
            "headrace_queue_unreadable_total",
            "Messages and journal records that were left out",
            lambda: {(): float(unreadable())},
        ),
        Reading("headrace_queue_waiting", "Requests that wait", classes(lambda load: load.queued), by_class),
        Reading("headrace_queue_running", "Requests at workers", classes(lambda load: load.running), by_class),
        Reading("headrace_queue_limit", "Most that may wait", classes(lambda load: load.queue_limit), by_class),
        Reading("headrace_queue_oldest_seconds", "Oldest wait", classes(lambda load: load.oldest_wait_s), by_class),
        Reading("headrace_queue_operations_total", "Evictions, loads and others", operations, ("operation",)),
        *_of_waits(errors),
        *_of_workers(workers),
    )


def _of_waits(errors: Callable[[Callable[[WaitErrorRow], float]], Callable[[], Values]]) -> list[Reading]:
    """What expected waits were worth."""
    return [
        Reading(
            "headrace_queue_wait_error_seconds",
            "Median absolute error of expected waits, by requests ahead",
            errors(lambda row: row.median_s),
            ("ahead_from",),
        ),
        Reading(
            "headrace_queue_wait_error_p90_seconds",
            "Nine errors of ten are below",
            errors(lambda row: row.p90_s),
            ("ahead_from",),
        ),
        Reading(
            "headrace_queue_wait_within_bound_ratio",
            "Share of requests that waited no longer than their bound",
            errors(lambda row: row.within_bound),
            ("ahead_from",),
        ),
    ]


def _of_workers(workers: Callable[[Callable[[WorkerView], float]], Callable[[], Values]]) -> list[Reading]:
    """As the queue manager's books have them."""
    by_worker = ("worker",)
    return [
        Reading("headrace_worker_slots", "Slots", workers(lambda worker: worker.slots), by_worker),
        Reading("headrace_worker_slots_reserved", "Slots reserved", workers(lambda w: w.slots_used), by_worker),
        Reading("headrace_worker_blocks", "KV blocks", workers(lambda worker: worker.blocks), by_worker),
        Reading("headrace_worker_blocks_reserved", "KV blocks reserved", workers(lambda w: w.blocks_used), by_worker),
        Reading(
            "headrace_worker_media_tokens_pending",
            "Media tokens sent and not encoded yet",
            workers(lambda worker: worker.pending_media_tokens),
            by_worker,
        ),
    ]
