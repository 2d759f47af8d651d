"""The queue manager's whole state: jobs, workers, lines, timers and counters. Handlers change it and emit effects."""

import heapq
from collections import OrderedDict
from functools import partial
from typing import Literal

from headrace.core.effects import Effect
from headrace.core.lengths import Calibrator, Histogram, Prediction, of_request
from headrace.core.ordering import ORDERS, Standing
from headrace.core.queue.config import ATTEMPTS_PER_EPOCH, QueueConfig
from headrace.core.queue.job import AT_WORKER, LIFE, WAITING, Job, Lane, State
from headrace.core.queue.line import Line
from headrace.core.queue.pool import EMPTY, Pool
from headrace.core.queue.worker import Worker

Alarm = Literal["deadline", "grace", "stop", "recover"]


class ClassCount:
    """Jobs of one SLO class. `waiting` keeps them in order of arrival: its first is the oldest."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[str, Job] = {}
        self.running = 0


class Cell:
    def __init__(self, config: QueueConfig) -> None:
        self.config = config
        self.effects: list[Effect] = []
        self.jobs: dict[str, Job] = {}
        self.workers: dict[str, Worker] = {}
        self.pools: dict[str, Pool] = {}  # workers by model, without those that leave; rebuilt on change
        self.lines: dict[str, Line] = {}  # by model
        self.unplaced: dict[Lane, Line] = {}  # jobs with parts that no encoder has room for
        self.classes: dict[str, ClassCount] = {}
        self.ended: OrderedDict[str, float] = OrderedDict()  # request id -> when its result was stored, newest last
        self.accepted = 0
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
        self.lengths_matter = config.predict_lengths or ORDERS[config.order].needs_lengths
        self.dirty = False  # something was freed or became ready: dispatch has work

    @property
    def dispatching(self) -> bool:
        return self.caught_up and self.adopting_until_s is None and self.bus_up

    def emit(self, effect: Effect) -> None:
        self.effects.append(effect)

    # --- jobs ---

    def enter(self, job: Job) -> None:
        self.jobs[job.request.id] = job
        self._class(job).waiting[job.request.id] = job

    def move(self, job: Job, to: State) -> None:
        """The only place where a state changes."""
        was = job.state
        assert to in LIFE[was], f"{job.key}: {was} -> {to}"
        if was == "queued":
            self.line(job.request.model).leave(job)
        self._count_prefill(job, was, to)
        job.state = to
        count = self._class(job)
        if was in WAITING and to not in WAITING:
            del count.waiting[job.request.id]
        elif was not in WAITING and to in WAITING:
            count.waiting[job.request.id] = job
        count.running += (to in AT_WORKER) - (was in AT_WORKER)
        if to == "queued":
            self.line(job.request.model).push(job, self.standing(job), apart=job.suspect == "llm")
            self.dirty = True
        elif to == "ended":
            del self.jobs[job.request.id]

    def _count_prefill(self, job: Job, was: State, to: State) -> None:
        tokens = (to == "prefill") - (was == "prefill")
        worker = self.workers.get(job.prefill) if tokens else None
        if worker is not None:
            worker.prefill_pending += tokens * len(job.request.prompt.tokens)

    def next_attempt(self, job: Job) -> None:
        job.tries += 1
        assert job.tries < ATTEMPTS_PER_EPOCH, f"{job.key}: attempts of this epoch are used up"
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
        slo = self.config.classes.get(job.request.slo_class)
        ttft_s = slo.ttft_s if slo is not None else 0.0
        return Standing(job.request, job.seq, job.ready_s, ttft_s, partial(self.length_left, job))

    def length_left(self, job: Job) -> Prediction:
        """What a predictor said, or else what is known of requests like it."""
        whole = job.length
        if whole is None:
            whole = self.known_lengths.predict(job.request.id, of_request(job.request))
        return whole.given(len(job.emitted))

    def stand_again(self, job: Job) -> None:
        """In the place that it has now, if it stands in a line whose order asks for lengths."""
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
            if worker.incarnation and not worker.draining:
                pool = self.pools.get(worker.model)
                if pool is None:
                    pool = self.pools[worker.model] = Pool()
                pool.add(worker)
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
