"""Requests that leave the engine between two of their tokens: evicted, resumed here, or moved to another worker.

Their KV caches wait in files of this process, bounded in all. Commands are plain calls on the event loop; the engine
gives the caches out between two iterations (headrace.worker.llm).
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from time import time

from headrace.core.commands import MoveCommand
from headrace.core.types import Key, TensorHandle
from headrace.mesh.faults import reach
from headrace.worker.holds import Held, Holds
from headrace.worker.outbox import Outbox
from headrace.worker.requests import Requests
from headrace.worker.spans import Spans


class Evictions:
    def __init__(
        self,
        requests: Requests,
        holds: Holds,
        outbox: Outbox,
        spans: Spans,
        send_on: Callable[[list[Held]], None],
        wake: Callable[[], None],
        limit_bytes: int,
    ) -> None:
        """send_on tells the workers of moved requests that their KV caches wait here.

        limit_bytes: of all that is evicted; 0: nothing is.
        """
        self._requests = requests
        self._holds = holds
        self._outbox = outbox
        self._spans = spans
        self._send_on = send_on
        self._wake = wake
        self._limit_bytes = limit_bytes
        self._wanted: dict[Held, None] = {}  # in order; bounded by the slots

    # --- commands ---

    def evict(self, key: Key) -> None:
        """Of what is not decoding nothing is said, but for one that is out already."""
        held = self._holds.current(key)
        if held is None:
            return
        if held.state == "evicted":
            self._outbox.evicted(held)
        elif held.state == "running" and self._limit_bytes:
            self._wanted[held] = None
            self._wake()

    def evict_all(self) -> None:
        """Another model will be served."""
        if self._limit_bytes:
            self._wanted = dict.fromkeys(held for held in self._holds.requests.values() if held.state == "running")

    def resume(self, key: Key) -> None:
        held = self._holds.current(key)
        if held is None or held.state != "evicted":
            return
        reach("decode.resuming", key.request_id)
        objection = self._requests.objection(held.command.model)
        if objection is None:
            self._requests.resume(held)
        else:
            self._requests.fail(held, objection, retryable=True)

    def move(self, commands: Iterable[MoveCommand]) -> None:
        """A repeated command says the join again: it may have been lost."""
        moved = [held for command in commands if (held := self._turn_to(command)) is not None]
        if moved:
            self._send_on(moved)

    def _turn_to(self, command: MoveCommand) -> Held | None:
        held = self._holds.current(command.key)
        if held is None or held.state not in ("evicted", "handover"):
            return None
        if held.state == "evicted":
            self._spans.close(held, "evicted", time())
            held.to("handover")
        held.command = replace(held.command, decode_worker=command.worker)
        return held

    # --- for the loop ---

    def take(self) -> list[Held]:
        """Those to evict now: a request may have ended since it was to be evicted."""
        wanted, self._wanted = self._wanted, {}
        return [held for held in wanted if held.state == "running"]

    def room_bytes(self) -> int:
        out = (held for held in self._holds.requests.values() if held.state in ("evicted", "resuming"))
        return self._limit_bytes - sum(held.exported_kv.size_bytes for held in out if held.exported_kv is not None)

    def evicted(self, held: Held, handle: TensorHandle) -> bool:
        """Its KV cache is out, whole. False: the request is over already."""
        if not self._requests.exported(held, handle, "evicted"):
            return False
        self._spans.close(held, "decode", time())
        self._outbox.evicted(held)
        return True
