"""KV caches that a decode worker pulls while they are computed, before their requests come.

An offer is never more than a head start: one that is lost, refused or broken costs nothing, the join pulls all; one
whose join does not come is dropped.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from headrace.core.types import Key, TensorHandle
from headrace.mesh.errors import TransferError
from headrace.mesh.transfer import Fetched, Pulled, TensorStore, verified

UNJOINED_S = 3.0  # a join comes at the end of the iteration of the last byte, or a second later by repair
# Of the bytes that this process may hold in tensors of its own: nobody fills a decode worker's memory with offers.
BYTES_SHARE = 1 / 4

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


@dataclass(slots=True, eq=False)
class Offer:
    key: Key
    handle: TensorHandle
    pulled: asyncio.Future[Pulled | None]  # None: it broke or was withdrawn
    task: asyncio.Task[None] | None = None
    whole_s: float = field(default=0.0)  # when it was

    def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
        pulled = self.pulled.result() if self.pulled.done() else None
        if pulled is not None:
            pulled.fetched.close()
        elif not self.pulled.done():
            self.pulled.set_result(None)


class Offers:
    def __init__(self, tensors: TensorStore, spawn: Spawn, offers_max: int) -> None:
        self._tensors = tensors
        self._spawn = spawn
        self._offers_max = offers_max
        self._bytes_max = tensors.limit_bytes * BYTES_SHARE
        self._offers: dict[str, Offer] = {}  # by request, the newest attempt

    def __len__(self) -> int:
        return len(self._offers)

    def receive(self, key: Key, handle: TensorHandle) -> None:
        """Begin to pull, unless it is known or there is no room for it."""
        known = self._offers.get(key.request_id)
        if known is not None and known.key.attempt >= key.attempt:
            return
        self.withdraw(key)
        held_bytes = sum(offer.handle.size_bytes for offer in self._offers.values())
        if len(self._offers) >= self._offers_max or held_bytes + handle.size_bytes > self._bytes_max:
            return
        offer = Offer(key, handle, asyncio.get_running_loop().create_future())
        self._offers[key.request_id] = offer
        offer.task = self._spawn(self._follow(offer))

    async def _follow(self, offer: Offer) -> None:
        try:
            pulled = await self._tensors.follow(offer.handle)
        except TransferError:
            self._remove(offer)
            return
        if offer.pulled.done():  # withdrawn in this very turn of the loop
            pulled.fetched.close()
            return
        offer.whole_s = time.monotonic()
        offer.pulled.set_result(pulled)

    async def pull(self, key: Key, handle: TensorHandle) -> Fetched | None:
        """What was offered, whole and verified against the sealed handle; None where the join has to pull itself.

        Raises:
            TransferError: it is not what the handle promises.
        """
        offer = self._offers.get(key.request_id)
        if offer is None or offer.key != key:
            return None
        pulled = await offer.pulled
        if pulled is None or self._offers.get(key.request_id) is not offer:
            return None
        del self._offers[key.request_id]
        return verified(handle, pulled, offer.handle)

    def withdraw(self, key: Key) -> None:
        """This attempt and those before it are over."""
        offer = self._offers.get(key.request_id)
        if offer is not None and offer.key.attempt <= key.attempt:
            self._remove(offer)

    def sweep(self, now_s: float) -> None:
        """Drop what is whole and was never asked for; what does not become whole ends by itself."""
        for offer in list(self._offers.values()):
            if offer.pulled.done() and now_s - offer.whole_s > UNJOINED_S:
                self._remove(offer)

    def _remove(self, offer: Offer) -> None:
        if self._offers.get(offer.key.request_id) is offer:
            del self._offers[offer.key.request_id]
        offer.close()
