"""Core inspection -> proto: the virtual queues as `headrace queue` and other readers see them."""

from headrace.core.queue.inspect import GroupView, Inspection, VirtualQueueView
from headrace.v1 import queue_pb2


def inspection_to_proto(shown: Inspection, epoch: int, leader: str) -> queue_pb2.InspectResponse:
    return queue_pb2.InspectResponse(
        epoch=epoch,
        leader=leader,
        policy=shown.policy,
        queues=[_queue(queue) for queue in shown.queues],
        unplaced=[_group(group) for group in shown.unplaced],
        operations=shown.operations,
        flows=[
            queue_pb2.FlowStatus(
                slo_class=flow.slo_class, flow=flow.flow, waiting=flow.waiting, served_tokens=flow.served_tokens
            )
            for flow in shown.flows
        ],
        wait_errors=[
            queue_pb2.WaitErrorStatus(
                ahead_from=row.ahead_from,
                requests=row.requests,
                median_s=row.median_s,
                p90_s=row.p90_s,
                median_share=row.median_share,
                within_bound=row.within_bound,
            )
            for row in shown.wait_errors
        ],
        planner=queue_pb2.PlannerStatus(
            plans_solved=shown.planner.plans_solved,
            plans_applied=shown.planner.plans_applied,
            plans_stale=shown.planner.plans_stale,
            last_solve_s=shown.planner.last_solve_s,
            last_cost=shown.planner.last_cost,
            last_solver=shown.planner.last_solver,
            last_optimal=shown.planner.last_optimal,
            solve_s=shown.planner.solve_s,
        ),
    )


def _queue(queue: VirtualQueueView) -> queue_pb2.VirtualQueueStatus:
    return queue_pb2.VirtualQueueStatus(
        worker=queue.worker,
        model=queue.model,
        loading=queue.loading,
        running=queue.running,
        slots=queue.slots,
        tokens_per_s=queue.tokens_per_s,
        groups=[_group(group) for group in queue.groups],
        prefill_speed=queue.speeds.prefill,
        decode_speed=queue.speeds.decode,
        weight=queue.weight,
        slots_usable=queue.slots_usable,
        groups_left_out=queue.groups_left_out,
        waiting_left_out=queue.waiting_left_out,
    )


def _group(group: GroupView) -> queue_pb2.GroupStatus:
    return queue_pb2.GroupStatus(
        id=group.id,
        model=group.model,
        slo_class=group.slo_class,
        size=group.size,
        priority=group.priority,
        waiting=group.waiting,
        evicted=group.evicted,
        due_in_s=group.due_in_s,
        estimated_wait_s=group.estimated_wait_s,
        estimated_wait_bound_s=group.estimated_wait_bound_s,
        output_tokens=group.output_tokens,
    )
