"""What operators switch while a queue manager leads: operations of its virtual queues, the autoscaler's policy.

Who switched what is a line of the log, and the latest are shown. A new leadership begins with its settings again.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from headrace.core.errors import InvalidInput
from headrace.core.events import Event, Switched
from headrace.core.queue import QueueCore
from headrace.core.scaling import SCALERS
from headrace.mesh.logs import get_logger
from headrace.v1 import queue_pb2
from services.queue_manager.scaling import Scaling

KEPT = 200
WHO_MAX = 80  # characters
AUTOSCALE = "autoscale"
ON_OFF = ("on", "off")

log = get_logger("queue.switch")


class Switching:
    def __init__(self, core: QueueCore, scaling: Scaling | None, put: Callable[[Event], None]) -> None:
        """put: of the inbox, so that a switch stands on the tape among all other events."""
        self.entries: deque[queue_pb2.SwitchEntry] = deque(maxlen=KEPT)
        self._core = core
        self._scaling = scaling
        self._put = put

    def shown(self) -> list[queue_pb2.SwitchStatus]:
        found = [
            queue_pb2.SwitchStatus(name=name, value="on" if on else "off", values=ON_OFF)
            for name, on in self._core.switches().items()
        ]
        if self._scaling is not None:
            policy = self._scaling.options.policy
            found.append(queue_pb2.SwitchStatus(name=AUTOSCALE, value=policy, values=list(SCALERS)))
        return found

    async def switch(self, name: str, value: str, who: str) -> list[queue_pb2.SwitchStatus]:
        """Raises InvalidInput: nobody can switch this, or not to that."""
        known = {status.name: status for status in self.shown()}
        if name not in known:
            raise InvalidInput(f"switch {name[:64]!r}: there is none; there are {', '.join(known)}", field="name")
        before, values = known[name].value, known[name].values
        if value not in values:
            raise InvalidInput(f"{name}={value[:64]!r}: must be one of {', '.join(values)}", field="value")
        if value == before:
            return self.shown()
        if name == AUTOSCALE and self._scaling is not None:
            self._scaling.follow(value)
        else:
            self._put(Switched(name, value == "on"))
            await asyncio.sleep(0)  # taken in before the next turn of the loop
        entry = queue_pb2.SwitchEntry(at_s=time.time(), who=who[:WHO_MAX], name=name, before=before, after=value)
        self.entries.append(entry)
        log.info("switched", switch=name, before=before, after=value, who=entry.who)
        return self.shown()
