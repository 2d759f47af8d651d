"""Least slack first: the time to a request's deadline, less what it still takes (Dertouzos, 1974).

ModServe (arXiv 2502.00937) orders by modality and prompt size without giving a formula; this is ours.
"""

from dataclasses import dataclass

from headrace.core.ordering.base import Standing


@dataclass(frozen=True, slots=True)
class LeastSlack:
    name: str = "least-slack"
    needs_lengths: bool = False
    prompt_token_s: float = 1e-4  # prefill of a 70B model on eight A100: until the estimator knows better

    def key(self, standing: Standing) -> float:
        """When prefill must begin at the latest for the first token to be in time."""
        due_s = standing.request.accepted_s + standing.ttft_s
        return due_s - standing.request.prompt.kv_tokens * self.prompt_token_s
