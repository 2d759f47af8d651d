"""Free ports on loopback, and the first choice where it is free.

Ports come from below the range that Linux gives to outgoing connections (from 32768 on): a service
that is started again must find its old port free, and a connection of a neighbour must not hold it.
"""

import random
import socket

_LOW, _HIGH = 20000, 32000
_TRIES = 200  # of 12,000 ports; failing means that the machine is full


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


class Ports:
    """Hands out ports, none of them twice."""

    def __init__(self) -> None:
        self._given: set[int] = set()
        self._random = random.Random()

    def take(self, preferred: int = 0) -> int:
        """The preferred port if it is free, else any free one.

        Raises:
            OSError: none was found.
        """
        candidates = [self._random.randrange(_LOW, _HIGH) for _ in range(_TRIES)]
        for port in [preferred, *candidates] if preferred else candidates:
            if port not in self._given and is_free(port):
                self._given.add(port)
                return port
        raise OSError(f"no free port on loopback between {_LOW} and {_HIGH}")
