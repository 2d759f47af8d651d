"""Free ports on loopback, and the first choice where it is free.

Ports come from below the range that Linux gives to outgoing connections (from 32768 on): a service
that is started again must find its old port free, and a connection of a neighbour must not hold it.

Between the choice of a port and the service that listens on it pass seconds, in which another mesh of this machine
could choose the same: each takes its ports from a block that it has locked.
"""

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

_LOW, _HIGH, _BLOCK = 20000, 32000, 120
_TRIES = 200  # of a block's ports and of all; failing means that the machine is full


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


class Ports:
    """Hands out ports, none of them twice; its block is nobody else's as long as it lives."""

    def __init__(self) -> None:
        self._given: set[int] = set()
        self._random = random.Random()
        self._lock, self._first = self._block()

    def _block(self) -> tuple[IO[bytes] | None, int]:
        """None: all are taken, so that chance must do."""
        for first in self._random.sample(range(_LOW, _HIGH, _BLOCK), (_HIGH - _LOW) // _BLOCK):
            with contextlib.suppress(OSError):  # another mesh's, or another user has a file of that name
                lock = (Path(tempfile.gettempdir()) / f"headrace-ports-{os.getuid()}-{first}").open("ab")
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    lock.close()
                    raise
                return lock, first
        return None, _LOW

    def take(self, preferred: int = 0) -> int:
        """The preferred port if it is free, else any free one.

        Raises:
            OSError: none was found.
        """
        own = range(self._first, self._first + (_BLOCK if self._lock is not None else 0))
        candidates = [
            *self._random.sample(own, len(own)),
            *(self._random.randrange(_LOW, _HIGH) for _ in range(_TRIES)),
        ]
        for port in [preferred, *candidates] if preferred else candidates:
            if port not in self._given and is_free(port):
                self._given.add(port)
                return port
        raise OSError(f"no free port on loopback between {_LOW} and {_HIGH}")
