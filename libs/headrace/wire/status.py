"""Core views -> proto: what the queue manager publishes and answers about itself."""

from headrace.core.queue.views import CellView, Explanation
from headrace.v1 import queue_pb2
from headrace.wire.convert import stage_span_to_proto


def status_to_proto(view: CellView) -> queue_pb2.CellStatus:
    return queue_pb2.CellStatus(
        epoch=view.epoch,
        leader=view.leader,
        sent_s=view.now_s,
        classes=[
            queue_pb2.ClassStatus(
                slo_class=load.slo_class,
                queued=load.queued,
                running=load.running,
                queue_limit=load.queue_limit,
                oldest_wait_s=load.oldest_wait_s,
                estimated_wait_s=load.estimated_wait_s,
                estimated_wait_least_s=load.estimated_wait_least_s,
                ttft_s=load.ttft_s,
                encoding=load.encoding,
                models=[
                    queue_pb2.ClassOfModel(
                        model=part.model,
                        queued=part.queued,
                        encoding=part.encoding,
                        estimated_wait_s=part.estimated_wait_s,
                        estimated_wait_least_s=part.estimated_wait_least_s,
                    )
                    for part in load.models
                ],
            )
            for load in view.classes
        ],
        workers=[
            queue_pb2.WorkerStatus(
                worker=worker.worker,
                stages=worker.stages,
                model=worker.model,
                slots=worker.slots,
                slots_used=worker.slots_used,
                blocks=worker.blocks,
                blocks_used=worker.blocks_used,
                draining=worker.draining,
                last_seen_s=worker.last_seen_s,
                pending_media_tokens=worker.pending_media_tokens,
                loading=worker.loading,
                evicted=worker.evicted,
                evicted_bytes=worker.evicted_bytes,
                host_bytes=worker.host_bytes,
                role=worker.role,
            )
            for worker in view.workers
        ],
        models=[
            queue_pb2.ModelStatus(
                model=model.model,
                servable=model.servable,
                modalities=model.modalities,
                waiting=model.waiting,
                running=model.running,
            )
            for model in view.models
        ],
        accepted=view.accepted,
        ended=view.ended,
        ended_by_reason=view.ended_by_reason,
    )


def explanation_to_proto(told: Explanation) -> queue_pb2.ExplainResponse:
    return queue_pb2.ExplainResponse(
        request_id=told.request_id,
        state=told.state,
        position=told.position,
        waited_s=told.waited_s,
        estimated_wait_s=told.estimated_wait_s,
        why=told.why,
        attempt=told.attempt,
        worker=told.worker,
        group=told.group,
        virtual_queue=told.virtual_queue,
        estimated_wait_bound_s=told.estimated_wait_bound_s,
        predicted_tokens=told.predicted_tokens,
        predicted_tokens_p90=told.predicted_tokens_p90,
        ttft_target_s=told.ttft_target_s,
        timeline=[stage_span_to_proto(span) for span in told.timeline],
    )
