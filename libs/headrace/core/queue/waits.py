"""Waiting times: what every request that joins a virtual queue is expected to wait, and how far off that was.

One walk along the queues tells all who have joined since the last one; a tick is often enough.
"""

from collections.abc import Mapping

from headrace.core.queue.admission import reject_if_hopeless
from headrace.core.queue.cell import Cell
from headrace.core.queue.groups import Group
from headrace.core.queue.job import Job
from headrace.core.queue.running import instance_of, running_at, serves
from headrace.core.queue.virtual import VirtualQueue, VirtualQueues
from headrace.core.queue.worker import Worker
from headrace.core.waiting.estimate import Instance, Wait, first_token, queue_wait
from headrace.core.waiting.overtaking import Stream, overtaken
from headrace.core.waiting.work import NOTHING, Work

AT_ONCE = 1_000  # of those that joined: 30 ms. The others' turn comes with the next tick


def expect_waits(cell: Cell, virtual: VirtualQueues, now_s: float) -> None:
    """For those that still wait: their expectation is kept until they are served, to be held against what came."""
    joined, virtual.joined = virtual.joined[:AT_ONCE], virtual.joined[AT_ONCE:]
    by_group: dict[int, list[Job]] = {}
    for job in joined:
        if job.group is not None and job.group.worker and job.state == "queued" and job.expected is None:
            by_group.setdefault(job.group.id, []).append(job)
    streams = passing(cell, now_s) if by_group else {}
    for queue in virtual.queues.values() if by_group else ():
        if queue.groups:
            _walk(cell, queue, by_group, streams.get(queue.worker, []), now_s)


def _walk(cell: Cell, queue: VirtualQueue, by_group: dict[int, list[Job]], streams: list[Stream], now_s: float) -> None:
    worker = cell.workers[queue.worker]
    instance, running, load_s = instance_of(cell, worker), running_at(cell, worker, now_s), 0.0
    model, ahead, before = worker.model_to_be, NOTHING, 0
    for group in list(queue.groups):
        load_s += change_s(worker, model, group.model)
        model = group.model
        joined = by_group.get(group.id, ())
        places = {request_id: place for place, request_id in enumerate(group.jobs)} if joined else {}
        for job in joined:
            if job.group is not group or job.expected is not None:
                continue  # it stands in the list twice, or has just been refused
            place = places[job.request.id]
            stands_before = ahead + group.work.times(place / max(1, len(group.jobs)))
            slots = cell.planning.slots_of(group.model, job.kv_tokens)
            wait = queue_wait(instance, running, stands_before, slots)
            wait = Wait(wait.mean_s + load_s, wait.var_s2)
            said = overtaken(wait, _due_s(cell, job) - now_s, streams)
            job.expected = (said.mean_s, cell.bounds.of(said, before + place), before + place, now_s)
            reject_if_hopeless(cell, job, wait, now_s)  # nobody who is still to come is why it would be hopeless
        ahead += group.work
        before += len(group.jobs)


def _due_s(cell: Cell, job: Job) -> float:
    """When its first token is wanted; of one that has begun, when it is to go on."""
    return job.due_s if job.state == "evicted" else job.request.accepted_s + cell.effective_target_s(job.request)


def passing(cell: Cell, now_s: float) -> dict[str, list[Stream]]:
    """What comes to each worker's virtual queue: of each model as much as makes all that can serve it equally busy."""
    found: dict[str, list[Stream]] = {}
    able: dict[str, list[tuple[str, Instance]]] = {}  # by model
    for model, target_s, work in cell.arrivals.rates(now_s):
        if model not in able:
            of_model = [each for each in cell.workers.values() if each.instance and serves(cell, each, model)]
            able[model] = [(each.id, _instance_for(cell, each, model)) for each in of_model]
        alone = [(worker_id, *instance.service(work)) for worker_id, instance in able[model]]
        share = 1.0 / sum([1.0 / max(1e-12, busy) for _, busy, _ in alone]) if alone else 0.0
        for worker_id, busy, var_s2 in alone:
            found.setdefault(worker_id, []).append(Stream(target_s, share, var_s2 * share / max(1e-12, busy)))
    return found


def _instance_for(cell: Cell, worker: Worker, model: str) -> Instance:
    if model == worker.model_to_be:
        return instance_of(cell, worker)
    other = worker.loadable[model]
    return Instance(max(1, other.slots), other.pace)


def waited(cell: Cell, job: Job, now_s: float) -> None:
    """It is served: how long that took is held against what was expected."""
    expected, job.expected = job.expected, None
    if expected is None or job.state != "queued":
        return
    mean_s, bound_s, ahead, said_s = expected
    cell.waits.record(ahead, mean_s, bound_s, now_s - said_s)
    cell.bounds.record(ahead, bound_s, now_s - said_s)


def wait_of(cell: Cell, virtual: VirtualQueues, job: Job, now_s: float) -> Wait | None:
    """What it is expected to wait from now on; None: it stands in no worker's virtual queue."""
    group = job.group
    if group is None or not group.worker:
        return None
    worker = cell.workers[group.worker]
    place = next(place for place, request_id in enumerate(group.jobs) if request_id == job.request.id)
    ahead = virtual.ahead_of(group) + group.work.times(place / len(group.jobs))
    load_s = _loads_s(virtual.queues[group.worker], worker, group)
    onlooker = Onlooker(cell, worker, passing(cell, now_s), now_s)
    wait = onlooker.wait(ahead, job.request.prompt.kv_tokens, _due_s(cell, job))
    return Wait(wait.mean_s + load_s, wait.var_s2)


def _loads_s(queue: VirtualQueue, worker: Worker, last: Group) -> float:
    """Of the models of all groups up to this one."""
    model, load_s = worker.model_to_be, 0.0
    for group in queue.groups:
        load_s += change_s(worker, model, group.model)
        model = group.model
        if group is last:
            break
    return load_s


class Onlooker:
    """Of one virtual queue: what a request in it waits for its first token, as whoever only looks on sees it."""

    def __init__(self, cell: Cell, worker: Worker, streams: Mapping[str, list[Stream]], now_s: float) -> None:
        """streams: passing(), made once for all queues."""
        self._now_s = now_s
        self._instance, self._running = instance_of(cell, worker), running_at(cell, worker, None)
        self._streams = streams.get(worker.id, [])

    def wait(self, ahead: Work, prompt_tokens: float, due_s: float) -> Wait:
        """Behind `ahead` and whoever will pass it; prefill is passed by nobody."""
        line = queue_wait(self._instance, self._running, ahead)
        first = first_token(self._instance, self._running, ahead, prompt_tokens)
        longer = overtaken(line, due_s - self._now_s, self._streams)
        return Wait(first.mean_s + longer.mean_s - line.mean_s, first.var_s2 + longer.var_s2 - line.var_s2)


def waits_of_class(cell: Cell, virtual: VirtualQueues, slo_class: str, now_s: float) -> dict[str, Wait]:
    """By model, of a request of this class that came now: behind what is due before it, at the instance where that is
    least. Whoever is still to come and will pass it is not in it: doors close and pools grow for what is there."""
    due_s, found = now_s + cell.config.classes[slo_class].ttft_s, dict[str, Wait]()
    for queue in virtual.queues.values():
        for model, wait in _at_queue(cell, queue, due_s).items():
            if model not in found or wait.mean_s < found[model].mean_s:
                found[model] = wait
    return found


def _at_queue(cell: Cell, queue: VirtualQueue, due_s: float) -> dict[str, Wait]:
    """By each model that it serves, now or once it has loaded it."""
    worker = cell.workers[queue.worker]
    ahead, prompt_tokens, last, loads_s = NOTHING, 0.0, worker.model_to_be, 0.0
    for group in queue.groups:
        if group.due_s <= due_s:
            ahead += group.work
            prompt_tokens = group.work.prompt_tokens / max(1.0, group.work.count)
            loads_s += change_s(worker, last, group.model)
            last = group.model
    wait = first_token(instance_of(cell, worker), running_at(cell, worker, None), ahead, prompt_tokens)
    models = [model for model in dict.fromkeys((worker.model_to_be, *worker.loadable)) if serves(cell, worker, model)]
    return {model: Wait(wait.mean_s + loads_s + change_s(worker, last, model), wait.var_s2) for model in models}


def change_s(worker: Worker, loaded: str, model: str) -> float:
    """Until this model is there in place of that one."""
    return worker.loadable[model].load_s if model != loaded and model in worker.loadable else 0.0
