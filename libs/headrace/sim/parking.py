"""Evicted requests of a simulated worker: KV caches in host memory, back into the engine, or on to another worker.

As live workers do it: what finds no room stays where it is, and nothing is said of it.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.core.commands import JoinCommand, MoveCommand
from headrace.core.events import Evicted
from headrace.core.types import Key
from headrace.sim.held import Held

if TYPE_CHECKING:
    from headrace.sim.worker import Worker


class Parking:
    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._most_bytes = worker.kind.host_bytes
        self.used_bytes = 0

    # --- commands ---

    def evict(self, key: Key) -> None:
        held = self._mine(key)
        if held is None:
            return
        if held.state == "running":
            assert self._worker.llm is not None
            self._worker.llm.evict(held)
        elif held.state == "evicted":  # its word was lost
            self.tell(held)

    def resume(self, key: Key) -> None:
        held, worker = self._mine(key), self._worker
        if held is None or held.state != "evicted":
            return
        if not worker.serves(held.command.model):
            worker.fail(held, f"{held.command.model} is not loaded")
            return
        held.state = "resuming"
        held.sequence = replace(held.sequence, length=held.sequence.prompt_len + held.emitted)
        held.filled = held.sequence.length - 1
        worker.world.agenda.after(worker.world.mesh.handover_s, worker.ready, held)

    def move(self, command: MoveCommand) -> None:
        """Its new worker gets a join, as after a prefill; until it is released the KV cache stays, as that of any other
        that is handed over: it counts no longer among the evicted. A repeated command says the join again."""
        held, world = self._mine(command.key), self._worker.world
        if held is None or held.state not in ("evicted", "handover"):
            return
        if command.worker == self._worker.id:
            self.resume(command.key)
            return
        assert held.kv is not None
        if held.state == "evicted":
            held.state = "handover"
            self.free(held)
            world.ledger.count("moves")
        held.command = replace(held.command, decode_worker=command.worker)
        held.asked.paused_s = held.last_s
        join = JoinCommand(replace(held.command, emitted=world.zeros(held.emitted)), held.kv)
        world.post(command.worker, join, float(held.kv.size_bytes), delay_s=world.mesh.command_s)

    def _mine(self, key: Key) -> Held | None:
        held = self._worker.held.get(key.request_id)
        return held if held is not None and held.key == key else None

    # --- room ---

    def take(self, held: Held, size_bytes: int) -> bool:
        """Room for a KV cache of that size, if there is some."""
        if not self._most_bytes or self.used_bytes + size_bytes > self._most_bytes:
            self._worker.world.ledger.count("evictions_refused")
            return False
        self.used_bytes += size_bytes
        held.parked_bytes = size_bytes
        return True

    def free(self, held: Held) -> None:
        self.used_bytes -= held.parked_bytes
        held.parked_bytes = 0

    # --- what becomes of them ---

    def evicted(self, held: Held) -> None:
        """Its KV cache has been copied."""
        held.state = "evicted"
        held.kv = self._worker.tensor(held.parked_bytes, held.sequence.prompt_len + held.emitted - 1)
        self._worker.world.ledger.count("evictions")
        self.tell(held)

    def resumed(self, held: Held) -> None:
        """It is in the engine again."""
        held.kv = None
        self.free(held)
        self._worker.world.ledger.count("resumes")

    def tell(self, held: Held) -> None:
        assert held.kv is not None
        self._worker.send(Evicted(self._worker.id, held.key, held.emitted, held.kv))
