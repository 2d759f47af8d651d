"""The token log in Redis: output tokens in batches, so that another worker can go on where this one died.

Redis may be away at any time: what it misses stands in the holds, and is written once it is back.
"""

import asyncio
import time
from collections.abc import Callable

from headrace.mesh.errors import StoreDown
from headrace.mesh.logs import get_logger
from headrace.mesh.store import Store
from headrace.mesh.token_log import TokenChunk
from headrace.worker.holds import Held, Holds
from headrace.worker.lease import Lease

log = get_logger("worker")

TOKENS_MIN = 8  # unlogged tokens of a request that are worth a write
AGE_MAX_S = 0.05  # fewer are written once the last write is this old
LOOK_S = 0.005  # between two looks: 8 tokens take a fast decoder as long
IDLE_S = 0.025  # while nothing runs here: half the age at which a first token is written
DOWN_S = 0.5  # between two tries while Redis is away
LOGGED = ("running", "evicted", "resuming")


class TokenLog:
    def __init__(self, store: Store, holds: Holds, lease: Lease) -> None:
        self._store = store
        self._lease = lease
        self._holds = holds
        self._writing: frozenset[str] = frozenset()
        self._down = False

    def writing(self, request_id: str) -> bool:
        return request_id in self._writing

    async def run(self, written: Callable[[], None]) -> None:
        """written is called after each write: what waited for it may go now."""
        while True:
            await asyncio.sleep(DOWN_S if self._down else LOOK_S if self._holds.requests else IDLE_S)
            due = self._due(time.time()) if self._lease.holds(time.monotonic()) else []
            if due:
                await self._write(due)
                written()

    def _due(self, now_s: float) -> list[Held]:
        """An ended request is not logged any more: its end carries its tokens, and the log is about to be dropped.

        Nor is one that was handed over: whoever decodes it logs it from its first token on.
        """
        return [held for held in self._holds.requests.values() if held.state in LOGGED and _is_due(held, now_s)]

    async def _write(self, due: list[Held]) -> None:
        entries = [_unlogged(held) for held in due]
        self._writing = frozenset(held.key.request_id for held in due)
        try:
            lengths = await self._store.append_tokens(entries)
        except StoreDown as error:
            self._tell(down=True, why=str(error))
            return
        finally:
            self._writing = frozenset()
        self._tell(down=False)
        now_s = time.time()
        for held, chunk, length in zip(due, entries, lengths, strict=True):
            torn = length <= held.log_chunks  # the whole of it again
            held.logged, held.logged_s = 0 if torn else chunk.start + len(chunk.tokens), now_s
            held.log_chunks = length

    def _tell(self, *, down: bool, why: str = "") -> None:
        if down != self._down:
            log.warning("token_log", down=down, why=why)
        self._down = down


def _unlogged(held: Held) -> TokenChunk:
    start = held.logged
    logprobs = tuple([(index, told) for index, told in held.logprobs.items() if index >= start])
    return TokenChunk(held.key, start, held.tokens[start:], logprobs)


def _is_due(held: Held, now_s: float) -> bool:
    unlogged = len(held.tokens) - held.logged
    return unlogged >= TOKENS_MIN or (unlogged > 0 and now_s - held.logged_s >= AGE_MAX_S)
