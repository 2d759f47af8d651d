"""What lies between processes: hops of small messages, and transfers that share a worker's link."""

from dataclasses import dataclass, fields, replace
from typing import Any

from headrace.core.cost import Link


@dataclass(frozen=True, slots=True)
class Mesh:
    """Seconds that the mesh takes for its own work, and its clocks. `headrace calibrate` measures the first group.

    The defaults are those of a live mesh on two cores (docs/figures.md): what it adds to a GPU's work.
    """

    admit_s: float = 0.0011  # a gateway: validate, tokenise, journal
    queue_s: float = 0.0008  # from the journal to the worker, where nobody waits
    event_s: float = 0.0005  # a worker's word to the queue manager
    command_s: float = 0.0004  # one worker's word to another
    deliver_s: float = 0.0005  # a token from the worker to the client
    handover_s: float = 0.0008  # a KV cache: write, name, sum, read, beyond its bytes
    embedding_s: float = 0.0004  # an embedding, likewise
    iteration_s: float = 0.0  # an engine's loop around each iteration
    part_s: float = 0.0  # an encoder's loop around each batch
    pipeline_bytes: float = 4 * 2**20  # KV caches from this size on travel while prefill computes
    heartbeat_s: float = 0.5
    lease_s: float = 2.0
    tick_s: float = 0.25
    restart_s: float = 1.0  # a dead process: until its supervisor has it up again, the engine's start apart

    @classmethod
    def of(cls, changes: dict[str, float]) -> "Mesh":
        """Raises ValueError: an unknown name."""
        known = {entry.name for entry in fields(cls)}
        if unknown := sorted(changes.keys() - known):
            raise ValueError(f"[mesh] {unknown[0]}: unknown; there are {', '.join(sorted(known))}")
        values: Any = {name: float(value) for name, value in changes.items()}
        return replace(cls(), **values)


class Port:
    """A worker's end of the network: one transfer at a time in each direction, in order."""

    __slots__ = ("in_free_s", "out_free_s")

    def __init__(self) -> None:
        self.in_free_s = 0.0
        self.out_free_s = 0.0


class Network:
    def __init__(self, link: Link) -> None:
        self._link = link
        self.moved_bytes = 0.0

    def transfer(self, source: Port, target: Port, size_bytes: float, now_s: float) -> float:
        """When it has arrived. Ports are busy while bytes pass."""
        begin_s = max(now_s, source.out_free_s, target.in_free_s)
        end_s = begin_s + size_bytes / self._link.bytes_per_s
        source.out_free_s = target.in_free_s = end_s
        self.moved_bytes += size_bytes
        return end_s + self._link.latency_s

    def seconds(self, size_bytes: float) -> float:
        """On idle ports."""
        return self._link.transfer_s(size_bytes)
