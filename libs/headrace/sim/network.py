"""What lies between processes: hops of small messages, and transfers that share a worker's link."""

from dataclasses import dataclass, fields, replace
from typing import Any

from headrace.core.cost import Link

_SINK_PARTS = 4  # a pipelined KV cache travels in so many parts at least: the last one comes after prefill


@dataclass(frozen=True, slots=True)
class Mesh:
    """Seconds that the mesh takes for its own work, and its clocks. `headrace calibrate` measures the first group.

    The defaults are those of a live mesh on two cores (docs/figures.md): what it adds to a GPU's work.
    """

    admit_s: float = 0.0011  # a gateway: validate, tokenise, journal
    admit_part_s: float = 0.0  # ... and for each media part: look at it, store it
    admit_megapixel_s: float = 0.0
    queue_s: float = 0.0008  # from the journal to the worker, where nobody waits
    event_s: float = 0.0005  # a worker's word to the queue manager
    command_s: float = 0.0004  # one worker's word to another
    deliver_s: float = 0.0005  # a token from the worker to the client
    handover_s: float = 0.0008  # a KV cache: write, name, sum, read, beyond its bytes
    export_byte_s: float = 0.0  # a byte of it that the prefilling engine writes before it says the first token
    byte_s: float = 0.0  # a byte between two workers, beyond the fleet's link
    embedding_s: float = 0.0004  # an embedding, likewise
    cached_s: float = 0.004  # an encoder's answer from its cache, its way apart: the median on two busy cores [M]
    predict_s: float = 0.01  # the length predictor, with what it waits to fill a batch
    plan_s: float = 0.2  # a plan of the global planner, from the question to the answer
    iteration_s: float = 0.0  # an engine's loop around each iteration
    part_s: float = 0.0  # an encoder's loop around each batch
    pipeline_bytes: float = 4 * 2**20  # KV caches from this size on travel while prefill computes
    heartbeat_s: float = 0.5
    lease_s: float = 2.0
    tick_s: float = 0.25
    overlap: float = 1.0  # prefill begins on a request's first media parts; 0: once it has all
    coupling: float = 1.0  # the queue manager hears of speeds under power caps; 0: it learns them
    restart_s: float = 1.0  # a dead process: until its supervisor has it up again, the engine's start apart

    @classmethod
    def of(cls, changes: dict[str, float]) -> "Mesh":
        """Raises ValueError: an unknown name."""
        known = {entry.name for entry in fields(cls)}
        if unknown := sorted(changes.keys() - known):
            raise ValueError(f"[mesh] {unknown[0]}: unknown; there are {', '.join(sorted(known))}")
        values: Any = {name: float(value) for name, value in changes.items()}
        return replace(cls(), **values)


def left_behind(byte_s: float, size_bytes: float, prefill_s: float, pipeline_bytes: float) -> float:
    """Bytes of a KV cache that are still to come when its prefill ends: a large one travels meanwhile."""
    if size_bytes < pipeline_bytes:
        return size_bytes
    away_bytes = size_bytes if byte_s * size_bytes <= prefill_s else prefill_s / byte_s
    return max(size_bytes / _SINK_PARTS / 8, size_bytes - away_bytes)


class Port:
    """A worker's end of the network: one transfer at a time in each direction, in order."""

    __slots__ = ("in_free_s", "out_free_s")

    def __init__(self) -> None:
        self.in_free_s = 0.0
        self.out_free_s = 0.0


class Network:
    def __init__(self, link: Link, byte_s: float = 0.0) -> None:
        """byte_s: of each byte, beyond the link's."""
        self._latency_s = link.latency_s
        self.byte_s = 1 / link.bytes_per_s + byte_s
        self.moved_bytes = 0.0

    def transfer(self, source: Port, target: Port, size_bytes: float, now_s: float) -> float:
        """When it has arrived. Ports are busy while bytes pass."""
        begin_s = max(now_s, source.out_free_s, target.in_free_s)
        end_s = begin_s + size_bytes * self.byte_s
        source.out_free_s = target.in_free_s = end_s
        self.moved_bytes += size_bytes
        return end_s + self._latency_s

    def seconds(self, size_bytes: float) -> float:
        """On idle ports."""
        return self._latency_s + size_bytes * self.byte_s
