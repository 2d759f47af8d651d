"""How the profile engine's modelled seconds pass: a steady beat, although a timer is only good to a millisecond.

One for each process: stages that share a device take turns on it, an iteration or a batch of media at a time.
"""

import asyncio

# What a timer may be late, and what sending a batch of tokens takes: made up for in the next iteration.
CARRY_S = 0.002


class Pace:
    def __init__(self) -> None:
        self._due_s = 0.0  # on the loop's clock

    def book(self, modelled_s: float, rested_until_s: float) -> float:
        """The device's next so many seconds. Returns when they are over, on the loop's clock.

        rested_until_s: on the loop's clock. After a rest there is nothing to make up for.
        """
        now_s = asyncio.get_running_loop().time()
        self._due_s = max(self._due_s, rested_until_s, now_s - CARRY_S) + modelled_s
        return self._due_s

    async def free(self) -> None:
        """Until what the device does now is over: whoever decides before that what comes next leaves out who comes
        meanwhile. What is booked after that is not waited for, so that nobody waits for ever."""
        due_s = self._due_s
        if due_s > asyncio.get_running_loop().time():
            await self.until(due_s)

    async def until(self, end_s: float) -> None:
        await asyncio.sleep(max(0.0, end_s - asyncio.get_running_loop().time()))

    async def wait(self, modelled_s: float, rested_until_s: float) -> None:
        """At least one turn of the event loop, so that an engine that never sleeps starves nobody."""
        end_s = self.book(modelled_s, rested_until_s)
        await (self.until(end_s) if modelled_s else asyncio.sleep(0))
