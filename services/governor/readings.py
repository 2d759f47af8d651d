"""The governor's Prometheus metrics: workers and devices as they are when somebody scrapes."""

import time
from collections.abc import Callable, Iterator

from headrace.mesh.metrics import Reading, Values
from headrace.mesh.sensors import DeviceReading
from headrace.v1 import governor_pb2
from services.governor.roll import PLANT
from services.governor.service import Governor

WORKER_FIELDS = {
    "headrace_worker_slots": ("Requests a worker can hold", "slots"),
    "headrace_worker_slots_used": ("Requests a worker holds", "slots_used"),
    "headrace_worker_kv_blocks": ("KV blocks of a worker", "blocks"),
    "headrace_worker_kv_blocks_used": ("KV blocks in use", "blocks_used"),
    "headrace_worker_prefill_tokens_total": ("Prompt tokens computed", "prefill_tokens"),
    "headrace_worker_decode_tokens_total": ("Output tokens computed", "decode_tokens"),
    "headrace_worker_encoded_parts_total": ("Media parts encoded", "encoded_parts"),
    "headrace_worker_encoder_cache_hits_total": ("Media parts that needed no encoding", "encoder_cache_hits"),
    "headrace_worker_encoder_cache_misses_total": ("Media parts that others may share", "encoder_cache_misses"),
    "headrace_worker_encoder_cache_bytes": ("Embeddings that an encoder keeps", "encoder_cache_bytes"),
    "headrace_worker_iterations_total": ("Engine iterations", "iterations"),
    "headrace_worker_evictions_total": ("Times that a request was taken out of the engine", "evictions"),
}
BUSY_STAGES = ("prefill", "decode", "encode")
DEVICE_FIELDS = {
    "headrace_device_power_watts": ("Power drawn", "power_w"),
    "headrace_device_temperature_celsius": ("Temperature", "temp_c"),
    "headrace_device_energy_joules_total": ("Energy used", "energy_j"),
}


def readings(governor: Governor, clock: Callable[[], float] = time.monotonic) -> list[Reading]:
    workers = [
        Reading(name, text, lambda field=field: _of_workers(governor, field), ("worker",))  # type: ignore[misc]
        for name, (text, field) in WORKER_FIELDS.items()
    ]
    devices = [
        Reading(name, text, lambda field=field: _of_devices(governor, field), ("host", "device"))  # type: ignore[misc]
        for name, (text, field) in DEVICE_FIELDS.items()
    ]
    return [
        *workers,
        *devices,
        Reading("headrace_worker_busy_seconds_total", "Engine time", lambda: _busy(governor), ("worker", "stage")),
        Reading(
            "headrace_worker_telemetry_age_seconds",
            "Since a worker's last telemetry",
            lambda: {
                (name,): clock() - one.sampled_s for name, one in governor.history if one.samples and not one.leaving
            },
            ("worker",),
        ),
        Reading("headrace_governor_unreadable_messages_total", "Dropped", lambda: {(): float(governor.unread)}),
    ]


def _of_workers(governor: Governor, field: str) -> Values:
    return {(name,): float(getattr(sample, field)) for name, sample in governor.history.latest()}


def _ages_s(governor: Governor, now_s: float) -> Values:
    """One that has taken its leave is not late."""
    return {(name,): now_s - one.sampled_s for name, one in governor.history if one.samples and not one.leaving}


def _busy(governor: Governor) -> Values:
    return {
        (name, stage): float(getattr(sample, f"{stage}_busy_s"))
        for name, sample in governor.history.latest()
        for stage in BUSY_STAGES
    }


def _of_devices(governor: Governor, field: str) -> Values:
    found = {(host, device): float(getattr(reading, field)) for host, device, reading in _devices(governor)}
    return {labels: value for labels, value in found.items() if value >= 0}  # negative: cannot be read


def _devices(governor: Governor) -> Iterator[tuple[str, str, governor_pb2.DeviceReading | DeviceReading]]:
    """What workers report of their hosts, and this host's own. A GPU or a package that several report is one device;
    every worker that plays a GPU has one of its own."""
    for name, sample in governor.history.latest():
        for reading in sample.devices:
            plays = reading.source == PLANT
            yield sample.host, f"{name}/{reading.device}" if plays else reading.device, reading
    yield from ((governor.host, reading.device, reading) for reading in governor.devices)
