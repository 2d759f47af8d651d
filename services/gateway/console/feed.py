"""The state of the mesh as the console shows it: heard on the bus all the time, asked of the queue manager and the
governor only while somebody looks. One snapshot for all who look, at most four a second.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from headrace.core.errors import HeadraceError, Overloaded
from headrace.core.slo import Classes
from headrace.mesh import subjects
from headrace.mesh.logs import get_logger
from headrace.v1 import governor_pb2, queue_pb2
from services.gateway.console import shown
from services.gateway.console.changes import changes
from services.gateway.console.heard import Hearing
from services.gateway.console.managers import Managers
from services.gateway.console.tally import Tally
from services.gateway.service import Gateway

CHANGE_S = 0.25  # between two changes: as often as the queue manager tells its status
QUEUE_S = 0.5  # between two questions to the queue manager
POWER_S = 1.0  # to the governor, whose step this is
BEAT_S = 10.0  # a listener that has heard nothing for so long hears that it is still there
LISTENERS_MAX = 32
POINTS = 180  # of each curve: three minutes, one a second
CURVE_TTFT_S = 10.0  # first tokens of the last so many seconds make a point
GROUPS_MAX = 1_000  # of all virtual queues together
GROUPS_LEAST, GROUPS_MOST = 6, 40  # of each
RECENT = 60
ACTIONS = 100
LIVE_MODES = ("observe", "enforce")

log = get_logger("console")


class Feed:
    def __init__(self, gateway: Gateway, classes: Classes, managers: Managers) -> None:
        self.current: dict[str, Any] = {}
        self.tally = Tally(classes)
        self.hearing = Hearing()
        self._gateway = gateway
        self._classes = classes
        self._managers = managers
        self._inspected, self._inspected_s = queue_pb2.InspectResponse(), 0.0
        self._status = queue_pb2.GetStatusResponse()
        self._power = governor_pb2.GetGovernorStateResponse()
        self._trouble: dict[str, str] = {}
        self._history: deque[dict[str, float | None]] = deque(maxlen=POINTS)
        self._counted: tuple[float, int, int, int] | None = None  # when, accepted, ended, refused
        self._listeners = 0
        self._looked_at = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        gateway, hearing = self._gateway, self.hearing
        gateway.on_first_token.append(self.tally.on_first_token)
        gateway.on_end.append(self.tally.on_end)
        await gateway.bus.subscribe(subjects.TELEMETRY, lambda data, _: hearing.on_telemetry(data))
        await gateway.bus.subscribe(subjects.CAPS, lambda data, _: hearing.on_caps(data))
        await gateway.bus.flush()
        self._tasks = [
            asyncio.create_task(self._every(1.0, self._second)),
            asyncio.create_task(self._while_looked_at(QUEUE_S, self._ask_queue)),
            asyncio.create_task(self._while_looked_at(POWER_S, self._ask_power)),
            asyncio.create_task(self._while_looked_at(CHANGE_S, self._compose_again)),
        ]
        for task in self._tasks:
            task.add_done_callback(_ended)

    async def stop(self) -> None:
        """Whoever listens hears the end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._changed.set()
        await self._managers.close()

    # --- who looks ---

    async def snapshot(self) -> dict[str, Any]:
        """The state now."""
        if not self._listeners or not self._inspected_s:
            await self.ask_now()
        return self._compose()

    async def ask_now(self) -> None:
        """After a command: what it has led to."""
        await asyncio.gather(self._ask_queue(), self._ask_power())

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Raises Overloaded."""
        if self._listeners >= LISTENERS_MAX:
            raise Overloaded(f"the console already has {LISTENERS_MAX} listeners", retry_after_s=5.0)
        self._listeners += 1
        self._looked_at.set()
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._looked_at.clear()

    async def follow(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """("snapshot", all of it), then ("change", what is different) or ("beat", {}) for ever. A listener that reads
        slowly skips states: nothing is kept for it. Only within listening().
        """
        told = await self.snapshot()
        yield "snapshot", told
        while self._tasks:
            if self.current is told:
                try:
                    async with asyncio.timeout(BEAT_S):
                        await self._changed.wait()
                except TimeoutError:
                    yield "beat", {}
                continue
            before, told = told, self.current or told
            if different := changes(before, told):
                yield "change", different
            await asyncio.sleep(CHANGE_S)  # what comes meanwhile is told together

    # --- what is asked and made ---

    async def _every(self, seconds: float, do: Callable[[], Awaitable[None]]) -> None:
        while True:
            await do()
            await asyncio.sleep(seconds)

    async def _while_looked_at(self, seconds: float, do: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._looked_at.wait()
            await do()
            await asyncio.sleep(seconds)

    async def _ask_queue(self) -> None:
        queues = max(1, len(self._inspected.queues))
        try:
            self._inspected = await self._managers.inspect(min(GROUPS_MOST, max(GROUPS_LEAST, GROUPS_MAX // queues)))
            self._status = await self._managers.status()
        except HeadraceError as error:
            self._trouble["queue"] = f"queue manager: {error.message}"
            return
        self._inspected_s = time.time()
        self._trouble.pop("queue", None)

    async def _ask_power(self) -> None:
        try:
            self._power = await self._managers.power()
        except HeadraceError as error:
            self._trouble["governor"] = f"governor: {error.message}"
            return
        self._trouble.pop("governor", None)

    async def _compose_again(self) -> None:
        made = self._compose()
        if made != self.current:
            self.current = made
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    def _compose(self) -> dict[str, Any]:
        gateway, now_s = self._gateway, time.monotonic()
        cell, inspected, power = gateway.metrics.cell, self._inspected, self._power
        trouble = dict(self._trouble)
        if not cell.heard_s or now_s - cell.heard_s > 5.0:
            trouble["status"] = "no queue manager has been heard for five seconds"
        if not gateway.bus.up:
            trouble["bus"] = "NATS cannot be reached"
        audit = shown.actions(power.audit, "governor")
        return {
            "gateway": gateway.name,
            "leader": cell.status.leader,
            "epoch": cell.status.epoch,
            "policy": inspected.policy,
            "models": [model.model for model in cell.status.models],
            "trouble": trouble,
            "classes": shown.classes(cell.status, self._classes, self.tally, now_s),
            "workers": shown.workers(cell.status, self.hearing),
            "queues": [shown.queue(one) for one in inspected.queues],
            "groups": shown.groups(inspected, self._inspected_s),
            "unplaced": [one.id for one in inspected.unplaced],
            "operations": dict(inspected.operations),
            "flows": [
                {
                    "class": flow.slo_class,
                    "flow": flow.flow,
                    "waiting": flow.waiting,
                    "served": round(flow.served_tokens),
                }
                for flow in inspected.flows[:ACTIONS]
            ],
            "rows": [shown.power_row(one) for one in power.rows],
            "stages": [shown.stage(one) for one in power.caps.stages],
            "mode": power.mode,
            "notes": list(power.notes),
            "scaling": shown.scaling(self._status.scaling) if self._status.HasField("scaling") else None,
            "switches": shown.switches(inspected.switches, power.mode, LIVE_MODES),
            "audit": _newest(
                [one for one in audit if one["who"] or one["action"] in _SAID], shown.switched(inspected.switched)
            ),
            "actions": _newest([one for one in audit if not (one["who"] or one["action"] in _SAID)], []),
            "recent": [shown.row(one) for one in self.tally.latest(gateway.streams.latest(RECENT), RECENT)],
            "point": self._history[-1] if self._history else None,
            "history": list(self._history),
        }

    # --- curves ---

    async def _second(self) -> None:
        """A point of each curve, whoever looks: a page that opens shows the last minutes."""
        self.hearing.sweep()
        gateway, hearing, now_s = self._gateway, self.hearing, time.monotonic()
        status, ttft = gateway.metrics.cell.status, self.tally.of_all(now_s, CURVE_TTFT_S)
        accepted_s, ended_s, refused_s = self._rates(status, now_s)
        limits = [row.limit_w for row in self._power.rows]
        self._history.append(
            {
                "at_s": round(time.time(), 1),
                "tokens_s": shown.rounded(hearing.rate("decode_tokens")),
                "prompt_s": shown.rounded(hearing.rate("prefill_tokens")),
                "parts_s": shown.rounded(hearing.rate("encoded_parts")),
                "accepted_s": shown.rounded(accepted_s),
                "ended_s": shown.rounded(ended_s),
                "refused_s": shown.rounded(refused_s),
                "queued": sum(load.queued for load in status.classes),
                "running": sum(load.running for load in status.classes),
                "p50_s": shown.rounded(ttft.ttft_p50_s),
                "p99_s": shown.rounded(ttft.ttft_p99_s),
                "power_w": shown.rounded(hearing.power_w(), 4),
                "limit_w": shown.rounded(sum(limits), 5) if limits and min(limits) > 0 else None,
                "hottest_c": shown.rounded(hearing.hottest_c()),
            }
        )

    def _rates(self, status: queue_pb2.CellStatus, now_s: float) -> tuple[float, float, float]:
        """Accepted and ended in the cell, refused here; a second. A new leadership counts from 0."""
        was = self._counted
        refused = sum(self._gateway.metrics.refused.values())
        self._counted = now_s, status.accepted, status.ended, refused
        if was is None or now_s <= was[0]:
            return 0.0, 0.0, 0.0
        passed_s = now_s - was[0]
        grown = zip((status.accepted, status.ended, refused), was[1:], strict=True)
        accepted, ended, gone = [max(0, count - before) / passed_s for count, before in grown]
        return accepted, ended, gone


def _ended(task: asyncio.Task[None]) -> None:
    """A page that stands still must not be the only one to know."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.failure("console_stands_still", error)


_SAID = ("budget", "emergency", "clear", "mode")  # what operators ask for


def _newest(one: list[shown.Shown], other: list[shown.Shown]) -> list[shown.Shown]:
    return sorted([*one, *other], key=lambda entry: -float(entry["at_s"]))[:ACTIONS]
