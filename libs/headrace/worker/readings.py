"""A worker's own Prometheus metrics: what it holds right now, and whose energy it has used. What it computes is
exported by the governor, for all.

A count that stays up while nothing runs is a leak.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from headrace.mesh.metrics import Reading, registry
from headrace.v1.worker_pb2 import WorkerState
from headrace.worker.energy import Account

FIELDS = {
    "headrace_worker_tensors": ("Embeddings and KV caches that peers may fetch", "handles"),
    "headrace_worker_mapped_files": ("Files of tensors in the shared directory", "mapped_files"),
    "headrace_worker_requests_kept": ("Requests that it works on, or whose end is not stored yet", "kept_requests"),
    "headrace_worker_blocks_held": ("KV blocks in its engine that requests hold", "blocks_used"),
    "headrace_worker_epoch": ("Newest leadership epoch that it has heard of", "epoch"),
}
STAGES = ("prefill", "decode", "encode")


def worker_registry(
    worker: str, state: Callable[[], WorkerState], account: Account, *more: Reading
) -> CollectorRegistry:
    held = (
        Reading(name, text, lambda field=field: _of(state(), field), ("worker",))  # type: ignore[misc]
        for name, (text, field) in FIELDS.items()
    )
    return registry(*energy_readings(worker, account), *held, *more)


def energy_readings(worker: str, account: Account) -> list[Reading]:
    return [
        Reading(
            "headrace_energy_joules_total",
            "Of its devices, while they computed",
            lambda: {(worker, stage): float(getattr(account, f"{stage}_j")) for stage in STAGES},
            ("worker", "stage"),
        ),
        Reading(
            "headrace_idle_energy_joules_total",
            "Of its devices, while they computed nothing",
            lambda: {(worker,): account.idle_j},
            ("worker",),
        ),
        Reading(
            "headrace_lost_energy_joules_total",
            "Of what they computed: for requests that were gone before they could be told",
            lambda: {(worker,): account.lost_j},
            ("worker",),
        ),
    ]


def _of(state: WorkerState, field: str) -> dict[tuple[str, ...], float]:
    return {(state.worker,): float(getattr(state, field))}
