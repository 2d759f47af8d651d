"""Prometheus metrics of what the governor keeps: rows, caps, actions, and what a step costs."""

from collections.abc import Callable

from headrace.core.power.decision import RowView
from headrace.mesh.metrics import Reading, Values
from services.governor.beside import Beside
from services.governor.governing import Governing


def power_readings(governing: Governing) -> list[Reading]:
    def rows(value: Callable[[RowView], float]) -> Callable[[], Values]:
        return lambda: {(row.name,): value(row) for row in _rows(governing) if value(row) > 0.0}

    return [
        Reading("headrace_row_power_watts", "Drawn by a row's devices", rows(lambda row: row.power_w), ("row",)),
        Reading("headrace_row_limit_watts", "That a row may draw", rows(lambda row: row.limit_w), ("row",)),
        Reading("headrace_row_budget_watts", "Of an operator", rows(lambda row: row.budget_w), ("row",)),
        Reading("headrace_device_cap_watts", "Of one GPU", lambda: _caps(governing), ("worker", "device")),
        Reading(
            "headrace_governor_actions_total",
            "Entries of the audit log",
            lambda: {(action,): float(times) for action, times in governing.audit.actions.items()},
            ("action",),
        ),
        Reading("headrace_governor_step_seconds", "That the last step took", lambda: {(): governing.step_s}),
        *_learnt(governing),
    ]


def _learnt(governing: Governing) -> list[Reading]:
    """Of a learnt controller beside the safe one; totals are of devices and seconds."""
    columns: dict[str, tuple[str, Callable[[Beside], float]]] = {
        "headrace_learnt_running": ("1 while it is", lambda beside: beside.running),
        "headrace_learnt_compared_total": ("Speeds that were compared", lambda beside: beside.all.seconds),
        "headrace_learnt_apart_total": ("Absolute differences of speed, added up", lambda beside: beside.all.apart),
        "headrace_learnt_above_total": ("Speeds above the safe one", lambda beside: beside.all.above),
        "headrace_learnt_apart_worst": ("The largest difference", lambda beside: beside.all.worst),
        "headrace_learnt_distrusted_total": ("Speeds not believed", lambda beside: beside.all.distrusted),
        "headrace_learnt_late_total": ("Seconds without an answer in time", lambda beside: beside.late),
        "headrace_learnt_step_seconds": ("That the last answer took", lambda beside: beside.took_s),
    }

    def of(value: Callable[[Beside], float]) -> Callable[[], Values]:
        def read() -> Values:
            beside = governing.beside
            return {} if beside is None else {(beside.mode, beside.name): float(value(beside))}

        return read

    return [Reading(name, text, of(value), ("mode", "network")) for name, (text, value) in columns.items()]


def _rows(governing: Governing) -> tuple[RowView, ...]:
    return () if governing.decision is None else governing.decision.rows


def _caps(governing: Governing) -> Values:
    """Of those that have one."""
    return {
        (worker.worker, device.device): device.cap_w
        for worker in governing.batch.workers
        for device in worker.devices
        if device.cap_w > 0.0
    }
