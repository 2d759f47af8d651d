"""The queue manager's whole state: jobs, workers, lines, timers and counters. Handlers change it and emit effects."""

import heapq
from collections import Counter, OrderedDict
from functools import partial
from typing import Literal

from headrace.core.effects import Effect
from headrace.core.lengths import Calibrator, Histogram, Prediction, of_request
from headrace.core.ordering import ORDERS, Standing
from headrace.core.queue.config import ATTEMPTS_PER_EPOCH, QueueConfig
from headrace.core.queue.governorbook import GovernorBook
from headrace.core.queue.job import AT_WORKER, LIFE, STANDING, WAITING, Job, Lane, State
from headrace.core.queue.line import Line
from headrace.core.queue.plans import Planning
from headrace.core.queue.pool import EMPTY, Pool
from headrace.core.queue.rolebook import RoleBook
from headrace.core.queue.virtual import VirtualQueues
from headrace.core.queue.worker import Worker
from headrace.core.slo import effective_target_s
from headrace.core.stages.content import Affinity
from headrace.core.types import Key, Request
from headrace.core.waiting.bounds import Bounds
from headrace.core.waiting.errors import WaitErrors
from headrace.core.waiting.overtaking import Arrivals
from headrace.core.waiting.remaining import Remaining
from headrace.core.waiting.work import Work

Alarm = Literal["deadline", "grace", "stop", "recover", "ttl"]


class ClassCount:
    """Jobs of one SLO class. `waiting` keeps them in order of arrival: its first is the oldest."""

    __slots__ = ("encoding", "queued", "running", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[str, Job] = {}
        self.running = 0
        # Of those that wait, by model.
        self.queued: Counter[str] = Counter()
        self.encoding: Counter[str] = Counter()

    def wait(self, job: Job) -> None:
        self.waiting[job.request.id] = job
        self.queued[job.request.model] += 1

    def go(self, job: Job) -> None:
        del self.waiting[job.request.id]
        self.queued[job.request.model] -= 1


class Cell:
    def __init__(self, config: QueueConfig) -> None:
        self.config = config
        self.effects: list[Effect] = []
        self.jobs: dict[str, Job] = {}
        self.workers: dict[str, Worker] = {}
        self.pools: dict[str, Pool] = {}  # workers by model, without those that leave; rebuilt on change
        self.lines: dict[str, Line] = {}  # by model
        self.unplaced: dict[Lane, Line] = {}  # jobs with parts that no encoder has room for
        self.early: dict[str, Job] = {}  # encoding, their first parts are there: prefill may begin
        self.filling: dict[str, Job] = {}  # it has, and some parts are still to come; or was so lately
        self.classes: dict[str, ClassCount] = {}
        self.ended: OrderedDict[str, float] = OrderedDict()  # request id -> when its result was stored, newest last
        self.accepted = 0
        self.set_aside = 0  # requests given up since workers died of them
        self.ended_by_reason: dict[str, int] = {}
        self._timers: list[tuple[float, int, Alarm, str, int]] = []  # at, number, alarm, request id, attempt
        self._timer_count = 0
        self._timers_max = 1024  # then those of jobs that are gone are swept out
        self.caught_up = False
        self.adopting_until_s: float | None = None  # None: not adopting
        self.results_asked = 0  # ids named by FindResults and not answered yet
        self.bus_up = True
        self.last_tick_s: float | None = None
        self.known_lengths = Histogram()  # of ended requests, by model, class and modality
        self.calibrator = Calibrator()  # of what the predictor says, by model
        self.roles = RoleBook() if config.roles == "elastic" else None
        self.governing = GovernorBook()
        self.lengths_matter = bool(
            config.predict_lengths or config.planner or ORDERS[config.order].needs_lengths or self.roles is not None
        )
        self.virtual: VirtualQueues | None = None  # instead of lines, where there is a planner
        if config.planner:
            self.virtual = VirtualQueues(config.share_half_life_s, config.flows_max, fair=config.fair)
        self.planning = Planning()
        self.affinity = Affinity(config.affinity_contents_max, config.affinity_homes_max)
        self.turns: Counter[str] = Counter()  # of routing by turns: how many were sent to each stage
        self.waits = WaitErrors()
        self.bounds = Bounds(config.bound_z)
        self.arrivals = Arrivals()
        self.operations: dict[str, int] = {}  # how often each was done
        self.dirty = False  # something was freed or became ready: dispatch has work

    @property
    def dispatching(self) -> bool:
        return self.caught_up and self.adopting_until_s is None and self.bus_up

    def emit(self, effect: Effect) -> None:
        self.effects.append(effect)

    # --- jobs ---

    def enter(self, job: Job) -> None:
        self.jobs[job.request.id] = job
        self._class(job).wait(job)

    def move(self, job: Job, to: State) -> None:
        """The only place where a state changes."""
        was = job.state
        assert to in LIFE[was], f"{job.key}: {was} -> {to}"
        if was in STANDING:
            self.step_out(job)
        self._count_prefill(job, was, to)
        self.early.pop(job.request.id, None)
        job.state = to
        count = self._class(job)
        if was in WAITING and to not in WAITING:
            count.go(job)
        elif was not in WAITING and to in WAITING:
            count.wait(job)
        count.running += (to in AT_WORKER) - (was in AT_WORKER)
        count.encoding[job.request.model] += (to == "encoding") - (was == "encoding")
        if to in STANDING:
            self._step_in(job)
        elif to == "ended":
            del self.jobs[job.request.id]

    def _step_in(self, job: Job) -> None:
        """Into the line for workers, or into a request group."""
        apart = job.suspect == "llm" and job.state == "queued"
        if self.virtual is None or apart:
            self.line(job.request.model).push(job, self.standing(job), apart=apart)
        else:
            owner = job.prefill if job.state == "evicted" else ""
            most = self.planning.group_max(job.request.model)
            slots = self.planning.slots_of(job.request.model, job.kv_tokens)
            self.virtual.push(job, self.left(job), self.target_s(job.request), most, slots, owner)
        self.dirty = True

    def step_out(self, job: Job) -> None:
        if not job.ticket or job.lane is not None:
            return
        if job.group is not None:
            assert self.virtual is not None
            self.virtual.leave(job)
        else:
            self.line(job.request.model).leave(job)

    def count(self, operation: str) -> None:
        self.operations[operation] = self.operations.get(operation, 0) + 1

    def _count_prefill(self, job: Job, was: State, to: State) -> None:
        tokens = (to == "prefill") - (was == "prefill")
        worker = self.workers.get(job.prefill) if tokens else None
        if worker is not None:
            worker.prefill_pending += tokens * len(job.request.prompt.tokens)

    def note_arrival(self, job: Job, now_s: float) -> None:
        """Of the work that comes; what is replayed from the journal came long ago."""
        request = job.request
        slots = self.planning.slots_of(request.model, job.kv_tokens)
        work = Work.of(*self.left(job), request.prompt.kv_tokens, slots)
        self.arrivals.add(request.model, self.effective_target_s(request), work, now_s)

    def current(self, key: Key) -> Job | None:
        """The job, if it is this attempt of it that counts."""
        job = self.jobs.get(key.request_id)
        return job if job is not None and job.attempt == key.attempt else None

    def next_attempt(self, job: Job) -> None:
        job.tries += 1
        assert job.tries < ATTEMPTS_PER_EPOCH, f"{job.key}: attempts of this epoch are used up"
        job.left = ()
        job.attempt = self.config.epoch * ATTEMPTS_PER_EPOCH + job.tries

    def waiting_in(self, slo_class: str) -> int:
        count = self.classes.get(slo_class)
        return len(count.waiting) if count else 0

    def line(self, model: str) -> Line:
        line = self.lines.get(model)
        if line is None:
            line = self.lines[model] = Line(ORDERS[self.config.order])
        return line

    def standing(self, job: Job) -> Standing:
        """The target is none for a class that is not configured any more."""
        return Standing(
            job.request, job.seq, job.ready_s, self.effective_target_s(job.request), partial(self.length_left, job)
        )

    def effective_target_s(self, request: Request) -> float:
        """The same, as its priority has it."""
        return effective_target_s(self.target_s(request), request.priority)

    def target_s(self, request: Request) -> float:
        """To the first token: the request's own target, or its class's."""
        slo = self.config.classes.get(request.slo_class)
        return request.ttft_s or (slo.ttft_s if slo is not None else 0.0)

    def length_of(self, job: Job) -> Prediction:
        """What a predictor said, or else what is known of requests like it."""
        return job.length or self.known_lengths.predict(job.request.id, of_request(job.request))

    def length_left(self, job: Job) -> Prediction:
        return self.length_of(job).given(max(len(job.emitted), job.progress))

    def left(self, job: Job) -> tuple[float, float]:
        """Mean and variance of the tokens to come: of length_left, many times faster."""
        if job.remaining is None:
            job.remaining = Remaining(self.length_of(job))
        return job.remaining.after(max(len(job.emitted), job.progress))

    def stand_again(self, job: Job) -> None:
        """In the place that it has now, if it stands in a line whose order asks for lengths."""
        if job.group is not None:
            self.step_out(job)
            self._step_in(job)
            return
        if not job.ticket or not ORDERS[self.config.order].needs_lengths:
            return
        line = self.line(job.request.model) if job.lane is None else self.unplaced[job.lane]
        line.leave(job)
        line.push(job, self.standing(job), apart=job.lane is None and job.suspect == "llm")
        self.dirty = True

    def _class(self, job: Job) -> ClassCount:
        name = job.request.slo_class
        count = self.classes.get(name)
        if count is None:
            count = self.classes[name] = ClassCount()
        return count

    # --- workers ---

    def pool(self, model: str) -> Pool:
        return self.pools.get(model, EMPTY)

    def rebuild_pools(self) -> None:
        self.pools = {}
        for worker in self.workers.values():
            if worker.incarnation and not worker.draining and not worker.loading:
                pool = self.pools.get(worker.model)
                if pool is None:
                    pool = self.pools[worker.model] = Pool()
                pool.add(worker)
        self.planning.instances_changed = True
        self.dirty = True

    # --- time ---

    def alarm(self, at_s: float, alarm: Alarm, job: Job) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (at_s, self._timer_count, alarm, job.request.id, job.attempt))
        if len(self._timers) > self._timers_max:
            self._timers = [timer for timer in self._timers if timer[3] in self.jobs]
            heapq.heapify(self._timers)
            self._timers_max = 2 * len(self._timers) + 1024

    def due(self, now_s: float) -> tuple[Alarm, Job, int] | None:
        """The next alarm whose time has come, for a job that still lives."""
        while self._timers and self._timers[0][0] <= now_s:
            _, _, alarm, request_id, attempt = heapq.heappop(self._timers)
            job = self.jobs.get(request_id)
            if job is not None:
                return alarm, job, attempt
        return None
