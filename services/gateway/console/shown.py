"""Messages as the console's page gets them: plain dicts, numbers rounded to what a reader can see, NaN never."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from headrace.core.slo import Classes
from headrace.core.types import StageSpan, Usage
from headrace.v1 import common_pb2, governor_pb2, queue_pb2, scaling_pb2
from services.gateway.console.heard import Heard, Hearing
from services.gateway.console.tally import Row, Tally

Shown = dict[str, Any]


def rounded(value: float | None, digits: int = 3) -> float | None:
    """So many significant digits: what does not change for a reader is not sent again."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def known(value: float, digits: int = 3) -> float | None:
    """Negative: not known."""
    return rounded(value, digits) if value >= 0 else None


def classes(status: queue_pb2.CellStatus, terms: Classes, tally: Tally, now_s: float) -> list[Shown]:
    told = {load.slo_class: load for load in status.classes}
    found = []
    for name, slo in terms.named.items():
        load, seen = told.get(name, queue_pb2.ClassStatus(estimated_wait_s=-1.0)), tally.of_class(name, now_s)
        found.append(
            {
                "name": name,
                "target_s": slo.ttft_s,
                "queued": load.queued,
                "running": load.running,
                "limit": load.queue_limit,
                "oldest_s": rounded(load.oldest_wait_s, 2),
                "wait_s": known(load.estimated_wait_s, 2),
                "answered": seen.answered,
                "p50_s": rounded(seen.ttft_p50_s),
                "p99_s": rounded(seen.ttft_p99_s),
                "kept": rounded(seen.kept),
            }
        )
    return found


def workers(status: queue_pb2.CellStatus, hearing: Hearing) -> list[Shown]:
    return [_worker(one, hearing.of(one.worker), hearing.caps.get(one.worker)) for one in status.workers]


def _worker(one: queue_pb2.WorkerStatus, heard: Heard | None, caps: governor_pb2.WorkerCaps | None) -> Shown:
    shown: Shown = {
        "id": one.worker,
        "stages": list(one.stages),
        "model": one.model,
        "role": one.role,
        "loading": one.loading,
        "draining": one.draining,
        "slots": one.slots,
        "used": one.slots_used,
        "blocks": one.blocks,
        "blocks_used": one.blocks_used,
        "media": one.pending_media_tokens,
        "evicted": one.evicted,
        "silent": heard is None,
        "weight": rounded(caps.weight, 2) if caps is not None else 1.0,
        "share": rounded(caps.slots_share, 2) if caps is not None else 1.0,
        "devices": [],
    }
    if heard is not None:
        shown["tokens_s"] = rounded(heard.rate("decode_tokens") + heard.rate("prefill_tokens"))
        shown["parts_s"] = rounded(heard.rate("encoded_parts"))
        told = {cap.device: cap for cap in caps.devices} if caps is not None else {}
        shown["devices"] = [_device(device, told.get(device.device)) for device in heard.last.devices]
    if caps is not None:
        factors = (("prefill", caps.prefill_factor), ("decode", caps.decode_factor), ("encode", caps.encode_factor))
        shown["speeds"] = {stage: rounded(speed, 2) for stage, speed in factors if stage in one.stages}
    return shown


def _device(one: governor_pb2.DeviceReading, cap: governor_pb2.DeviceCap | None) -> Shown:
    return {
        "name": one.device,
        "kind": one.kind,
        "gpus": max(1, one.gpus),
        "power_w": known(one.power_w),
        "full_w": known(one.full_w),
        "temp_c": known(one.temp_c),
        "busy": known(one.busy, 2),
        "speed": rounded(one.speed, 2) if one.speed > 0 else None,
        "cap_w": rounded(one.cap_w) if one.cap_w > 0 else None,
        "least_w": rounded(one.cap_least_w) if one.cap_least_w > 0 else None,
        "most_w": rounded(one.cap_most_w) if one.cap_most_w > 0 else None,
        "why": cap.reason if cap is not None else "",
        "unreadable": one.unreadable,
    }


def queue(one: queue_pb2.VirtualQueueStatus) -> Shown:
    """Its groups by their ids: a group that stands elsewhere is the same group."""
    return {
        "worker": one.worker,
        "model": one.model,
        "loading": one.loading,
        "running": one.running,
        "slots": one.slots,
        "usable": one.slots_usable,
        "tokens_s": known(one.tokens_per_s),
        "speed": rounded(min(one.prefill_speed, one.decode_speed), 2),
        "groups": [each.id for each in one.groups],
        "more": one.groups_left_out,
        "more_waiting": one.waiting_left_out,
    }


def group(one: queue_pb2.GroupStatus, now_s: float) -> Shown:
    """Unix times instead of what is left until then: what only grows older is not sent again."""
    return {
        "id": one.id,
        "class": one.slo_class,
        "model": one.model,
        "size": one.size,
        "priority": one.priority,
        "waiting": one.waiting,
        "evicted": one.evicted,
        "due_s": round(4.0 * (now_s + one.due_in_s)) / 4.0,
        "begin_s": _until(now_s, one.estimated_wait_s),
        "bound_s": _until(now_s, one.estimated_wait_bound_s),
        "tokens": rounded(one.output_tokens, 2),
    }


def groups(inspected: queue_pb2.InspectResponse, now_s: float) -> list[Shown]:
    """All, older ones first."""
    found = [group(one, now_s) for queue in inspected.queues for one in queue.groups]
    return sorted([*found, *[group(one, now_s) for one in inspected.unplaced]], key=lambda one: int(one["id"]))


def _until(now_s: float, wait_s: float) -> float | None:
    """When a wait is expected to end, on a grid of about an eighth of it: a better guess of the same is no news. 0: at
    any moment; None: nobody knows."""
    if wait_s < 0 or not math.isfinite(wait_s):
        return None
    if wait_s < 1.0:
        return 0.0
    grid_s = max(0.5, 2.0 ** math.floor(math.log2(wait_s / 8.0)))
    return round((now_s + wait_s) / grid_s) * grid_s


def power_row(one: governor_pb2.RowState) -> Shown:
    return {
        "row": one.row,
        "power_w": known(one.power_w, 4),
        "limit_w": rounded(one.limit_w, 5) if one.limit_w > 0 else None,
        "budget_w": rounded(one.budget_w, 5) if one.budget_w > 0 else None,
        "least_w": rounded(one.least_w, 4),
        "emergencies": list(one.emergencies),
        "workers": list(one.workers),
        "air": known(one.air_m3s),
        "air_limit": rounded(one.air_limit_m3s) if one.air_limit_m3s > 0 else None,
    }


def stage(one: governor_pb2.StageBudget) -> Shown:
    return {
        "stage": one.stage,
        "budget_w": rounded(one.budget_w),
        "demand_w": rounded(one.demand_w),
        "move": one.move,
    }


def scaling(one: scaling_pb2.ScalingStatus) -> Shown:
    pools = [
        {
            "pool": pool.pool,
            "least": pool.least,
            "most": pool.most,
            "ready": pool.ready,
            "starting": pool.starting,
            "draining": pool.draining,
            "target": pool.target,
            "reason": pool.reason,
            "load": rounded(pool.load_per_s),
            "capacity": rounded(pool.capacity_per_s),
        }
        for pool in one.pools
    ]
    return {"policy": one.policy, "trouble": one.trouble, "pools": pools}


def actions(entries: Iterable[governor_pb2.AuditEntry], where: str) -> list[Shown]:
    """key tells entries apart: two of one moment differ in what they are about."""
    return [
        {
            "key": f"{one.at_s:.6f} {one.action} {one.subject}",
            "at_s": round(one.at_s, 3),
            "where": where,
            "who": one.who,
            "action": one.action,
            "subject": one.subject,
            "before": rounded(one.before, 4),
            "after": rounded(one.after, 4),
            "reason": one.reason,
        }
        for one in entries
    ]


def switched(entries: Iterable[queue_pb2.SwitchEntry]) -> list[Shown]:
    """As `actions`, with words for before and after."""
    return [
        {
            "key": f"{one.at_s:.6f} switch {one.name}",
            "at_s": round(one.at_s, 3),
            "where": "queue",
            "who": one.who,
            "action": "switch",
            "subject": one.name,
            "before": one.before,
            "after": one.after,
            "reason": "",
        }
        for one in entries
    ]


def row(one: Row) -> Shown:
    return {
        "id": one.id,
        "class": one.slo_class,
        "model": one.model,
        "tenant": one.tenant,
        "at_s": round(one.at_s, 2),
        "tokens": one.tokens,
        "ttft_s": rounded(one.ttft_s),
        "took_s": rounded(one.took_s),
        "reason": one.reason,
        "joules": rounded(one.joules) if one.joules else None,
    }


def span(one: StageSpan | common_pb2.StageSpan) -> Shown:
    return {
        "stage": one.stage,
        "start_s": one.start_s,
        "end_s": one.end_s,
        "worker": one.worker,
        "part": one.part,
        "cached": one.cached,
        "joules": rounded(one.joules) if one.joules else None,
    }


def usage(one: Usage) -> Shown:
    return {
        "prompt": one.prompt_tokens,
        "completion": one.completion_tokens,
        "image": one.image_tokens,
        "audio": one.audio_tokens,
        "video": one.video_tokens,
        "cached": one.cached_tokens,
        "joules": rounded(one.joules) if one.joules else None,
    }


def explained(one: queue_pb2.ExplainResponse) -> Shown:
    return {
        "state": one.state,
        "why": one.why,
        "position": one.position,
        "waited_s": rounded(one.waited_s),
        "wait_s": known(one.estimated_wait_s),
        "bound_s": known(one.estimated_wait_bound_s),
        "attempt": one.attempt,
        "worker": one.worker,
        "group": one.group,
        "queue": one.virtual_queue,
        "predicted": known(one.predicted_tokens),
        "predicted_p90": known(one.predicted_tokens_p90),
        "target_s": rounded(one.ttft_target_s),
    }


def switches(found: Iterable[queue_pb2.SwitchStatus], mode: str, modes: Sequence[str]) -> list[Shown]:
    """mode empty or off: the governor's cannot be switched while it runs."""
    shown = [{"name": one.name, "value": one.value, "values": list(one.values)} for one in found]
    if mode in modes:
        shown.append({"name": "governor", "value": mode, "values": list(modes)})
    return shown
