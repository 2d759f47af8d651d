"""Shortest prompt first, with ageing: what prefill will cost is known exactly, and nobody waits for ever.

A request that waits gains a token a millisecond on those that come after it.
"""

from dataclasses import dataclass

from headrace.core.ordering.base import Standing


@dataclass(frozen=True, slots=True)
class ShortestPrompt:
    name: str = "shortest-prompt"
    needs_lengths: bool = False
    ageing_tokens_per_s: float = 1_000.0  # 20,000 in the 20 s of an interactive request: longer than most prompts

    def key(self, standing: Standing) -> float:
        """Tokens, and the tokens' worth of having come later: the same order at every later moment."""
        return standing.request.prompt.kv_tokens + standing.ready_s * self.ageing_tokens_per_s
