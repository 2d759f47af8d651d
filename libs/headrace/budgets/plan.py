"""What a policy is to be learnt from, as an operator says it."""

from dataclasses import dataclass
from pathlib import Path

POOLS = "encode=2,prefill=2,decode=3"
MODEL = "llama-3.2-11b-vision"


@dataclass(frozen=True, slots=True)
class Plan:
    """Of stage pools, or of tenants where any are named."""

    pools: str = POOLS
    tenants: tuple[str, ...] = ()  # workers' ids with *=trace,seconds to the first token,seconds between tokens
    scenario: str = ""  # either this or a trace, for pools
    trace: Path | None = None
    format: str = "azure-llm"  # of traces
    model: str = MODEL
    gpu: str = "h100"
    budget: float = 0.67  # of the row, beside all its devices' own limits
    load: float = 0.7  # mean, that pools are sized for
    kappa: float = 0.5
    price: float = 0.1
    epoch_s: float = 10.0
    seed: int = 1
