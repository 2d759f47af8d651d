"""Speculative shortest job first (Qiu et al., arXiv 2404.08509): by the predicted work, with ageing.

The published guard looks at the true duration of the oldest job and then serves everybody in order of arrival; this
one uses the prediction alone, and is a bound for each request: nobody is overtaken by what comes more than
work / ageing_share later.
"""

from dataclasses import dataclass

from headrace.core.ordering.base import Standing


@dataclass(frozen=True, slots=True)
class Ssjf:
    """Work in decode iterations: a prompt's share is what prefilling it costs beside decoding."""

    name: str = "ssjf"
    needs_lengths: bool = True
    prompt_share: float = 0.02  # of an iteration, a prompt token: 0.3 ms against 15 ms, a 70B model on eight A100
    ageing_per_s: float = 10.0  # iterations' worth of waiting a second: 100 predicted tokens are overtaken for 10 s

    def key(self, standing: Standing) -> float:
        """Iterations, and the worth of having come later: the same order at every later moment."""
        work = standing.length().mean + self.prompt_share * standing.request.prompt.kv_tokens
        return work + standing.ready_s * self.ageing_per_s
