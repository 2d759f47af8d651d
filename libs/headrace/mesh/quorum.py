"""When to leave a NATS server: it has lost sight of most of its cluster, so that nothing replicated is written there
and what its clients say reaches nobody else.

A server tells its clients whom it sees (`connect_urls` of INFO): at the connection, and again at each change.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

CLUSTER_MIN = 3  # two servers have no majority without each other
GRACE_S = 0.5  # servers that find one another say so one by one
AGAIN_S, AGAIN_S_MAX = 2.0, 32.0  # where every server is alone: leaving costs what is on its way


class Quorum:
    def __init__(self, servers: int, leave: Callable[[], None]) -> None:
        """servers: of the cluster, as configured. leave: called on the loop, to connect to another one."""
        self._servers = servers
        self._leave = leave
        self._wait_s = GRACE_S
        self._timer: asyncio.TimerHandle | None = None

    def heard(self, info: Mapping[str, Any]) -> None:
        """info: what the server has said. One that advertises nobody, itself included, tells nothing."""
        seen = info.get("connect_urls")
        if self._servers < CLUSTER_MIN or not seen:
            return
        if 2 * len(seen) > self._servers:
            self.close()
            self._wait_s = GRACE_S
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._go)

    def _go(self) -> None:
        self._timer = None
        self._wait_s = min(AGAIN_S_MAX, max(AGAIN_S, 2 * self._wait_s))
        self._leave()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
