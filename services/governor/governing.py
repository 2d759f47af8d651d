"""The live governor: a step every second and at once on a command, caps on the bus, actions in the audit log."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace

from headrace.core.errors import InvalidInput, Unavailable
from headrace.core.power.decision import Decision, Entry
from headrace.core.power.emergency import Event
from headrace.core.power.governor import LEASE_S, Governor
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BusDown
from headrace.mesh.store import Store
from headrace.v1 import governor_pb2
from services.governor.audit import Audit
from services.governor.beside import Beside
from services.governor.budgeting import Budgeting
from services.governor.heat import Heat
from services.governor.history import History
from services.governor.keeping import Keeping
from services.governor.options import Mode, Options
from services.governor.roll import Roll, Told
from services.governor.wire import row_states, stage_budgets, worker_caps

STEP_S = 1.0
# No caps before every worker has been heard twice: a batch that leaves a worker out lifts its cap. Below the lease.
LISTEN_S = 2.2
RELEASE_S = 2.0 * LEASE_S  # of a governor that begins to observe: it says so long that nobody has a cap
KINDS: tuple[Event, ...] = ("ups", "ahu")
LIVE_MODES: tuple[Mode, ...] = ("observe", "enforce")  # that may follow one another while it runs


class Governing:
    """Times of the core are of `clock`, monotonic; of messages and the audit log, Unix time."""

    def __init__(
        self, name: str, options: Options, bus: Bus, store: Store, history: History, clock: Callable[[], float]
    ) -> None:
        self.mode: Mode = options.mode
        self.audit = Audit(options.audit_file)
        self.step_s = 0.0  # that the last step took
        self.stepped_s = clock()  # when it ended
        self.decision: Decision | None = None
        self.batch = governor_pb2.CapBatch(governor=name, epoch=time.time_ns(), lease_s=LEASE_S)
        self.core = Governor(lease_s=LEASE_S, obeyed=options.mode == "enforce")
        self.budgeting = Budgeting.of(options, store)
        self.core.splitter = self.budgeting.splitter
        self._rows = options.rows
        self._bus = bus
        self._history = history
        self._clock = clock
        self._keeping = Keeping(store, name)
        self.beside = None if options.learnt == "off" else Beside.load(options.learnt, options.network)
        self._roll, self._heat = Roll(options.rows), Heat(options.thermal, self.beside)
        self._started_s = clock()
        self._released_s = float("-inf")  # until when it says that nobody has a cap

    async def run(self, stopping: asyncio.Event) -> None:
        if self.mode == "off":
            await stopping.wait()
            return
        self._started_s = self._clock()
        due_s = self._started_s
        while not stopping.is_set():
            await self.second()
            due_s = max(due_s + STEP_S, self._clock())
            try:
                async with asyncio.timeout(due_s - self._clock()):
                    await stopping.wait()
            except TimeoutError:
                continue

    async def second(self) -> None:
        await self._keeping.refresh(self.core, self._clock())
        self.step(passed=True)
        await self.budgeting.second(self.decision, self._clock())

    def step(self, *, passed: bool = False) -> None:
        """passed: another second; else an operator has said something."""
        if not self._bus.up:
            return  # nobody can be heard: what they said last is all that is known
        began_s = time.perf_counter()
        now_s = self._clock()
        fleet, seen = self._roll.read(self._history, now_s)
        if passed or not self._heat.fits(fleet):
            self._heat.follow(fleet, self._roll.told, seen)
        seen = replace(seen, thermal=self._heat.speed, expected_c=self._heat.expected_c)
        self.decision = self.core.step(fleet, seen, now_s, time.time())
        self.audit.add(self.decision.audit, time.time())
        if self.beside is not None:
            self.audit.add(self.beside.entries(), time.time())
        self._tell(self.decision, now_s)
        self.step_s, self.stepped_s = time.perf_counter() - began_s, self._clock()

    def _tell(self, decision: Decision, now_s: float) -> None:
        del self.batch.workers[:], self.batch.stages[:]
        self.batch.workers.extend(worker_caps(decision))
        self.batch.stages.extend(stage_budgets(decision))
        if self.mode == "observe" and now_s < self._released_s:
            self._send(governor_pb2.CapBatch(governor=self.batch.governor, epoch=self.batch.epoch, lease_s=LEASE_S))
        if self.mode != "enforce" or not self._keeping.known or now_s - self._started_s < LISTEN_S:
            return
        self._send(self.batch)

    def _send(self, batch: governor_pb2.CapBatch) -> None:
        self.batch.sequence += 1
        batch.sequence, batch.sent_s = self.batch.sequence, time.time()
        try:
            self._bus.send(subjects.CAPS, batch.SerializeToString())
        except BusDown:
            return  # workers take their fallback until it is back

    def close(self) -> None:
        self.audit.close()
        if self.beside is not None:
            self.beside.close()

    # --- what operators say ---

    async def set_budget(self, row: str, watts: float, who: str = "") -> list[governor_pb2.RowState]:
        """row empty: every row. Raises InvalidInput."""
        names = [one.name for one in self._rows.rows]
        if row and row not in names:
            raise InvalidInput(f"row {row!r}: there is none; rows are {', '.join(names)}", field="row")
        if not math.isfinite(watts) or watts < 0.0:
            raise InvalidInput(f"budget_w {watts}: must be 0 (none) or watts above 0", field="budget_w")
        return await self._command([self.core.set_budget(name, watts) for name in names if row in ("", name)], who)

    async def declare(self, kind: str, who: str = "") -> list[governor_pb2.RowState]:
        return await self._command([self.core.declare(_event(kind))], who)

    async def clear(self, kind: str, who: str = "") -> list[governor_pb2.RowState]:
        """kind empty: all."""
        kinds = [_event(kind)] if kind else [one for one in KINDS if one in self.core.emergency.events]
        return await self._command([self.core.clear(one) for one in kinds], who)

    def set_mode(self, mode: str, who: str = "") -> None:
        """As if the governor had been started anew with this mode: limits stay, what devices hold is heard first.
        One that begins to observe lifts all caps.

        Raises:
            InvalidInput: it is none of LIVE_MODES.
            Unavailable: the governor is off.
        """
        self._on()
        wanted = next((known for known in LIVE_MODES if known == mode), None)
        if wanted is None:
            raise InvalidInput(f"mode {mode!r}: must be one of {', '.join(LIVE_MODES)}", field="mode")
        if wanted == self.mode:
            return
        before, self.mode = self.core, wanted
        self.core = Governor(lease_s=LEASE_S, obeyed=wanted == "enforce")
        self.core.splitter = self.budgeting.splitter
        self.budgeting.switch(publishes=wanted == "enforce")
        self.core.budgets.said.update(before.budgets.said)
        self.core.emergency.events.update(before.emergency.events)
        self._started_s = self._clock()
        self._released_s = self._started_s + RELEASE_S
        was = "observe" if wanted == "enforce" else "enforce"
        self.audit.add([Entry("mode", "governor", f"{was} -> {wanted}: set by an operator")], time.time(), who)
        self.step()

    def _on(self) -> None:
        if self.mode == "off":
            raise Unavailable("the governor is off: start it with HEADRACE_GOVERNOR=observe or enforce")

    async def _command(self, entries: list[Entry], who: str) -> list[governor_pb2.RowState]:
        self._on()
        self.audit.add(entries, time.time(), who)
        self.step()
        await self._keeping.save(self.core, self._clock())
        return self.rows()

    # --- what operators see ---

    @property
    def told(self) -> list[Told]:
        """Each device as it was told last, in the order of the decision's fleet."""
        return self._roll.told

    @property
    def idle_s(self) -> float:
        """Since the last step; it makes none while NATS is away."""
        return self._clock() - self.stepped_s

    def rows(self) -> list[governor_pb2.RowState]:
        return row_states(self.decision, self.core.emergency.events) if self.decision is not None else []

    def notes(self) -> list[str]:
        found = [] if self.decision is None else list(self.decision.notes)
        if self.mode == "observe":
            found.append("the governor observes: caps are what it would set, nobody is told")
        if self.beside is not None and self.beside.trouble:
            found.append(f"the learnt thermal controller is off: {self.beside.trouble}")
        if self._keeping.trouble and self.mode != "off":
            found.append(self._keeping.trouble)
        found += self.budgeting.notes()
        if not self._bus.up:
            found.append("NATS cannot be reached: workers take their fallback caps meanwhile")
        if "ahu" in self.core.emergency.events and all(row.air_limit_m3s <= 0.0 for row in self.rows()):
            found.append("ahu: nobody knows what air the devices need, and no row has a limit: it changes nothing")
        return found


def _event(kind: str) -> Event:
    for known in KINDS:
        if kind == known:
            return known
    raise InvalidInput(f"emergency {kind!r}: must be one of {', '.join(KINDS)}", field="kind")
