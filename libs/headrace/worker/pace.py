"""How the profile engine's modelled seconds pass: a steady beat, although a timer is only good to a millisecond.

One for each process: stages that share a device take turns on it, an iteration or a batch of media at a time.
"""

import asyncio

# What a timer may be late, and what sending a batch of tokens takes: made up for in the next iteration.
CARRY_S = 0.002


class Pace:
    def __init__(self) -> None:
        self._due_s = 0.0  # on the loop's clock

    async def wait(self, modelled_s: float, rested_until_s: float) -> None:
        """At least one turn of the event loop, so that an engine that never sleeps starves nobody.

        rested_until_s: on the loop's clock. After a rest there is nothing to make up for.
        """
        now_s = asyncio.get_running_loop().time()
        self._due_s = max(self._due_s, rested_until_s, now_s - CARRY_S) + modelled_s
        await asyncio.sleep(max(0.0, self._due_s - now_s) if modelled_s else 0)
