"""SLO classes: one definition for gateway, queue, planner and governor.

Targets are those of QLM (arXiv 2407.00047): interactive 20 s, batch-1 60 s, batch-2 3600 s to the first token.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SloClass:
    """A promise: the first token within ttft_s of acceptance, for as many requests as may wait at once."""

    name: str
    ttft_s: float
    timeout_s: float  # the deadline of a request that names none
    queue_limit: int  # waiting requests; beyond it new ones are refused


# Queue limits come from memory: a waiting request costs about 40 bytes per prompt token in the queue manager, so all
# classes full of 1,000-token prompts stay near 1.2 GB.
CLASSES: dict[str, SloClass] = {
    slo.name: slo
    for slo in (
        SloClass("interactive", ttft_s=20.0, timeout_s=120.0, queue_limit=4_096),
        SloClass("batch-1", ttft_s=60.0, timeout_s=600.0, queue_limit=8_192),
        SloClass("batch-2", ttft_s=3_600.0, timeout_s=7_200.0, queue_limit=16_384),
    )
}
DEFAULT_CLASS = "interactive"


def slo_class(name: str) -> SloClass | None:
    """The class of that name, the default for an empty name, None for an unknown one."""
    return CLASSES.get(name or DEFAULT_CLASS)
