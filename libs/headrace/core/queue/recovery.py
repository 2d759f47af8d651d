"""Lost workers: leases, deaths, suspects, and new attempts that go on where the old ones stopped."""

from headrace.core.effects import Orphan, RecoverTokens, SendCancel, SendRelease
from headrace.core.errors import StageError
from headrace.core.events import Recovered, TokensRecovered
from headrace.core.queue.alone import end_alone
from headrace.core.queue.cell import Cell
from headrace.core.queue.encoding import join_lane, lose_part, make_ready
from headrace.core.queue.ends import decide, fail, finish, stopped
from headrace.core.queue.job import Job, Suspicion
from headrace.core.queue.spans import add_span, dispatched_s
from headrace.core.queue.worker import Worker


def expire_leases(cell: Cell, now_s: float) -> None:
    if not cell.bus_up:
        return
    for worker in [worker for worker in cell.workers.values() if worker.lease_until_s < now_s]:
        bury(cell, worker, now_s, blame=True)


def extend_leases(cell: Cell, now_s: float) -> None:
    """We could not hear: nobody's silence counts, and adoption starts over."""
    for worker in cell.workers.values():
        worker.lease_until_s = max(worker.lease_until_s, now_s + cell.config.lease_s)
    if cell.adopting_until_s is not None:
        cell.adopting_until_s = now_s + cell.config.adopt_s


def bury(cell: Cell, worker: Worker, now_s: float, *, blame: bool) -> None:
    """The worker is gone with all it held. With blame: whoever it was working on may be what it died of."""
    parts = list(worker.parts.values())
    jobs = [seat.job for seat in worker.seats.values()]
    working = [job for job, part in parts if part.handle is None and (job.state == "encoding" or job.filling)]
    encoding = {job.request.id: job for job in working}
    for job, part in parts:
        lose_part(cell, job, part, now_s)
    del cell.workers[worker.id]
    cell.rebuild_pools()
    for job in encoding.values():
        _suspect(cell, job, "encode", now_s, blame=blame)
    retry(cell, [job for job in jobs if _bereaved(cell, job, worker, now_s, blame=blame)], now_s)
    bereft = {job.request.id: job for job, _ in parts if job.bereft}
    retry(cell, list(bereft.values()), now_s)


def _bereaved(cell: Cell, job: Job, worker: Worker, now_s: float, *, blame: bool) -> bool:
    """Whether the job needs a new attempt after losing the worker."""
    worker.unseat(job)
    if job.state == "handover" and job.prefill == worker.id != job.decode:
        job.prefill = ""  # the decode worker may hold the KV cache already: its next heartbeats tell
        job.sent_s = now_s
        return False
    if job.state == "prefill" and job.prefill != worker.id:
        return True  # it lost its place to go; nobody was working on it here
    if job.state == "evicted":
        return True  # nobody was working on it anywhere
    return _suspect(cell, job, "llm", now_s, blame=blame)


def _suspect(cell: Cell, job: Job, stage: Suspicion, now_s: float, *, blame: bool) -> bool:
    """False: the job has died alone too often and is set aside."""
    if not blame:
        end_alone(cell, job)
        return True
    job.deaths = job.deaths + 1 if job.died_at == stage else 1
    job.died_at = stage
    job.deaths_alone += job.alone
    end_alone(cell, job)
    if job.deaths < cell.config.deaths_suspect:
        return True  # workers die of many things: whoever was there goes on among the others
    job.suspect = stage
    if job.lane is not None:
        join_lane(cell, job)  # among the suspects
    if job.deaths_alone < cell.config.deaths_alone_max:
        return True
    message = f"set aside: {job.deaths_alone} workers died while they ran this request alone"
    cell.set_aside += 1
    fail(cell, job, StageError(message), now_s)
    return False


def retry(cell: Cell, jobs: list[Job], now_s: float) -> None:
    """A new attempt for each, once it is known what the earlier ones emitted."""
    orphans = tuple([_orphan(cell, job, now_s) for job in jobs])
    if orphans:
        cell.emit(RecoverTokens(orphans))


def _orphan(cell: Cell, job: Job, now_s: float) -> Orphan:
    leave_workers(cell, job)
    cell.next_attempt(job)
    cell.move(job, "recovering")
    job.prefill = job.decode = ""
    cell.alarm(now_s + cell.config.recover_retry_s, "recover", job)
    return Orphan(job.key, job.gateway)


def leave_workers(cell: Cell, job: Job) -> None:
    """Take the current attempt away from wherever it still runs. The job goes on naming them until it has moved."""
    end_alone(cell, job)
    for worker_id in job.workers():
        worker = cell.workers.get(worker_id)
        if worker is None:
            continue
        if job.request.id in worker.seats:
            worker.unseat(job)
        cell.emit(SendCancel(worker_id, job.key))
        cell.emit(SendRelease(worker_id, job.key))
        _displace_parts(worker, job)
    cell.dirty = True


def _displace_parts(worker: Worker, job: Job) -> None:
    """Embeddings under the attempt that has just been released there are gone."""
    for part in job.parts:
        if part.worker == worker.id and part.attempt == job.attempt:
            worker.displace(job, part)


def recover_again(cell: Cell, job: Job, attempt: int, now_s: float) -> None:
    """The shell's answer never came."""
    if job.state == "recovering" and job.attempt == attempt:
        cell.alarm(now_s + cell.config.recover_retry_s, "recover", job)
        cell.emit(RecoverTokens((Orphan(job.key, job.gateway),)))


def tokens_recovered(cell: Cell, event: TokensRecovered, now_s: float) -> None:
    for recovered in event.recovered:
        job = cell.jobs.get(recovered.key.request_id)
        if job is not None and job.state == "recovering" and job.key == recovered.key:
            _go_on(cell, job, recovered, now_s)


def _go_on(cell: Cell, job: Job, recovered: Recovered, now_s: float) -> None:
    if recovered.end is not None:
        finish(cell, job, recovered.end, recovered.tokens, recovered.logprobs, now_s)
        return
    job.emitted = max(job.emitted, recovered.tokens, key=len)
    if recovered.logprobs:
        job.logprobs = tuple(sorted({**dict(recovered.logprobs), **dict(job.logprobs)}.items()))
    if job.stop:
        stopped(cell, job, job.stop, now_s)
    elif len(job.emitted) >= job.request.sampling.max_tokens:
        decide(cell, job, "length", None, now_s)
    else:
        add_span(cell, job, "recover", dispatched_s(job), now_s)
        make_ready(cell, job, now_s)
