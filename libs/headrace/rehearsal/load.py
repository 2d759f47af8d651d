"""The load: a request at every beat, whatever became of those before; what the client saw of each is kept."""

import asyncio
import math
import time
from dataclasses import dataclass, field

from headrace.client import AsyncClient, HeadraceError
from headrace.rehearsal.scene import ANSWER_TOKENS, TIMEOUT_S, Ask, Scene

IN_FLIGHT_MAX = 512  # some minutes of a mesh that serves nothing
DRAIN_S = 20.0


@dataclass(slots=True)
class Asked:
    """A request as its client saw it; seconds since the Unix epoch, nan: it never came to that."""

    arrival_s: float  # when it was to be sent: all waiting counts from here
    slo_class: str
    pictures: int
    first_s: float = math.nan
    end_s: float = math.nan
    failure: str = ""
    tokens: list[tuple[float, int]] = field(default_factory=list)  # when so many came

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.arrival_s


class Load:
    """Sends from start() on; stop() waits for what is under way, but not for ever."""

    def __init__(self, scene: Scene, address: str) -> None:
        self.asked: list[Asked] = []
        self._scene = scene
        self._address = address
        self._sending: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []  # bugs of ours, not answers that failed
        self._stopping = asyncio.Event()
        self._drain_s = DRAIN_S

    def start(self) -> None:
        self._sending = asyncio.create_task(self._send())

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        self._drain_s = drain_s
        self._stopping.set()
        if self._sending is not None:
            await self._sending

    async def _send(self) -> None:
        async with AsyncClient(self._address) as client:
            beat_s, began_s, number = 1.0 / self._scene.rate_rps, time.time(), 0
            while not self._stopping.is_set():
                self._ask(client, self._scene.ask(number), began_s + number * beat_s)
                number += 1
                try:
                    async with asyncio.timeout(max(0.0, began_s + number * beat_s - time.time())):
                        await self._stopping.wait()
                except TimeoutError:
                    continue
            await self._drain()
        if self._errors:
            raise self._errors[0]

    async def _drain(self) -> None:
        if not self._running:
            return
        _, late = await asyncio.wait(set(self._running), timeout=self._drain_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _ask(self, client: AsyncClient, ask: Ask, arrival_s: float) -> None:
        row = Asked(arrival_s, ask.slo_class, ask.pictures)
        self.asked.append(row)
        if len(self._running) >= IN_FLIGHT_MAX:
            row.failure, row.end_s = "not sent", time.time()
            return
        task = asyncio.create_task(_follow(client, ask, row))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)


async def _follow(client: AsyncClient, ask: Ask, row: Asked) -> None:
    stream = client.generate(
        [ask.message],
        max_tokens=ANSWER_TOKENS,
        temperature=0.0,
        ignore_eos=True,
        slo_class=ask.slo_class,
        timeout_s=TIMEOUT_S,
    )
    try:
        async for delta in stream:
            now_s = time.time()
            if not row.tokens:
                row.first_s = now_s
            row.tokens.append((now_s, len(delta.tokens)))
    except HeadraceError as error:
        row.failure = error.code
    finally:
        row.end_s = time.time()
        if stream.end is None:
            await stream.close()
