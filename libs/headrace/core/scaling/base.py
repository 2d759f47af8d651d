"""What an autoscaling policy sees of the pools, and what it answers.

A pool's load has one unit: media tokens where it only encodes, else the prompt tokens that take positions (text alone
in cross-attention models, text and media in decoder-only ones): ModServe's units (arXiv 2502.00937, section 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.core.types import StageName


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of one instance for each token, at a full batch: from a profile, or the pace that workers tell."""

    encode_token_s: float = 0.0  # of media
    prefill_token_s: float = 0.0
    cross_token_s: float = 0.0  # of media that stand beside the sequence
    decode_token_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """What came in a window, in a pool's unit."""

    per_s: float = 0.0
    sd_per_s: float = 0.0  # of that rate as an estimate: requests that come at random, each with its own size
    requests: int = 0


@dataclass(frozen=True, slots=True)
class ClassWait:
    """What the queue expects of a request that came now, until its first token."""

    slo_class: str
    ttft_s: float  # its target
    expected_s: float  # negative: no estimate


@dataclass(frozen=True, slots=True)
class PoolSight:
    name: str
    stages: tuple[StageName, ...]
    models: tuple[str, ...]
    modalities: tuple[str, ...]  # that it encodes
    gpus: int  # of each instance
    least: int
    most: int
    start_s: float  # from the order until an instance serves
    ready: int
    starting: int
    draining: int
    short: Load
    before: Load  # in the `before_s` that ended when the short window began
    long: Load
    capacity_per_s: float  # at most, of one instance with requests as they were lately
    backlog: float  # of work that waits for this pool

    @property
    def current(self) -> int:
        """Instances that serve, or are about to."""
        return self.ready + self.starting

    @property
    def generates(self) -> bool:
        return "prefill" in self.stages or "decode" in self.stages


@dataclass(frozen=True, slots=True)
class Sight:
    """All pools at one moment."""

    pools: tuple[PoolSight, ...]
    short_s: float  # spans of the windows
    before_s: float
    long_s: float
    look_s: float  # until the next sight
    attainment: float = 1.0  # share of requests answered in the short window whose first token was in time
    answered: int = 0  # requests that this share is of
    waits: tuple[ClassWait, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """So many instances of a pool, starting ones among them; those that drain are beside it."""

    pool: str
    instances: int
    reason: str


class Scaler(Protocol):
    """A policy. It may remember what it saw; time is an argument. Limits are kept by grants.py, not here."""

    @property
    def name(self) -> str: ...

    def targets(self, sight: Sight, now_s: float) -> Sequence[Target]:
        """One for each pool."""
        ...
