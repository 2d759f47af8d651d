"""Many runs at once: (scenario, policy, seed) over all cores, results as they come, nothing left behind on Ctrl-C.

Memory is bounded by what `keep` makes of each Result; a job that fails is an Outcome with its error, not an end.
"""

import copy
import multiprocessing
import os
import signal
import threading
import tomllib
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from headrace.core.errors import HeadraceError
from headrace.sim.result import Pool, Requests, Result
from headrace.workload import scenario as scenarios
from headrace.workload.scenario import Scenario
from headrace.workload.tables import ScenarioError

J = TypeVar("J")
R = TypeVar("R")

# Jobs handed to the pool beyond those that run: enough that no process waits, few enough that a stop is quick.
_AHEAD = 1
_GOING_S = 0.5
_TOLD_MAX = 400  # characters of an error: a broken invariant may print a whole world
_INTERRUPTED = 130  # the exit code of a shell's Ctrl-C


@dataclass(frozen=True, slots=True)
class Job:
    """One run. `label` tells jobs apart that differ in the scenario's overrides alone."""

    scenario: Scenario
    policy: str
    seed: int
    label: str = ""

    def __str__(self) -> str:
        scaled = f"scaled by {self.scenario.autoscale.policy}" if self.scenario.autoscale is not None else ""
        parts = (self.label or self.scenario.name, self.policy, scaled, f"seed {self.seed}")
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[J, R]):
    """Of the at-th job: its value, or why there is none. `trace`: where in the code, of an error that is no
    user's mistake."""

    at: int
    job: J
    value: R | None
    error: str = ""
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Simulating(Generic[R]):
    """The work of a Job: simulate it, and keep of the Result what is asked for (whole, slim, summary ...)."""

    keep: Callable[[Result], R]

    def __call__(self, job: Job, progress: Callable[[float], None] | None = None) -> R:
        from headrace.sim.run import simulate  # the world and all policies: where a run is made, not where it is asked

        return self.keep(simulate(job.scenario, job.policy, job.seed, progress=progress))


def whole(result: Result) -> Result:
    return result


def summary(result: Result) -> dict[str, Any]:
    return result.summary()


def slim(result: Result) -> Result:
    """About half the bytes: counts as int32, classes, reasons and attempts as int8, sampled series as float32.

    Times stay float64: in float32 an instant of the second day is off by 8 ms, and latencies are differences.
    """
    small = {"slo_class": np.int8, "reason": np.int8, "attempts": np.int8}
    requests = {name: getattr(result.requests, name) for name in Requests.__slots__}
    for name, column in requests.items():
        if column.dtype == np.int64:
            kind = small.get(name, np.int32)
            requests[name] = np.clip(column, None, np.iinfo(kind).max).astype(kind)
    pools = tuple(
        replace(pool, **{name: getattr(pool, name).astype(np.float32) for name in Pool.__slots__[3:]})
        for pool in result.pools
    )
    waiting: dict[str, Any] = {name: series.astype(np.float32) for name, series in result.waiting.items()}
    return replace(result, requests=Requests(**requests), pools=pools, waiting=waiting)


def grid(choices: Iterable[Scenario], policies: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    return [Job(chosen, policy, seed) for chosen in choices for policy in policies for seed in seeds]


def prepare(path_or_name: str | Path, overrides: Mapping[str, Any]) -> Scenario:
    """A scenario with keys set by their dotted path: `duration_s`, `classes.batch-1.ttft_s`, `fleet.pools.llm.count`.

    A list's entries are chosen by number or by their `name`.

    Raises:
        ScenarioError: no such scenario, or the changed one cannot be run.
    """
    path = scenarios.find(path_or_name)
    if not overrides:
        return scenarios.read(path)
    try:
        raw = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path.name}: not TOML: {error}") from error
    return scenarios.parse(changed(raw, overrides), path)


def changed(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a scenario's tables with the overrides set; whether they make sense is the scenario's to say."""
    tables: dict[str, Any] = copy.deepcopy(dict(raw))
    for key, value in overrides.items():
        *way, last = key.split(".")
        at: Any = tables
        for step in way:
            at = at.setdefault(step, {}) if isinstance(at, dict) else _entry(at, step, key)
        if not isinstance(at, dict):
            raise ScenarioError(f"{key}: {'.'.join(way)} is not a table; write the key of a table")
        at[last] = value
    return tables


def _entry(entries: Any, step: str, key: str) -> Any:
    if isinstance(entries, list):
        named = {entry["name"]: entry for entry in entries if isinstance(entry, dict) and "name" in entry}
        if step in named:
            return named[step]
        if step.isdecimal() and int(step) < len(entries):
            return entries[int(step)]
        raise ScenarioError(f"{key}: there is no {step!r}; there are {', '.join(named) or f'0 to {len(entries) - 1}'}")
    raise ScenarioError(f"{key}: {step!r} lies in nothing that holds keys")


def sweep(
    jobs: Sequence[J],
    work: Callable[[J], R],
    *,
    processes: int = 0,
    seen: Callable[[Outcome[J, R]], None] | None = None,
    going: Callable[[float], None] | None = None,
) -> list[Outcome[J, R]]:
    """All outcomes in the order of the jobs; `seen` hears of each as it comes, `going` of what is under way."""
    found: dict[int, Outcome[J, R]] = {}
    for outcome in stream(jobs, work, processes=processes, going=going):
        found[outcome.at] = outcome
        if seen is not None:
            seen(outcome)
    return [found[at] for at in range(len(jobs))]


def stream(
    jobs: Sequence[J],
    work: Callable[[J], R],
    *,
    processes: int = 0,
    going: Callable[[float], None] | None = None,
) -> Iterator[Outcome[J, R]]:
    """Outcomes as they come. `work` and its values are pickled: a function or an object of a module.

    `going` is told every half second how many jobs' worth of work is done, parts of running simulations included.

    A process that dies (out of memory, killed) takes the jobs of its pool along; each of those runs again alone, and
    the one with which a pool of its own dies has failed.
    """
    together, alone = deque(range(len(jobs))), deque[int]()
    wide = max(1, min(processes or cores(), len(jobs)))
    while together or alone:
        at_once, waiting = (wide, together) if together else (1, deque([alone.popleft()]))
        with _Pool(at_once, len(jobs), going) as pool:
            for at, future in pool.run(jobs, work, waiting):
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    if at_once > 1:
                        alone.append(at)
                        continue
                    yield Outcome(at, jobs[at], None, "its process died: killed from outside, or out of memory")
                elif error is not None:
                    yield _failed(at, jobs[at], error)
                else:
                    yield Outcome(at, jobs[at], future.result())


def _failed(at: int, job: J, error: BaseException) -> Outcome[J, Any]:
    """Our typed errors say all themselves; anything else is a bug, and its trace is kept."""
    typed = isinstance(error, ValueError | HeadraceError) and type(error) is not ValueError
    told = str(error) if len(str(error)) <= _TOLD_MAX else f"{str(error)[:_TOLD_MAX]} ..."
    if typed and told:
        return Outcome(at, job, None, told)
    remote = str(error.__cause__) if error.__cause__ is not None else "".join(traceback.format_exception(error))
    return Outcome(at, job, None, f"{type(error).__name__}: {told}" if told else type(error).__name__, remote)


def cores() -> int:
    """Those this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pool:
    """Processes that end when this one closes its end of a pipe, or dies: an interrupted sweep leaves no child."""

    def __init__(self, processes: int, jobs: int, going: Callable[[float], None] | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._held, self._ours = context.Pipe(duplex=False)
        self._processes = processes
        self._shares = context.RawArray("d", jobs)  # of each job that are done: one writer each, no lock
        self._executor = ProcessPoolExecutor(processes, context, _begin, (self._held, self._shares))
        self._going = going

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # also GeneratorExit: the caller wants no more
            self._ours.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._ours.close()
        self._held.close()

    def run(self, jobs: Sequence[J], work: Callable[[J], R], waiting: deque[int]) -> Iterator[tuple[int, Future[R]]]:
        """Takes from `waiting` what it runs; stops taking once the pool is broken."""
        running: dict[Future[R], int] = {}
        whole = True
        while running or (waiting and whole):
            while whole and waiting and len(running) < self._processes + _AHEAD:
                try:
                    running[self._executor.submit(_carry_out, work, jobs[waiting[0]], waiting[0])] = waiting[0]
                except BrokenProcessPool:
                    whole = False
                else:
                    waiting.popleft()
            done, _ = wait(running, _GOING_S, return_when=FIRST_COMPLETED)
            if self._going is not None:
                self._going(sum(self._shares))
            for future in done:
                whole = whole and not isinstance(future.exception(), BrokenProcessPool)
                yield running.pop(future), future


# In a worker process: the shares of its parent's jobs, by their place.
_shares: Any = None


def _begin(held: connection.Connection, shares: Any) -> None:
    """In a new process: the parent alone hears Ctrl-C, and its end is this process's end."""
    global _shares
    _shares = shares
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(held,), name="parent", daemon=True).start()


def _end_with(held: connection.Connection) -> None:
    connection.wait([held])
    os._exit(_INTERRUPTED)


def _carry_out(work: Callable[[J], R], job: J, at: int) -> R:
    if isinstance(work, Simulating) and isinstance(job, Job):
        value: R = work(job, lambda share: _shares.__setitem__(at, share))
    else:
        value = work(job)
    _shares[at] = 1.0
    return value
