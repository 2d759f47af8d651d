"""The queue manager's shell around QueueCore: messages in, one pass of the core per loop tick, effects out."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from headrace.core.effects import Effect, FindResults, RecoverTokens
from headrace.core.events import BusDown, BusUp, CaughtUp, Event, Tick, TokensRecovered
from headrace.core.queue import QueueConfig, QueueCore
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.journal import Journal
from headrace.mesh.logs import get_logger
from services.queue_manager.chores import Chores
from services.queue_manager.inbox import Inbox, read_caps, read_control, read_events, read_heartbeat
from services.queue_manager.lengths import Lengths, Thread
from services.queue_manager.mirror import Mirror
from services.queue_manager.outbox import Outbox
from services.queue_manager.planner import Planner
from services.queue_manager.recorder import Recorder
from services.queue_manager.recovery import Recovery
from services.queue_manager.scaling import Scaling
from services.queue_manager.sweeper import Sweeper
from services.queue_manager.switching import Switching

TICK_S = 0.1  # a quarter of the time that cancel and deadline may take, and of a heartbeat
RECOVERED_AT_ONCE = 500  # requests that go back in line together: a tenth of a second

log = get_logger("queue")


class QueueManager:
    """One leadership, from its take-over to the end of the process."""

    def __init__(
        self,
        config: QueueConfig,
        bus: Bus,
        journal: Journal,
        chores: Callable[[Callable[[Event], None]], Chores],
        recovery: Recovery,
        mirror: Mirror,
        sweeper: Sweeper,
        recorder: Recorder,
        predictor: Thread | None = None,
        planner: Callable[[Callable[[Event], None]], Planner] | None = None,
        scaling: Scaling | None = None,
        *,
        governed: bool = True,
    ) -> None:
        """governed: the governor's word counts before workers have measured what it does to them."""
        self.core = QueueCore(config)
        self.scaling = scaling
        self._governed = governed
        self._bus = bus
        self._journal = journal
        self._inbox = Inbox(self._take)
        self.switching = Switching(self.core, scaling, self._inbox.put)
        self._chores = chores(self._inbox.put)
        self._lengths = Lengths(predictor, self._inbox.put) if predictor is not None else None
        self._planner = planner(self._inbox.put) if planner is not None else None
        self._recovery = recovery
        self._mirror = mirror
        self._sweeper = sweeper
        self._recorder = recorder
        self._outbox = Outbox(bus, config.epoch)
        self._tasks = asyncio.TaskGroup()

    @property
    def unreadable(self) -> int:
        """Messages and journal records that were left out."""
        return self._inbox.unreadable

    async def run(self, stopping: asyncio.Event) -> None:
        """Lead until `stopping`. Nothing needs to be put in order first: the next leadership reads the journal."""
        async with self._tasks as tasks, self._planning():
            await self._subscribe()
            follower = self._journal.follow(self._inbox.on_records, lambda: self._inbox.put(CaughtUp()))
            services = [tasks.create_task(service) for service in self._services()]
            await stopping.wait()
            await follower.stop()
            for service in services:
                service.cancel()
            self._bus.unwatch(self._on_bus)

    @contextlib.asynccontextmanager
    async def _planning(self) -> AsyncIterator[None]:
        """The solver's process, for as long as this leadership lasts."""
        if self._planner is None:
            yield
            return
        self._planner.start()
        try:
            yield
        finally:
            self._planner.close()

    async def _subscribe(self) -> None:
        await self._bus.subscribe(subjects.HEARTBEAT, self._inbox.handler(read_heartbeat))
        await self._bus.subscribe(subjects.EVENTS, self._inbox.handler(read_events))
        await self._bus.subscribe(subjects.CONTROL, self._inbox.handler(read_control))
        if self._governed:
            await self._bus.subscribe(subjects.CAPS, self._inbox.handler(read_caps))
        self._bus.watch(self._on_bus)

    def _services(self) -> list[Coroutine[Any, Any, None]]:
        mirror, sweeper = self._mirror, self._sweeper
        own = [self._tick(), mirror.publish(self.core, self.scaling), mirror.keep(self.core), sweeper.run(self.core)]
        scaling = [self.scaling.run(self.core)] if self.scaling is not None else []
        return [*own, *scaling, *self._chores.services()]

    def _on_bus(self, up: bool) -> None:
        self._inbox.put(BusUp() if up else BusDown())

    async def _tick(self) -> None:
        while True:
            self._inbox.put(Tick())
            await asyncio.sleep(TICK_S)

    def _take(self, events: list[Event]) -> None:
        """Everything that one loop tick brought."""
        now_s = time.time()
        for event in events:
            effects = self.core.handle(event, now_s)
            self._recorder.record(now_s, event, effects)
            if self.scaling is not None:
                self.scaling.heard(event, effects, now_s)
            for effect in effects:
                self._carry_out(effect)
        self._outbox.flush()

    def _carry_out(self, effect: Effect) -> None:
        if self._outbox.take(effect) or self._chores.take(effect):
            return
        if self._lengths is not None and self._lengths.take(effect):
            return
        if self._planner is not None and self._planner.take(effect):
            return
        if isinstance(effect, RecoverTokens):
            log.info("recovering", requests=len(effect.orphans))
            self._tasks.create_task(self._recover(effect))
        else:
            assert isinstance(effect, FindResults), f"nobody carries out {effect}"
            log.info("replayed", requests=len(effect.request_ids))
            self._tasks.create_task(self._answer(self._recovery.results(effect)))

    async def _recover(self, effect: RecoverTokens) -> None:
        """In parts: what the first ones set going goes out before the last ones are looked at."""
        with contextlib.suppress(asyncio.CancelledError):
            found = (await self._recovery.tokens(effect)).recovered
            for first in range(0, len(found), RECOVERED_AT_ONCE):
                self._inbox.put(TokensRecovered(found[first : first + RECOVERED_AT_ONCE]))
                await asyncio.sleep(0)

    async def _answer(self, question: Coroutine[Any, Any, Event]) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._inbox.put(await question)
