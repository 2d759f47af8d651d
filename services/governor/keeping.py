"""What operators have said, kept in Redis, so that a governor that starts again goes on with it.

Until the store has answered once nobody knows which limits hold: no caps are sent then, unless an operator speaks.
Workers keep their caps for a lease and then take their fallback, which keeps every limit too.
"""

import msgspec

from headrace.core.power.emergency import Event
from headrace.core.power.governor import Governor
from headrace.mesh.errors import StoreDown
from headrace.mesh.logs import get_logger
from headrace.mesh.store import Store

log = get_logger("governor.keeping")

REFRESH_S = 60.0


class Limits(msgspec.Struct):
    owner: str  # the governor that wrote it
    budgets_w: dict[str, float]  # by row, of operators; 0: none
    emergencies: list[Event]


class Keeping:
    def __init__(self, store: Store, owner: str) -> None:
        self.known = False
        self.trouble = ""  # in words, while something is not stored
        self._store = store
        self._owner = owner
        self._unsaved = False
        self._saved_s = float("-inf")

    async def recall(self, governor: Governor) -> None:
        """Once at start, and again until it works."""
        try:
            packed = await self._store.read_limits()
        except StoreDown as error:
            self.trouble = f"which limits hold cannot be read: {error.message}; no caps are sent"
            return
        if self.known:
            return  # an operator has spoken meanwhile
        self.known, self.trouble = True, ""
        if packed is None:
            return
        try:
            limits = msgspec.json.decode(packed, type=Limits)
        except msgspec.MsgspecError as error:
            log.error("limits_unreadable", why=str(error))
            return
        governor.budgets.said.update(limits.budgets_w)
        governor.emergency.events.update(limits.emergencies)
        log.info("limits_recalled", owner=limits.owner, budgets_w=limits.budgets_w, emergencies=limits.emergencies)

    async def save(self, governor: Governor, now_s: float) -> None:
        """After every command: what holds is what was said last, whoever held it before."""
        self.known, self._unsaved = True, True
        await self._write(governor, now_s)

    async def refresh(self, governor: Governor, now_s: float) -> None:
        """Every second."""
        if not self.known:
            await self.recall(governor)
        elif self._unsaved or (self._said(governor) and now_s - self._saved_s >= REFRESH_S):
            await self._write(governor, now_s)

    @staticmethod
    def _said(governor: Governor) -> bool:
        return bool(governor.budgets.said or governor.emergency.events)

    async def _write(self, governor: Governor, now_s: float) -> None:
        limits = Limits(self._owner, dict(governor.budgets.said), sorted(governor.emergency.events))
        try:
            await self._store.put_limits(msgspec.json.encode(limits))
        except StoreDown as error:
            if self._unsaved:
                self.trouble = f"budgets and emergencies hold, but would not survive a restart: {error.message}"
            return
        self._unsaved, self._saved_s, self.trouble = False, now_s, ""
