"""The governor's caps as the queue manager reads them: proto -> event."""

import math

from headrace.core.events import Governed
from headrace.core.governing import Governance, Speeds, StageHint
from headrace.v1 import governor_pb2

LEASE_S_MOST = 60.0  # nobody is believed for longer
SPEED_LEAST = 0.01  # slower is as good as dead, which leases are for


def governed_from_proto(batch: governor_pb2.CapBatch) -> Governed:
    """Raises ValueError: a number that none of its kind can be; the message names the field."""
    return Governed(
        governor=batch.governor,
        epoch=batch.epoch,
        sequence=batch.sequence,
        lease_s=_within("lease_s", batch.lease_s, 0.0, LEASE_S_MOST),
        workers=tuple([_governance(each) for each in batch.workers]),
        stages=tuple([StageHint(each.stage, each.move) for each in batch.stages if each.move]),
    )


def _governance(caps: governor_pb2.WorkerCaps) -> Governance:
    speeds = Speeds(
        _speed(caps, "prefill_factor", caps.prefill_factor),
        _speed(caps, "decode_factor", caps.decode_factor),
        _speed(caps, "encode_factor", caps.encode_factor),
    )
    weight = _within(f"{caps.worker} weight", caps.weight, 0.0, 1.0)
    return Governance(caps.worker, weight, _within(f"{caps.worker} slots_share", caps.slots_share, 0.0, 1.0), speeds)


def _speed(caps: governor_pb2.WorkerCaps, name: str, value: float) -> float:
    """0: not said, as of a stage that the worker has not."""
    return max(SPEED_LEAST, _within(f"{caps.worker} {name}", value, 0.0, 1.0)) if value else 1.0


def _within(name: str, value: float, least: float, most: float) -> float:
    """More than the most is the most."""
    if not math.isfinite(value) or value < least:
        raise ValueError(f"CapBatch {name}: {value!r}, must be from {least:g} to {most:g}")
    return min(value, most)
