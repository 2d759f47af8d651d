"""Storms over a queue manager's world: arrivals, lost and repeated messages, deaths and restarts, by chance."""

import random
from abc import ABC, abstractmethod
from collections import Counter

from headrace.core import events as ev
from tests.core.queue_world import World


class Weather(ABC):
    """faults: how many kinds of fault there are; the last is that workers decline evictions, or no longer do."""

    def __init__(self, world: World, draw: random.Random, faults: int = 8) -> None:
        self.world = world
        self.draw = draw
        self._faults = faults
        self.before = Counter[str]()  # operations of earlier leaderships

    def done(self) -> dict[str, int]:
        """Operations of the present leadership."""
        return self.world.core.inspect(self.world.now_s).operations

    @abstractmethod
    def arrive(self) -> None:
        """Some requests, or none."""

    def blow(self) -> None:
        """Half a second, more or less."""
        world, draw = self.world, self.draw
        self.arrive()
        for _ in range(draw.randrange(4)):
            self._deliver()
            draw.choice(list(world.workers.values())).step()
        world.pass_time(0.5, faithful=False)
        self._deliver()
        if draw.random() < 0.15:
            self._fault()

    def _deliver(self) -> None:
        for _ in range(self.draw.randrange(len(self.world.mail) + 1)):
            if self.world.mail:
                at = self.draw.randrange(min(4, len(self.world.mail)))
                luck = self.draw.random()
                self.world.deliver(at, keep=luck < 0.03, lose=luck > 0.96)

    def _fault(self) -> None:
        world, worker = self.world, self.draw.choice(list(self.world.workers.values()))
        match self.draw.randrange(self._faults):
            case 0 | 1:
                worker.die() if worker.alive else worker.start()
            case 2:
                worker.stopped ^= True
            case 3 | 4:
                self.before.update(self.done())
                world.restart_manager()
            case 5:
                world.send(ev.Cancel(f"{self.draw.randrange(world.seq + 1):032x}", "gw", self.draw.random() < 0.5))
            case 6:
                world.handle(ev.BusUp() if self.draw.random() < 0.7 else ev.BusDown())
            case 7:
                world.redis_up = not world.redis_up
            case 8:
                world.declining = not world.declining
