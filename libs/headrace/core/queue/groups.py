"""Request groups (QLM, arXiv 2407.00047): requests of one model, target and size that wait together.

A kind is what its groups have in common. Requests join the kind's open group in order of arrival; a group is closed at
a bounded size, so that the plan can order what waits in pieces. Whoever is served from a group is chosen among all that
wait of its kind: the tenant that was served least, and of each tenant first come, first served.
"""

import math
from dataclasses import dataclass

from headrace.core.queue.job import Job
from headrace.core.waiting.work import NOTHING, Work

# A prompt token costs about so much of a decoded one: 0.3 ms of prefill against 15 ms shared by 64 sequences. It only
# sorts requests into sizes.
PROMPT_SHARE = 0.1
# Requests of a group are due within a quarter of their target: more would let the last be late for the first.
SPREAD_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class KindKey:
    model: str
    slo_class: str
    priority: int
    target: int  # half octaves of the target to the first token
    size: int  # octaves of the expected work, in decoded tokens
    owner: str = ""  # of requests that have begun: the worker whose host memory holds their KV caches

    @property
    def but_size(self) -> tuple[str, str, int, int, str]:
        return self.model, self.slo_class, self.priority, self.target, self.owner


class Kind:
    """All that wait of one kind."""

    __slots__ = ("alike", "flows", "key", "open")

    def __init__(self, key: KindKey) -> None:
        self.key = key
        self.alike = key.but_size
        self.flows: dict[str, dict[str, Job]] = {}  # whose share it is -> request id -> job, in order of arrival
        self.open: Group | None = None  # takes those that come

    def add(self, job: Job) -> None:
        self.flows.setdefault(flow_of(job), {})[job.request.id] = job

    def discard(self, job: Job) -> None:
        flow = flow_of(job)
        jobs = self.flows[flow]
        del jobs[job.request.id]
        if not jobs:
            del self.flows[flow]


class Group:
    """`jobs` wait, in order of arrival. It stands in the virtual queue of `worker`, or nowhere yet."""

    __slots__ = ("due_s", "id", "jobs", "kind", "last_due_s", "started", "target_s", "work", "worker")

    def __init__(self, number: int, kind: Kind, due_s: float, target_s: float) -> None:
        self.id = number
        self.kind = kind
        self.jobs: dict[str, Job] = {}
        self.work = NOTHING
        self.due_s = due_s  # of its most urgent member
        self.last_due_s = due_s
        self.target_s = target_s
        self.started = False  # some of it runs, or has run
        self.worker = ""

    @property
    def model(self) -> str:
        return self.kind.key.model

    @property
    def begun(self) -> bool:
        """Its requests have been evicted: KV caches wait in host memory."""
        return bool(self.kind.key.owner)

    def takes(self, due_s: float, most: int) -> bool:
        spread_s = max(self.last_due_s, due_s) - min(self.due_s, due_s)
        return not self.started and len(self.jobs) < most and spread_s <= SPREAD_SHARE * self.target_s

    def add(self, job: Job, work: Work, due_s: float) -> None:
        self.jobs[job.request.id] = job
        job.group = self
        job.work = work
        self.work += work
        self.due_s = min(self.due_s, due_s)
        self.last_due_s = max(self.last_due_s, due_s)

    def remove(self, job: Job) -> None:
        del self.jobs[job.request.id]
        job.group = None
        self.work = self.work - job.work if self.jobs else NOTHING


def flow_of(job: Job) -> str:
    return job.request.flow or job.request.tenant


def target_octaves(target_s: float) -> int:
    return round(2 * math.log2(max(target_s, 1e-3)))


def size_octaves(prompt_tokens: int, output_mean: float) -> int:
    return max(0, round(math.log2(max(1.0, output_mean + PROMPT_SHARE * prompt_tokens))))


def size_words(key: KindKey) -> str:
    """For people: what a request of this size costs, as decoded tokens."""
    low, high = 2 ** (key.size - 0.5), 2 ** (key.size + 0.5)
    return f"{low:.0f}-{high:.0f} tokens' work"
