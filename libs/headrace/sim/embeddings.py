"""Embeddings on their way to a simulated worker that prefills: all of a request's, or the first and then the others."""

from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.core.commands import PartsCommand
from headrace.sim.held import Held

if TYPE_CHECKING:
    from headrace.sim.worker import Worker


class Embeddings:
    def __init__(self, worker: "Worker") -> None:
        self._worker = worker

    def take(self, command: PartsCommand) -> None:
        """More of a request that it has; what it knows of it may be told of again."""
        held = self._worker.held.get(command.key.request_id)
        if held is None or held.key != command.key or held.state not in ("waiting", "prefill"):
            return
        known = held.command.embeddings
        more = command.embeddings[len(known) - command.first :] if command.first <= len(known) else ()
        if more:
            held.command = replace(held.command, embeddings=known + more)
            if not held.pulling:
                self.pull(held)

    def pull(self, held: Held) -> None:
        """One after the other, as live workers do; those that it is told of meanwhile, then."""
        worker, world = self._worker, self._worker.world
        told = len(held.command.embeddings)
        away = [handle for handle in held.command.embeddings[held.pulled :] if handle.owner != worker.id]
        for handle in away:
            if not world.is_there(handle):
                worker.fail(held, f"no embedding at {handle.owner}")
                return
        if not away:
            self._pulled(held, told)
            return
        held.pulling = True
        done_s = world.now_s
        for handle in away:
            source = world.workers[handle.owner].port
            done_s = world.network.transfer(source, worker.port, handle.size_bytes, done_s) + world.mesh.embedding_s
        world.agenda.at(done_s, self._pulled, held, told)

    def _pulled(self, held: Held, parts: int) -> None:
        worker = self._worker
        if not worker.runs(self._pulled, held, parts) or not worker.holds(held):
            return
        held.pulled, held.pulling = parts, False
        awaits_at = _awaits_at(held)
        if awaits_at != held.sequence.awaits_at:
            held.sequence = replace(held.sequence, awaits_at=awaits_at)
        if held.place == "inside":
            assert worker.llm is not None
            worker.llm.feed(held)
        else:
            worker.ready(held)
        if len(held.command.embeddings) > parts:
            self.pull(held)


def _awaits_at(held: Held) -> int | None:
    """Where the first media part stands that is not here."""
    awaited = (span.offset for span in held.command.prompt.spans if span.part >= held.pulled)
    return min(awaited, default=None)
