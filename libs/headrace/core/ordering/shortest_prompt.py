"""Shortest prompt first, with ageing: what prefill will cost is known exactly, and nobody waits for ever.

A request that waits gains a token a millisecond on those that come after it.
"""

from dataclasses import dataclass

from headrace.core.types import Request


@dataclass(frozen=True, slots=True)
class ShortestPrompt:
    name: str = "shortest-prompt"
    ageing_tokens_per_s: float = (
        1_000.0  # 20,000 tokens in the 20 s of an interactive request: longer than most prompts
    )

    def key(self, request: Request, seq: int, ready_s: float, ttft_s: float) -> float:
        """Tokens, and the tokens' worth of having come later: the same order at every later moment."""
        return request.prompt.kv_tokens + ready_s * self.ageing_tokens_per_s
