"""Shortest remaining processing time on re-estimates (Schrage, Operations Research 1968), with bounded preemption.

What has been emitted shortens what is left, and tells of it anew. Preempting young requests alone is TRAIL's rule
(Shahout et al., arXiv 2410.01035): one that is nearly done is worth more in the batch than in host memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from headrace.core.ordering.base import Standing


@dataclass(frozen=True, slots=True)
class Srpt:
    """Work in decode iterations, as ssjf counts it; of a request that has begun, what is left of its output alone."""

    name: str = "srpt"
    needs_lengths: bool = True
    prompt_share: float = 0.02  # of an iteration, a prompt token: as in ssjf
    ageing_per_s: float = 10.0  # iterations' worth of waiting a second: as in ssjf

    def key(self, standing: Standing) -> float:
        """Iterations, and the worth of having come later: the same order at every later moment.

        A request that was evicted has its KV cache; where it was lost, it has waited long enough to go first.
        """
        left = standing.length()
        prompt_tokens = 0 if left.emitted else standing.request.prompt.kv_tokens
        return left.mean + self.prompt_share * prompt_tokens + standing.ready_s * self.ageing_per_s


@dataclass(frozen=True, slots=True)
class Begun:
    """A running request that may have to make room."""

    left: float  # output tokens to come, as re-estimated now
    emitted: int
    preempted: int = 0  # so many times before

    @property
    def done_share(self) -> float:
        """Of the whole answer, as it is expected by now."""
        return self.emitted / (self.emitted + self.left) if self.emitted else 0.0


@dataclass(frozen=True, slots=True)
class Preemption:
    """When a running request makes room for a waiting one with less to do."""

    gain: float = 100.0  # output tokens by which its work has to be more: what eviction and resumption cost, and doubt
    young: float = 0.5  # it has done less than this share of its answer [I]: TRAIL tries 0.2 to 1
    times_most: int = 1  # that a request is preempted

    def victim(self, begun: Iterable[Begun], waiting_left: float) -> int | None:
        """The place among `begun` of the one that makes room: of those that may, the one with most to come.

        waiting_left: output tokens of the first that waits. None: everybody goes on.
        """
        found, most = None, waiting_left + self.gain
        for place, each in enumerate(begun):
            if each.left > most and each.preempted < self.times_most and each.done_share < self.young:
                found, most = place, each.left
        return found
