"""What one instance of a pool costs, from what its workers tell: the pace of their engines, the work of their encoders.

Pure; the live autoscaler's ear. The simulator takes the same numbers from its profiles.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from headrace.core.governing import FULL, Governance
from headrace.core.instance import Encoded
from headrace.core.queue.views import WorkerView
from headrace.core.scaling.base import Costs

# Until a worker has told better: a ViT-H tile of 1,601 tokens in 70 ms, and the 7B model of headrace.core.waiting.pace,
# 64 sequences at once [I].
GUESS = Costs(encode_token_s=4.4e-5, prefill_token_s=1e-4, decode_token_s=0.015 / 64 + 1e-4)
USUAL_TOKENS = 1024  # [I] of a sequence, as in the simulator: how many fit the KV cache
ENCODED_MEMORY_S = 60.0  # [I] of encoders' work: what is older counts less


@dataclass(slots=True)
class EncodePace:
    """Seconds for each media token, of all encoders of a pool together."""

    _busy_s: float = 0.0
    _tokens: float = 0.0
    _last: dict[str, tuple[str, Encoded]] = field(default_factory=dict)  # by worker: incarnation, what it told

    def observe(self, worker: str, incarnation: str, encoded: Encoded, speed: float = 1.0) -> None:
        """A heartbeat's counters, which begin anew with each incarnation; what it took at full speed is kept."""
        before = self._last.get(worker)
        last = before[1] if before is not None and before[0] == incarnation else Encoded()
        self._last[worker] = (incarnation, encoded)
        busy_s, tokens = speed * (encoded.busy_s - last.busy_s), encoded.tokens - last.tokens
        if busy_s <= 0.0 or tokens <= 0:
            return
        keep = max(0.0, 1.0 - busy_s / ENCODED_MEMORY_S)
        self._busy_s, self._tokens = self._busy_s * keep + busy_s, self._tokens * keep + tokens

    def keep(self, workers: Set[str]) -> None:
        """Others have left, or died: they tell nothing more."""
        self._last = {worker: last for worker, last in self._last.items() if worker in workers}

    @property
    def token_s(self) -> float:
        """0: nothing has been encoded yet."""
        return self._busy_s / self._tokens if self._tokens else 0.0


def costs_of(workers: Sequence[WorkerView], encode: EncodePace, before: Costs) -> Costs:
    """The mean instance's; `before` where nothing is known now."""
    paced = [worker for worker in workers if worker.slots and (worker.pace.step_s or worker.pace.prefill_token_s)]
    encode_token_s = encode.token_s or before.encode_token_s
    if not paced:
        return Costs(encode_token_s, before.prefill_token_s, before.cross_token_s, before.decode_token_s)
    count = len(paced)
    return Costs(
        encode_token_s=encode_token_s,
        prefill_token_s=sum([worker.pace.prefill_token_s for worker in paced]) / count,
        cross_token_s=before.cross_token_s,
        decode_token_s=sum([worker.pace.step_s / _batch(worker) + worker.pace.sequence_s for worker in paced]) / count,
    )


def slowed(costs: Costs, workers: Sequence[WorkerView]) -> Costs:
    """The mean instance's while the governor slows workers down: what a pool does is the sum of its speeds."""
    if not workers or all(worker.speeds == FULL for worker in workers):
        return costs
    prefill, decode, encode = (
        sum([getattr(worker.speeds, stage) for worker in workers]) / len(workers)
        for stage in ("prefill", "decode", "encode")
    )
    return Costs(
        costs.encode_token_s / encode,
        costs.prefill_token_s / prefill,
        costs.cross_token_s / prefill,
        costs.decode_token_s / decode,
    )


def _batch(worker: WorkerView) -> int:
    """Sequences of a full one."""
    fitting = worker.blocks * worker.block_tokens // USUAL_TOKENS
    usable = Governance("", slots_share=worker.slots_share).usable(worker.slots)
    return max(1, min(usable, fitting))
