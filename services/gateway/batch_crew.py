"""Which batches this gateway works at: those that nobody holds, or whose holder has been silent for too long.

A holder renews its record every second; a record that has not changed for LEASE_S on this process's own clock, outages
of the bus not counted, is anybody's. Whoever writes first has it.
"""

import asyncio
import contextlib
import time
from collections import Counter

import msgspec

from headrace.core.errors import HeadraceError, NotFound, Unavailable
from headrace.mesh.catalogue import Stale
from headrace.mesh.logs import get_logger
from services.gateway.batch_records import BatchRecord
from services.gateway.batch_run import BatchRun, LeaseLost, Tools
from services.gateway.batch_shelf import Shelved

RUNS_MAX = 4  # batches at once; the others wait for a place here or at another gateway
LEASE_S = 5.0  # five renewals
MODEST_S = 0.3  # for each batch that it has already, a gateway lets the others go first
FAILED_S = 30.0  # before this gateway looks again at a batch that it could not go on with
AGAIN_S = 1.0  # ... or that it tried to take in vain
RELEASE_S = 2.0

log = get_logger("batches")


class Crew:
    def __init__(self, tools: Tools, me: str, incarnation: str) -> None:
        self._tools = tools
        self._me, self._incarnation = me, incarnation
        self._runs: dict[str, BatchRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._not_before_s: dict[str, float] = {}  # monotonic
        self._closing = False
        self.lines: Counter[str] = Counter()  # that ended here: output, error
        tools.shelf.on_batch = self._heard

    def __len__(self) -> int:
        return len(self._tasks)

    def _heard(self, record: BatchRecord) -> None:
        if (run := self._runs.get(record.id)) is not None:
            run.heard(record)

    def sweep(self, now_s: float) -> None:
        """Takes what is free, while there is a place: of the tenant with the fewest at work here, the oldest."""
        shelf, gateway = self._tools.shelf, self._tools.front.gateway
        if self._closing or not shelf.catalogue.complete or not gateway.bus.up or gateway.cell is None:
            return
        unfinished = shelf.unfinished()
        self._not_before_s = {one: at for one, at in self._not_before_s.items() if at > now_s}
        free = [(shelved, record) for shelved, record in unfinished if self._free(shelved, record, now_s)]
        while free and len(self._tasks) < RUNS_MAX:
            at_work = Counter(run.record.tenant for run in self._runs.values())
            chosen = min(free, key=lambda one: (at_work[one[1].tenant], one[1].created_s))
            free.remove(chosen)
            self._start(*chosen)

    def _free(self, shelved: Shelved, record: BatchRecord, now_s: float) -> bool:
        if record.id in self._tasks or record.id in self._not_before_s or record.endpoint not in self._tools.endpoints:
            return False
        silent_s = now_s - shelved.heard_s
        if not record.holder or (record.holder == self._me and record.incarnation != self._incarnation):
            return silent_s >= MODEST_S * len(self._tasks)
        return silent_s > LEASE_S

    def _start(self, shelved: Shelved, record: BatchRecord) -> None:
        task = asyncio.get_running_loop().create_task(self._work(shelved.seq, record))
        self._tasks[record.id] = task
        task.add_done_callback(lambda done: self._over(record.id, done))

    async def _work(self, seq: int, record: BatchRecord) -> None:
        mine = msgspec.structs.replace(record, holder=self._me, incarnation=self._incarnation, renewed_s=time.time())
        try:
            seq = await self._tools.shelf.write(mine, seq)
        except (Stale, Unavailable):  # somebody was faster, or nobody knows: a later sweep looks again
            self._not_before_s[record.id] = time.monotonic() + AGAIN_S
            with contextlib.suppress(Unavailable):
                await self._tools.shelf.fresh(record.id)
            return
        log.info("batch_taken", batch=record.id, status=record.status, after=record.holder)
        run = self._runs[record.id] = BatchRun(self._tools, mine, seq, self.lines)
        try:
            await run.run()
        except* LeaseLost:
            log.warning("batch_lost", batch=record.id)
        except* (HeadraceError, OSError) as failed:
            missing = failed.subgroup(NotFound) is not None
            log.error("batch_given_back", batch=record.id, missing_file=missing, error=str(failed.exceptions[0]))
            await self._give_back(run)

    async def _give_back(self, run: BatchRun) -> None:
        self._not_before_s[run.record.id] = time.monotonic() + FAILED_S
        try:
            async with asyncio.timeout(RELEASE_S):
                await run.release()
        except (LeaseLost, Unavailable, TimeoutError):
            log.info("batch_left_to_its_lease", batch=run.record.id)

    def _over(self, batch_id: str, task: "asyncio.Task[None]") -> None:
        self._tasks.pop(batch_id, None)
        self._runs.pop(batch_id, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._not_before_s[batch_id] = time.monotonic() + FAILED_S
            log.failure("batch_broke", error, batch=batch_id)

    async def stop(self) -> None:
        """Lines that run go on without this gateway; their batches are anybody's at once."""
        self._closing = True
        runs, tasks = list(self._runs.values()), list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(self._give_back(run) for run in runs))
