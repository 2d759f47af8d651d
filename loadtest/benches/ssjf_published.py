"""The simulator that SSJF's authors released, rebuilt from its description, with a switch for each of its biases.

Qiu et al., arXiv 2404.08509; behaviour read in LLM-serving-with-proxy-models [C]. A batch costs no more than a job.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mode = Literal["none", "dynamic", "continuous"]
MODES: tuple[Mode, ...] = ("none", "dynamic", "continuous")

GUARD_WAIT_S, GUARD_TIMES = 100.0, 10.0  # of the ageing guard [C]


@dataclass(frozen=True, slots=True)
class Biases:
    """What the released simulator does beyond the algorithm; all on is as released, all off is without."""

    fcfs_waits_alone: bool = True  # FCFS waits for a full batch, even where nobody is left to come; SSJF never
    guard_knows_true: bool = True  # the ageing guard compares a job's waiting with its true duration
    waits_credited_whole: bool = True  # waiting is added up between dispatches: late comers get the whole interval
    gaps_sorted: bool = True  # gamma gaps grow: all bursts come first
    whole_seconds: bool = True  # Poisson arrivals fall on the full second
    last_job_dropped: bool = True  # SSJF's loop ends when the line is empty and one job is to come


RELEASED = Biases()
BATCH_WAIT_S = 10.0  # BATCH_WAIT_TIMEOUT [C]


@dataclass(slots=True, eq=False)
class _Job:
    row: int
    arrival_s: float
    exec_s: float
    left_s: float
    key: float  # smaller first; nan: by what is left (the oracle)
    said_s: float  # what a guard without the truth goes by
    credit_s: float = 0.0  # of waiting, as the released simulator counts it

    def order(self) -> float:
        return self.left_s if np.isnan(self.key) else self.key

    def served(self, seconds: float) -> bool:
        """Whether it ends with this interval; one that is the shortest ends exactly."""
        done = self.left_s <= seconds
        self.left_s = max(self.left_s - seconds, 0.0)
        return done


def poisson_arrivals(rng: Generator, jobs: int, rate_rps: float, biases: Biases) -> Floats:
    """Seconds, growing."""
    if not biases.whole_seconds:
        return np.cumsum(rng.exponential(1 / rate_rps, jobs))
    counts = np.empty(0, np.int64)
    while counts.sum() < jobs:
        counts = np.append(counts, rng.poisson(rate_rps, max(1, int(jobs / rate_rps))))
    return np.repeat(np.arange(len(counts)), counts)[:jobs].astype(np.float64)


def gamma_arrivals(rng: Generator, jobs: int, rate_rps: float, cv: float, biases: Biases) -> Floats:
    """cv: standard deviation of the gaps over their mean."""
    gaps = rng.gamma(1 / cv**2, cv**2 / rate_rps, jobs)
    return np.cumsum(np.sort(gaps) if biases.gaps_sorted else gaps)


def fcfs(mode: Mode, size: int, arrival_s: Floats, exec_s: Floats, biases: Biases = RELEASED) -> Floats:
    """When each job ends; arrivals grow. One that did not finish in its batch goes on in the next."""
    wait_s = BATCH_WAIT_S if biases.fcfs_waits_alone else 0.0
    jobs = [_Job(row, a, e, e, 0.0, e) for row, (a, e) in enumerate(zip(arrival_s, exec_s, strict=True))]
    end_s, now_s = np.full(len(jobs), np.nan), 0.0
    most = 1 if mode == "none" else size
    while jobs:
        now_s = max(now_s, jobs[0].arrival_s)
        batch = [job for job in jobs[:most] if job.arrival_s <= now_s + wait_s]
        jobs = jobs[len(batch) :]
        full = len(batch) == most
        now_s = max(now_s, batch[-1].arrival_s) if full else now_s + wait_s
        now_s, rest = _run(mode, batch, now_s, end_s)
        jobs = rest + jobs
    return end_s


def ssjf(
    mode: Mode,
    size: int,
    arrival_s: Floats,
    exec_s: Floats,
    key: Sequence[float] | Floats,
    said_s: Floats,
    biases: Biases = RELEASED,
) -> Floats:
    """When each job ends; nan: it was dropped. Smaller keys go first, nan keys stand for what is left of the job.

    said_s: the predicted duration in seconds, which a guard without the truth goes by.
    """
    coming = [_Job(row, *values) for row, values in enumerate(zip(arrival_s, exec_s, exec_s, key, said_s, strict=True))]
    end_s, now_s, before_s = np.full(len(coming), np.nan), 0.0, 0.0
    line: list[_Job] = []
    most = 1 if mode == "none" else size
    at = 0
    last = len(coming) - 1 if biases.last_job_dropped else len(coming)
    while at < last or line:
        if not line:
            now_s = max(now_s, coming[at].arrival_s)
        at = _admit(line, coming, at, now_s)
        line.sort(key=_order_of(line, now_s, biases))
        batch, line = line[:most], line[most:]
        now_s, rest = _run(mode, batch, now_s, end_s)
        at = _admit(line, coming, at, now_s)
        line += rest
        for job in line:
            job.credit_s += now_s - before_s
        before_s = now_s
    return end_s


def _admit(line: list[_Job], coming: list[_Job], at: int, now_s: float) -> int:
    while at < len(coming) and coming[at].arrival_s <= now_s:
        line.append(coming[at])
        at += 1
    return at


def _order_of(line: list[_Job], now_s: float, biases: Biases) -> Callable[[_Job], float]:
    """Shortest first, or, once the oldest has waited too long, the whole line by waiting."""

    def waited_s(job: _Job) -> float:
        return job.credit_s if biases.waits_credited_whole else now_s - job.arrival_s - (job.exec_s - job.left_s)

    oldest = max(line, key=waited_s)
    duration_s = oldest.left_s if biases.guard_knows_true else oldest.said_s
    starves = waited_s(oldest) > min(GUARD_WAIT_S, GUARD_TIMES * duration_s)
    return (lambda job: -waited_s(job)) if starves else _Job.order


def _run(mode: Mode, batch: list[_Job], now_s: float, end_s: Floats) -> tuple[float, list[_Job]]:
    """A batch to its longest job's end, or, continuous, to its shortest's: the clock, and who is not done."""
    lasts_s = (min if mode == "continuous" else max)([job.left_s for job in batch])
    now_s += lasts_s
    rest = []
    for job in batch:
        if job.served(lasts_s):
            end_s[job.row] = now_s
        else:
            rest.append(job)
    return now_s, rest
