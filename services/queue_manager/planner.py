"""The planner's solver in a process of its own: a problem goes there, its plan comes back as an event, nobody waits.

One problem is being solved and one waits; a newer one takes the place of the one that waits. A solve that takes too
long ends its process, and one that crashes it is given up: the core goes on with its own plans, and asks again.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any

from headrace.core.effects import Effect, SolvePlan
from headrace.core.events import Event, PlanSolved
from headrace.core.planning.answer import answer
from headrace.core.planning.problem import Plan
from headrace.mesh.logs import get_logger

PROGRAM_S = 2.0  # of each round of the mixed-integer program
SOLVE_S = 10.0  # a plan of what waited so long ago is of no use
STARTS_MOST = 5  # in a row without an answer: what breaks it at once every time is not mended by the sixth,
REST_S = 60.0  # but perhaps by another problem: from then on it is tried so rarely
NICE = 10  # decisions on the request path go first

log = get_logger("queue")
Solve = Callable[[SolvePlan], Plan]


class Planner:
    """`start` before the first effect, `close` at the end; all in the event loop's thread."""

    def __init__(
        self,
        on_event: Callable[[Event], None],
        *,
        solve_s: float = SOLVE_S,
        rest_s: float = REST_S,
        solving: Solve | None = None,
    ) -> None:
        self._on_event = on_event
        self._solve_s = solve_s
        self._rest_s = rest_s
        self._solving = solving or solved
        self._loop = asyncio.get_running_loop()
        self._pool: ProcessPoolExecutor | None = None
        self._rest: asyncio.TimerHandle | None = None  # until the next start
        self._up = False  # its process has started
        self._process = 0  # its pid, once that is so
        self._closed = False
        self._running = False
        self._since_s = 0.0  # when the present solve was given away
        self._next: SolvePlan | None = None
        self._fruitless = 0  # processes in a row that ended before they answered
        self.solved = 0
        self.replaced = 0  # never solved: a newer problem came
        self.failed = 0

    def start(self) -> None:
        """Its imports take a second: they are made at once, not when the first plan is wanted."""
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _prepare, (NICE,))
        self._up, self._process = False, 0
        self._pool.submit(os.getpid).add_done_callback(partial(self._tell, self._started))

    def close(self) -> None:
        """The process ends at once, in the middle of a solve: the end of this one would wait for it."""
        pool, self._pool = self._pool, None
        self._closed = True
        self._next = None
        if self._rest is not None:
            self._rest.cancel()
        if pool is not None:
            if self._process:
                with suppress(ProcessLookupError):
                    os.kill(self._process, signal.SIGKILL)
            pool.shutdown(wait=False, cancel_futures=True)

    def take(self, effect: Effect) -> bool:
        """False: not a plan to be solved."""
        if not isinstance(effect, SolvePlan):
            return False
        if self._next is not None:
            self.replaced += 1
        self._next = effect
        self._submit()
        return True

    def _submit(self) -> None:
        if self._running or not self._up or self._next is None or self._pool is None:
            return
        effect, self._next = self._next, None
        try:
            future = self._pool.submit(_within, self._solve_s, self._solving, effect)
        except BrokenProcessPool:  # it ended while it had nothing to do
            self._broken("ended while idle", slow=False)
            return
        self._running, self._since_s = True, self._loop.time()
        future.add_done_callback(partial(self._tell, self._answer))

    def _tell(self, whom: "Callable[[Future[Any]], None]", done: "Future[Any]") -> None:
        """In a thread of the pool's; after the end of the process's loop nobody asks any more."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(whom, done)

    def _started(self, done: "Future[int]") -> None:
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            self._broken(str(error), slow=False)
        else:
            self._up, self._process = True, done.result()
            self._submit()

    def _answer(self, done: "Future[Plan]") -> None:
        self._running = False
        if done.cancelled():
            return
        error = done.exception()
        if isinstance(error, BrokenProcessPool):
            self._broken(str(error), slow=self._loop.time() - self._since_s >= self._solve_s)
        elif error is not None:
            self.failed += 1
            log.error("plan_not_solved", error=f"{type(error).__name__}: {error}")
        else:
            self.solved += 1
            self._fruitless = 0
            self._on_event(PlanSolved(done.result()))
        self._submit()

    def _broken(self, error: str, *, slow: bool) -> None:
        """Start another process; after a rest, if the last ones all ended like this. One that worked to its limit is
        another matter: a busy machine, which bounds by itself how often that comes."""
        if self._closed:
            return
        self.failed += 1
        self._fruitless += not slow
        rest_s = self._rest_s if self._fruitless >= STARTS_MOST else 0.0
        log.error("planner_ended", error=error, slow=slow, in_a_row=self._fruitless, rest_s=rest_s)
        if self._pool is None:  # it rests already
            return
        self._pool.shutdown(wait=False)
        self._pool = None
        if rest_s:
            self._rest = self._loop.call_later(rest_s, self.start)
        else:
            self.start()


def solved(effect: SolvePlan) -> Plan:
    return answer(effect, PROGRAM_S)


def _within(limit_s: float, solving: Solve, effect: SolvePlan) -> Plan:
    """In the process: beyond the limit the alarm ends it, whatever library it is in."""
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        return solving(effect)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _prepare(nice: int) -> None:
    """In the process, first of all."""
    os.nice(nice)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the queue manager decides when it ends
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    """A killed queue manager leaves no solver behind."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
