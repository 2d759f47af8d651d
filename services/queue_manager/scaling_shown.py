"""The autoscaler as others see it: its status, what gateways may count on, and Prometheus readings."""

from collections.abc import Callable

from headrace.core.scaling.base import PoolSight
from headrace.mesh.metrics import Reading, Values
from headrace.v1 import queue_pb2, scaling_pb2
from services.queue_manager.scaling import Scaling


def scaling_to_proto(scaling: Scaling) -> scaling_pb2.ScalingStatus:
    return scaling_pb2.ScalingStatus(
        policy=scaling.options.policy,
        pools=[
            scaling_pb2.PoolStatus(
                pool=pool.name,
                stages=pool.stages,
                least=pool.least,
                most=pool.most,
                ready=pool.ready,
                starting=pool.starting,
                draining=pool.draining,
                target=target.instances,
                reason=target.reason,
                load_per_s=pool.short.per_s,
                capacity_per_s=pool.capacity_per_s,
                start_s=pool.start_s,
            )
            for pool, target in scaling.autoscaler.last
        ],
        decisions=[
            scaling_pb2.ScalingDecision(
                at_s=made.at_s,
                pool=made.pool,
                before=made.before,
                after=made.after,
                reason=made.reason,
                error=made.error,
            )
            for made in scaling.decisions
        ],
        trouble=scaling.trouble,
    )


def mark_startable(status: queue_pb2.CellStatus, scaling: Scaling) -> None:
    """Gateways let requests in that wait for an encoder to come."""
    for model in status.models:
        model.startable.extend(sorted(set(scaling.startable(model.model)) - set(model.modalities)))


def scaling_readings(scaling: Callable[[], Scaling | None]) -> tuple[Reading, ...]:
    """None: nothing is scaled, or this process does not lead."""

    def pools(value: Callable[[PoolSight], float]) -> Callable[[], Values]:
        return lambda: {(pool.name,): value(pool) for pool, _ in here.autoscaler.last} if (here := scaling()) else {}

    def targets() -> Values:
        here = scaling()
        return {(pool.name,): target.instances for pool, target in here.autoscaler.last} if here else {}

    def decisions() -> Values:
        here = scaling()
        return {(pool, direction): count for (pool, direction), count in here.decided.items()} if here else {}

    def instances() -> Values:
        here = scaling()
        return {
            (pool.name, state): getattr(pool, state)
            for pool, _ in (here.autoscaler.last if here else ())
            for state in ("ready", "starting", "draining")
        }

    by_pool = ("pool",)
    return (
        Reading("headrace_autoscale_target", "Instances that a pool is to have", targets, by_pool),
        Reading("headrace_autoscale_instances", "Instances of a pool", instances, ("pool", "state")),
        Reading("headrace_autoscale_decisions_total", "Orders given", decisions, ("pool", "direction")),
        Reading("headrace_autoscale_load", "Tokens a second that come", pools(lambda pool: pool.short.per_s), by_pool),
        Reading(
            "headrace_autoscale_capacity",
            "Tokens a second of one instance",
            pools(lambda pool: pool.capacity_per_s),
            by_pool,
        ),
        Reading(
            "headrace_autoscale_start_seconds",
            "From the order until an instance serves, lately",
            pools(lambda pool: pool.start_s),
            by_pool,
        ),
    )
