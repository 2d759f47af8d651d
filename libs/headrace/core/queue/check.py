"""The invariants of the queue manager's state, as code. Looks at everything: for tests, not for service."""

from collections import Counter

from headrace.core.queue.cell import Cell
from headrace.core.queue.job import AT_WORKER, WAITING, Job


def check(cell: Cell) -> None:
    for worker in cell.workers.values():
        worker.check()
        pending = [job for job in cell.jobs.values() if job.state == "prefill" and job.prefill == worker.id]
        assert worker.prefill_pending == sum(len(job.request.prompt.tokens) for job in pending), worker.id
        for seat in worker.seats.values():
            assert cell.jobs.get(seat.job.request.id) is seat.job, f"{worker.id} keeps a seat for {seat.job.key}"
            assert worker.id in seat.job.workers(), f"{seat.job.key} sits at {worker.id} and does not know"
        for job, part in worker.parts.values():
            assert cell.jobs.get(job.request.id) is job, f"{worker.id} keeps a part of {job.key}"
            assert job.parts[part.index] is part
    for request_id, job in cell.jobs.items():
        assert request_id == job.request.id
        _check_job(cell, job)
    _check_counts(cell)
    cell.affinity.check()


def _check_job(cell: Cell, job: Job) -> None:
    assert (job.end is not None) == (job.state == "ending"), f"{job.key} is {job.state} with end {job.end}"
    stands = job.state == "queued" or (job.state == "evicted" and not job.stop) or job.lane is not None
    assert (job.ticket != 0) == stands, f"{job.key} is {job.state} with ticket {job.ticket}"
    if job.state in AT_WORKER:
        assert job.attempt, f"{job.request.id} runs without an attempt"
        for worker_id in job.workers():
            assert job.request.id in cell.workers[worker_id].seats, f"{job.key} has no seat at {worker_id}"
    elif job.state != "ending":
        assert not job.prefill, f"{job.key} is {job.state} and at {job.prefill}"
        assert not job.decode, f"{job.key} is {job.state} and at {job.decode}"
    for part in job.parts:
        assert not part.worker or (job.request.id, part.index) in cell.workers[part.worker].parts, job.key
        assert part.handle is None or part.worker, job.key
    waits = job.state == "encoding" and any(not part.worker for part in job.parts)
    assert waits == (job.lane is not None), f"{job.key} is {job.state} in lane {job.lane}"
    assert job.state != "queued" or job.encoded, f"{job.key} is queued and not encoded"
    assert 0 <= job.told <= len(job.parts), job.key
    assert not job.filling or cell.filling.get(job.request.id) is job, f"{job.key} waits for parts and is forgotten"
    assert not job.bereft or cell.adopting_until_s is not None, f"{job.key} waits for a part that nobody encodes"
    assert (job.request.id in cell.early) <= (job.state == "encoding"), f"{job.key} is {job.state} and may begin early"


def _check_counts(cell: Cell) -> None:
    jobs = cell.jobs.values()
    standing = sum(job.ticket != 0 and job.lane is None for job in jobs)
    assert sum(len(line) for line in cell.lines.values()) + (len(cell.virtual) if cell.virtual else 0) == standing
    if cell.virtual is not None:
        cell.virtual.check()
    for name, count in cell.classes.items():
        own = [job for job in jobs if job.request.slo_class == name]
        assert set(count.waiting) == {job.request.id for job in own if job.state in WAITING}, name
        assert count.running == sum(job.state in AT_WORKER for job in own), name
        waiting = [job.request.model for job in own if job.state in WAITING]
        assert +count.queued == Counter(waiting), name
        assert +count.encoding == Counter([job.request.model for job in own if job.state == "encoding"]), name
    assert cell.accepted == sum(cell.ended_by_reason.values()) + len(cell.jobs), "a request is lost or counted twice"
    assert len(cell.ended) <= cell.config.ended_max
