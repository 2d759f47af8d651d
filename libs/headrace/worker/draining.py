"""How a worker that is to stop leaves: with nothing undone that it has, or that is on its way to it."""

import asyncio
import time

from headrace.mesh.logs import get_logger
from headrace.worker.commands import Commands
from headrace.worker.holds import Holds
from headrace.worker.pulse import Pulse

log = get_logger("worker")

DRAIN_LOOK_S = 0.05
UNLED_S = 2.0  # without an answer for so long nobody leads: who holds nothing leaves


async def drain(pulse: Pulse, holds: Holds, commands: Commands, drain_s: float) -> None:
    """Until everything is released, at most drain_s long: an end that is not stored yet would be lost with the process.

    And until the queue manager says that nothing more is on its way: what it sent before it heard still arrives.
    """
    pulse.draining, commands.dismissed = True, False
    pulse.beat()
    began_s = busy_s = now_s = time.monotonic()
    while now_s < began_s + drain_s:
        await asyncio.sleep(DRAIN_LOOK_S)
        now_s = time.monotonic()
        if len(holds):
            busy_s = now_s
        elif commands.dismissed or now_s >= busy_s + UNLED_S:
            break
        else:
            pulse.beat()  # may it leave? While it holds something the usual ones ask
    log.info("drained", left=len(holds), waited_s=round(now_s - began_s, 2))
