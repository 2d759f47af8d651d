"""The address of a Redis behind Sentinels, which name its master: they are asked again at each new connection.

    redis+sentinel://sentinel-1:26379,sentinel-2:26379,sentinel-3:26379/headrace/0    (rediss+sentinel: TLS)

A failover may lose what the old master had not passed on: callers hold whatever they write (mesh/store.py).
"""

from dataclasses import dataclass

PORT = 26379
SCHEMES = ("redis+sentinel", "rediss+sentinel")


@dataclass(frozen=True, slots=True)
class Watched:
    sentinels: tuple[tuple[str, int], ...]
    service: str  # what the Sentinels call the master
    db: int
    tls: bool


def is_watched(url: str) -> bool:
    return url.partition("://")[0] in SCHEMES


def parse(url: str) -> Watched:
    """Raises ValueError."""
    scheme, _, rest = url.partition("://")
    hosts, _, path = rest.partition("/")
    service, _, db = path.partition("/")
    if "@" in hosts:
        raise ValueError("user and password stand in HEADRACE_REDIS_USER and a file, not in the address")
    if not service or not (db or "0").isdigit():
        raise ValueError("want redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or .../SERVICE/DB")
    return Watched(tuple(map(_address, hosts.split(","))), service, int(db or "0"), scheme.startswith("rediss"))


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.strip().rpartition(":")
    if not colon:
        host, port = port, str(PORT)
    if not host or not port.isdigit():
        raise ValueError(f"{text!r} is no HOST:PORT")
    return host, int(port)
