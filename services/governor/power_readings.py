"""Prometheus metrics of what the governor keeps: rows, caps, actions, and what a step costs."""

from collections.abc import Callable

from headrace.core.power.decision import RowView
from headrace.mesh.metrics import Reading, Values
from services.governor.beside import Beside
from services.governor.governing import Governing

_DEVICE = ("worker", "device")


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
        Reading(
            "headrace_budget_gap",
            "The most that a player could gain by leaving the budget policy, at the loads of now",
            lambda: {(row,): one.gains.gap for row, one in governing.budgeting.watched.items() if one.gains},
            ("row",),
        ),
        Reading(
            "headrace_budget_gain",
            "By leaving the budget policy, in shares of the player's work over a horizon",
            lambda: _gains(governing),
            ("row", "player"),
        ),
        Reading(
            "headrace_budget_played",
            "1: by the policy; 0: an equal split in its place",
            lambda: _played(governing),
            ("row",),
        ),
        Reading("headrace_governed_power_watts", "Drawn, of one GPU", lambda: _told(governing, "power_w"), _DEVICE),
        Reading("headrace_governed_temperature_celsius", "Of it", lambda: _told(governing, "temp_c"), _DEVICE),
        Reading("headrace_governed_limit_celsius", "That it may reach", lambda: _limits_c(governing), _DEVICE),
        Reading("headrace_governor_mode", "1 in the mode it is in", lambda: {(governing.mode,): 1.0}, ("mode",)),
        Reading(
            "headrace_governor_step_age_seconds",
            "Since its last step; nothing where it is off",
            lambda: {(): governing.idle_s} if governing.mode != "off" else {},
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


def _told(governing: Governing, field: str) -> Values:
    """Negative: cannot be read."""
    found = {(one.worker, one.reading.device): float(getattr(one.reading, field)) for one in governing.told}
    return {labels: value for labels, value in found.items() if value >= 0.0}


def _limits_c(governing: Governing) -> Values:
    if governing.decision is None:
        return {}
    fleet = governing.decision.fleet
    pairs = (key.partition("/")[::2] for key in fleet.keys)
    return {(worker, device): float(limit_c) for (worker, device), limit_c in zip(pairs, fleet.limit_c, strict=True)}


def _gains(governing: Governing) -> Values:
    played = governing.budgeting.played
    if played is None or played.policy is None:
        return {}
    return {
        (row, player): gain
        for row, one in governing.budgeting.watched.items()
        if one.gains
        for player, gain in zip(played.policy.facts.names, one.gains.by_player, strict=True)
    }


def _played(governing: Governing) -> Values:
    played = governing.budgeting.played
    return {} if played is None else {(row,): float(row not in played.equal) for row in {*played.rows, *played.equal}}


def _caps(governing: Governing) -> Values:
    """Of those that have one."""
    return {
        (worker.worker, device.device): device.cap_w
        for worker in governing.batch.workers
        for device in worker.devices
        if device.cap_w > 0.0
    }
