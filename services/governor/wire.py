"""A decision as messages: the batch of caps, and the rows as operators see them."""

from collections.abc import Iterable, Sequence

from headrace.core.power.decision import Decision
from headrace.core.power.fleet import STAGES
from headrace.v1 import governor_pb2
from services.governor.beside import Beside

PREFILL, DECODE, ENCODE = (STAGES.index(name) for name in ("prefill", "decode", "encode"))


def worker_caps(decision: Decision) -> list[governor_pb2.WorkerCaps]:
    """Of every worker of which something is asked; the others have neither caps nor risks."""
    fleet = decision.fleet
    devices: list[list[governor_pb2.DeviceCap]] = [[] for _ in fleet.members]
    bound = (decision.cap_w > 0.0) | (decision.fallback_w > 0.0)
    for at in map(int, bound.nonzero()[0]):
        devices[fleet.worker[at]].append(
            governor_pb2.DeviceCap(
                device=fleet.devices[at].key.partition("/")[2],
                cap_w=decision.cap_w[at],
                fallback_w=decision.fallback_w[at],
                reason=decision.reason(at),
            )
        )
    found = []
    for place, member in enumerate(fleet.members):
        weight, share = float(decision.weight[place]), float(decision.slots_share[place])
        speeds = decision.factors[:, place]
        if devices[place] or weight < 1.0 or share < 1.0 or speeds.min() < 1.0:
            found.append(
                governor_pb2.WorkerCaps(
                    worker=member.name,
                    devices=devices[place],
                    weight=weight,
                    slots_share=share,
                    prefill_factor=speeds[PREFILL],
                    decode_factor=speeds[DECODE],
                    encode_factor=speeds[ENCODE],
                )
            )
    return found


def stage_budgets(decision: Decision) -> list[governor_pb2.StageBudget]:
    return [
        governor_pb2.StageBudget(
            stage=one.stage,
            budget_w=one.budget_w,
            demand_w=one.demand_w,
            goodput_per_watt=one.gain_per_w,
            move=one.move,
        )
        for one in decision.stages
    ]


def row_states(decision: Decision, emergencies: Iterable[str]) -> list[governor_pb2.RowState]:
    """A row without workers that nobody has limited is not worth a word."""
    hold, members = sorted(emergencies), _members(decision)
    return [
        governor_pb2.RowState(
            row=row.name,
            power_w=row.power_w,
            budget_w=row.budget_w,
            limit_w=row.limit_w,
            least_w=row.least_w,
            emergencies=hold,
            workers=workers,
            air_m3s=row.air_m3s,
            air_limit_m3s=row.air_limit_m3s,
        )
        for row, workers in zip(decision.rows, members, strict=True)
        if workers or row.limit_w > 0.0
    ]


def learnt_state(beside: Beside) -> governor_pb2.LearntState:
    tally = beside.all
    return governor_pb2.LearntState(
        mode=beside.mode,
        network=beside.name,
        running=beside.running,
        trouble=beside.trouble,
        device_seconds=tally.seconds,
        mean_apart=tally.mean_apart,
        above_share=tally.above_share,
        worst_apart=tally.worst,
        worst_at=tally.worst_at,
        distrusted=tally.distrusted,
        late=beside.late,
        step_ms=1e3 * beside.took_s,
    )


def _members(decision: Decision) -> Sequence[list[str]]:
    found: list[list[str]] = [[] for _ in decision.rows]
    for member in decision.fleet.members:
        found[member.row].append(member.name)
    return found
