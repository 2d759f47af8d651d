"""A batch's lines at their endpoint: refusals are waited for, what ended badly for a passing reason is tried again.

A line's key is (batch, line, try): the same try is the same request at every gateway, and a new one is only begun
once the one before it is known to be over.
"""

import asyncio
import random
import time

from services.gateway.batch_errand import Endpoint, Errand, Reply, Terms
from services.gateway.batch_records import BatchRecord
from services.gateway.front import Front
from services.gateway.http_reply import Disconnects

RETRY_S, RETRY_S_MAX = 1.0, 60.0
TRIES_MAX = 3  # of a line that is accepted and then ended by its time or by a cancel; refusals are waited for


class LineRunner:
    def __init__(self, front: Front, disconnects: Disconnects, endpoint: Endpoint, batch: BatchRecord) -> None:
        self._front = front
        self._disconnects = disconnects
        self._endpoint = endpoint
        self._batch = batch
        self._terms = Terms(batch.tenant, batch.slo_class, batch.deadline_s, batch.key)
        self._stop = asyncio.Event()
        self._errands: set[Errand] = set()
        self._quiet_until_s = 0.0  # told to wait: monotonic

    def halt(self) -> None:
        """The batch was cancelled, or its time is over: nothing is asked any more, and what runs is cancelled."""
        self._stop.set()
        for errand in self._errands:
            errand.cancel()

    @property
    def halted(self) -> bool:
        if time.time() > self._batch.deadline_s:
            self._stop.set()
        return self._stop.is_set()

    async def ask(self, body: bytes, number: int) -> Reply | None:
        """None: halted before there was an answer."""
        tries = lost = 0
        while True:
            await self._quiet()
            if self.halted:
                return None
            reply, over = await self._post(body, f"batch {self._batch.id} {number} {tries}")
            if reply.status != 200 and self.halted:
                return None
            if reply.status in (429, 503):
                self._wait(reply.retry_after_s)
            elif reply.status == 499 and not over:  # its stream is another gateway's now: is the batch, too?
                await asyncio.sleep(RETRY_S * random.uniform(1.0, 1.2))
            elif reply.status in (499, 504) and lost + 1 < TRIES_MAX:
                lost += 1
            else:
                return reply
            tries += over

    async def _post(self, body: bytes, key: str) -> tuple[Reply, bool]:
        """And whether the try is over: the same key would only be told so again."""
        errand = Errand(self._front, self._disconnects, self._batch.endpoint, self._endpoint, self._terms)
        self._errands.add(errand)
        try:
            return await errand.post(body, key), errand.ended_badly
        finally:
            self._errands.discard(errand)

    def _wait(self, retry_after_s: float) -> None:
        """No line of this batch asks before."""
        wait_s = min(max(retry_after_s, RETRY_S), RETRY_S_MAX)
        self._quiet_until_s = max(self._quiet_until_s, time.monotonic() + wait_s)

    async def _quiet(self) -> None:
        """Until it may be asked again, each line a little apart from the others."""
        while (left_s := self._quiet_until_s - time.monotonic()) > 0 and not self._stop.is_set():
            try:
                async with asyncio.timeout(left_s * random.uniform(1.0, 1.2)):
                    await self._stop.wait()
            except TimeoutError:
                continue
