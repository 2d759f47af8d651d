"""Shared state in Redis: token logs, tensor handles, worker leases, the queue as others may see it, power limits.

All but the limits can be rebuilt from the journal and the heartbeats. Every key has a TTL, and a call that fails
raises StoreDown: callers go on without. Keys are hr:{cell}:<kind>:<id>; the braces keep a cell in one slot
of a Redis cluster.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from headrace.core.types import TensorHandle
from headrace.mesh import sentinels
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup, StoreDown
from headrace.mesh.login import redis_options, shown
from headrace.mesh.logs import get_logger
from headrace.mesh.token_log import Logged, TokenChunk, join, pack

T = TypeVar("T")

TOKENS_TTL_S = 3600  # since the last append: nothing decodes for longer without appending
HANDLE_TTL_S = 3600  # dropped with its request; this is for what nobody drops
LEASE_TTL_S = 5  # written every half second
LIMITS_TTL_S = 7 * 86400  # written every minute: a governor that is away for a week starts anew
QUEUE_TTL_S = 10
CALL_WAIT_S = 1.0  # Redis answers in well under a millisecond
CONNECT_WAIT_S = 3.0
CONNECTIONS_MAX = 8  # of one process; who may ask for more at once takes turns
DOWN_S = 0.5  # after a failure calls fail at once for this long, so that an outage costs no waiting
BATCH = 500  # keys of one command: about a millisecond of Redis

NO_OPTIONS: Mapping[str, Any] = {}
_log = get_logger("store")

# One command for a whole batch of appends: a pipeline of RPUSH and EXPIRE costs the client ten times as much.
_APPEND = """
local chunks = {}
for i, key in ipairs(KEYS) do
  chunks[i] = redis.call('RPUSH', key, ARGV[i + 1])
  redis.call('EXPIRE', key, ARGV[1])
end
return chunks
"""
_SET = """
for i, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1])
end
"""
_PUT_FIELDS = """
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, ARGV[2 * i], ARGV[2 * i + 1])
  redis.call('EXPIRE', key, ARGV[1])
end
"""


class Store:
    def __init__(self, client: "Redis", cell: str) -> None:
        self._client: Any = client  # its commands are typed for text and bytes at once
        self._prefix = f"hr:{{{cell}}}:"
        self._append = client.register_script(_APPEND)
        self._set = client.register_script(_SET)
        self._put_fields = client.register_script(_PUT_FIELDS)
        self._down_until_s = 0.0
        self.up = True  # as the last call went

    @staticmethod
    async def open(settings: Settings) -> "Store":
        """As connect, with the credentials and certificates of the settings."""
        return await Store.connect(settings.redis_url, settings.cell, redis_options(settings))

    @staticmethod
    async def connect(url: str, cell: str, options: Mapping[str, Any] = NO_OPTIONS) -> "Store":
        """An unreachable Redis is said in the log and waited for; a wrong address or password raises BadSetup."""
        usual = {
            "socket_timeout": CALL_WAIT_S,
            "socket_connect_timeout": CALL_WAIT_S,
            "retry": Retry(NoBackoff(), 1),  # a connection that an old Redis closed; all our writes may come twice
            "retry_on_error": [RedisConnectionError],
            "max_connections": CONNECTIONS_MAX,
            **options,
        }
        try:
            redis = _client(url, usual)
        except ValueError as error:
            raise BadSetup(f"HEADRACE_REDIS_URL={shown(url)!r}: {error}") from error
        store = Store(redis, cell)
        await store._check(url)
        return store

    async def _check(self, url: str) -> None:
        deadline_s = time.monotonic() + CONNECT_WAIT_S
        while True:
            try:
                await self._client.ping()
            except (AuthenticationError, ResponseError) as error:
                raise BadSetup(f"Redis at {shown(url)} refuses: {error}; see HEADRACE_REDIS_URL") from error
            except (RedisError, OSError) as error:
                if isinstance(error.__cause__, AuthenticationError):  # refused while it connected
                    raise BadSetup(
                        f"Redis at {shown(url)} refuses: {error}; see HEADRACE_REDIS_PASSWORD_FILE"
                    ) from error
                if time.monotonic() > deadline_s:
                    _log.error("redis_unreachable", url=shown(url), why=str(error))
                    return
                await asyncio.sleep(0.1)
            else:
                return

    def key(self, kind: str, name: str) -> str:
        return f"{self._prefix}{kind}:{name}"

    def script(self, text: str) -> Any:
        """For run(); sent once, then named by its hash."""
        return self._client.register_script(text)

    async def run(self, script: Any, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """One script, one round trip. Raises StoreDown."""
        return await self._call(lambda: script(keys=keys, args=args))

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        if time.monotonic() < self._down_until_s:
            raise StoreDown("Redis cannot be reached", retry_after_s=DOWN_S)
        try:
            found = await call()
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            self._down_until_s, self.up = time.monotonic() + DOWN_S, False
            raise StoreDown(f"Redis cannot be reached: {error}", retry_after_s=DOWN_S) from error
        except RedisError as error:  # loading, out of memory, a master that has lost its replicas or its post
            self.up = False
            await self._client.connection_pool.disconnect(inuse_connections=False)  # who is it now?
            raise StoreDown(f"Redis refuses: {error}", retry_after_s=DOWN_S) from error
        self.up = True
        return found

    async def _set_all(self, values: Mapping[str, bytes], ttl_s: int) -> None:
        for part in _parts(list(values.items())):
            keys, data = [key for key, _ in part], [value for _, value in part]
            await self._call(lambda keys=keys, data=data: self._set(keys=keys, args=[ttl_s, *data]))  # type: ignore[misc]

    # --- token logs ---

    async def append_tokens(self, chunks: Iterable[TokenChunk]) -> list[int]:
        """A chunk may come twice, and one of an older attempt may come late: readers sort that out.

        Returns how many chunks each log has now: no more than after the writer's last one means that Redis has lost
        some, by a restart, a flush or a failover.
        """
        lengths: list[int] = []
        for part in _parts(list(chunks)):
            keys = [self.key("tokens", chunk.key.request_id) for chunk in part]
            args = [TOKENS_TTL_S, *map(pack, part)]
            lengths += await self._call(lambda keys=keys, args=args: self._append(keys=keys, args=args))  # type: ignore[misc]
        return lengths

    async def read_tokens(self, request_ids: Sequence[str]) -> dict[str, Logged]:
        """What is known of each request's output from its first token on, without gaps; empty if nothing is."""
        found: dict[str, Logged] = {}
        for part in _parts(list(request_ids)):
            pipeline = self._client.pipeline(transaction=False)
            for request_id in part:
                pipeline.lrange(self.key("tokens", request_id), 0, -1)
            for request_id, chunks in zip(part, await self._call(pipeline.execute), strict=True):
                found[request_id] = join(chunks)
        return found

    # --- tensor handles ---

    async def put_handles(self, handles: Sequence[TensorHandle]) -> None:
        for part in _parts(list(handles)):
            keys = [self.key("handles", _request_of(handle.id)) for handle in part]
            args: list[Any] = [HANDLE_TTL_S]
            for handle in part:
                args += (handle.id, msgspec.json.encode(handle))
            await self._call(lambda keys=keys, args=args: self._put_fields(keys=keys, args=args))  # type: ignore[misc]

    async def read_handles(self, request_id: str) -> list[TensorHandle]:
        packed = await self._call(lambda: self._client.hvals(self.key("handles", request_id)))
        return [msgspec.json.decode(value, type=TensorHandle) for value in packed]

    # --- the end of a request ---

    async def drop(self, request_ids: Sequence[str]) -> None:
        """Token logs and handles of requests whose end is stored."""
        for part in _parts(list(request_ids)):
            keys = [self.key(kind, request_id) for kind in ("tokens", "handles") for request_id in part]
            await self._call(lambda keys=keys: self._client.unlink(*keys))  # type: ignore[misc]

    # --- what others may see ---

    async def put_leases(self, leases: Mapping[str, bytes]) -> None:
        """Worker id -> what the queue manager knows of it; gone five seconds after the last writing."""
        await self._set_all({self.key("worker", worker): data for worker, data in leases.items()}, LEASE_TTL_S)

    async def read_leases(self) -> dict[str, bytes]:
        start = self.key("worker", "")
        keys = [key async for key in self._scan(start)]
        values = await self._call(lambda: self._client.mget(keys)) if keys else []
        return {key.removeprefix(start): value for key, value in zip(keys, values, strict=True) if value is not None}

    async def put_queue(self, snapshot: bytes) -> None:
        await self._set_all({self.key("queue", "snapshot"): snapshot}, QUEUE_TTL_S)

    async def read_queue(self) -> bytes | None:
        return await self._call(lambda: self._client.get(self.key("queue", "snapshot")))

    async def put_limits(self, limits: bytes) -> None:
        """The budgets and emergencies that operators have told the governor."""
        await self._set_all({self.key("governor", "limits"): limits}, LIMITS_TTL_S)

    async def read_limits(self) -> bytes | None:
        return await self._call(lambda: self._client.get(self.key("governor", "limits")))

    async def put_policy(self, policy: bytes, play: bytes) -> None:
        """The budget policy that holds, and what its players see of each row."""
        values = {self.key("governor", "policy"): policy, self.key("governor", "play"): play}
        await self._set_all(values, LIMITS_TTL_S)

    async def read_policy(self) -> bytes | None:
        return await self._call(lambda: self._client.get(self.key("governor", "policy")))

    async def read_play(self) -> bytes | None:
        return await self._call(lambda: self._client.get(self.key("governor", "play")))

    async def drop_policy(self) -> None:
        keys = [self.key("governor", "policy"), self.key("governor", "play")]
        await self._call(lambda: self._client.unlink(*keys))

    async def request_ids(self) -> set[str]:
        """Requests that have a token log or handles here."""
        starts = [self.key(kind, "") for kind in ("tokens", "handles")]
        return {key.removeprefix(start) for start in starts async for key in self._scan(start)}

    async def count(self, kind: str) -> int:
        """How many keys of a kind there are: "tokens" and "handles" are 0 when nothing runs."""
        return len([key async for key in self._scan(self.key(kind, ""))])

    async def _scan(self, start: str) -> Any:
        cursor = 0
        while True:
            cursor, keys = await self._call(lambda at=cursor: self._client.scan(at, match=start + "*", count=1000))  # type: ignore[misc]
            for key in keys:
                yield key.decode()
            if cursor == 0:
                return

    async def close(self) -> None:
        await self._client.aclose()


def _client(url: str, options: Mapping[str, Any]) -> "Redis":
    """Not connected yet. Sentinels are told the same user and password, under the same certificates. ValueError."""
    if not sentinels.is_watched(url):
        return Redis.from_url(url, **options)
    watched = sentinels.parse(url)
    secured = {**options, "ssl": True} if watched.tls else dict(options)
    asked = {key: value for key, value in secured.items() if key != "max_connections"}
    sentinel: Any = Sentinel(watched.sentinels, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    master: Redis = sentinel.master_for(watched.service, db=watched.db, **secured)
    return master


def _request_of(handle_id: str) -> str:
    """ "<kind>.<request_id>.<attempt>[.<part>]" """
    return handle_id.split(".")[1]


def _parts(items: list[T]) -> Iterable[list[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
