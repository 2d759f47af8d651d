"""Which stage the client waited for, instant by instant, between its question and its first token.

A timeline's intervals overlap: parts are encoded side by side, the gateway's interval is the whole. Each instant is
given to the last stage that was at work, so that the stages add up to the time to first token.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

# The nearer to the first token, the later here. What no stage claims is the mesh's own: gateways, messages, the way
# to the client and back.
STAGES = ("mesh", "queue", "media", "preprocess", "encode", "transfer", "prefill")


class Interval(Protocol):
    """A headrace.client.types.Stage."""

    @property
    def stage(self) -> str: ...
    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...


def attribute(spans: Sequence[Interval], ttft_s: float) -> dict[str, float]:
    """Seconds by stage, of all STAGES; they add up to ttft_s, counted from the earliest interval's start.

    What begins once prefill has ended (the KV cache on its way to decode) keeps nobody from the first token.
    """
    began_s = min((span.start_s for span in spans), default=0.0)
    until_s = began_s + ttft_s
    first_s = min((span.end_s for span in spans if span.stage == "prefill"), default=until_s)
    known = [
        (span.start_s, min(span.end_s, until_s), span.stage)
        for span in spans
        if span.stage in STAGES and span.start_s < min(first_s, until_s)
    ]
    out = dict.fromkeys(STAGES, 0.0)
    edges = sorted({began_s, until_s, *(at_s for start_s, end_s, _ in known for at_s in (start_s, end_s))})
    for start_s, end_s in pairwise(edges):
        at_work = [stage for first, last, stage in known if first <= start_s and end_s <= last]
        out[max(at_work, key=STAGES.index, default="mesh")] += end_s - start_s
    return out
